"""What the numbers in images mean: how stored values become [0, 1], and how large an image may be."""

import dataclasses
import math
import numbers
from typing import Any

import numpy as np

from ssl_jax.core import check

MIB = 2**20
"""Bytes."""
MAX_IMAGE_MIB = 1024.0
"""Default of ``max_image_mib``."""
DARK = 0.25
"""Share of the range of a dtype up to which its largest value is said to be far below the top."""


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_real(value) and value > 0


def _is_pair(pair: Any) -> bool:
    two = isinstance(pair, tuple | list) and len(pair) == 2 and all(map(_is_real, pair))
    return two and 0 <= pair[0] < pair[1] <= 100


@dataclasses.dataclass(frozen=True)
class Values:
    """How the stored values of images are read.

    Without ``max_value`` and ``percentiles``, the range is that of the dtype: 0 to 255 for uint8, 0 to 65535 for uint16,
    0 to 1 for floats. With one of them, elements are float32 in [0, 1] unless another dtype is asked for, and any integers
    and floats can be read.

    Attributes:
      max_value: value that becomes 1, such as 4095 for 12 bits in files of 16: ``min(x / max_value, 1)``. Values below 0 are
        an error. None: the top of the dtype.
      percentiles: two percentiles of each image, over its pixels and channels together, that become 0 and 1:
        ``clip((x - low) / (high - low), 0, 1)``; an image where they are equal becomes 0. For microscopes and satellites,
        whose images have no range in common. None: off.
      max_image_mib: most memory of an image in MiB: height times width times channels times bytes a value, as stored. A larger
        JPEG is read at 1/2, 1/4 or 1/8 of its size where that fits; any other larger image counts as corrupt.

    Raises:
      ValueError: a value out of its range, or both ``max_value`` and ``percentiles``.

    >>> Values(max_value=4095).scale(np.array([0, 4095, 65535], np.uint16)).tolist()
    [0.0, 1.0, 1.0]
    >>> Values(percentiles=(0, 50)).scale(np.array([-5.0, 0.0, 5.0])).tolist()
    [0.0, 1.0, 1.0]
    """

    max_value: float | None = None
    percentiles: tuple[float, float] | None = None
    max_image_mib: float = MAX_IMAGE_MIB

    def __post_init__(self) -> None:
        top = self.max_value
        check.require(top is None or _is_positive(top), "max_value", top, "None, or a number above 0")
        pair = self.percentiles
        if pair is not None:
            allowed = "None, or two numbers with 0 <= low < high <= 100, such as (1, 99)"
            check.require(_is_pair(pair), "percentiles", pair, allowed)
            object.__setattr__(self, "percentiles", tuple(pair))
            check.require(top is None, "percentiles", pair, "None where max_value is given")
        check.require(
            _is_positive(self.max_image_mib), "max_image_mib", self.max_image_mib, "a number of MiB above 0"
        )

    @property
    def scaled(self) -> bool:
        """Whether values are scaled by ``max_value`` or ``percentiles``, so that their dtype says nothing."""
        return self.max_value is not None or self.percentiles is not None

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """Scale the stored values of an image to float32 in [0, 1].

        Args:
          pixels: one image of any shape, real numbers.

        Raises:
          ValueError: NaN, infinite values, or values below 0 where there is a ``max_value``.
        """
        wide = pixels.dtype.kind in "iu" and pixels.dtype.itemsize > 2
        dtype: Any = np.float64 if wide or pixels.dtype.itemsize > 4 else np.float32
        values: np.ndarray = pixels.astype(dtype)
        require_finite(values)
        if self.max_value is not None:
            low = float(values.min())
            if low < 0:
                raise ValueError(
                    f"values from {low:g} to {float(values.max()):g}: max_value scales values of 0 and more, "
                    "percentiles scale any"
                )
            return np.minimum(values / dtype(self.max_value), 1).astype(np.float32)
        low, high = (dtype(value) for value in np.percentile(values, self.percentiles or (0, 100)))
        if not high > low:
            return np.zeros(values.shape, np.float32)
        return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)

    def require_size(self, height: int, width: int, channels: int, itemsize: int) -> None:
        """Refuse an image without pixels, or with more memory than ``max_image_mib``, before it is decoded.

        Args:
          height: in pixels.
          width: in pixels.
          channels: number of channels.
          itemsize: bytes a value.

        Raises:
          ValueError: names the size, the limit and the option.

        >>> Values(max_image_mib=100).require_size(9000, 12000, 3, 1)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: 9000 x 12000 pixels of 3 channels take 309 MiB: too large for max_image_mib=100, which may be raised ...
        """
        if min(height, width) < 1:
            raise ValueError(f"{height} x {width} has no pixels")
        if not self.fits(height, width, channels, itemsize):
            size = height * width * channels * itemsize / MIB
            raise ValueError(
                f"{height} x {width} pixels of {channels} channel{'s' * (channels > 1)} take {_short(size)} MiB: "
                f"too large for max_image_mib={_short(self.max_image_mib)}, which may be raised (--config.data.max_image_mib)"
            )

    def fits(self, height: int, width: int, channels: int, itemsize: int) -> bool:
        """Tell whether an image is within ``max_image_mib``.

        >>> Values(max_image_mib=1).fits(1024, 1024, 1, 1)
        True
        """
        return height * width * channels * itemsize <= self.max_image_mib * MIB


AS_STORED = Values()
"""Values as they are, images of up to 1 GiB."""


def require_finite(pixels: np.ndarray, *, allowed: str = "finite ones") -> None:
    """Refuse NaN and infinite values; the message ends with what is allowed.

    >>> require_finite(np.array([0.5, np.nan]))
    Traceback (most recent call last):
    ...
    ValueError: 1 of 2 values are NaN or infinite: allowed are finite ones
    """
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise ValueError(f"{count} of {pixels.size} values are NaN or infinite: allowed are {allowed}")


def require_range(pixels: np.ndarray) -> None:
    """Refuse floats outside of [0, 1].

    >>> require_range(np.array([0.0, 255.0]))
    Traceback (most recent call last):
    ...
    ValueError: floats from 0 to 255: allowed are 0 to 1; max_value=255 scales them (--config.data.max_value)
    >>> require_range(np.array([-1.0, 1.0]))
    Traceback (most recent call last):
    ...
    ValueError: floats from -1 to 1: allowed are 0 to 1; (x + 1) / 2 brings them there, percentiles scale any
    """
    if pixels.dtype.kind != "f":
        return
    require_finite(pixels, allowed="0 to 1")
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:
        return
    what = f"floats from {low:g} to {high:g}: allowed are 0 to 1; "
    if low >= 0:
        raise ValueError(f"{what}max_value={suggest_top(high)} scales them (--config.data.max_value)")
    if low >= -1 and high <= 1:
        raise ValueError(f"{what}(x + 1) / 2 brings them there, percentiles scale any")
    raise ValueError(f"{what}percentiles scale any, such as percentiles=(1, 99)")


def suggest_top(largest: float) -> str:
    """Guess the top of a range from the largest value seen: from 64 on the least ``2^n - 1`` of 255 and more that is no less.

    >>> suggest_top(4012), suggest_top(248.5), suggest_top(2.5)
    ('4095', '255', '2.5')
    """
    if largest < 64:
        return f"{largest:g}"
    return str(max(2 ** math.ceil(math.log2(largest + 1)) - 1, 255))


def describe_dark(largest: float, dtype: str, count: int, values: Values = AS_STORED) -> str | None:
    """Say that the largest value of a sample is far below the top of its dtype; None where it is not, or where all is 0.

    Args:
      largest: largest value, after scaling.
      dtype: ``"uint8"``, ``"uint16"`` or a dtype of floats.
      count: number of images looked at.
      values: how they are scaled.

    >>> print(describe_dark(4095, "uint16", 256))  # doctest: +ELLIPSIS
    the largest value of 256 images is 4095 of 65535, 6.2% of the range: give max_value=4095 if that is white (--config...
    """
    top: float = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1
    if not 0 < largest <= DARK * top:
        return None
    stored, top = (largest / top * values.max_value, values.max_value) if values.max_value else (largest, top)
    white = f"{stored:g}" if top in (1, 255) else suggest_top(round(stored, 3))
    return (
        f"the largest value of {count} image{'s' * (count > 1)} is {stored:g} of {top:g}, {stored / top:.1%} of the range: "
        f"give max_value={white} if that is white (--config.data.max_value={white})"
    )


def describe_saturated(share: float, count: int, values: Values) -> str | None:
    """Say that most values of a sample are cut off by ``max_value``; None where they are not.

    Args:
      share: share of the values that are 1 after scaling.
      count: number of images looked at.
      values: how they are scaled.

    >>> describe_saturated(0.68, 5, Values(max_value=255))
    '68.0% of the values of 5 images are 255 or more, and become 1: is max_value=255 too small?'
    """
    if values.max_value is None or share <= 0.5:
        return None
    top = f"{values.max_value:g}"
    return (
        f"{share:.1%} of the values of {count} image{'s' * (count > 1)} are {top} or more, and become 1: "
        f"is max_value={top} too small?"
    )


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
