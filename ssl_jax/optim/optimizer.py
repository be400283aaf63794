"""One optimizer from groups of parameters: rules and schedules, clipping, freezing, layer-wise rates."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax.core import check
from ssl_jax.core.types import Array, Params, PyTree, Schedule
from ssl_jax.optim import clip, layerwise, masks, rules
from ssl_jax.optim.learning_rate import LearningRate


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
    """How parameters move that move alike.

    Attributes:
      rule: update rule, such as ``rules.adamw(b2=0.95)``.
      learning_rate: step -> learning rate; a :class:`ssl_jax.optim.learning_rate.LearningRate` or any schedule.
      weight_decay: step -> weight decay.
    """

    rule: rules.Rule
    learning_rate: LearningRate | Schedule
    weight_decay: Schedule


class OptimizerState(NamedTuple):
    """State of an optimizer.

    Attributes:
      count: int32 scalar, updates so far.
      rule: moments, in the form of optax.
    """

    count: Array  # type: ignore[assignment]  # the name that optax uses; hides tuple.count
    rule: PyTree


class _Kind(NamedTuple):
    """What the parameters of one label have in common."""

    group: str
    frozen_until: int
    constant_lr: bool
    stage: str


def build(
    main: ParamGroup,
    *,
    groups: Mapping[str, ParamGroup] = {},
    clip_norm: float | Array | None = None,
    clip_tensor: float | Array | None = None,
    layer_decay: float | Array | None = None,
    freeze: Sequence[tuple[str, int]] = (),
    constant_lr: Sequence[str] = (),
    normalize_rows: Sequence[str] = (),
    skip_zero_grads: Sequence[str] = (),
) -> Optimizer:
    """Build an optimizer, usable as an ``optax.GradientTransformation``.

    Each update, at step t = 0, 1, ...: gradients of frozen parameters become 0; clipping, tensor by tensor
    and then globally; the rule with ``learning_rate(t)`` and ``weight_decay(t)`` of the parameter's group; layer decay;
    normalised rows; updates of frozen parameters, decay included, become exactly 0. The rule's moments of a frozen parameter
    stand still, as with torch's ``grad = None``.

    Patterns are regular expressions; a parameter matches where one is found in its path, such as ``encoder/stem/kernel``.

    Args:
      main: group of the parameters that match none of ``groups``.
      groups: group of the parameters that match, by pattern (two players with learning rates of their own).
        Clipping, layer decay and freezing are of all parameters together.
      clip_norm: largest joint norm of the gradients; ``None``: no limit. Numbers may be traced.
      clip_tensor: largest norm of each gradient tensor (DINO: 3.0); ``None``: no limit.
      layer_decay: factor of the learning rate a layer of a ViT or a ConvNeXt, see ``layerwise.layer_scales``; ``None``: none.
      freeze: pairs (pattern, step from which matching parameters move or -1 for ever).
      constant_lr: patterns of parameters that keep the peak learning rate after the warm-up, whatever the schedule does
        (SimSiam's predictor).
      normalize_rows: patterns of parameters that are normalised in place after each update, along the last axis (SwAV's
        prototypes, before the next forward pass). Their gradients are those of plain parameters.
      skip_zero_grads: patterns. Parameters in whose paths a pattern finds the same text stand still, with their moments, in
        each step in which the gradients of all of them are exactly 0, as with torch's ``grad = None``: neither decay nor
        momentum moves what a method trains in stages.

    Returns:
      ``Optimizer(init, update, learning_rate, weight_decay)``, with the schedules of ``main``.

    Raises:
      ValueError: a limit that is not above 0; ``constant_lr`` with a group whose learning rate is not a ``LearningRate``; a
        pattern that matches nothing (at init; of ``normalize_rows`` at the first update); a parameter of two groups.

    >>> from ssl_jax.ops import schedules
    >>> main = ParamGroup(rules.sgd(), LearningRate(0.1, 10), schedules.constant(0.0))
    >>> optimizer, params = build(main), {"kernel": jnp.ones((2, 2))}
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> int(state.count)
    1
    """
    for name, most in (("clip_norm", clip_norm), ("clip_tensor", clip_tensor), ("layer_decay", layer_decay)):
        if most is not None:
            check.positive(name, most)
    # In an order that does not depend on how a config was written.
    all_groups = {"": main, **{pattern: groups[pattern] for pattern in sorted(groups)}}
    if constant_lr:
        for group in all_groups.values():
            has_peak = isinstance(group.learning_rate, LearningRate)
            check.require(
                has_peak, "learning_rate", group.learning_rate, "a LearningRate, as constant_lr is given"
            )

    def rule_of(kind: _Kind) -> rules.Rule:
        group = all_groups[kind.group]
        rule, rate = group.rule, group.learning_rate
        if kind.constant_lr and isinstance(rate, LearningRate):
            rule = rules.with_rate(rule, rate.without_decay(), group.weight_decay)
        elif kind.group:
            rule = rules.with_rate(rule, rate, group.weight_decay)
        if kind.frozen_until or kind.stage:
            return masks.hold_state(rule, kind.frozen_until, skip_zero_grads=bool(kind.stage))
        return rule

    def partition(params: Params) -> tuple[rules.Rule, PyTree, PyTree]:
        frozen_until = masks.frozen_until(params, freeze=freeze)
        constant = masks.matches(params, "constant_lr", constant_lr)
        stages = masks.matched_texts(params, "skip_zero_grads", skip_zero_grads)
        kinds = jax.tree.map(
            _Kind, masks.group_names(params, list(all_groups)[1:]), frozen_until, constant, stages
        )
        is_kind = lambda x: isinstance(x, _Kind)  # noqa: E731
        # optax keys the states by label, and a checkpoint wants strings.
        names = _labels(jax.tree.leaves(kinds, is_leaf=is_kind), list(all_groups))
        if set(names.values()) <= {"from_0"}:
            return main.rule, frozen_until, stages
        labels = jax.tree.map(names.__getitem__, kinds, is_leaf=is_kind)
        rule = optax.partition({name: rule_of(kind) for kind, name in names.items()}, labels)
        return rule, frozen_until, stages

    def init(params: Params) -> OptimizerState:
        if layer_decay is not None:
            layerwise.layer_scales(
                params, decay=layer_decay
            )  # what cannot be scaled is refused before the first step
        return OptimizerState(jnp.zeros((), jnp.int32), partition(params)[0].init(params))

    def update(
        gradients: Params, state: OptimizerState, params: Params | None = None
    ) -> tuple[Params, OptimizerState]:
        if params is None:
            raise ValueError("params=None: allowed is the parameters: decay and trust ratios need them")
        count = state.count
        rule, frozen_until, stages = partition(params)
        gradients = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, params)
        gradients = masks.where_moving(gradients, frozen_until, count)
        gradients = gradients if clip_tensor is None else clip.clip_each(gradients, norm=clip_tensor)
        gradients = gradients if clip_norm is None else clip.clip_global(gradients, norm=clip_norm)
        values = {"learning_rate": main.learning_rate(count), "weight_decay": main.weight_decay(count)}
        updates, rule_state = rule.update(gradients, state.rule, params, count=count, **values)
        if layer_decay is not None:
            updates = jax.tree.map(jnp.multiply, updates, layerwise.layer_scales(params, decay=layer_decay))
        updates = masks.normalize_rows(updates, params, patterns=normalize_rows)
        updates = masks.where_moving(updates, frozen_until, count)
        updates = masks.where_nonzero_grads(updates, gradients, stages)
        updates = jax.tree.map(lambda u, p: u.astype(p.dtype), updates, params)
        return updates, OptimizerState(count + 1, rule_state)

    return Optimizer(init, update, main.learning_rate, main.weight_decay)


def _labels(kinds: list[_Kind], patterns: list[str]) -> dict[_Kind, str]:
    """A name for each kind of parameters; ``from_0`` is the kind of all where nothing is special."""
    stages = {stage: f"skip_{i}" for i, stage in enumerate(sorted({kind.stage for kind in kinds} - {""}))}

    def label(kind: _Kind) -> str:
        parts = [
            "never" if kind.frozen_until == masks.FOR_EVER else f"from_{kind.frozen_until}",
            "constant_lr" if kind.constant_lr else "",
            f"group_{patterns.index(kind.group)}" if kind.group else "",
            stages.get(kind.stage, ""),
        ]
        return "_".join(filter(None, parts))

    return {kind: label(kind) for kind in kinds}
