"""Crops on the host, in numpy and PIL: for images that vary in size, or are decoded there anyway."""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from ssl_jax.augment.crop import METHODS, Box, resampling_matrix
from ssl_jax.core import check

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _from_float(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Back to the dtype of the pixels: integers are rounded and clipped, floats become float32 and keep overshoot."""
    if np.issubdtype(dtype, np.integer):
        return np.clip(np.rint(x), 0, np.iinfo(dtype).max).astype(dtype)
    return x.astype(np.float32)


def _resize(image: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image.astype(np.float32) if np.issubdtype(image.dtype, np.floating) else image
    channels = image.shape[2]
    if image.dtype == np.uint8 and channels in (1, 3):
        pixels = np.ascontiguousarray(image[..., 0] if channels == 1 else image)
        resized = np.asarray(Image.fromarray(pixels).resize((width, height), RESAMPLING[method]))
        return resized.reshape(height, width, channels)
    options: Any = {"method": method, "antialias": True, "dtype": np.float32, "xp": np}
    rows = resampling_matrix(0, image.shape[0], image.shape[0], height, **options)
    columns = resampling_matrix(0, image.shape[1], image.shape[1], width, **options)
    planes = rows @ np.moveaxis(image.astype(np.float32), -1, 0) @ columns.T
    return _from_float(np.moveaxis(planes, 0, -1), image.dtype)


def host_crop(
    image: Shaped[np.ndarray, "h w c"], box: Box, *, size: int, method: str = "bilinear"
) -> Shaped[np.ndarray, "{size} {size} c"]:
    """Crop a box and resize it to ``size`` x ``size`` pixels, in numpy."""
    check.choice("method", method, METHODS)
    top, left, height, width = (int(n) for n in box)
    return _resize(image[top : top + height, left : left + width], size, size, method)


def center_crop_resize(
    image: Shaped[np.ndarray, "h w c"], size: int, *, ratio: float = 1.0, method: str = "bicubic"
) -> Shaped[np.ndarray, "{size} {size} c"]:
    """Resize the shorter side to ``round(size / ratio)`` and cut the central ``size`` x ``size`` pixels."""
    check.choice("method", method, METHODS)
    check.require(0 < ratio <= 1, "ratio", ratio, "above 0 and at most 1")
    height, width = image.shape[:2]
    shorter = round(size / ratio)
    longer = int(shorter * max(height, width) / min(height, width))
    resized = _resize(image, *((shorter, longer) if height <= width else (longer, shorter)), method)
    top, left = (round((n - size) / 2) for n in resized.shape[:2])
    return resized[top : top + size, left : left + size]
