"""Input pipeline: images a second on one core from a folder of JPEGs to two crops of 224 px, and the stall
share.

The folder is made for the run: smooth colour images of 500 x 375 with some noise, about 60 kB each. Rate:
``stream`` (decode, two random crops an image with antialiased resizing, batch) against PyTorch's
``DataLoader`` over PIL and torchvision's ``RandomResizedCrop`` and flip to 8-bit tensors, no worker
processes; both pinned to one core. Stall share: the share of the wall time in which ``fit`` waits for its
batch, on all cores, with the small convnet (the encoder that leaves the loader least time) and with
ResNet-18.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import pairs
from benchmarks.torch_vision import import_torchvision
from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.data.loader import stream
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import Source
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.loop import fit
from ssl_jax.train.run import Run, Watch

GAINS = {
    "JPEG folder": "fewer CPU cores a GPU, no conversion of the images first",
    "input stall": "the device never waits for images",
}
"""What the user gains, by a part of a row's name."""


def make_folder(folder: Path, count: int, height: int, width: int) -> float:
    """JPEGs in one folder; their mean size in kB."""
    rng = np.random.default_rng(0)
    sizes = []
    for i in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(smooth.resize((width, height), Image.BICUBIC)).astype(np.int16)
        pixels = pixels + rng.integers(-12, 13, pixels.shape)
        path = folder / f"{i:05d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=80)
        sizes.append(path.stat().st_size)
    return float(np.mean(sizes)) / 1000


class Crops(torch.utils.data.Dataset):
    """Two crops of each file, as torchvision's users write it."""

    def __init__(self, files: Sequence[Path], view) -> None:
        import_torchvision()
        from torchvision import transforms

        crop = transforms.RandomResizedCrop(
            view.size,
            scale=view.crop.area,
            ratio=view.crop.ratio,
            interpolation=transforms.InterpolationMode.BICUBIC,
            antialias=True,
        )
        self._files = files
        self._transform = transforms.Compose(
            [crop, transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._files[index]) as file:
            return self.crop(file.convert("RGB"))

    def crop(self, image: Image.Image) -> torch.Tensor:
        """Two crops ``[2, c, s, s]`` uint8."""
        return torch.stack([self._transform(image), self._transform(image)])


def our_batches(source: Source, views, batch: int, steps: int) -> Callable[[], None]:
    """So many batches by a stream of its own each time: its start counts, as the DataLoader's does."""

    def call() -> None:
        with stream(source, views=views, seed=0, batch_size=batch, crop_on="host", threads=1) as batches:
            for _ in range(steps):
                next(batches)

    return call


def torch_batches(files: Sequence[Path], view, batch: int, steps: int) -> Callable[[], None]:
    def call() -> None:
        loader = torch.utils.data.DataLoader(
            Crops(files, view), batch_size=batch, shuffle=True, drop_last=True
        )
        for _, _ in zip(range(steps), loader, strict=False):
            pass

    return call


class Stalls:
    """A writer that keeps the stall shares of a run."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        if "stall_share" in scalars:
            self.shares.append(scalars["stall_share"])

    def close(self) -> None:
        pass


def stalls(
    source: Source, encoder: str, options: Mapping, *, size: int, batch: int, steps: int
) -> list[float]:
    """Stall shares of two-step stretches of ``fit``, without those that hold compilation."""
    method = simclr.build(models.build(encoder, **options), views=presets.simclr(size))
    optimizer = optim.from_options("adamw", steps=steps, learning_rate=1e-3, batch_size=batch)
    kept = Stalls()
    fit(
        Run(method, optimizer, source, steps=steps, batch_size=batch),
        watch=Watch(writer=lambda step: kept, log_every=2),
    )
    return kept.shares[2:]


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    torch.set_num_threads(1)
    size, height, width = (16, 30, 40) if options.quick else (224, 375, 500)
    count, batch, steps, repeats = (16, 4, 2, 2) if options.quick else (256, 32, 4, 7)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kilobytes = make_folder(folder, count, height, width)
        source, views = open_source(f"folder:{folder}"), presets.simclr(size)
        everywhere = pairs.environment.one_core()
        times = pairs.alternate(
            our_batches(source, views, batch, steps),
            torch_batches(sorted(folder.glob("*.jpg")), views[0], batch, steps),
            pairs=repeats,
            seconds=45,
        )
        pairs.environment.on_cores(everywhere)
        found.append(
            pairs.paired(
                f"(g) JPEG folder to two crops of {size} px a core",
                times,
                against="DataLoader, PIL, torchvision",
                items=batch * steps,
                kilobytes=kilobytes,
                pixels=(height, width),
            )
        )
        encoders = {"convnet": {}} if options.quick else {"convnet": {}, "resnet18": {}}
        for encoder, own in encoders.items():
            length = 8 if options.quick else (24 if encoder == "convnet" else 14)
            shares = stalls(source, encoder, own, size=size, batch=batch, steps=length)
            label = f"(g) input stall, SimCLR {encoder}, {size} px, batch {batch}"
            found.append(pairs.valued(label, shares, unit="share", against="wall time"))
    return found


if __name__ == "__main__":
    pairs.main("input", pairs.parser("input", __doc__), run)
