"""Views of published recipes; the sources of the numbers are named with each."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax.augment.views import Jitter, Number, Pair, View, tuples
from ssl_jax.core import check

FIELDS = tuple(field.name for field in dataclasses.fields(View))


def _override(view: View, where: str, overrides: Mapping[str, Any]) -> View:
    """A view with some fields replaced; a mapping for ``jitter`` replaces some fields of the jitter."""
    for name in overrides:
        if name not in FIELDS:
            raise ValueError(f"{where}.{name} is not an option: {check.did_you_mean(name, FIELDS)}")
    changes = tuples(overrides)
    if isinstance(changes.get("jitter"), Mapping):
        fields = {**dataclasses.asdict(view.jitter or Jitter()), **changes["jitter"]}
        changes["jitter"] = check.call(Jitter, where=f"{where}.jitter", options=fields)
    return dataclasses.replace(view, **changes)


def simclr(
    size: int = 224, *, strength: Number = 1.0, blur_prob: Number = 0.5, **overrides: Any
) -> tuple[View, ...]:
    """SimCLR: two views of one distribution.

    Args:
      size: of the views, pixels.
      strength: of the colour jitter: 0.8 s, 0.8 s, 0.8 s, 0.2 s.
      blur_prob: probability.
      **overrides: other fields of `View`; a mapping for ``jitter`` changes only the fields that it names.

    Returns:
      The same view twice.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

    Example:
      >>> first, second = simclr(32, strength=0.5, blur_prob=0.0, mean=(0.5,), std=(0.25,))
      >>> first == second, first.jitter.hue
      (True, 0.1)

    Reference: Chen et al. 2020, appendix A; google-research/simclr ``data_util.py``. At 32 pixels its README
    takes ``strength=0.5, blur_prob=0.0``.
    """
    jitter = Jitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    view = _override(View(size=size, jitter=jitter, blur_prob=blur_prob), "simclr", overrides)
    return (view, view)


def moco_v1(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """MoCo v1: two views of one distribution; colours are always jittered, nothing is blurred.

    Args:
      size: of the views, pixels.
      **overrides: other fields of `View`, as in `simclr`.

    Returns:
      The same view twice.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

    Example:
      >>> view, _ = moco_v1()
      >>> view.jitter.probability, view.blur_prob
      (1.0, 0.0)

    Reference: He et al. 2020, section 4; facebookresearch/moco ``main_moco.py``, whose crops are bilinear, as here.
    Deviation: there an image loses its colour before the jitter, here after it. That changes the brightness of gray
    images a little, which the jitter moves anyway.
    """
    jitter = Jitter(0.4, 0.4, 0.4, 0.4, probability=1.0)
    view = View(size=size, area=(0.2, 1.0), interpolation="bilinear", jitter=jitter, blur_prob=0.0)
    view = _override(view, "moco_v1", overrides)
    return (view, view)


def moco_v2(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """MoCo v2 and SimSiam: two views of one distribution, larger crops and weaker colours than SimCLR's.

    Args:
      size: of the views, pixels.
      **overrides: other fields of `View`, as in `simclr`.

    Returns:
      The same view twice.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

    Example:
      >>> moco_v2(32, blur_prob=0.0)[0].area
      (0.2, 1.0)

    Reference: Chen et al. 2020 (MoCo v2), facebookresearch/moco ``main_moco.py``. Its crops are bilinear (the
    default of torchvision), as here.
    """
    view = View(size=size, area=(0.2, 1.0), interpolation="bilinear", jitter=Jitter(0.4, 0.4, 0.4, 0.1))
    view = _override(view, "moco_v2", overrides)
    return (view, view)


def byol(
    size: int = 224, *, blur_prob: Pair = (1.0, 0.1), solarize_prob: Pair = (0.0, 0.2), **overrides: Any
) -> tuple[View, ...]:
    """BYOL, Barlow Twins, VICReg, MoCo v3: two views that differ in blur and solarization.

    Feed both to both networks: otherwise the asymmetry of the views biases the student against the teacher.

    Args:
      size: of the views, pixels.
      blur_prob: probability in the first and in the second view.
      solarize_prob: probability in the first and in the second view.
      **overrides: other fields of both `View`, as in `simclr`.

    Returns:
      Two views.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

    Example:
      >>> [(view.blur_prob, view.solarize_prob) for view in byol()]
      [(1.0, 0.0), (0.1, 0.2)]

    Reference: Grill et al. 2020, appendix B, table 6. Its code adds brightness
    (``jitter={"additive_brightness": True}``) and pads the blur with zeros; ours multiplies and mirrors, as
    torchvision's followers do.
    """
    base = _override(View(size=size, jitter=Jitter(0.4, 0.4, 0.2, 0.1)), "byol", overrides)
    return tuple(
        dataclasses.replace(base, blur_prob=b, solarize_prob=s)
        for b, s in zip(blur_prob, solarize_prob, strict=True)
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
    """DINO's multi-crop: two global views as BYOL's, which the teacher sees, then small local ones.

    Args:
      size: of the two global views, pixels.
      local_size: of the local views, pixels.
      local_count: number of local views.
      global_area: share of the image that a global crop covers.
      local_area: share of the image that a local crop covers.
      local_blur_prob: probability of blur in the local views.
      blur_prob: probability in the first and in the second global view.
      solarize_prob: probability in the first and in the second global view.
      **overrides: other fields of every `View`, as in `simclr`.

    Returns:
      2 + ``local_count`` views, the global ones first.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

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
    local = dataclasses.replace(
        two[0], size=local_size, area=local_area, blur_prob=local_blur_prob, solarize_prob=0.0
    )
    return two + (local,) * local_count


def mae(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """MAE: one view, crop and flip only.

    Args:
      size: of the view, pixels.
      **overrides: other fields of `View`, as in `simclr`.

    Returns:
      One view.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

    Example:
      >>> mae(32)[0].jitter is None
      True

    Reference: He et al. 2022, appendix A.1; facebookresearch/mae ``main_pretrain.py``.
    """
    view = View(size=size, area=(0.2, 1.0), jitter=None, grayscale_prob=0.0, blur_prob=0.0)
    return (_override(view, "mae", overrides),)


def npid(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """NPID and MoCo v1, one view: larger crops than SimCLR's, colours always jittered, no blur.

    Args:
      size: of the view, pixels.
      **overrides: other fields of `View`, as in `simclr`.

    Returns:
      One view.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

    Example:
      >>> npid(32)[0].jitter.probability
      1.0

    Reference: Wu et al. 2018; facebookresearch/moco ``main_moco.py``, version 1. Deviation: there the colours are lost
    before the jitter, here after it.
    """
    view, _ = moco_v1(size)
    return (_override(view, "npid", overrides),)


def wmse(size: int = 224, *, count: int = 2, **overrides: Any) -> tuple[View, ...]:
    """W-MSE: several views of one distribution, MoCo v2's but for less gray and no blur.

    Args:
      size: of the views, pixels.
      count: number of views, 2 or 4 in the paper.
      **overrides: other fields of `View`, as in `simclr`.

    Returns:
      The same view ``count`` times.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

    Example:
      >>> views = wmse(32, count=4)
      >>> len(views), views[0].grayscale_prob, views[0].area
      (4, 0.1, (0.2, 1.0))

    Reference: Ermolov et al. 2021, section 4.1; htdt/self-supervised. Deviation: there colours change before the
    crop, here after it.
    """
    check.require(count >= 1, "count", count, "1 or more views")
    (view, _) = moco_v2(size, **{"grayscale_prob": 0.1, "blur_prob": 0.0, **overrides})
    return (view,) * count


def consistency(size: int = 224, *, count: int = 2, **overrides: Any) -> tuple[View, ...]:
    """Π-model, temporal ensembling, Mean Teacher: ``count`` views of one distribution, crop and flip only.

    Args:
      size: of the views, pixels.
      count: number of views, 1 or more.
      **overrides: other fields of every `View`, as in `simclr`.

    Returns:
      The same view ``count`` times.

    Raises:
      ValueError: no view, a field that does not exist, or a value out of range.

    Example:
      >>> views = consistency(32)
      >>> len(views), views[0].jitter is None, views[0].area
      (2, True, (0.5, 1.0))

    References: Laine & Aila 2017, section 3; Tarvainen & Valpola 2017, appendix B. Deviation: both move 32-pixel images by
    up to 2 or 4 pixels and keep their scale; here crops of half of the image or more are brought to the size.
    """
    check.require(count >= 1, "count", count, "1 or more views")
    (view,) = mae(size, **{"area": (0.5, 1.0), **overrides})
    return (view,) * count


STRENGTHS = ("strong", "weak")
MOCO_JITTER = dataclasses.asdict(Jitter(0.4, 0.4, 0.4, 0.1))


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
    """MeanShift: the student's view and the teacher's, of which the strong one is MoCo v2's and the weak one a crop and flip.

    Args:
      size: of the views, pixels.
      query: ``"strong"`` or ``"weak"``: the first view, which the student sees.
      target: ``"strong"`` or ``"weak"``: the second view, which the teacher sees.
      jitter: fields of the strong view's jitter; those that it does not name are as in MoCo v2. ``None``: no jitter.
      grayscale_prob: probability in a strong view.
      blur_prob: probability in a strong view.
      **overrides: other fields of both `View`, as in `simclr`.

    Returns:
      Two views.

    Raises:
      ValueError: an unknown strength or field, or a value out of range.

    Example:
      >>> [(view.jitter is None, view.grayscale_prob, view.blur_prob) for view in msf(32)]
      [(False, 0.2, 0.5), (True, 0.0, 0.0)]

    Reference: Koohpayegani et al. 2021, section 4; UMBCvision/MSF, ``weak/strong``.
    """
    (strong, _) = moco_v2(
        size, jitter=jitter, grayscale_prob=grayscale_prob, blur_prob=blur_prob, **overrides
    )
    weak = dataclasses.replace(strong, jitter=None, grayscale_prob=0.0, blur_prob=0.0)
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
    """OBoW and BoWNet: a clean view, which the teacher sees, then perturbed crops for the student.

    Args:
      size: of the clean view, pixels: the centred square of the image, mirrored or not.
      crop_size: of the large crops, pixels.
      local_size: of the small crops, pixels.
      crop_count: number of large crops.
      local_count: number of small crops.
      crop_area: share of the image that a large crop covers.
      local_area: share of the image that a small crop covers.
      jitter: fields of the crops' jitter; those that it does not name are as in MoCo v2. ``None``: no jitter.
      grayscale_prob: probability in the crops.
      blur_prob: probability in the large crops.
      local_blur_prob: probability in the small crops.
      **overrides: other fields of every `View`, as in `simclr`.

    Returns:
      1 + ``crop_count`` + ``local_count`` views, the clean one first.

    Raises:
      ValueError: a field that does not exist, or a value out of range.

    Example:
      >>> [(view.size, view.grayscale_prob) for view in obow(local_count=1)]
      [(224, 0.0), (160, 0.2), (160, 0.2), (96, 0.2)]

    Reference: Gidaris et al. 2021, section 3; valeoai/obow. Deviations: there the small crops are cut from the cells of a 3 x 3
    grid over one crop of .6 to 1 of the image, here each by itself, of the same area; the clean view there
    shows 7/8 of the square's side.
    """
    check.require(
        "area" not in overrides, "obow.area", overrides.get("area"), "crop_area and local_area in its place"
    )
    (crop, _) = moco_v2(
        crop_size,
        area=crop_area,
        jitter=jitter,
        grayscale_prob=grayscale_prob,
        blur_prob=blur_prob,
        **overrides,
    )
    local = dataclasses.replace(crop, size=local_size, area=local_area, blur_prob=local_blur_prob)
    clean = dataclasses.replace(
        crop, size=size, area=(1.0, 1.0), ratio=(1.0, 1.0), jitter=None, grayscale_prob=0.0, blur_prob=0.0
    )
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
    """The views of a preset by its name.

    Args:
      preset: ``simclr``, ``moco_v1``, ``moco_v2``, ``byol``, ``dino``, ``mae``, ``npid``, ``msf``,
        ``obow``, ``wmse`` or ``consistency``.
      **options: of the preset, ``size`` among them, or fields of `View`.

    Returns:
      Its views.

    Raises:
      ValueError: an unknown preset or option, with the nearest right one.

    Example:
      >>> build("simclr", size=32) == simclr(32)
      True
    """
    function = PRESETS[check.choice("preset", preset, PRESETS)]
    allowed = {*check.options_of(function), *FIELDS}
    for name in options:
        if name not in allowed:
            raise ValueError(f"{preset}.{name} is not an option: {check.did_you_mean(name, allowed)}")
    return function(**options)
