"""Health of the features: all label-free measures of a batch at once, and a diagnosis in plain words."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.augment.views import View, make_views
from ssl_jax.core import check
from ssl_jax.core.numerics import center
from ssl_jax.core.types import Array
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source, take_evenly
from ssl_jax.evaluate import spectrum
from ssl_jax.evaluate.measure import Measure, Row, Subject
from ssl_jax.methods.method import CollapseValue

AnyArray = Array | np.ndarray
Records = Sequence[Mapping[str, int | float | None]]
IMAGES = 1024
"""Test images at most of which the measure ``health`` is taken."""


def measure_health(features: Float[AnyArray, "n q d"]) -> dict[str, Float[Array, ""]]:
    """Compute every label-free measure of the features of n images in q views each.

    Args:
      features: features of two images and two views or more, any float type.

    Returns:
      ``feature_std`` and ``spread`` (that std times √d: 1 where directions are even, 0 where they are one),
      ``rankme``, ``effective_rank`` (of the features minus their mean, so that a common offset does not hide
      or feign rank), ``alpha``, ``lidar``, ``alignment`` of the first two views and ``uniformity``; see
      :mod:`ssl_jax.evaluate.spectrum`. All but LiDAR and alignment are of the first views.

    Raises:
      ValueError: fewer than two images or views.

    >>> same = np.ones((4, 2, 3), np.float32)
    >>> health = measure_health(same)
    >>> float(health["spread"]), float(health["alignment"])
    (0.0, 0.0)
    """
    n, views, dim = features.shape
    check.require(n >= 2 and views >= 2, "features.shape", features.shape, "two images and two views or more")
    first, second = features[:, 0], features[:, 1]
    std = spectrum.feature_std(first)
    return {
        "feature_std": std,
        "spread": std * jnp.sqrt(1.0 * dim),
        "rankme": spectrum.rankme(first),
        "effective_rank": spectrum.effective_rank(center(jnp.asarray(first))),
        "alpha": spectrum.alpha_req(first),
        "lidar": spectrum.lidar(features),
        "alignment": spectrum.alignment(first, second),
        "uniformity": spectrum.uniformity(first),
    }


def draw_two_views(
    source: Source, view: View, *, images: int, crop_ratio: float = 1.0
) -> Float[np.ndarray, "2 n s s c"]:
    """Draw two random views of each of some images, always the same: the input for :func:`measure_health`.

    The images are taken at even distances from the source; the key of the draw is fixed.

    Args:
      source: images, of which at most ``images`` are used.
      view: distribution of both views.
      images: number of images, 2 or more.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`; the views are drawn from the image after it.

    Returns:
      float32 views, the view axis first.

    Raises:
      ValueError: fewer than two images.

    >>> from ssl_jax.data.sources import ArraySource
    >>> source = ArraySource(np.zeros((9, 8, 8, 1), np.uint8))
    >>> draw_two_views(source, View(size=4), images=3).shape
    (2, 3, 4, 4, 1)
    """
    check.require(images >= 2, "images", images, "an integer of 2 or more")
    part = take_evenly(source, images)
    with epoch(
        part, batch_size=64, size=view.size, crop_ratio=crop_ratio, max_corrupt_fraction=1.0
    ) as batches:
        raw = np.concatenate([batch["image"][batch["mask"]] for batch in batches])
    # It runs once: on a CPU compiling it without optimisation is the sooner.
    options = {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else None
    views = jax.jit(
        lambda key, image: make_views(key, {"image": image}, (view, view))[0], compiler_options=options
    )
    return np.asarray(views(jax.random.key(0), raw)).swapaxes(0, 1)


def _measure(subject: Subject) -> Row:
    candidate = subject.encoder
    if len(subject.sources[1]) < 2:
        raise ValueError("one test image: the health of features needs two")
    crop_ratio = subject.options.crop_ratio
    views = draw_two_views(
        subject.sources[1], candidate.method.views[0], images=IMAGES, crop_ratio=crop_ratio
    )
    encode = jax.jit(candidate.method.encode)
    features = jnp.stack([encode(candidate.params, candidate.state, view) for view in views], axis=1)
    return {"health": {name: float(value) for name, value in measure_health(features).items()}}


MEASURE = Measure("health", frozenset({"encoder"}), (), _measure)


class Finding(NamedTuple):
    """One thing that is wrong with a run.

    Attributes:
      kind: ``constant``, ``low_rank``, or ``collapse:<metric>`` for a collapse value of the method.
      step: step at which it was first certain.
      message: sentence on what it means and where to look, in plain words.
    """

    kind: str
    step: int
    message: str


def diagnose(
    records: Records,
    *,
    collapse: Sequence[CollapseValue] = (),
    after: int = 0,
    patience: int = 3,
    least_spread: float = 0.01,
    least_rank: float = 2.0,
    tolerance: float = 0.01,
) -> list[Finding]:
    """Find the signs of collapse in the scalars of a run.

    A finding needs ``patience`` records of its metric in a row after step ``after``: at the start features of an untrained
    network may be nearly constant, and many losses begin at their collapse constant.

    Args:
      records: one mapping a log step with ``step`` and scalars, in order, as in ``metrics.jsonl``; ``None`` (not
        finite) is skipped.
      collapse: values of the method at which it has collapsed, each ``at(batch_size)``.
      after: number of steps that are not judged.
      patience: number of records in a row that a finding needs.
      least_spread: share of the spread of even directions below which features count as constant.
      least_rank: effective rank (features minus mean) below which they count as low-rank; features of two
        dimensions never reach more than 2.
      tolerance: distance to a collapse value that counts as at it, as a share of the value, at least of 1.

    Returns:
      Findings in the order of their steps, each kind once.

    Raises:
      ValueError: a patience below 1.

    >>> records = [{"step": s, "health/spread": 0.001} for s in (10, 20, 30)]
    >>> diagnose(records)[0].kind
    'constant'
    """
    check.require(patience >= 1, "patience", patience, "an integer of 1 or more")
    findings = []
    for prefix in ("batch", "health"):
        spread = _streak(records, f"{prefix}/spread", after, patience, lambda v: v < least_spread)
        if spread is not None:
            step, value = spread
            text = (
                f"the features have collapsed to a point: every image gets almost the same vector (spread {value:.2g} of 1 "
                f"at step {step}). Look at the stop-gradient, the predictor or the negatives, and at the learning rate"
            )
            findings.append(Finding("constant", step, text))
        low = _streak(records, f"{prefix}/effective_rank", after, patience, lambda v: v < least_rank)
        if low is not None and spread is None:
            step, value = low
            text = (
                f"the features have collapsed to a line: they vary in {value:.1f} directions only (effective rank at step "
                f"{step}). Look at the augmentations, the projector and the temperature"
            )
            findings.append(Finding("low_rank", step, text))
    for metric, constant, meaning in collapse:
        assert not callable(constant)
        stuck = _streak(records, metric, after, patience, _near(constant, tolerance))
        if stuck is not None:
            step, value = stuck
            text = (
                f"{metric} sits at {value:.4g}, where this method's collapse has it ({constant:.4g}): {meaning} "
                f"(step {step})"
            )
            findings.append(Finding(f"collapse:{metric}", step, text))
    first: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: f.step):
        first.setdefault(finding.kind, finding)
    return list(first.values())


def _near(constant: float, tolerance: float) -> Callable[[float], bool]:
    margin = tolerance * max(abs(constant), 1.0)
    return lambda value: abs(value - constant) <= margin


def _streak(
    records: Records, name: str, after: int, patience: int, holds: Callable[[float], bool]
) -> tuple[int, float] | None:
    """Step and value of the first record that ends a long enough row of records for which ``holds``."""
    row = 0
    for record in records:
        step, value = int(record["step"] or 0), record.get(name)
        if value is None or step <= after or not math.isfinite(value):
            continue
        row = row + 1 if holds(value) else 0
        if row >= patience:
            return step, float(value)
    return None
