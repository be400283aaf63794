"""Schedules: functions from the step to a value, for learning rates, decays, temperatures and momenta.

A step counts from 0, may be traced and may be an array. Every value is float32. Values of the schedule may be
traced, numbers of steps are Python integers. After its last step a schedule keeps its last value. A schedule
that changes reaches its end *at* step ``steps``, so the last update of a run of ``steps`` steps, at ``steps −
1``, is just short of it.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import ScalarLike

from ssl_jax.core import check
from ssl_jax.core.types import Array, Schedule


def constant(value: ScalarLike) -> Schedule:
    """Return the same value at every step.

    >>> float(constant(0.5)(10))
    0.5
    """
    return lambda step: jnp.broadcast_to(jnp.asarray(value, jnp.float32), jnp.shape(step))


def as_schedule(value: ScalarLike | Schedule) -> Schedule:
    """Turn a number into a constant schedule; leave a schedule as it is.

    >>> float(as_schedule(0.5)(10))
    0.5
    """
    return value if callable(value) else constant(value)


def linear(start: ScalarLike, end: ScalarLike, steps: int) -> Schedule:
    """Go from ``start`` to ``end`` on a line: ``start + (end − start) k / steps``.

    Args:
      start: value at step 0.
      end: value at step ``steps`` and after.
      steps: 1 or more.

    Raises:
      ValueError: fewer than 1 step.

    Example:
      >>> float(linear(1.0, 3.0, 4)(1))
      1.5
    """
    check.require(steps >= 1, "steps", steps, "an integer of 1 or more")
    return lambda step: _mix(start, end, _fraction(step, steps))


def cosine(start: ScalarLike, end: ScalarLike, steps: int) -> Schedule:
    """Go from ``start`` to ``end`` on half a cosine: ``end + (start − end) (1 + cos(π k / steps)) / 2``.

    Falling it is the decay of a learning rate; rising from m₀ to 1 it is BYOL's momentum
    ``1 − (1 − m₀) (1 + cos(π k / steps)) / 2``.

    Args:
      start: value at step 0.
      end: value at step ``steps`` and after.
      steps: 1 or more.

    Raises:
      ValueError: fewer than 1 step.

    Example:
      >>> schedule = cosine(1.0, 0.0, 10)
      >>> [round(float(schedule(k)), 4) for k in (0, 5, 10, 11)]
      [1.0, 0.5, 0.0, 0.0]

    References: Loshchilov & Hutter, "SGDR", ICLR 2017, eq. 5; Grill et al., "Bootstrap Your Own Latent",
    2020, section 3.2.
    """
    check.require(steps >= 1, "steps", steps, "an integer of 1 or more")
    return lambda step: _mix(start, end, 0.5 - 0.5 * jnp.cos(jnp.pi * _fraction(step, steps)))


def warmup_then(schedule: Schedule, *, warmup: int, start: ScalarLike = 0.0) -> Schedule:
    """Go on a line from ``start`` to the schedule's first value, then follow the schedule, which counts from there.

    At step k < ``warmup`` the value is ``start + (schedule(0) − start) k / warmup``, later ``schedule(k −
    warmup)``.

    Args:
      schedule: schedule after the warm-up.
      warmup: steps of warm-up; 0 for none.
      start: value at step 0.

    Raises:
      ValueError: a negative warm-up.

    Example:
      >>> schedule = warmup_then(constant(1.0), warmup=4)
      >>> [float(schedule(k)) for k in (0, 1, 4, 9)]
      [0.0, 0.25, 1.0, 1.0]

    Deviations: lightly starts at 1/warmup, DINO spreads the line over one step less; this is the form of MAE,
    MoCo v3, Barlow Twins and VICReg.
    """
    check.require(warmup >= 0, "warmup", warmup, "an integer of 0 or more")
    if warmup == 0:
        return schedule

    def value(step: Any) -> Array:
        rising = _mix(start, schedule(jnp.zeros_like(jnp.asarray(step))), _fraction(step, warmup))
        return jnp.where(jnp.asarray(step) < warmup, rising, schedule(jnp.maximum(step - warmup, 0)))

    return value


def warmup_cosine(
    peak: ScalarLike, steps: int, *, warmup: int, start: ScalarLike = 0.0, end: ScalarLike = 0.0
) -> Schedule:
    """Warm up on a line from ``start`` to ``peak``, then follow half a cosine down to ``end`` at step ``steps``.

    Args:
      peak: value at step ``warmup``.
      steps: length of the whole, warm-up included.
      warmup: steps of warm-up, less than ``steps``; 0 for none.
      start: value at step 0.
      end: value at step ``steps`` and after.

    Raises:
      ValueError: a warm-up that is negative or leaves no step for the cosine.

    Example:
      >>> schedule = warmup_cosine(1.0, 12, warmup=2)
      >>> [round(float(schedule(k)), 4) for k in (0, 1, 2, 7, 12)]
      [0.0, 0.5, 1.0, 0.5, 0.0]

    Reference: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2 (warm-up), with
    :func:`cosine`.
    """
    check.require(0 <= warmup < steps, "warmup", warmup, f"an integer from 0 to steps - 1 = {steps - 1}")
    return warmup_then(cosine(peak, end, steps - warmup), warmup=warmup, start=start)


def step_decay(value: ScalarLike, boundaries: tuple[int, ...], factor: ScalarLike) -> Schedule:
    """Multiply ``value`` by ``factor`` for every boundary reached: ``value · factor^#{b : b ≤ step}``.

    Args:
      value: value at step 0.
      boundaries: steps from which on one more factor applies.
      factor: change at each boundary, such as 0.1.

    Example:
      >>> schedule = step_decay(1.0, (10, 20), 0.5)
      >>> [float(schedule(k)) for k in (9, 10, 20)]
      [1.0, 0.5, 0.25]

    Reference: He et al., "Momentum Contrast", CVPR 2020, section 4.1 (0.1 at epochs 120 and 160 of 200).
    """
    known = all(b >= 0 for b in boundaries)
    check.require(known, "boundaries", boundaries, "steps of 0 or more")
    check.positive("factor", factor)

    def decayed(step: Any) -> Array:
        reached = sum((jnp.asarray(step) >= b).astype(jnp.float32) for b in boundaries)
        return constant(value)(step) * jnp.asarray(factor, jnp.float32) ** reached

    return decayed


def rampup(value: ScalarLike, steps: int, *, quiet: int = 0) -> Schedule:
    """Go up half a bell from nearly nothing to ``value``: ``value · exp(−5 (1 − k / steps)²)``; 0 before step ``quiet``.

    Args:
      value: value at step ``steps`` and after; at step 0 it is ``e⁻⁵ = 0.0067`` of that.
      steps: length; 0: the value from the start.
      quiet: steps at the start at which it is 0, such as those of the first epoch.

    Raises:
      ValueError: a negative number of steps.

    Example:
      >>> schedule = rampup(2.0, 10, quiet=1)
      >>> [round(float(schedule(k)), 4) for k in (0, 1, 5, 10, 11)]
      [0.0, 0.0348, 0.573, 2.0, 2.0]

    Reference: Laine & Aila, "Temporal Ensembling", ICLR 2017, section 3 and appendix A; the authors' code counts in epochs.
    """
    check.require(steps >= 0, "steps", steps, "an integer of 0 or more")
    check.require(quiet >= 0, "quiet", quiet, "an integer of 0 or more")

    def risen(step: Any) -> Array:
        left = 1.0 - _fraction(step, steps) if steps else jnp.zeros(jnp.shape(step))
        bell = constant(value)(step) * jnp.exp(-5.0 * left * left)
        return jnp.where(jnp.asarray(step) < quiet, 0.0, bell)

    return risen


def rampdown(value: ScalarLike, total_steps: int, *, steps: int) -> Schedule:
    """Go down half a bell at the end: ``value · exp(−12.5 (s / steps)²)``, s steps into the last ``steps``.

    Args:
      value: value before the end; at step ``total_steps`` it is ``e^−12.5``, 4e-6, of that.
      total_steps: length of the whole.
      steps: length of the half bell, 1 to ``total_steps``.

    Raises:
      ValueError: ``steps`` outside its range.

    Example:
      >>> schedule = rampdown(1.0, 10, steps=4)
      >>> [round(float(schedule(k)), 4) for k in (0, 6, 8, 10)]
      [1.0, 1.0, 0.0439, 0.0]

    Reference: Laine & Aila, "Temporal Ensembling", ICLR 2017, appendix A: the learning rate in the last 50 of 300 epochs.
    """
    check.require(1 <= steps <= total_steps, "steps", steps, f"an integer from 1 to {total_steps}")

    def falling(step: Any) -> Array:
        fraction = _fraction(jnp.asarray(step) - (total_steps - steps), steps)
        return constant(value)(step) * jnp.exp(-12.5 * fraction * fraction)

    return falling


def increasing_decay(decay: ScalarLike) -> Schedule:
    """Let the decay of an average rise, which begins as the plain mean: ``min(1 − 1 / (k + 2), decay)``.

    While the first is the smaller, after update k the average is the mean of its start and everything that came.

    Args:
      decay: largest value, 0 to 1.

    Example:
      >>> [round(float(increasing_decay(0.7)(k)), 4) for k in (0, 1, 2)]
      [0.5, 0.6667, 0.7]

    Reference: Tarvainen & Valpola, "Mean teachers", NeurIPS 2017, the authors' code: ``min(1 − 1 / (t + 1), α)``, t from 1.
    """
    check.share("decay", decay)
    return lambda step: jnp.minimum(1.0 - 1.0 / (jnp.asarray(step, jnp.float32) + 2.0), constant(decay)(step))


def stage(ends: tuple[int, ...]) -> Schedule:
    """Count the ends that have been reached: the number of the stage of training, from 0.

    Args:
      ends: steps from which on the next stage runs, rising.

    Returns:
      Step -> int32, from 0 to ``len(ends)``.

    Raises:
      ValueError: ends that do not rise, or one below 0.

    Example:
      >>> [int(stage((2, 5))(k)) for k in (0, 1, 2, 4, 5, 9)]
      [0, 0, 1, 1, 2, 2]
    """
    rising = all(a <= b for a, b in zip((0, *ends), ends, strict=False))
    check.require(rising, "ends", ends, "steps of 0 or more that do not fall")
    return lambda step: sum((jnp.asarray(step) >= end).astype(jnp.int32) for end in ends) + jnp.int32(0)


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """Hold the value of an epoch's first step for the whole epoch.

    Args:
      schedule: function of the step.
      steps_per_epoch: 1 or more.

    Raises:
      ValueError: fewer than 1 step an epoch.

    Example:
      >>> schedule = per_epoch(linear(0.0, 1.0, 10), 5)
      >>> [float(schedule(k)) for k in (0, 4, 5)]
      [0.0, 0.0, 0.5]

    Reference: the authors' code of SimSiam and MoCo v2 steps its cosine by the epoch.
    """
    check.require(steps_per_epoch >= 1, "steps_per_epoch", steps_per_epoch, "an integer of 1 or more")
    return lambda step: schedule(step // steps_per_epoch * steps_per_epoch)


def _fraction(step: Any, steps: int) -> Array:
    return jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)


def _mix(start: ScalarLike, end: ScalarLike | Array, fraction: Array) -> Array:
    # Two products instead of start + (end − start) · fraction: both ends come out exact.
    return (1.0 - fraction) * jnp.asarray(start, jnp.float32) + fraction * jnp.asarray(end, jnp.float32)
