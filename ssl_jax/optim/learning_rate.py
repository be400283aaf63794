"""The learning rate of every step, from numbers: scaled by the batch, warmed up to a peak, brought down again."""

import dataclasses
import math

from ssl_jax.core import check
from ssl_jax.core.types import Array, Schedule
from ssl_jax.ops import schedules

KINDS = ("cosine", "constant", "step", "ramps")
SCALINGS = ("linear", "sqrt", "none")


def scale_by_batch(
    learning_rate: float | Array, batch_size: int, *, scaling: str = "linear", reference_batch: int = 256
) -> float | Array:
    """Multiply a base learning rate by what the size of the batch asks for.

    Args:
      learning_rate: base learning rate, meant for ``reference_batch``. May be traced.
      batch_size: B, images an update (not views), all devices and accumulated micro-batches together.
      scaling: ``linear``: ``B / reference_batch``; ``sqrt``: ``√(B / reference_batch)``; ``none``: 1.
        SimCLR's ``.075·√B`` is sqrt with reference 1, DINOv2's ``√(B/1024)`` is sqrt with reference 1024.
      reference_batch: batch size for which the base learning rate is meant.

    Raises:
      ValueError: an unknown scaling, or a batch size below 1.

    >>> scale_by_batch(0.25, 1024, scaling="sqrt")
    0.5

    Reference: Goyal et al., Accurate, Large Minibatch SGD (2017), section 2.1 (linear);
    Krizhevsky, One weird trick (2014) (square root).
    """
    check.choice("scaling", scaling, SCALINGS)
    check.require(batch_size >= 1, "batch_size", batch_size, "an integer of 1 or more")
    check.require(reference_batch >= 1, "reference_batch", reference_batch, "an integer of 1 or more")
    ratio = batch_size / reference_batch
    return learning_rate * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[scaling]


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """A learning rate that is a function of the step: a warm-up to the peak, then what ``kind`` says.

    Args:
      peak: largest learning rate, reached at the end of the warm-up. Rates and factors may be traced.
      steps: number of updates of the run; the schedule ends there and keeps its last value.
      kind: course after the warm-up: ``cosine`` to ``end`` at step ``steps``; ``constant``; ``step``: times ``factor`` from
        each of ``boundaries`` on; ``ramps``: the warm-up is half a bell instead of a line, and so is the end
        (:func:`ssl_jax.ops.schedules.rampup`, :func:`ssl_jax.ops.schedules.rampdown`).
      warmup_steps: length w of the linear warm-up, ``t/w`` of the way from ``start``: the first update has exactly the
        start, update w exactly the peak.
      start: learning rate of step 0 where there is a warm-up.
      end: learning rate at step ``steps`` of the cosine.
      boundaries: steps at which ``step`` drops, counted from the start of the run.
      factor: change at each drop.
      rampdown_steps: length of the last part of ``ramps``, in which it falls.
      steps_per_epoch: length of an epoch; if given, the rate keeps the value of the epoch's first step (SimSiam, MoCo).

    Raises:
      ValueError: an unknown kind, or a number of steps outside its range.

    >>> rate = LearningRate(0.5, 10, warmup_steps=2)
    >>> [round(float(rate(step)), 6) for step in (0, 1, 2, 10)]
    [0.0, 0.25, 0.5, 0.0]
    >>> float(rate.without_decay()(10))
    0.5

    Reference: Goyal et al., Accurate, Large Minibatch SGD (2017), section 2.2 (warm-up). Deviation: the warm-up starts at
    ``start``, as SSL codes do.
    """

    peak: float | Array
    steps: int
    kind: str = "cosine"
    warmup_steps: int = 0
    start: float | Array = 0.0
    end: float | Array = 0.0
    boundaries: tuple[int, ...] = ()
    factor: float | Array = 0.1
    rampdown_steps: int = 0
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        check.choice("schedule", self.kind, KINDS)
        for name, value in (("peak", self.peak), ("start", self.start), ("end", self.end)):
            check.not_negative(name, value)
        check.require(self.steps >= 1, "steps", self.steps, "an integer of 1 or more")
        allowed = f"an integer in [0, steps={self.steps}]"
        check.require(0 <= self.warmup_steps <= self.steps, "warmup_steps", self.warmup_steps, allowed)
        if self.kind == "step":
            allowed = f"one or more steps from the end of the warm-up on, {self.warmup_steps}"
            reached = bool(self.boundaries) and min(self.boundaries) >= self.warmup_steps
            check.require(reached, "boundaries", self.boundaries, allowed)
        if self.kind == "ramps":
            left = self.steps - self.warmup_steps
            allowed = f"0 to {left}, what the warm-up leaves"
            check.require(0 <= self.rampdown_steps <= left, "rampdown_steps", self.rampdown_steps, allowed)

    def __call__(self, step: int | Array) -> Array:
        """Return the learning rate of a step, 0-based."""
        return self._by_epoch(self._ramps() if self.kind == "ramps" else self._warm_up(self._decay()))(step)

    def without_decay(self) -> Schedule:
        """Return the schedule that stays at the peak after the warm-up, whatever ``kind`` is."""
        return self._by_epoch(self._warm_up(schedules.constant(self.peak)))

    def _decay(self) -> Schedule:
        if self.kind == "cosine":
            return schedules.cosine(self.peak, self.end, max(self.steps - self.warmup_steps, 1))
        if self.kind == "constant":
            return schedules.constant(self.peak)
        boundaries = tuple(step - self.warmup_steps for step in self.boundaries)
        return schedules.step_decay(self.peak, boundaries, self.factor)

    def _warm_up(self, schedule: Schedule) -> Schedule:
        return schedules.warmup_then(schedule, warmup=self.warmup_steps, start=self.start)

    def _ramps(self) -> Schedule:
        up = schedules.rampup(self.peak, self.warmup_steps)
        if not self.rampdown_steps:
            return lambda step: up(step) * schedules.constant(1.0)(step)
        down = schedules.rampdown(1.0, self.steps, steps=self.rampdown_steps)
        return lambda step: up(step) * down(step)

    def _by_epoch(self, schedule: Schedule) -> Schedule:
        return (
            schedule if self.steps_per_epoch is None else schedules.per_epoch(schedule, self.steps_per_epoch)
        )
