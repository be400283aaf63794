"""torchvision's two views: a SimCLR transform of a :class:`View`, image by image."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_jax.augment.views import View, blur_taps


@functools.cache
def import_torchvision() -> Any:
    """torchvision; where its C extension does not fit the PyTorch beside it, the operators that it registers
    are declared.

    Transforms do not use them.

    Raises:
      ImportError: it is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    declared = None
    try:
        for extension in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(extension)
    except OSError:
        declared = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    module = importlib.import_module("torchvision")
    module.declared_operators = declared  # they last as long as this object
    return module


def transforms(module: Any, view: View) -> list[Any]:
    """The operations of a view but for the conversion to floats, from ``transforms`` or ``transforms.v2``."""
    jitter = view.jitter
    assert jitter is not None
    colours = module.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    mode = (
        module.InterpolationMode.BICUBIC
        if view.interpolation == "bicubic"
        else module.InterpolationMode.BILINEAR
    )
    blur = module.GaussianBlur(blur_taps(view), view.blur_sigma)
    crop = module.RandomResizedCrop(
        view.size, scale=view.area, ratio=view.ratio, interpolation=mode, antialias=True
    )
    return [
        crop,
        module.RandomHorizontalFlip(view.flip_prob),
        module.RandomApply([colours], view.jitter.probability),
        module.RandomGrayscale(view.grayscale_prob),
        module.RandomApply([blur], view.blur_prob),
    ]


def pil_views(batch: np.ndarray, view: View) -> Callable[[], torch.Tensor]:
    """Two views of each image by the classic transforms on PIL images, stacked."""
    import_torchvision()
    from torchvision import transforms as classic

    steps = [*transforms(classic, view), classic.ToTensor(), classic.Normalize(view.mean, view.std)]
    transform = classic.Compose(steps)
    images = [Image.fromarray(image) for image in batch]
    return lambda: torch.stack([transform(image) for image in images for _ in range(2)])


def tensor_views(batch: np.ndarray, view: View) -> Callable[[], torch.Tensor]:
    """Two views of each image by transforms.v2 on 8-bit tensors, the form that torchvision recommends."""
    import_torchvision()
    from torchvision.transforms import v2

    floats = v2.ToDtype(torch.float32, scale=True)
    transform = v2.Compose([*transforms(v2, view), floats, v2.Normalize(view.mean, view.std)])
    images = [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in batch]
    return lambda: torch.stack([transform(image) for image in images for _ in range(2)])
