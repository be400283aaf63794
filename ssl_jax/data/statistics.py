"""Mean and standard deviation of the pixels of a source, by channel."""

import numpy as np

from ssl_jax.data.sources import CorruptImage, Source, take_evenly

SAMPLE = 128
"""Images that are looked at."""
SIDE = 256
"""Rows and columns of an image that are looked at: of a larger one every second, third, ..."""
LEAST_STD = 0.01
"""Least deviation: a channel that hardly varies is not blown up by the division."""


def channel_statistics(
    source: Source, *, sample: int = SAMPLE
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation of each channel, of pixels in [0, 1] (uint8 over 255, uint16 over 65535).

    ``mean = E[x]`` and ``std = √(E[x²] − E[x]²)``, the expectation over the pixels of an image and over images, each of which
    counts alike, whatever its size. Both are rounded to four decimals; ``std`` is at least ``LEAST_STD``.

    Args:
      source: the images.
      sample: number of images at most, taken at even distances; unreadable ones are left out.

    Returns:
      ``(mean, std)``, a number a channel each.

    Raises:
      ValueError: no image of the sample can be read.

    >>> from ssl_jax.data.sources import ArraySource
    >>> channel_statistics(ArraySource(np.array([[[[0, 51]], [[255, 51]]]], np.uint8)))
    ((0.5, 0.2), (0.5, 0.01))
    """
    moments = []
    looked_at = take_evenly(source, sample)
    for index in range(len(looked_at)):
        try:
            image = looked_at[index]["image"]
        except CorruptImage:
            continue
        steps = (max(side // SIDE, 1) for side in image.shape[:2])
        pixels = image[tuple(slice(None, None, step) for step in steps)].reshape(-1, image.shape[2])
        top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
        pixels = pixels.astype(np.float64) / top
        moments.append((pixels.mean(axis=0), (pixels**2).mean(axis=0)))
    if not moments:
        raise ValueError(f"{source.name}: none of the {len(looked_at)} images looked at can be read")
    mean, square = np.mean(moments, axis=0)
    std = np.maximum(np.sqrt(np.maximum(square - mean**2, 0.0)), LEAST_STD)
    rounded = [tuple(round(float(value), 4) for value in values) for values in (mean, std)]
    return rounded[0], rounded[1]
