"""Augmentation: images a second on one core against torchvision's two-view SimCLR pipeline, at 32 and 224 px.

Everything is pinned to one core before JAX starts. Both sides begin with decoded 8-bit images in memory (as
PIL images or as tensors for torchvision) and end with a float batch of two normalised views an image: crop,
flip, jitter of all four colours with hue in HSV space, gray, blur. At 224 px images are 256 x 320: ours is
measured as training runs it for images of that size, crops by the host and the rest by XLA, and with
everything in XLA. Probabilities and ranges are the same; the random numbers are not, so many images are
drawn.
"""

import argparse
from collections.abc import Callable, Sequence

import jax
import numpy as np
import torch
from PIL import Image

from benchmarks import pairs
from benchmarks.torch_augment import pil_views, tensor_views
from ssl_jax.augment import presets
from ssl_jax.augment.host import host_crops
from ssl_jax.augment.views import View, make_views

GAINS = {
    "at 32 px": "no CPU core has to be added for views of small images",
    "at 224 px": "fewer CPU cores keep an accelerator fed with large images",
}
"""What the user gains, by a part of a row's name."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(count: int, height: int, width: int) -> np.ndarray:
    """Smooth colour images: blurred noise, so that hue and saturation vary."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((width, height), Image.BICUBIC)) for x in small])


def on_device(batch: np.ndarray, views: tuple[View, ...]) -> Callable[[], object]:
    """All of it in XLA."""
    make = jax.jit(lambda key, x: make_views(key, {"image": x}, views))
    keys = iter(range(10**9))

    def call() -> object:
        return jax.block_until_ready(make(jax.random.key(next(keys)), batch))

    return call


def host_and_device(batch: np.ndarray, views: tuple[View, ...]) -> Callable[[], object]:
    """Crops by the host, as the loader takes them, the rest in XLA."""
    make = jax.jit(lambda key, crops: make_views(key, {"crops": crops}, views))
    keys = iter(range(10**9))

    def call() -> object:
        rng = np.random.default_rng(next(keys))
        crops = [host_crops(rng, image, views) for image in batch]
        stacked = tuple(np.stack(group) for group in zip(*crops, strict=True))
        return jax.block_until_ready(make(jax.random.key(next(keys)), stacked))

    return call


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    torch.set_num_threads(1)
    shapes = (
        ((8, 8, 8, 2, 2), (16, 20, 24, 2, 2))
        if options.quick
        else ((32, 32, 32, 256, 15), (224, 256, 320, 16, 15))
    )
    found = []
    for target, (size, height, width, count, repeats) in zip((8.0, 2.0), shapes, strict=True):
        batch = images(count, height, width)
        views = presets.simclr(size, mean=MEAN, std=STD)
        forms = {"XLA": on_device(batch, views)}
        if height != width:
            forms = {"host crops and XLA": host_and_device(batch, views), **forms}
        pillow = pil_views(batch, views[0])
        tensors = tensor_views(batch, views[0])
        for i, (form, ours) in enumerate(forms.items()):
            for against, other in (
                ("torchvision on PIL images", pillow),
                ("torchvision v2 on tensors", tensors),
            ):
                times = pairs.alternate(ours, other, pairs=repeats, seconds=10)
                measured = pairs.paired(
                    f"(b) two views at {size} px a core, {form}",
                    times,
                    against=against,
                    at_least=target if i == 0 else None,
                    items=count,
                    images=batch.shape,
                )
                found.append(measured)
    return found


if __name__ == "__main__":
    pairs.environment.one_core()
    pairs.main("augment", pairs.parser("augment", __doc__), run)
