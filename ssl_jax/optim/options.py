"""An optimizer from flat options, as configs name them."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ssl_jax.core import check
from ssl_jax.core.types import Array
from ssl_jax.ops import schedules
from ssl_jax.optim import masks, rules
from ssl_jax.optim.lars import lars
from ssl_jax.optim.learning_rate import LearningRate, scale_by_batch
from ssl_jax.optim.optimizer import Optimizer, ParamGroup, build

RULES: dict[str, Callable[..., rules.Rule]] = {
    "adam": rules.adam,
    "adamw": rules.adamw,
    "lars": lars,
    "sgd": rules.sgd,
}
"""Update rules by name."""
OF_BUILD = frozenset(check.options_of(build)) - {"main", "groups"}
"""Options of all parameters together, which a group cannot have."""


def from_options(
    name: str = "adamw",
    *,
    steps: int,
    learning_rate: float | Array,
    batch_size: int,
    groups: Mapping[str, Mapping[str, Any]] = {},
    **options: Any,
) -> Optimizer:
    """Build an optimizer from flat options; :func:`options_of` lists them all.

    Args:
      name: ``lars``, ``adamw`` (decoupled decay), ``adam`` (L2 decay) or ``sgd`` (L2 decay).
      steps: number of updates of the run; schedules end there and keep their last value.
      learning_rate: base learning rate, multiplied by the factor of ``scaling``. Float options may be traced.
      batch_size: images an update (not views), all devices and accumulated micro-batches together.
      groups: options of the parameters that match, by pattern, in place of the others: the rule and its options,
        ``exclude``, and whatever belongs to learning rate and weight decay
        (``{"discriminator": {"learning_rate": 1e-4, "b1": 0.5}}``). Another rule has its own defaults.
      **options: ``scaling`` and ``reference_batch`` (:func:`ssl_jax.optim.learning_rate.scale_by_batch`); ``schedule``,
        ``warmup_steps``, ``start_learning_rate`` and ``end_learning_rate`` (both absolute, not scaled), ``boundaries``,
        ``factor``, ``rampdown_steps``, ``steps_per_epoch`` (:class:`ssl_jax.optim.learning_rate.LearningRate`);
        ``weight_decay`` and, if given, ``weight_decay_end``, where it goes on a cosine (DINO: .04 to .4); ``exclude``, which
        parameters get neither decay nor LARS's adaptation (:func:`ssl_jax.optim.masks.is_excluded`); those of
        :func:`ssl_jax.optim.optimizer.build`; those of the rule: ``momentum``, ``nesterov`` (sgd, lars); ``trust_coefficient``,
        ``trust_norm``, ``learning_rate_in_buffer`` (lars); ``b1``, ``b2``, ``epsilon`` (adam, adamw).

    Raises:
      ValueError: an unknown name or option, also of a group, and whatever the functions above refuse.

    >>> optimizer = from_options("sgd", steps=10, learning_rate=0.1, batch_size=512, warmup_steps=2)
    >>> [round(float(optimizer.learning_rate(t)), 6) for t in (0, 1, 2, 10)]
    [0.0, 0.1, 0.2, 0.0]
    """
    check.choice("name", name, RULES)
    given = {
        "name": name,
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        **options,
    }
    _refuse_unknown(f"optimizer {name}", given, options_of(name))
    shared = {option: given.pop(option) for option in OF_BUILD & given.keys()}
    others = {
        pattern: _param_group(**_options_of_group(f"groups[{pattern!r}]", replaced, given))
        for pattern, replaced in groups.items()
    }
    return build(_param_group(**given), groups=others, **shared)


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """Return every option of :func:`from_options` for a rule, by name, with its default and type.

    Args:
      name: one of :data:`RULES`.

    >>> options = options_of("adamw")
    >>> options["warmup_steps"].default, options["b2"].default, "momentum" in options
    (0, 0.999, False)
    """
    functions = (from_options, _param_group, LearningRate, build, RULES[name])
    options = {
        option: found for function in functions for option, found in check.options_of(function).items()
    }
    # Their flat names are learning_rate, schedule, start_learning_rate and end_learning_rate.
    return {
        option: options[option]
        for option in options
        if option not in ("main", "peak", "kind", "start", "end")
    }


def _param_group(
    name: str,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float | Array,
    scaling: str = "linear",
    reference_batch: int = 256,
    schedule: str = "cosine",
    start_learning_rate: float | Array = 0.0,
    end_learning_rate: float | Array = 0.0,
    weight_decay: float | Array = 0.0,
    weight_decay_end: float | Array | None = None,
    exclude: masks.Exclude = "bias_and_norm",
    **options: Any,
) -> ParamGroup:
    if isinstance(exclude, str):
        check.choice("exclude", exclude, masks.EXCLUDES)
    peak = scale_by_batch(learning_rate, batch_size, scaling=scaling, reference_batch=reference_batch)
    of_rate = {option: options.pop(option) for option in check.options_of(LearningRate) if option in options}
    if "boundaries" in of_rate:
        of_rate["boundaries"] = tuple(of_rate["boundaries"])
    rate = LearningRate(peak, steps, schedule, start=start_learning_rate, end=end_learning_rate, **of_rate)
    decay = schedules.constant(weight_decay)
    if weight_decay_end is not None:
        decay = schedules.cosine(weight_decay, weight_decay_end, steps)
    return ParamGroup(RULES[name](exclude=exclude, **options), rate, decay)


def _options_of_group(where: str, replaced: Mapping[str, Any], main: Mapping[str, Any]) -> dict[str, Any]:
    name = check.choice(f"{where}.name", replaced.get("name", main["name"]), RULES)
    known = options_of(name).keys() - OF_BUILD - {"steps", "batch_size", "groups"}
    _refuse_unknown(where, replaced, known)
    if name == main["name"]:
        return {**main, **replaced}
    of_rule = check.options_of(RULES[main["name"]]).keys() - {"exclude"}
    return {**{option: main[option] for option in main if option not in of_rule}, **replaced}


def _refuse_unknown(where: str, options: Iterable[str], known: Collection[str]) -> None:
    for option in options:
        if option not in known:
            raise ValueError(f"{where}.{option} is not an option: {check.did_you_mean(option, known)}")
