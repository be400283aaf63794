"""One optimizer from numbers: rule, learning-rate scaling and schedule, decay, clipping, freezing."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax import schedules
from ssl_jax.core import check
from ssl_jax.core.types import Array, Params, PyTree, Schedule
from ssl_jax.optim import clip, layerwise, masks, rules
from ssl_jax.optim.lars import lars

RULES: dict[str, Callable[..., rules.Rule]] = {
    "adam": rules.adam,
    "adamw": rules.adamw,
    "lars": lars,
    "sgd": rules.sgd,
}


class Optimizer(NamedTuple):
    """An optimizer in optax's form, with its schedules in the open.

    Attributes:
      init: ``params -> state``.
      update: ``(gradients, state, params) -> (updates, state)``; ``optax.apply_updates`` adds the updates.
      learning_rate: step -> learning rate that the update of that step uses (0-based), before layer decay.
      weight_decay: step -> weight decay that the update of that step uses.
    """

    init: Callable[[Params], "OptimizerState"]
    update: Callable[..., tuple[Params, "OptimizerState"]]
    learning_rate: Schedule
    weight_decay: Schedule


class OptimizerState(NamedTuple):
    """``count``: int32 scalar, updates so far; ``rule``: the moments, in the form of optax."""

    count: Array  # type: ignore[assignment]  # the name that optax uses; hides tuple.count
    rule: PyTree


def build(
    name: str = "adamw",
    *,
    steps: int,
    learning_rate: float | Array,
    batch_size: int,
    scaling: str = "linear",
    reference_batch: int = 256,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    start_learning_rate: float | Array = 0.0,
    end_learning_rate: float | Array = 0.0,
    boundaries: Sequence[int] = (),
    factor: float | Array = 0.1,
    steps_per_epoch: int | None = None,
    weight_decay: float | Array = 0.0,
    weight_decay_end: float | Array | None = None,
    exclude: masks.Exclude = "bias_and_norm",
    clip_norm: float | Array | None = None,
    clip_tensor: float | Array | None = None,
    layer_decay: float | Array | None = None,
    freeze: Sequence[tuple[str, int]] = (),
    undecayed: Sequence[str] = (),
    unit_rows: Sequence[str] = (),
    **options: Any,
) -> Optimizer:
    """An optimizer from numbers, usable as an ``optax.GradientTransformation``.

    Each update, at step t = 0, 1, ...: gradients of frozen parameters become 0; clipping, tensor by tensor
    and then globally; the rule with ``learning_rate(t)`` and ``weight_decay(t)``; layer decay; unit rows; updates of
    frozen parameters, decay included, become exactly 0. The rule's moments of a frozen parameter stand still,
    as with torch's ``grad = None``.

    Args:
      name: ``lars``, ``adamw`` (decoupled decay), ``adam`` (L2 decay) or ``sgd`` (L2 decay).
      steps: number of updates of the run; schedules end there and hold their last value.
      learning_rate: base learning rate, multiplied by the factor of ``scaling``. Float options may be traced.
      batch_size: images an update (not views), all devices and accumulated micro-batches together.
      scaling: ``linear``: ``B / reference_batch``; ``sqrt``: ``√(B / reference_batch)``; ``none``: 1.
        SimCLR's ``.075·√B`` is sqrt with reference 1, DINOv2's ``√(B/1024)`` is sqrt with reference 1024.
      reference_batch: batch size for which the base learning rate is meant.
      schedule: of the learning rate after the warm-up: ``cosine`` to ``end_learning_rate`` at step ``steps``,
        ``constant``, or ``step``: times ``factor`` from each of ``boundaries`` on.
      warmup_steps: length w of the linear warm-up, ``t/w`` of the way from ``start_learning_rate``: the first
        update has exactly the start, update w exactly the peak.
      start_learning_rate: learning rate of step 0 where there is a warm-up; absolute, not scaled.
      end_learning_rate: learning rate at step ``steps`` of the cosine; absolute, not scaled.
      boundaries: steps at which ``schedule="step"`` drops; counted from the start of the run.
      factor: of each drop.
      steps_per_epoch: if given, the learning rate holds the value of the epoch's first step (SimSiam, MoCo).
      weight_decay: coefficient.
      weight_decay_end: if given, the decay goes there on a cosine over ``steps`` (DINO: .04 to .4).
      exclude: which parameters get neither decay nor LARS's adaptation; see ``masks.is_excluded``.
      clip_norm: largest joint norm of the gradients; ``None``: no limit.
      clip_tensor: largest norm of each gradient tensor (DINO: 3.0); ``None``: no limit.
      layer_decay: factor of the learning rate a transformer layer, see ``layerwise.scales``; ``None``: none.
      freeze: pairs (regular expression on the path, step from which it moves or -1 for ever).
      undecayed: regular expressions on the path; parameters where one is found keep the peak learning rate after the warm-up,
        whatever ``schedule`` does (SimSiam's predictor).
      unit_rows: regular expressions on the path; parameters where one is found are normalised in place after each update, along
        the last axis (SwAV's prototypes, before the next forward pass). Their gradients are those of plain parameters.
      **options: of the rule: ``momentum``, ``nesterov`` (sgd, lars); ``trust_coefficient``, ``trust_norm``,
        ``learning_rate_in_buffer`` (lars); ``b1``, ``b2``, ``epsilon`` (adam, adamw).

    Returns:
      ``Optimizer(init, update, learning_rate, weight_decay)``.

    Raises:
      ValueError: an unknown name or option, a count below what is allowed, a ``freeze``, ``undecayed`` or ``unit_rows``
      that matches nothing (at init; ``unit_rows`` at the first update).

    >>> import jax.numpy as jnp
    >>> optimizer = build("sgd", steps=10, learning_rate=0.1, batch_size=512, warmup_steps=2)
    >>> [round(float(optimizer.learning_rate(t)), 6) for t in (0, 1, 2, 10)]
    [0.0, 0.1, 0.2, 0.0]
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> int(state.count)
    1

    Reference: Goyal et al., Accurate, Large Minibatch SGD (2017), section 2.1 (linear scaling, warm-up);
    Krizhevsky, One weird trick (2014) (square root). Deviation from Goyal: the warm-up starts at
    ``start_learning_rate``, as SSL codes do.
    """
    check.require(steps >= 1, "steps", steps, "an integer of 1 or more")
    check.require(
        0 <= warmup_steps <= steps, "warmup_steps", warmup_steps, f"an integer in [0, steps={steps}]"
    )
    peak = learning_rate * _scale(scaling, batch_size, reference_batch)
    rate = _after_warmup(
        schedule, peak, steps - warmup_steps, end_learning_rate, boundaries, factor, warmup_steps
    )
    rate, held = (
        schedules.warmup_then(after, warmup=warmup_steps, start=start_learning_rate)
        for after in (rate, schedules.constant(peak))
    )
    decay = schedules.constant(weight_decay)
    if weight_decay_end is not None:
        decay = schedules.cosine(weight_decay, weight_decay_end, steps)
    if steps_per_epoch is not None:
        rate, held = (schedules.per_epoch(each, steps_per_epoch) for each in (rate, held))
    return scheduled(
        _rule(name, exclude, options),
        learning_rate=rate,
        weight_decay=decay,
        clip_norm=clip_norm,
        clip_tensor=clip_tensor,
        layer_decay=layer_decay,
        freeze=freeze,
        undecayed=undecayed,
        undecayed_rate=held,
        unit_rows=unit_rows,
    )


def scheduled(
    rule: rules.Rule,
    *,
    learning_rate: Schedule,
    weight_decay: Schedule,
    clip_norm: float | Array | None = None,
    clip_tensor: float | Array | None = None,
    layer_decay: float | Array | None = None,
    freeze: Sequence[tuple[str, int]] = (),
    undecayed: Sequence[str] = (),
    undecayed_rate: Schedule | None = None,
    unit_rows: Sequence[str] = (),
) -> Optimizer:
    """An optimizer from a rule and two schedules; ``build`` explains the options.

    The parameters that ``undecayed`` finds take their learning rate from ``undecayed_rate``.

    Raises:
      ValueError: ``undecayed`` without a rate.

    >>> from ssl_jax import schedules
    >>> rate, decay = schedules.constant(0.1), schedules.constant(0.0)
    >>> optimizer = scheduled(rules.sgd(), learning_rate=rate, weight_decay=decay)
    >>> int(optimizer.init({}).count)
    0
    """

    known = not undecayed or undecayed_rate is not None
    check.require(known, "undecayed_rate", undecayed_rate, "a schedule, as undecayed is given")
    held_rate = learning_rate if undecayed_rate is None else undecayed_rate

    def rule_for(params: Params) -> tuple[rules.Rule, PyTree]:
        until = masks.frozen_until(params, freeze=freeze)
        held = masks.undecayed(params, patterns=undecayed)
        # A label a kind: optax keys the states by label, and a checkpoint wants strings.
        labels = jax.tree.map(_label, until, held)
        kinds = set(zip(*map(jax.tree.leaves, (labels, until, held)), strict=True))
        if {label for label, _, _ in kinds} <= {"from_0"}:
            return rule, until
        groups = {"from_0": rule}
        for label, step, keeps in kinds:
            own = rules.with_rate(rule, held_rate) if keeps else rule
            groups[label] = masks.hold(own, step) if step else own
        return optax.partition(groups, labels), until

    def init(params: Params) -> OptimizerState:
        return OptimizerState(jnp.zeros((), jnp.int32), rule_for(params)[0].init(params))

    def update(gradients: Params, state: OptimizerState, params: Params | None = None):
        check.require(
            params is not None, "params", params, "the parameters: decay and trust ratios need them"
        )
        grouped, until = rule_for(params)  # type: ignore[arg-type]
        gradients = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, params)
        gradients = masks.where_moving(gradients, until, state.count)
        gradients = gradients if clip_tensor is None else clip.clip_each(gradients, norm=clip_tensor)
        gradients = gradients if clip_norm is None else clip.clip_global(gradients, norm=clip_norm)
        now = {"learning_rate": learning_rate(state.count), "weight_decay": weight_decay(state.count)}
        updates, rule_state = grouped.update(gradients, state.rule, params, count=state.count, **now)
        if layer_decay is not None:
            updates = jax.tree.map(jnp.multiply, updates, layerwise.scales(params, decay=layer_decay))
        updates = masks.to_unit_rows(updates, params, patterns=unit_rows)
        updates = masks.where_moving(updates, until, state.count)
        updates = jax.tree.map(lambda u, p: u.astype(p.dtype), updates, params)
        return updates, OptimizerState(state.count + 1, rule_state)

    return Optimizer(init, update, learning_rate, weight_decay)


def _label(until: int, undecayed: bool) -> str:
    """Name of the group of parameters that thaw at one step and have one learning rate."""
    return ("never" if until == masks.FOR_EVER else f"from_{until}") + ("_undecayed" if undecayed else "")


def _scale(scaling: str, batch_size: int, reference_batch: int) -> float:
    check.choice("scaling", scaling, ("linear", "sqrt", "none"))
    check.require(batch_size >= 1, "batch_size", batch_size, "an integer of 1 or more")
    check.require(reference_batch >= 1, "reference_batch", reference_batch, "an integer of 1 or more")
    ratio = batch_size / reference_batch
    return {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[scaling]


def _after_warmup(schedule, peak, steps, end, boundaries, factor, warmup) -> Schedule:
    check.choice("schedule", schedule, ("cosine", "constant", "step"))
    if schedule == "cosine":
        return schedules.cosine(peak, end, max(steps, 1))
    if schedule == "constant":
        return schedules.constant(peak)
    drops = tuple(b - warmup for b in boundaries)
    allowed = f"one or more steps from the end of the warm-up on, {warmup}"
    check.require(bool(drops) and min(drops) >= 0, "boundaries", tuple(boundaries), allowed)
    return schedules.step_decay(peak, drops, factor)


def _rule(name: str, exclude: masks.Exclude, options: dict[str, Any]) -> rules.Rule:
    check.choice("name", name, RULES)
    if isinstance(exclude, str):
        check.choice("exclude", exclude, masks.EXCLUDES)
    return check.call(RULES[name], where=f"optimizer {name}", options={"exclude": exclude, **options})
