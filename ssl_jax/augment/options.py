"""Views as flat options, JSON-able: what presets take and configs hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ssl_jax.augment.crop import RandomResizedCrop
from ssl_jax.augment.operations import OPERATIONS, Operation
from ssl_jax.augment.views import View
from ssl_jax.core import check

Options = dict[str, Any]

PLAIN = ("size", "mean", "std")
"""Fields of `View` that are options as they are. What a method asks for, ``boxes``, is none."""


def _fields(kind: type[Any]) -> dict[str, Any]:
    """Return the fields of a dataclass and their defaults."""
    return {field.name: field.default for field in dataclasses.fields(kind)}


def default_options() -> Options:
    """Return all options of a view, with every operation switched off.

    >>> options = default_options()
    >>> options["size"], options["flip_prob"], options["blur_sigma"], options["jitter"]
    (224, 0.0, (0.1, 2.0), None)
    """
    options = {name: getattr(View(), name) for name in PLAIN} | _fields(RandomResizedCrop)
    for kind in OPERATIONS.values():
        if kind.nested:
            options[kind.option] = None
        else:
            fields = {**_fields(kind), "prob": 0.0}
            options |= {f"{kind.option}_{field}": default for field, default in fields.items()}
    return options


def _operation(kind: type[Operation], options: Mapping[str, Any], where: str) -> Operation | None:
    """Build an operation from all options of a view; None where they switch it off."""
    if kind.nested:
        fields = options[kind.option]
        if isinstance(fields, Mapping):
            return check.call(kind, where=f"{where}.{kind.option}", options=fields)
        return fields
    fields = {field: options[f"{kind.option}_{field}"] for field in _fields(kind)}
    built = kind(**fields)
    return built if built.prob else None


def view_from(options: Mapping[str, Any], *, where: str = "views") -> View:
    """Build a view from flat options, of which JSON may have made tuples lists.

    Args:
      options: of `default_options`; those that are not given have their values there. An operation with the probability 0 is
        left out of the view.
      where: how the user addresses the options.

    Raises:
      ValueError: an option that does not exist, with the nearest right one, or a value out of range.

    Example:
      >>> view_from({"size": 8, "flip_prob": 0.5}).ops
      (Flip(prob=0.5),)
    """
    every = default_options()
    for name in options:
        if name not in every:
            raise ValueError(f"{where}.{name} is not an option: {check.did_you_mean(name, every)}")
    every |= {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    crop = RandomResizedCrop(**{field: every[field] for field in _fields(RandomResizedCrop)})
    ops = (_operation(kind, every, where) for kind in OPERATIONS.values())
    plain = {name: every[name] for name in PLAIN}
    return View(crop=crop, ops=tuple(op for op in ops if op is not None), **plain)


def options_of(view: View) -> Options:
    """Return the flat options of a view, from which `view_from` builds it again.

    Of an operation that the view does not have they say only that it is off.

    Raises:
      ValueError: operations of one kind twice, or in another order than that of presets, which options cannot say.

    Example:
      >>> options = options_of(View(size=8))
      >>> options["flip_prob"], options["jitter"], "blur_sigma" in options
      (0.0, None, False)
    """
    options = {name: getattr(view, name) for name in PLAIN} | dataclasses.asdict(view.crop)
    order = list(OPERATIONS)
    kinds = [order.index(op.option) for op in view.ops]
    check.require(kinds == sorted(set(kinds)), "ops", view.ops, f"each once, in the order {', '.join(order)}")
    for kind in OPERATIONS.values():
        operation = view.find(kind)
        fields = dataclasses.asdict(operation) if operation else None  # type: ignore[call-overload]
        if kind.nested:
            options[kind.option] = fields
        else:
            options |= {f"{kind.option}_{field}": value for field, value in (fields or {"prob": 0.0}).items()}
    return options


def override(options: Mapping[str, Any], changes: Mapping[str, Any]) -> Options:
    """Return options with some replaced; a mapping, for ``jitter``, replaces only the fields that it names.

    >>> override({"size": 8, "jitter": {"hue": 0.1, "prob": 1.0}}, {"jitter": {"hue": 0.0}})
    {'size': 8, 'jitter': {'hue': 0.0, 'prob': 1.0}}
    """
    merged = {
        name: {**(options.get(name) or {}), **value} if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return {**options, **merged}
