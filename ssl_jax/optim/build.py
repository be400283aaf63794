"""One optimizer from numbers: rule, learning-rate scaling and schedule, decay, clipping, freezing."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax.core import check
from ssl_jax.core.types import Array, Params, PyTree, Schedule
from ssl_jax.ops import schedules
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


class ParamGroup(NamedTuple):
    """How some of the parameters move.

    Attributes:
      rule: of the update.
      learning_rate: step -> learning rate.
      weight_decay: step -> weight decay.
      constant_rate: the learning rate of parameters that keep its peak; ``None``: it is not known.
    """

    rule: rules.Rule
    learning_rate: Schedule
    weight_decay: Schedule
    constant_rate: Schedule | None = None


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
    rampdown_steps: int = 0,
    steps_per_epoch: int | None = None,
    weight_decay: float | Array = 0.0,
    weight_decay_end: float | Array | None = None,
    exclude: masks.Exclude = "bias_and_norm",
    clip_norm: float | Array | None = None,
    clip_tensor: float | Array | None = None,
    layer_decay: float | Array | None = None,
    freeze: Sequence[tuple[str, int]] = (),
    constant_lr: Sequence[str] = (),
    normalize_rows: Sequence[str] = (),
    groups: Mapping[str, Mapping[str, Any]] = {},
    skip_zero_grads: Sequence[str] = (),
    **options: Any,
) -> Optimizer:
    """An optimizer from numbers, usable as an ``optax.GradientTransformation``.

    Each update, at step t = 0, 1, ...: gradients of frozen parameters become 0; clipping, tensor by tensor
    and then globally; the rule with ``learning_rate(t)`` and ``weight_decay(t)``, or those of the group; layer decay; unit
    rows; updates of frozen parameters, decay included, become exactly 0. The rule's moments of a frozen parameter stand still,
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
        ``constant``, or ``step``: times ``factor`` from each of ``boundaries`` on; ``ramps``: the warm-up is half a bell
        instead of a line, and so is the end (:func:`ssl_jax.ops.schedules.rampup`, :func:`ssl_jax.ops.schedules.rampdown`).
      warmup_steps: length w of the linear warm-up, ``t/w`` of the way from ``start_learning_rate``: the first
        update has exactly the start, update w exactly the peak.
      start_learning_rate: learning rate of step 0 where there is a warm-up; absolute, not scaled.
      end_learning_rate: learning rate at step ``steps`` of the cosine; absolute, not scaled.
      boundaries: steps at which ``schedule="step"`` drops; counted from the start of the run.
      factor: of each drop.
      rampdown_steps: last steps of ``schedule="ramps"``, in which it falls.
      steps_per_epoch: if given, the learning rate holds the value of the epoch's first step (SimSiam, MoCo).
      weight_decay: coefficient.
      weight_decay_end: if given, the decay goes there on a cosine over ``steps`` (DINO: .04 to .4).
      exclude: which parameters get neither decay nor LARS's adaptation; see ``masks.is_excluded``.
      clip_norm: largest joint norm of the gradients; ``None``: no limit.
      clip_tensor: largest norm of each gradient tensor (DINO: 3.0); ``None``: no limit.
      layer_decay: factor of the learning rate a transformer layer, see ``layerwise.scales``; ``None``: none.
      freeze: pairs (regular expression on the path, step from which it moves or -1 for ever).
      constant_lr: regular expressions on the path; parameters where one is found keep the peak learning rate after the warm-up,
        whatever ``schedule`` does (SimSiam's predictor).
      normalize_rows: regular expressions on the path; parameters where one is found are normalised in place after each update, along
        the last axis (SwAV's prototypes, before the next forward pass). Their gradients are those of plain parameters.
      groups: from a regular expression on the path to options of the parameters where it is found, in place of the options
        above: the rule and its options, ``exclude``, and whatever belongs to learning rate and weight decay
        (``{"discriminator": {"learning_rate": 1e-4, "b1": 0.5}}``). Another rule has its own defaults. Clipping, layer decay
        and freezing are of all parameters together.
      skip_zero_grads: regular expressions on the path; parameters in whose paths the same text is found stand still, with their moments,
        in each step in which the gradients of all of them are exactly 0, as with torch's ``grad = None``: neither decay nor
        momentum moves what a method trains in stages.
      **options: of the rule: ``momentum``, ``nesterov`` (sgd, lars); ``trust_coefficient``, ``trust_norm``,
        ``learning_rate_in_buffer`` (lars); ``b1``, ``b2``, ``epsilon`` (adam, adamw).

    Returns:
      ``Optimizer(init, update, learning_rate, weight_decay)``.

    Raises:
      ValueError: an unknown name or option, also of a group, a count below what is allowed, a ``freeze``, ``constant_lr``,
      ``skip_zero_grads``, ``normalize_rows`` or group that matches nothing (at init; ``normalize_rows`` at the first update), a parameter of two
      groups.

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
    common: dict[str, Any] = {
        "name": name,
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "scaling": scaling,
        "reference_batch": reference_batch,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "start_learning_rate": start_learning_rate,
        "end_learning_rate": end_learning_rate,
        "boundaries": boundaries,
        "factor": factor,
        "rampdown_steps": rampdown_steps,
        "steps_per_epoch": steps_per_epoch,
        "weight_decay": weight_decay,
        "weight_decay_end": weight_decay_end,
        "exclude": exclude,
    }
    main = _param_group(**common, **options)
    others = {}
    for pattern, own in groups.items():
        inherited = {} if own.get("name", name) != name else options
        rule = RULES[check.choice(f"groups[{pattern!r}].name", own.get("name", name), RULES)]
        known = {*common, *check.options_of(rule)} - {"steps", "batch_size"}
        for option in own:
            if option not in known:
                meant = check.did_you_mean(option, known)
                raise ValueError(f"groups[{pattern!r}].{option} is not an option: {meant}")
        others[pattern] = _param_group(**{**common, **inherited, **own})
    return scheduled(
        main,
        clip_norm=clip_norm,
        clip_tensor=clip_tensor,
        layer_decay=layer_decay,
        freeze=freeze,
        constant_lr=constant_lr,
        normalize_rows=normalize_rows,
        groups=others,
        skip_zero_grads=skip_zero_grads,
    )


def _param_group(
    *,
    name: str,
    steps: int,
    learning_rate: float | Array,
    batch_size: int,
    scaling: str,
    reference_batch: int,
    schedule: str,
    warmup_steps: int,
    start_learning_rate: float | Array,
    end_learning_rate: float | Array,
    boundaries: Sequence[int],
    factor: float | Array,
    rampdown_steps: int,
    steps_per_epoch: int | None,
    weight_decay: float | Array,
    weight_decay_end: float | Array | None,
    exclude: masks.Exclude,
    **options: Any,
) -> ParamGroup:
    check.require(steps >= 1, "steps", steps, "an integer of 1 or more")
    check.require(
        0 <= warmup_steps <= steps, "warmup_steps", warmup_steps, f"an integer in [0, steps={steps}]"
    )
    peak = learning_rate * _scale(scaling, batch_size, reference_batch)
    held = schedules.warmup_then(schedules.constant(peak), warmup=warmup_steps, start=start_learning_rate)
    if schedule == "ramps":
        rate = _ramps(peak, steps, warmup_steps, rampdown_steps)
    else:
        rate = _after_warmup(
            schedule, peak, steps - warmup_steps, end_learning_rate, boundaries, factor, warmup_steps
        )
        rate = schedules.warmup_then(rate, warmup=warmup_steps, start=start_learning_rate)
    decay = schedules.constant(weight_decay)
    if weight_decay_end is not None:
        decay = schedules.cosine(weight_decay, weight_decay_end, steps)
    if steps_per_epoch is not None:
        rate, held = (schedules.per_epoch(each, steps_per_epoch) for each in (rate, held))
    return ParamGroup(_rule(name, exclude, options), rate, decay, held)


def scheduled(
    main: ParamGroup,
    *,
    clip_norm: float | Array | None = None,
    clip_tensor: float | Array | None = None,
    layer_decay: float | Array | None = None,
    freeze: Sequence[tuple[str, int]] = (),
    constant_lr: Sequence[str] = (),
    normalize_rows: Sequence[str] = (),
    groups: Mapping[str, ParamGroup] = {},
    skip_zero_grads: Sequence[str] = (),
) -> Optimizer:
    """An optimizer from rules and schedules: those of most parameters, and those of ``groups``; ``build`` explains the options.

    Raises:
      ValueError: ``constant_lr`` where a part has no rate for it.

    >>> from ssl_jax.ops import schedules
    >>> main = ParamGroup(rules.sgd(), schedules.constant(0.1), schedules.constant(0.0))
    >>> int(scheduled(main).init({}).count)
    0
    """
    # In an order that does not depend on how a config was written.
    parts = {"": main, **{pattern: groups[pattern] for pattern in sorted(groups)}}
    for part in parts.values():
        known = not constant_lr or part.constant_rate is not None
        check.require(known, "constant_rate", part.constant_rate, "a schedule, as constant_lr is given")

    def rule_of(pattern: str, step: int, keeps: bool, text: str) -> rules.Rule:
        part = parts[pattern]
        rule = part.rule
        if keeps:
            assert part.constant_rate is not None
            rule = rules.with_rate(rule, part.constant_rate, part.weight_decay)
        elif pattern:
            rule = rules.with_rate(rule, part.learning_rate, part.weight_decay)
        return masks.hold(rule, step, skip_zero_grads=bool(text)) if step or text else rule

    def rule_for(params: Params) -> tuple[rules.Rule, PyTree, PyTree]:
        until = masks.frozen_until(params, freeze=freeze)
        held = masks.constant_lr(params, patterns=constant_lr)
        grouped = masks.grouped(params, patterns=list(parts)[1:])
        text = masks.skip_groups(params, patterns=skip_zero_grads)
        places = {found: f"skip_{i}" for i, found in enumerate(sorted({*jax.tree.leaves(text)} - {""}))}
        # A label a kind: optax keys the states by label, and a checkpoint wants strings.
        kinds = {}

        def label(pattern: str, step: int, keeps: bool, found: str) -> str:
            number = f"group_{list(parts).index(pattern)}" if pattern else ""
            words = filter(None, (_label(step, keeps), number, places.get(found, "")))
            name = "_".join(words)
            kinds[name] = (pattern, step, keeps, found)
            return name

        labels = jax.tree.map(label, grouped, until, held, text)
        if kinds.keys() <= {"from_0"}:
            return main.rule, until, text
        rule = optax.partition({name: rule_of(*kind) for name, kind in kinds.items()}, labels)
        return rule, until, text

    def init(params: Params) -> OptimizerState:
        return OptimizerState(jnp.zeros((), jnp.int32), rule_for(params)[0].init(params))

    def update(gradients: Params, state: OptimizerState, params: Params | None = None):
        check.require(
            params is not None, "params", params, "the parameters: decay and trust ratios need them"
        )
        rule, until, text = rule_for(params)  # type: ignore[arg-type]
        gradients = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, params)
        gradients = masks.where_moving(gradients, until, state.count)
        gradients = gradients if clip_tensor is None else clip.clip_each(gradients, norm=clip_tensor)
        gradients = gradients if clip_norm is None else clip.clip_global(gradients, norm=clip_norm)
        now = {
            "learning_rate": main.learning_rate(state.count),
            "weight_decay": main.weight_decay(state.count),
        }
        updates, rule_state = rule.update(gradients, state.rule, params, count=state.count, **now)
        if layer_decay is not None:
            updates = jax.tree.map(jnp.multiply, updates, layerwise.scales(params, decay=layer_decay))
        updates = masks.to_normalized_rows(updates, params, patterns=normalize_rows)
        updates = masks.where_moving(updates, until, state.count)
        updates = masks.where_live(updates, gradients, text)
        updates = jax.tree.map(lambda u, p: u.astype(p.dtype), updates, params)
        return updates, OptimizerState(state.count + 1, rule_state)

    return Optimizer(init, update, main.learning_rate, main.weight_decay)


def _label(until: int, constant_lr: bool) -> str:
    """Name of the parameters that thaw at one step and keep the peak learning rate or not."""
    return ("never" if until == masks.FOR_EVER else f"from_{until}") + ("_constant_lr" if constant_lr else "")


def _scale(scaling: str, batch_size: int, reference_batch: int) -> float:
    check.choice("scaling", scaling, ("linear", "sqrt", "none"))
    check.require(batch_size >= 1, "batch_size", batch_size, "an integer of 1 or more")
    check.require(reference_batch >= 1, "reference_batch", reference_batch, "an integer of 1 or more")
    ratio = batch_size / reference_batch
    return {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[scaling]


def _after_warmup(schedule, peak, steps, end, boundaries, factor, warmup) -> Schedule:
    check.choice("schedule", schedule, ("cosine", "constant", "step", "ramps"))
    if schedule == "cosine":
        return schedules.cosine(peak, end, max(steps, 1))
    if schedule == "constant":
        return schedules.constant(peak)
    drops = tuple(b - warmup for b in boundaries)
    allowed = f"one or more steps from the end of the warm-up on, {warmup}"
    check.require(bool(drops) and min(drops) >= 0, "boundaries", tuple(boundaries), allowed)
    return schedules.step_decay(peak, drops, factor)


def _ramps(peak: float | Array, steps: int, up: int, down: int) -> Schedule:
    check.require(
        0 <= down <= steps - up, "rampdown_steps", down, f"0 to {steps - up}, what the warm-up leaves"
    )
    rising = schedules.rampup(peak, up)
    falling = schedules.rampdown(1.0, steps, over=down) if down else schedules.constant(1.0)
    return lambda step: rising(step) * falling(step)


def _rule(name: str, exclude: masks.Exclude, options: dict[str, Any]) -> rules.Rule:
    check.choice("name", name, RULES)
    if isinstance(exclude, str):
        check.choice("exclude", exclude, masks.EXCLUDES)
    return check.call(RULES[name], where=f"optimizer {name}", options={"exclude": exclude, **options})
