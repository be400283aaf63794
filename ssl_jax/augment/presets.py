"""Views of published recipes; the sources of the numbers are named with each."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax.augment.operations import ColorJitter, Number, Pair
from ssl_jax.augment.options import Options, default_options, override, view_from
from ssl_jax.augment.views import View
from ssl_jax.core import check

CROP_AND_FLIP: Options = {"area": (0.2, 1.0), "flip_prob": 0.5}
MOCO_JITTER: Options = dataclasses.asdict(ColorJitter(0.4, 0.4, 0.4, 0.1))


def _view(where: str, options: Options, overrides: Mapping[str, Any]) -> View:
    return view_from(override(options, overrides), where=where)


def simclr(
    size: int = 224, *, strength: Number = 1.0, blur_prob: Number = 0.5, **overrides: Any
) -> tuple[View, ...]:
    """Build SimCLR's two views of one distribution.

    Args:
      size: side of the views in pixels.
      strength: strength s of the colour jitter: 0.8 s, 0.8 s, 0.8 s, 0.2 s.
      blur_prob: probability of a blur.
      **overrides: other options of a view, see `ssl_jax.augment.options`; a mapping for ``jitter`` changes only the fields that
        it names.

    Returns:
      The same view twice.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> first, second = simclr(32, strength=0.5, blur_prob=0.0, mean=(0.5,), std=(0.25,))
      >>> first == second, first.find(ColorJitter).hue
      (True, 0.1)

    Reference: Chen et al. 2020, appendix A; google-research/simclr ``data_util.py``. At 32 pixels its README
    takes ``strength=0.5, blur_prob=0.0``.
    """
    jitter = ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    colors = {"jitter": dataclasses.asdict(jitter), "grayscale_prob": 0.2, "blur_prob": blur_prob}
    options = {"size": size, "flip_prob": 0.5, **colors}
    view = _view("simclr", options, overrides)
    return (view, view)


def moco_v1(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """Build MoCo v1's two views of one distribution; colours are always jittered, nothing is blurred.

    Args:
      size: side of the views in pixels.
      **overrides: other options of a view, as in `simclr`.

    Returns:
      The same view twice.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> view, _ = moco_v1()
      >>> [type(op).__name__ for op in view.ops]
      ['Flip', 'ColorJitter', 'Grayscale']

    Reference: He et al. 2020, section 4; facebookresearch/moco ``main_moco.py``, whose crops are bilinear, as here.
    Deviation: there an image loses its colour before the jitter, here after it. That changes the brightness of gray
    images a little, which the jitter moves anyway.
    """
    colors = {"jitter": {**MOCO_JITTER, "hue": 0.4, "prob": 1.0}, "grayscale_prob": 0.2}
    options = {**CROP_AND_FLIP, "size": size, "interpolation": "bilinear", **colors}
    view = _view("moco_v1", options, overrides)
    return (view, view)


def moco_v2(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """Build the two views of MoCo v2 and SimSiam, of one distribution, larger crops and weaker colours than SimCLR's.

    Args:
      size: side of the views in pixels.
      **overrides: other options of a view, as in `simclr`.

    Returns:
      The same view twice.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> moco_v2(32, blur_prob=0.0)[0].crop.area
      (0.2, 1.0)

    Reference: Chen et al. 2020 (MoCo v2), facebookresearch/moco ``main_moco.py``. Its crops are bilinear (the
    default of torchvision), as here.
    """
    colors = {"jitter": MOCO_JITTER, "grayscale_prob": 0.2, "blur_prob": 0.5}
    options = {**CROP_AND_FLIP, "size": size, "interpolation": "bilinear", **colors}
    view = _view("moco_v2", options, overrides)
    return (view, view)


def byol(
    size: int = 224, *, blur_prob: Pair = (1.0, 0.1), solarize_prob: Pair = (0.0, 0.2), **overrides: Any
) -> tuple[View, ...]:
    """Build the two views of BYOL, Barlow Twins, VICReg and MoCo v3, which differ in blur and solarization.

    Feed both to both networks: otherwise the asymmetry of the views biases the student against the teacher.

    Args:
      size: side of the views in pixels.
      blur_prob: probability of a blur in the first and in the second view.
      solarize_prob: probability of solarization in the first and in the second view.
      **overrides: other options of both views, as in `simclr`.

    Returns:
      Two views.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> from ssl_jax.augment.operations import Blur, Solarize
      >>> [(view.find(Blur).prob, view.find(Solarize)) for view in byol()]
      [(1.0, None), (0.1, Solarize(prob=0.2, threshold=0.5))]

    Reference: Grill et al. 2020, appendix B, table 6. Its code adds brightness
    (``jitter={"additive_brightness": True}``) and pads the blur with zeros; ours multiplies and mirrors, as
    torchvision's followers do.
    """
    jitter = {**MOCO_JITTER, "saturation": 0.2}
    options = {"size": size, "flip_prob": 0.5, "jitter": jitter, "grayscale_prob": 0.2}
    return tuple(
        _view("byol", {**options, "blur_prob": blur, "solarize_prob": solarize}, overrides)
        for blur, solarize in zip(blur_prob, solarize_prob, strict=True)
    )


def dino(
    size: int = 224,
    local_size: int = 96,
    *,
    local_count: int = 8,
    global_area: Pair = (0.4, 1.0),
    local_area: Pair = (0.05, 0.4),
    local_blur_prob: Number = 0.5,
    blur_prob: Pair = (1.0, 0.1),
    solarize_prob: Pair = (0.0, 0.2),
    **overrides: Any,
) -> tuple[View, ...]:
    """Build DINO's multi-crop: two global views as BYOL's, which the teacher sees, then small local ones.

    Args:
      size: side of the two global views in pixels.
      local_size: side of the local views in pixels.
      local_count: number of local views.
      global_area: share of the image that a global crop covers.
      local_area: share of the image that a local crop covers.
      local_blur_prob: probability of blur in the local views.
      blur_prob: probability of a blur in the first and in the second global view.
      solarize_prob: probability of solarization in the first and in the second global view.
      **overrides: other options of every view, as in `simclr`.

    Returns:
      2 + ``local_count`` views, the global ones first.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> [view.size for view in dino(local_count=3)]
      [224, 224, 96, 96, 96]

    Reference: Caron et al. 2021, facebookresearch/dino ``main_dino.py`` for ViT; ResNet-50 takes areas
    from .14 to 1 and from .05 to .14.
    """
    check.require(
        "area" not in overrides, "dino.area", overrides.get("area"), "global_area and local_area in its place"
    )
    two = byol(size, blur_prob=blur_prob, solarize_prob=solarize_prob, area=global_area, **overrides)
    (local, _) = byol(
        local_size, blur_prob=(local_blur_prob,) * 2, solarize_prob=(0.0, 0.0), area=local_area, **overrides
    )
    return two + (local,) * local_count


def mae(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """Build MAE's one view, crop and flip only.

    Args:
      size: side of the view in pixels.
      **overrides: other options of a view, as in `simclr`.

    Returns:
      One view.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> mae(32)[0].ops
      (Flip(prob=0.5),)

    Reference: He et al. 2022, appendix A.1; facebookresearch/mae ``main_pretrain.py``.
    """
    return (_view("mae", {**CROP_AND_FLIP, "size": size}, overrides),)


def npid(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """Build one view of NPID and MoCo v1: larger crops than SimCLR's, colours always jittered, no blur.

    Args:
      size: side of the view in pixels.
      **overrides: other options of a view, as in `simclr`.

    Returns:
      One view.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> npid(32)[0] == moco_v1(32)[0]
      True

    Reference: Wu et al. 2018; facebookresearch/moco ``main_moco.py``, version 1. Deviation: there the colours are lost
    before the jitter, here after it.
    """
    return moco_v1(size, **overrides)[:1]


def wmse(size: int = 224, *, count: int = 2, **overrides: Any) -> tuple[View, ...]:
    """Build W-MSE's views of one distribution, MoCo v2's but for less gray and no blur.

    Args:
      size: side of the views in pixels.
      count: number of views, 2 or 4 in the paper.
      **overrides: other options of a view, as in `simclr`.

    Returns:
      The same view ``count`` times.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> views = wmse(32, count=4)
      >>> from ssl_jax.augment.operations import Grayscale
      >>> len(views), views[0].find(Grayscale).prob, views[0].crop.area
      (4, 0.1, (0.2, 1.0))

    Reference: Ermolov et al. 2021, section 4.1; htdt/self-supervised. Deviation: there colours change before the
    crop, here after it.
    """
    check.require(count >= 1, "count", count, "1 or more views")
    (view, _) = moco_v2(size, **{"grayscale_prob": 0.1, "blur_prob": 0.0, **overrides})
    return (view,) * count


def consistency(size: int = 224, *, count: int = 2, **overrides: Any) -> tuple[View, ...]:
    """Build ``count`` views of the Π-model, temporal ensembling and Mean Teacher, of one distribution, crop and flip only.

    Args:
      size: side of the views in pixels.
      count: number of views, 1 or more.
      **overrides: other options of every view, as in `simclr`.

    Returns:
      The same view ``count`` times.

    Raises:
      ValueError: no view, an option that does not exist, or a value out of range.

    Example:
      >>> views = consistency(32)
      >>> len(views), views[0].ops, views[0].crop.area
      (2, (Flip(prob=0.5),), (0.5, 1.0))

    References: Laine & Aila 2017, section 3; Tarvainen & Valpola 2017, appendix B. Deviation: both move 32-pixel images by
    up to 2 or 4 pixels and keep their scale; here crops of half of the image or more are brought to the size.
    """
    check.require(count >= 1, "count", count, "1 or more views")
    (view,) = mae(size, **{"area": (0.5, 1.0), **overrides})
    return (view,) * count


STRENGTHS = ("strong", "weak")


def msf(
    size: int = 224,
    *,
    query: str = "strong",
    target: str = "weak",
    jitter: Mapping[str, Any] | None = MOCO_JITTER,
    grayscale_prob: Number = 0.2,
    blur_prob: Number = 0.5,
    **overrides: Any,
) -> tuple[View, ...]:
    """Build MeanShift's two views, of which the strong one is MoCo v2's and the weak one a crop and flip.

    Args:
      size: side of the views in pixels.
      query: ``"strong"`` or ``"weak"``: the first view, which the student sees.
      target: ``"strong"`` or ``"weak"``: the second view, which the teacher sees.
      jitter: fields of the strong view's jitter; those that it does not name are as in MoCo v2. ``None``: no jitter.
      grayscale_prob: probability of losing the colour in a strong view.
      blur_prob: probability of a blur in a strong view.
      **overrides: other options of both views, as in `simclr`.

    Returns:
      Two views.

    Raises:
      ValueError: an unknown strength or option, or a value out of range.

    Example:
      >>> [[type(op).__name__ for op in view.ops] for view in msf(32)]
      [['Flip', 'ColorJitter', 'Grayscale', 'Blur'], ['Flip']]

    Reference: Koohpayegani et al. 2021, section 4; UMBCvision/MSF, ``weak/strong``.
    """
    (strong, _) = moco_v2(
        size, jitter=jitter, grayscale_prob=grayscale_prob, blur_prob=blur_prob, **overrides
    )
    (weak, _) = moco_v2(size, jitter=None, grayscale_prob=0.0, blur_prob=0.0, **overrides)
    kinds = {"strong": strong, "weak": weak}
    return tuple(
        kinds[check.choice(name, kind, STRENGTHS)] for name, kind in (("query", query), ("target", target))
    )


def obow(
    size: int = 224,
    crop_size: int = 160,
    local_size: int = 96,
    *,
    crop_count: int = 2,
    local_count: int = 5,
    crop_area: Pair = (0.08, 0.6),
    local_area: Pair = (0.084, 0.14),
    jitter: Mapping[str, Any] | None = MOCO_JITTER,
    grayscale_prob: Number = 0.2,
    blur_prob: Number = 0.5,
    local_blur_prob: Number = 0.0,
    **overrides: Any,
) -> tuple[View, ...]:
    """Build the views of OBoW and BoWNet: a clean one, which the teacher sees, then perturbed crops for the student.

    Args:
      size: side of the clean view in pixels: the centred square of the image, mirrored or not.
      crop_size: side of the large crops in pixels.
      local_size: side of the small crops in pixels.
      crop_count: number of large crops.
      local_count: number of small crops.
      crop_area: share of the image that a large crop covers.
      local_area: share of the image that a small crop covers.
      jitter: fields of the crops' jitter; those that it does not name are as in MoCo v2. ``None``: no jitter.
      grayscale_prob: probability of losing the colour in the crops.
      blur_prob: probability of a blur in the large crops.
      local_blur_prob: probability of a blur in the small crops.
      **overrides: other options of every view, as in `simclr`.

    Returns:
      1 + ``crop_count`` + ``local_count`` views, the clean one first.

    Raises:
      ValueError: an option that does not exist, or a value out of range.

    Example:
      >>> [(view.size, len(view.ops)) for view in obow(local_count=1)]
      [(224, 1), (160, 4), (160, 4), (96, 3)]

    Reference: Gidaris et al. 2021, section 3; valeoai/obow. Deviations: there the small crops are cut from the cells of a 3 x 3
    grid over one crop of .6 to 1 of the image, here each by itself, of the same area; the clean view there
    shows 7/8 of the square's side.
    """
    check.require(
        "area" not in overrides, "obow.area", overrides.get("area"), "crop_area and local_area in its place"
    )
    shared = {**overrides, "area": crop_area, "jitter": jitter, "grayscale_prob": grayscale_prob}
    (crop, _) = moco_v2(crop_size, blur_prob=blur_prob, **shared)
    (local, _) = moco_v2(local_size, blur_prob=local_blur_prob, **{**shared, "area": local_area})
    square = {"area": (1.0, 1.0), "ratio": (1.0, 1.0)}
    (clean, _) = moco_v2(size, jitter=None, grayscale_prob=0.0, blur_prob=0.0, **{**overrides, **square})
    return (clean,) + (crop,) * crop_count + (local,) * local_count


PRESETS: dict[str, Callable[..., tuple[View, ...]]] = {
    "simclr": simclr,
    "moco_v1": moco_v1,
    "moco_v2": moco_v2,
    "byol": byol,
    "dino": dino,
    "mae": mae,
    "npid": npid,
    "msf": msf,
    "obow": obow,
    "wmse": wmse,
    "consistency": consistency,
}


def build(preset: str, **options: Any) -> tuple[View, ...]:
    """Build the views of a preset by its name.

    Args:
      preset: ``simclr``, ``moco_v1``, ``moco_v2``, ``byol``, ``dino``, ``mae``, ``npid``, ``msf``,
        ``obow``, ``wmse`` or ``consistency``.
      **options: options of the preset, ``size`` among them, or of a view.

    Returns:
      Its views.

    Raises:
      ValueError: an unknown preset or option, with the nearest right one.

    Example:
      >>> build("simclr", size=32) == simclr(32)
      True
    """
    function = PRESETS[check.choice("preset", preset, PRESETS)]
    allowed = {*check.options_of(function), *default_options()}
    for name in options:
        if name not in allowed:
            raise ValueError(f"{preset}.{name} is not an option: {check.did_you_mean(name, allowed)}")
    return function(**options)
