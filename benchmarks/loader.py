"""Loader: images a second a core from a JPEG folder, tar, parquet and array_record to two crops of 224 px, against PyTorch.

The images are made for the run: smooth colour pictures with some noise, JPEG of quality 80, of the size of photographs in
ImageNet (375 x 500) and of larger ones (1,200 x 1,600). They are packed by ``ssl_jax.data.pack``. Ours: ``stream`` with one
thread, cropped on the host from whole images (``host``) or from JPEGs decoded only as large as the crops need
(``host_reduced``). PyTorch's ``DataLoader`` without worker processes: over files (against folder, parquet and array_record), or
over WebDataset's pipeline with a shuffle buffer (against tar), with PIL and torchvision's ``RandomResizedCrop`` and flip. Both
sides decode an image once for its two crops. They work in turn, pinned to one core, and are timed in seconds of the
processor (of all threads of the process), so that other programs on the machine count less; waits for the disk do not count.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import pairs
from benchmarks.input import Crops, make_folder
from ssl_jax.augment import presets
from ssl_jax.data.loader import stream
from ssl_jax.data.open import open_source
from ssl_jax.data.pack import Shards, pack
from ssl_jax.data.sources import Source

GAINS = {
    "": "fewer CPU cores a GPU, whichever form the images are stored in",
}
"""What the user gains, by a part of a row's name."""

GAINS = {
    "host_reduced": "large photographs are loaded with a half of the CPU cores or less",
    "": "the format can be chosen by what the disk and the store can do: reading it costs no more cores",
}
"""What the user gains, by a part of a row's name."""

KINDS = {"folder": "folder", "tar": "tar", "parquet": "parquet", "array_record": "tfds"}
"""Formats, and the kind of source that reads each."""
GOAL = 2.0


def our_batches(source: Source, views: Any, batch: int, steps: int, crop_on: str) -> Callable[[], None]:
    """So many batches by a stream of its own each time: its start counts, as the other side's does."""

    def call() -> None:
        with stream(source, views=views, seed=0, batch_size=batch, crop_on=crop_on, threads=1) as batches:
            for _ in range(steps):
                next(batches)

    return call


def take(loader: Any, steps: int) -> None:
    """Draw so many batches of a DataLoader."""
    for _, _ in zip(range(steps), loader, strict=False):
        pass


def files_by_torch(crops: Crops, batch: int, steps: int) -> Callable[[], None]:
    """Batches of files, shuffled."""
    return lambda: take(
        torch.utils.data.DataLoader(crops, batch_size=batch, shuffle=True, drop_last=True), steps
    )


def tar_by_webdataset(shards: Sequence[Path], crops: Crops, batch: int, steps: int) -> Callable[[], None]:
    """Batches of shards by WebDataset's pipeline, as its users write it."""
    import webdataset

    def decode(sample: dict[str, bytes]) -> torch.Tensor:
        with Image.open(io.BytesIO(sample["jpg"])) as file:
            return crops.crop(file.convert("RGB"))

    def call() -> None:
        data = webdataset.WebDataset([str(path) for path in shards], shardshuffle=len(shards))
        data = data.shuffle(1000, initial=100).map(decode)
        take(torch.utils.data.DataLoader(data, batch_size=batch, drop_last=True), steps)

    return call


def measure(
    folder: Path, size: int, *, height: int, width: int, batch: int, steps: int, repeats: int
) -> list[pairs.Measurement]:
    """All formats of images of one size."""
    images = folder / "images"
    images.mkdir()
    kilobytes = make_folder(images, batch * steps, height, width)
    views = presets.simclr(size)
    plain = open_source(f"folder:{images}")
    crops = Crops(sorted(images.glob("*.jpg")), views[0])
    found = []
    for form, kind in KINDS.items():
        place, shards = images, []
        if form != "folder":
            place = folder / form
            shards = list(pack(plain, place, Shards(form, images=max(batch * steps // 4, 1))).files)
        other = (
            tar_by_webdataset(shards, crops, batch, steps)
            if form == "tar"
            else files_by_torch(crops, batch, steps)
        )
        source = open_source(f"{kind}:{place}")
        for crop_on in ("host", "host_reduced"):
            times = pairs.alternate(
                our_batches(source, views, batch, steps, crop_on),
                other,
                pairs=repeats,
                seconds=60,
                clock=time.process_time,
            )
            against = "DataLoader over " + ("WebDataset" if form == "tar" else "files")
            found.append(
                pairs.paired(
                    f"(g) {form}, {height} x {width}, {crop_on}, two crops of {size} px a core",
                    times,
                    against=f"{against}, PIL, torchvision",
                    at_least=GOAL,
                    items=batch * steps,
                    kilobytes=kilobytes,
                    format=form,
                    pixels=(height, width),
                    crop_on=crop_on,
                )
            )
    return found


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    torch.set_num_threads(1)
    size = 16 if options.quick else 224
    sizes = [(30, 40), (64, 80)] if options.quick else [(375, 500), (1200, 1600)]
    batch, repeats = (4, 2) if options.quick else (32, options.pairs)
    found: list[pairs.Measurement] = []
    everywhere = pairs.environment.one_core()
    for height, width in sizes:
        with tempfile.TemporaryDirectory() as name:
            found += measure(
                Path(name), size, height=height, width=width, batch=batch, steps=2, repeats=repeats
            )
    pairs.environment.on_cores(everywhere)
    return found


if __name__ == "__main__":
    parser = pairs.parser("loader", __doc__)
    parser.add_argument("--pairs", type=int, default=4, help="pairs of each kind")
    pairs.main("loader", parser, run)
