"""From a picture to the numbers that an encoder expects."""

from typing import NamedTuple

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocessing(NamedTuple):
    """What an encoder expects of a picture: resize, crop, scale to [0, 1], ``(x − mean) / std``.

    Attributes:
      size: height and width of the input in pixels.
      resize: ``"short"``: the short side to ``round(size / crop_ratio)``, then the center; ``"squash"``: both sides so,
        whatever the picture's shape, then the center.
      crop_ratio: share of each resized side that the central crop keeps.
      interpolation: ``"bilinear"`` or ``"bicubic"``, smoothed when shrinking, as PIL does.
      mean: of each channel, in [0, 1].
      std: of each channel.
    """

    size: tuple[int, int]
    resize: str = "short"
    crop_ratio: float = 0.875
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
