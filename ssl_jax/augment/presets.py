"""Views of published recipes; the sources of the numbers are named with each."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ssl_jax.augment.views import Jitter, View
from ssl_jax.core import check

Pair = tuple[float, float]
FIELDS = tuple(field.name for field in dataclasses.fields(View))


def _override(view: View, where: str, overrides: Mapping[str, Any]) -> View:
    """A view with some fields replaced; a mapping for ``jitter`` replaces some fields of the jitter."""
    for name in overrides:
        if name not in FIELDS:
            raise ValueError(f"{where}.{name} is not an option: {check.did_you_mean(name, FIELDS)}")
    changes = dict(overrides)
    jitter = changes.get("jitter")
    if isinstance(jitter, Mapping):
        changes["jitter"] = check.call(
            lambda **kw: dataclasses.replace(view.jitter or Jitter(), **kw),
            where=f"{where}.jitter",
            options=jitter,
        )
    return dataclasses.replace(view, **changes)


def simclr(
    size: int = 224, *, strength: float = 1.0, blur: float = 0.5, **overrides: Any
) -> tuple[View, ...]:
    """SimCLR: two views of one distribution."""
    jitter = Jitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    view = _override(View(size=size, jitter=jitter, blur=blur), "simclr", overrides)
    return (view, view)


def moco_v2(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """MoCo v2 and SimSiam: two views of one distribution."""
    view = _override(
        View(size=size, area=(0.2, 1.0), jitter=Jitter(0.4, 0.4, 0.4, 0.1)), "moco_v2", overrides
    )
    return (view, view)


def byol(
    size: int = 224, *, blur: Pair = (1.0, 0.1), solarize: Pair = (0.0, 0.2), **overrides: Any
) -> tuple[View, ...]:
    """BYOL, Barlow Twins, VICReg, MoCo v3: two views that differ in blur and solarization."""
    base = _override(View(size=size, jitter=Jitter(0.4, 0.4, 0.2, 0.1)), "byol", overrides)
    return tuple(dataclasses.replace(base, blur=b, solarize=s) for b, s in zip(blur, solarize, strict=True))


def dino(
    size: int = 224,
    local_size: int = 96,
    *,
    local_count: int = 8,
    global_area: Pair = (0.4, 1.0),
    local_area: Pair = (0.05, 0.4),
    local_blur: float = 0.5,
    blur: Pair = (1.0, 0.1),
    solarize: Pair = (0.0, 0.2),
    **overrides: Any,
) -> tuple[View, ...]:
    """DINO's multi-crop: BYOL's two views for the global crops, then local crops."""
    two = byol(size, blur=blur, solarize=solarize, **{"area": global_area, **overrides})
    local = dataclasses.replace(two[0], size=local_size, area=local_area, blur=local_blur, solarize=0.0)
    return two + (local,) * local_count


def mae(size: int = 224, **overrides: Any) -> tuple[View, ...]:
    """MAE: one view, crop and flip only."""
    view = View(size=size, area=(0.2, 1.0), jitter=None, gray=0.0, blur=0.0)
    return (_override(view, "mae", overrides),)


PRESETS = {"simclr": simclr, "moco_v2": moco_v2, "byol": byol, "dino": dino, "mae": mae}


def build(preset: str, **options: Any) -> tuple[View, ...]:
    """The views of a preset by its name."""
    check.choice("preset", preset, PRESETS)
    return PRESETS[preset](**options)
