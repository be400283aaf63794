"""Checks at the boundary: errors that name the argument, the value found and what is allowed."""

import dataclasses
import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Point from a wrong name to the nearest right one, and list what is allowed.

    >>> did_you_mean("temprature", ["temperature", "decay"])
    "did you mean 'temperature'? allowed: decay, temperature"
    """
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(options)}"


def choice(name: str, value: Any, options: Iterable[Any]) -> Any:
    """Return ``value`` if it is one of ``options``.

    Raises:
      ValueError: names the argument, the value and the options.

    >>> choice("pool", "mean", ("cls", "mean"))
    'mean'
    """
    options = tuple(options)
    if value not in options:
        hint = did_you_mean(str(value), map(str, options))
        raise ValueError(f"{name}={shorten(repr(value))} is not one of the allowed values: {hint}")
    return value


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise a ValueError that names the argument, the value found and what is allowed, unless ``condition`` holds.

    >>> require(False, "batch_size", 0, "an integer of 1 or more")
    Traceback (most recent call last):
    ...
    ValueError: batch_size=0: allowed is an integer of 1 or more
    """
    if not condition:
        raise ValueError(f"{name}={shorten(repr(value))}: allowed is {allowed}")


def shorten(text: str) -> str:
    """Cut a text that would fill an error.

    >>> shorten("9" * 500)
    '9999999999999999999999999999999999999999... (500 characters)'
    """
    return text if len(text) <= 300 else f"{text[:40]}... ({len(text)} characters)"


def options_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the keyword parameters of a function, by name.

    >>> list(options_of(lambda x, *, depth=2: x))
    ['x', 'depth']
    """
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {n: p for n, p in inspect.signature(function).parameters.items() if p.kind in kinds}


def call(function: Callable[..., Any], *args: Any, where: str, options: Mapping[str, Any]) -> Any:
    """Call ``function(*args, **options)``; a misspelt or missing option is an error that names the nearest right one.

    A parameter whose default is a dataclass is a group of options: a mapping that is given for it replaces some fields of the
    default.

    Args:
      function: function to call; its signature is the list of allowed options.
      *args: positional arguments, passed through.
      where: prefix by which the user addresses the options, such as ``config.method``.
      options: keyword arguments.

    Raises:
      ValueError: an option that the signature does not have, a required one that is missing, or None where no None may be.

    >>> call(lambda x, *, depth=2: x * depth, 3, where="config.m", options={"depht": 1})
    Traceback (most recent call last):
    ...
    ValueError: config.m.depht is not an option: did you mean 'depth'? allowed: depth
    """
    parameters = list(options_of(function).items())[len(args) :]
    allowed = dict(parameters)
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    # A function that takes **options passes them on and checks them there.
    passes_on = inspect.Parameter.VAR_KEYWORD in kinds
    for name in options:
        if name not in allowed and not passes_on:
            raise ValueError(f"{where}.{name} is not an option: {did_you_mean(name, allowed)}")
    for name, value in options.items():
        if value is None and name in allowed and not _may_be_none(allowed[name]):
            annotation = inspect.formatannotation(allowed[name].annotation)
            raise ValueError(f"{where}.{name}=None: allowed is a value of the type {annotation}")
    missing = [n for n, p in allowed.items() if p.default is inspect.Parameter.empty and n not in options]
    if missing:
        raise ValueError(f"{where}.{missing[0]} is missing: it has no default")
    groups = {
        name: replace_fields(allowed[name].default, where=f"{where}.{name}", options=value)
        for name, value in options.items()
        if name in allowed and is_group(allowed[name].default) and not is_group(value)
    }
    return function(*args, **{**options, **groups})


def _may_be_none(parameter: inspect.Parameter) -> bool:
    """Tell whether None is the default of a parameter or stands in its annotation; of groups others tell."""
    annotation = parameter.annotation
    return (
        parameter.default is None
        or is_group(parameter.default)
        or annotation in (inspect.Parameter.empty, Any)
        or "None" in inspect.formatannotation(annotation)
    )


def is_group(value: Any) -> bool:
    """Tell whether the default of a parameter is a group of options: an instance of a dataclass.

    >>> is_group({"temperature": 0.1})
    False
    """
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def replace_fields(group: Any, *, where: str, options: Any) -> Any:
    """Copy a group of options with other values in some fields; a misspelt one is an error that names the nearest right one.

    Args:
      group: instance of a dataclass.
      where: prefix by which the user addresses the fields, such as ``config.method.head``.
      options: mapping of values by the name of the field.

    Raises:
      ValueError: options that are no mapping, or a field that the dataclass does not have.
    """
    require(isinstance(options, Mapping), where, options, "a mapping of options")
    fields = [field.name for field in dataclasses.fields(group)]
    for name in options:
        if name not in fields:
            raise ValueError(f"{where}.{name} is not an option: {did_you_mean(name, fields)}")
    return dataclasses.replace(group, **options)


def require_number(name: str, value: Any, holds: Callable[[Any], bool], allowed: str) -> None:
    """Raise a ValueError unless a finite number meets a condition; an array passes unread, as it may be traced.

    >>> require_number("weight", float("nan"), lambda weight: weight < 1, "a number below 1")
    Traceback (most recent call last):
    ...
    ValueError: weight=nan: allowed is a number below 1
    """
    if hasattr(value, "dtype") and not isinstance(value, np.generic):
        return
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    require(number and bool(holds(value)), name, value, allowed)


def positive(name: str, value: Any) -> None:
    """Raise a ValueError unless a number is above 0; an array passes unread, as it may be traced.

    >>> positive("temperature", 0.0)
    Traceback (most recent call last):
    ...
    ValueError: temperature=0.0: allowed is a number above 0
    """
    require_number(name, value, lambda number: number > 0, "a number above 0")


def not_negative(name: str, value: Any) -> None:
    """Raise a ValueError unless a number is 0 or more; an array passes unread, as it may be traced.

    >>> not_negative("margin", -0.5)
    Traceback (most recent call last):
    ...
    ValueError: margin=-0.5: allowed is a number of 0 or more
    """
    require_number(name, value, lambda number: number >= 0, "a number of 0 or more")


def share(name: str, value: Any) -> None:
    """Raise a ValueError unless a number is from 0 to 1; an array passes unread, as it may be traced.

    >>> share("decay", 1.2)
    Traceback (most recent call last):
    ...
    ValueError: decay=1.2: allowed is a number from 0 to 1
    """
    require_number(name, value, lambda number: 0 <= number <= 1, "a number from 0 to 1")


def below_one(name: str, value: Any) -> None:
    """Raise a ValueError unless a number is in [0, 1); an array passes unread, as it may be traced.

    >>> below_one("momentum", 1.0)
    Traceback (most recent call last):
    ...
    ValueError: momentum=1.0: allowed is a number in [0, 1)
    """
    require_number(name, value, lambda number: 0 <= number < 1, "a number in [0, 1)")
