"""From a picture to the numbers that an encoder expects, as timm and transformers write it down."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.data.decode import decode_as_stored, fit_channels
from ssl_jax.data.values import require_range

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SATELLITE_MEAN, SATELLITE_STD = (0.43, 0.411, 0.296), (0.213, 0.156, 0.143)
RESIZES = ("short", "squash", "border")
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Filters of PIL in the order of its numbers, which transformers writes."""
PIXELS = 1 << 24
"""Pixels of a resized picture above which only its crop is computed, unless that has a sixteenth of them."""


class Preprocessing(NamedTuple):
    """What an encoder expects of a picture: resize, crop the center, scale to [0, 1], ``(x − mean) / std``.

    Attributes:
      size: height and width of the input in pixels.
      resize: ``"short"``: both sides by one factor, so that the picture just covers :attr:`target`; ``"squash"``: to the
        target, whatever the picture's shape; ``"border"``: by one factor, so that it just fits into the target, and a border of
        the color ``mean``.
      crop_ratio: share of each side of the target that the central crop keeps.
      interpolation: ``"bilinear"``, ``"bicubic"`` or another filter of PIL, smoothed when shrinking.
      mean: of each channel, in [0, 1].
      std: of each channel.
      crop_down: where an odd number of pixels is cut off, one less goes before the crop than behind it, as transformers does;
        otherwise the number before it is even, as torchvision and timm round.

    >>> preprocessing = Preprocessing((2, 2), crop_ratio=1.0, mean=(0.5,), std=(0.5,))
    >>> preprocessing.apply(np.array([[0, 255, 0], [0, 255, 0]], np.uint8))[..., 0].tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """

    size: tuple[int, int]
    resize: str = "short"
    crop_ratio: float = 0.875
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_down: bool = False

    @property
    def target(self) -> tuple[int, int]:
        """Height and width before the crop, ``⌊size / crop_ratio⌋`` as timm rounds.

        >>> Preprocessing((224, 224), crop_ratio=0.9).target
        (248, 248)
        """
        height, width = (math.floor(side / self.crop_ratio + 1e-6) for side in self.size)
        return height, width

    def apply(self, image: Image.Image | Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "h w c"]:
        """Make the input of the encoder of one picture.

        Gray and RGB become what the encoder has channels for; what is transparent is laid over white and the orientation of
        EXIF applied, as :mod:`ssl_jax.data.decode` does for files (timm and transformers drop the transparency and leave a
        picture as it lies; see :meth:`crop` for the pixels).

        Args:
          image: an image of PIL; or an array ``[h, w]`` or ``[h, w, c]``: uint8, uint16 or float in [0, 1].

        Returns:
          float32 ``[h, w, c]`` for :attr:`size`.

        Raises:
          ValueError: no image, or one with another number of channels.
        """
        pixels = self.crop(image)
        top = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
        scaled = pixels.astype(np.float32) / np.float32(top)
        return (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def crop(self, image: Image.Image | Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "h w c"]:
        """Resize and crop a picture, without mean and std.

        Pixels of uint8 with 1 or 3 channels are resized by PIL and equal those of timm's transforms and of transformers'
        processors for PIL. Its default processors resize tensors by torchvision: with bilinear filters pixels are within one
        level, with bicubic ones up to 1 % of them, at hard edges, differ by up to 3. (DINOv3's resizes floats, which a bicubic
        filter, not its own, takes outside of [0, 1].) A picture that would become enormous, as a line of 60,000 pixels does, is
        not resized as a whole: memory and time follow from its own size and the output's.

        Args:
          image: as in :meth:`apply`.

        Returns:
          ``[h, w, c]`` of the image's dtype.
        """
        pixels = _pixels(image, len(self.mean))
        height, width = pixels.shape[:2]
        resized = self.resized(height, width)
        margins = [have - want for have, want in zip(resized, self.size, strict=True)]
        if min(margins) < 0:
            return self._with_border(_resize(pixels, resized, None, self.interpolation))
        top, left = (margin // 2 if self.crop_down else round(margin / 2) for margin in margins)
        return _resize(pixels, resized, (top, left, *self.size), self.interpolation)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width that a picture is resized to before the crop.

        A square target with ``resize="short"`` is met as torchvision does: the short side is the target's, the long side
        ``⌊target · long / short⌋``. Otherwise both sides are rounded, as timm does.

        >>> Preprocessing((224, 224)).resized(300, 401), Preprocessing((224, 224), resize="squash").resized(300, 401)
        ((256, 342), (256, 256))
        """
        target = self.target
        if self.resize == "squash":
            return target
        if self.resize == "short" and target[0] == target[1]:
            short, long = target[0], int(target[0] * max(height, width) / min(height, width))
            return (short, long) if height <= width else (long, short)
        ratios = height / target[0], width / target[1]
        ratio = max(ratios) if self.resize == "border" else min(ratios)
        return max(round(height / ratio), 1), max(round(width / ratio), 1)

    def _with_border(self, pixels: np.ndarray) -> np.ndarray:
        """Crop a picture that is smaller than the input on one side or both; what is missing has the color of the border."""
        top = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
        color = np.array(self.mean) * top if self.resize == "border" else np.zeros(len(self.mean))
        resized = pixels.shape[:2]
        height, width = (max(have, want) for have, want in zip(resized, self.size, strict=True))
        canvas = np.empty((height, width, pixels.shape[2]), pixels.dtype)
        canvas[:] = (color if top == 1 else np.rint(color)).astype(pixels.dtype)
        rows, columns = (height - resized[0]) // 2, (width - resized[1]) // 2
        canvas[rows : rows + resized[0], columns : columns + resized[1]] = pixels
        top, left = round((height - self.size[0]) / 2), round((width - self.size[1]) / 2)
        return canvas[top : top + self.size[0], left : left + self.size[1]]

    def with_size(self, size: tuple[int, int]) -> "Preprocessing":
        """Return the same for another input size in pixels."""
        return self._replace(size=size)

    def with_channels(self, channels: int) -> "Preprocessing":
        """Return the same for another number of channels: each gets the mean of ``mean`` and of ``std``.

        >>> Preprocessing((8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2)).with_channels(1).mean
        (0.5,)
        """
        if channels == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return self._replace(mean=(mean,) * channels, std=(std,) * channels)

    def as_view(self) -> tuple[View, float]:
        """Return the view and the ``crop_ratio`` with which :func:`ssl_jax.data.loader.epoch` makes nearly this.

        The loader keeps the shape of pictures and resizes by PIL's bicubic filter: for ``resize="short"`` and
        ``interpolation="bicubic"`` pixels are equal up to a ratio of the sides of 4, and within 4 levels beyond. With
        ``bilinear`` pixels at edges differ by tens of levels; with ``squash`` the picture is another one unless it is square.
        :meth:`crop` is exact for all.

        Raises:
          ValueError: an input that is not square.

        >>> view, crop_ratio = Preprocessing((224, 224), crop_ratio=0.9).as_view()
        >>> view.size, round(view.size / crop_ratio)
        (224, 248)
        """
        require(self.size[0] == self.size[1], "size", self.size, "a square: views are")
        return View(size=self.size[0], mean=self.mean, std=self.std), min(self.size[0] / self.target[0], 1.0)

    def to_timm(self) -> dict[str, Any]:
        """Write it as the keys of timm's ``pretrained_cfg``, the inverse of :func:`preprocessing_from_timm`.

        >>> Preprocessing((224, 224)).to_timm()["crop_pct"]
        0.875
        """
        pct = self.crop_ratio
        if any(math.floor(side / pct) != target for side, target in zip(self.size, self.target, strict=True)):
            pct = self.size[0] / (self.target[0] + 1e-3)
        return {
            "input_size": [len(self.mean), *self.size],
            "interpolation": self.interpolation,
            "crop_pct": pct,
            "crop_mode": "center" if self.resize == "short" else self.resize,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def to_transformers(self) -> dict[str, Any]:
        """Write it as a ``preprocessor_config.json``, the inverse of :func:`preprocessing_from_transformers`.

        The crop begins as transformers rounds, see ``crop_down``: one pixel elsewhere where an odd number is cut off.

        Raises:
          ValueError: transformers has no processor for it: a border, or a target that is not square with ``resize="short"``.

        >>> config = Preprocessing((224, 224)).to_transformers()
        >>> config["size"], config["crop_size"], config["resample"]
        ({'shortest_edge': 256}, {'height': 224, 'width': 224}, 3)
        """
        height, width = self.target
        require(self.resize != "border", "resize", self.resize, "short or squash in transformers")
        short = self.resize == "short"
        require(
            not short or height == width, "size", self.size, "a square in transformers, with resize='short'"
        )
        size = {"shortest_edge": height} if short else {"height": height, "width": width}
        cropped = short or self.target != self.size
        crop = {"crop_size": {"height": self.size[0], "width": self.size[1]}} if cropped else {}
        return {
            "image_processor_type": "BitImageProcessor" if cropped else "ViTImageProcessor",
            "do_convert_rgb": len(self.mean) == 3,
            "do_resize": True,
            "size": size,
            "resample": INTERPOLATIONS.index(self.interpolation),
            "do_center_crop": cropped,
            **crop,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


def _pixels(image: Image.Image | np.ndarray, channels: int) -> np.ndarray:
    """Take a picture as ``[h, w, channels]`` of uint8, uint16 or float32."""
    if isinstance(image, Image.Image):
        return decode_as_stored(image, name="image", channels=channels)
    pixels = np.asarray(image)
    pixels = pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels
    known = pixels.dtype in (np.uint8, np.uint16, np.float32) and pixels.ndim in (2, 3) and pixels.size > 0
    allowed = "a picture of PIL, or an array [h, w] or [h, w, c] of uint8, uint16 or floats in [0, 1]"
    require(known, "image", f"{pixels.dtype} {list(pixels.shape)}", allowed)
    if pixels.dtype.kind == "f":
        require_range(pixels)
    return fit_channels(pixels if pixels.ndim == 3 else pixels[..., None], channels)


def _resize(
    pixels: np.ndarray, size: tuple[int, int], crop: tuple[int, int, int, int] | None, interpolation: str
) -> np.ndarray:
    """Resize to ``size`` by PIL and cut ``crop`` (top, left, height, width) out; the pixels around the crop take part."""
    height, width, channels = pixels.shape
    top, left, rows, columns = crop or (0, 0, *size)
    whole = size[0] * size[1] <= max(PIXELS, 16 * rows * columns)
    resample = Image.Resampling(INTERPOLATIONS.index(interpolation))
    down, across = height / size[0], width / size[1]
    box = (left * across, top * down, min((left + columns) * across, width), min((top + rows) * down, height))

    def plane(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values)
        if whole:
            return np.asarray(image.resize((size[1], size[0]), resample))[
                top : top + rows, left : left + columns
            ]
        return np.asarray(image.resize((columns, rows), resample, box))

    if pixels.dtype == np.uint8 and channels in (1, 3):
        resized = plane(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels))
        return np.ascontiguousarray(resized.reshape(rows, columns, channels))
    planes = [plane(np.ascontiguousarray(pixels[..., c], np.float32)) for c in range(channels)]
    resized = np.stack(planes, axis=-1)
    if pixels.dtype.kind == "f":
        return resized
    return np.clip(np.rint(resized), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def preprocessing_from_fields(fields: Mapping[str, Any]) -> Preprocessing:
    """Read what ``Preprocessing._asdict()`` gave, after JSON made lists of its tuples.

    Raises:
      ValueError: other fields, or values that none of them has.

    >>> import json
    >>> given = Preprocessing((32, 48), "squash", 1.0)
    >>> preprocessing_from_fields(json.loads(json.dumps(given._asdict()))) == given
    True
    """
    known = Preprocessing._fields
    unknown = sorted(set(fields) - set(known))
    require(
        "size" in fields and not unknown,
        "preprocessing",
        sorted(fields),
        f"size and others of {', '.join(known)}",
    )
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    read = Preprocessing(**values)
    choice("preprocessing.resize", read.resize, RESIZES)
    choice("preprocessing.interpolation", read.interpolation, INTERPOLATIONS)
    _numbers("preprocessing.size", read.size, 2)
    require(
        isinstance(read.crop_ratio, float | int) and 0 < read.crop_ratio <= 1,
        "preprocessing.crop_ratio",
        read.crop_ratio,
        "a number above 0 and at most 1",
    )
    return read


def preprocessing_from_timm(config: Mapping[str, Any]) -> Preprocessing:
    """Read timm's ``pretrained_cfg``.

    Args:
      config: with ``input_size`` (channels, height, width); and ``crop_pct``, ``crop_mode``, ``interpolation``, ``mean`` and
        ``std``, where they differ from timm's defaults.

    Raises:
      ValueError: a value that is not understood.

    >>> preprocessing_from_timm({"input_size": (3, 518, 518), "crop_pct": 1.0, "interpolation": "bicubic"}).target
    (518, 518)
    """
    size = _numbers("pretrained_cfg.input_size", config.get("input_size", (3, 224, 224)), 3)
    mode = config.get("crop_mode") or "center"
    choice("pretrained_cfg.crop_mode", mode, ("center", "squash", "border"))
    interpolation = config.get("interpolation") or "bilinear"
    choice("pretrained_cfg.interpolation", interpolation, INTERPOLATIONS)
    ratio = float(config.get("crop_pct") or 0.875)
    require(0 < ratio <= 1, "pretrained_cfg.crop_pct", ratio, "a number above 0 and at most 1")
    mean, std = (
        _channels(f"pretrained_cfg.{key}", config.get(key, default), int(size[0]))
        for key, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    resize = "short" if mode == "center" else str(mode)
    return Preprocessing((int(size[1]), int(size[2])), resize, ratio, str(interpolation), mean, std)


def preprocessing_from_transformers(config: Mapping[str, Any], *, channels: int = 3) -> Preprocessing:
    """Read a ``preprocessor_config.json`` of transformers.

    Understood: ``size`` with ``shortest_edge``, or ``height`` and ``width``, or a number (as older files have it);
    ``crop_size``, ``do_center_crop``, ``crop_pct`` of ConvNeXt, ``resample``, ``do_rescale``, ``rescale_factor``,
    ``do_normalize``, ``image_mean`` and ``image_std``. A picture that is resized by its short side and not cropped keeps its
    shape there; here its center is cropped to a square.

    Args:
      config: the file's contents.
      channels: of the encoder.

    Raises:
      ValueError: a value that is not understood.

    >>> given = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
    >>> preprocessing_from_transformers(given).target
    (256, 256)
    """
    config = {key: value for key, value in config.items() if value is not None}
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    size, short = _size(config.get("size", 224), kind)
    crop = _size(config.get("crop_size", size), kind)[0] if config.get("do_center_crop") else size
    if not config.get("do_resize", True):
        size, short = crop, True
    if kind.startswith("ConvNext") and short:
        crop = size
        if size[0] < 384:
            target = int(size[0] / config.get("crop_pct", 224 / 256))
            size = (target, target)
        else:
            short = False
    number = config.get(
        "resample", 3 if kind.startswith(("CLIP", "Bit", "ConvNext", "Siglip", "Beit", "DeiT")) else 2
    )
    choice("preprocessor.resample", number, range(len(INTERPOLATIONS)))
    ratio = max(want / have for want, have in zip(crop, size, strict=True))
    require(0 < ratio <= 1, "preprocessor.crop_size", crop, f"at most the size {size}")
    scale = float(config.get("rescale_factor", 1 / 255)) * 255 if config.get("do_rescale", True) else 255.0
    normalized = config.get("do_normalize", True)
    half = kind.startswith(("ViT", "Siglip", "Beit")) or not kind
    means = (HALF, HALF) if half else (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (
        tuple(value / scale for value in _channels(f"preprocessor.{key}", config.get(key, default), channels))
        if normalized
        else (neutral / scale,) * channels
        for key, default, neutral in (("image_mean", means[0], 0.0), ("image_std", means[1], 1.0))
    )
    return Preprocessing(
        crop, "short" if short else "squash", ratio, INTERPOLATIONS[number], mean, std, crop_down=True
    )


def _size(value: Any, kind: str) -> tuple[tuple[int, int], bool]:
    """Read a size of transformers: height and width, and whether they are only a bound for the short side."""
    if isinstance(value, Mapping):
        if "shortest_edge" in value:
            side = int(_numbers("preprocessor.size.shortest_edge", (value["shortest_edge"],), 1)[0])
            return (side, side), True
        height, width = _numbers("preprocessor.size", (value.get("height"), value.get("width")), 2)
        return (int(height), int(width)), False
    if isinstance(value, (list, tuple)):
        width, height = _numbers("preprocessor.size", value, 2)  # older files: width first, as PIL
        return (int(height), int(width)), False
    side = int(_numbers("preprocessor.size", (value,), 1)[0])
    return (side, side), kind.startswith(("CLIP", "Bit", "ConvNext"))


def _numbers(name: str, value: Any, count: int) -> tuple[float, ...]:
    fits = isinstance(value, Sequence) and len(value) == count
    fits = fits and all(isinstance(v, (int, float)) and math.isfinite(v) and v > 0 for v in value)
    require(fits, name, value, f"{count} positive number{'s' if count > 1 else ''}")
    return tuple(value)


def _channels(name: str, value: Any, channels: int) -> tuple[float, ...]:
    """Read a number a channel; a single one, or three for another number of channels, give their mean to each."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    fits = bool(values) and all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)
    require(fits, name, value, f"{channels} numbers")
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _default(
    resize: str,
    ratio: float,
    interpolation: str,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Preprocessing:
    return Preprocessing((224, 224), resize, ratio, interpolation, tuple(mean), tuple(std))


FAMILY_DEFAULTS: Mapping[str, Preprocessing] = {
    "dino": _default("short", 0.875, "bicubic"),
    "dinov2": _default("short", 0.875, "bicubic"),
    "dinov3": _default("squash", 1.0, "bilinear"),
    "dinov3_satellite": _default("squash", 1.0, "bilinear", SATELLITE_MEAN, SATELLITE_STD),
    "mae": _default("short", 0.875, "bicubic"),
    "moco": _default("short", 0.875, "bilinear"),
    "resnet": _default("short", 0.875, "bilinear"),
    "ijepa": _default("short", 0.875, "bilinear"),
    "convnext": _default("short", 0.875, "bicubic"),
    "beit": _default("squash", 1.0, "bicubic", HALF, HALF),
    "augreg": _default("short", 0.9, "bicubic", HALF, HALF),
    "huggingface_vit": _default("squash", 1.0, "bilinear", HALF, HALF),
    "big_vision": _default("squash", 1.0, "bilinear", HALF, HALF),
    "clip": _default("short", 1.0, "bicubic", CLIP_MEAN, CLIP_STD),
    "siglip": _default("squash", 1.0, "bicubic", HALF, HALF),
}
"""What the authors of a family evaluate with, where a file does not say it. ``resnet`` is torchvision's, which SwAV, Barlow
Twins, VICReg and SimSiam share; ``augreg`` is that of timm's first ViTs."""


def preprocessing_of(
    metadata: Mapping[str, Any], *, family: str, size: tuple[int, int] | None = None, channels: int = 3
) -> Preprocessing:
    """Read what a checkpoint expects of a picture from the facts beside it, else take that of its family.

    Args:
      metadata: that of :class:`ssl_jax.interop.family.Weights`: ``pretrained_cfg`` of timm or ``preprocessor`` of transformers
        count, in this order.
      family: key of :data:`FAMILY_DEFAULTS`.
      size: height and width of the input where nothing beside the checkpoint says it; ``None`` for 224 x 224.
      channels: of the encoder.

    Raises:
      ValueError: unknown family, or facts that are not understood.

    >>> preprocessing_of({}, family="augreg", size=(32, 32)).target
    (35, 35)
    """
    choice("family", family, FAMILY_DEFAULTS)
    config, processor = (metadata.get(key) for key in ("pretrained_cfg", "preprocessor"))
    if isinstance(config, Mapping) and config.get("input_size"):
        return preprocessing_from_timm(config).with_channels(channels)
    if isinstance(processor, Mapping) and processor:
        return preprocessing_from_transformers(processor, channels=channels)
    default = FAMILY_DEFAULTS[family]
    return default.with_size(size or default.size).with_channels(channels)
