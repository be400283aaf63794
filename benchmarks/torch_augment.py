"""torchvision's two views: a SimCLR transform of a :class:`View`, image by image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.torch_vision import import_torchvision
from ssl_jax.augment.operations import Blur, ColorJitter, Flip, Grayscale, Operation
from ssl_jax.augment.views import View


def transforms(module: Any, view: View) -> list[Any]:
    """The operations of a view but for the conversion to floats, from ``transforms`` or ``transforms.v2``."""
    mode = module.InterpolationMode(view.crop.interpolation)
    crop = module.RandomResizedCrop(
        view.size, scale=view.crop.area, ratio=view.crop.ratio, interpolation=mode, antialias=True
    )
    return [crop, *(transform(module, op, view.size) for op in view.ops)]


def transform(module: Any, op: Operation, size: int) -> Any:
    """One operation of SimCLR's views."""
    match op:
        case Flip():
            return module.RandomHorizontalFlip(op.prob)
        case ColorJitter():
            colours = module.ColorJitter(op.brightness, op.contrast, op.saturation, op.hue)
            return module.RandomApply([colours], op.prob)
        case Grayscale():
            return module.RandomGrayscale(op.prob)
        case Blur():
            return module.RandomApply([module.GaussianBlur(op.taps(size), op.sigma)], op.prob)
    raise ValueError(f"torchvision: no transform for {op}")


def pil_views(batch: np.ndarray, view: View) -> Callable[[], torch.Tensor]:
    """Two views of each image by the classic transforms on PIL images, stacked."""
    import_torchvision()
    from torchvision import transforms as classic

    steps = [*transforms(classic, view), classic.ToTensor(), classic.Normalize(view.mean, view.std)]
    composed = classic.Compose(steps)
    images = [Image.fromarray(image) for image in batch]
    return lambda: torch.stack([composed(image) for image in images for _ in range(2)])


def tensor_views(batch: np.ndarray, view: View) -> Callable[[], torch.Tensor]:
    """Two views of each image by transforms.v2 on 8-bit tensors, the form that torchvision recommends."""
    import_torchvision()
    from torchvision.transforms import v2

    floats = v2.ToDtype(torch.float32, scale=True)
    composed = v2.Compose([*transforms(v2, view), floats, v2.Normalize(view.mean, view.std)])
    images = [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in batch]
    return lambda: torch.stack([composed(image) for image in images for _ in range(2)])
