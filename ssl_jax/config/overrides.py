"""Values of a config from text: what the command line says after ``--config.``."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config.make import CHOICES
from ssl_jax.core.check import did_you_mean, require

ALLOWED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    tuple: "values separated by commas",
    ConfigDict: "a mapping such as {'name': 1}",
}


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """Parse ``name=value``; of a name that is given twice the last value counts.

    >>> parse_overrides(["optimizer.name=sgd", "steps=5"])
    {'optimizer.name': 'sgd', 'steps': '5'}

    Raises:
      ValueError: no name or no value.
    """
    overrides = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"config.{text}: allowed is a name and a value, such as config.steps=500")
        overrides[name] = value
    return overrides


def choices_of(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Select the values on which other options of a config depend.

    >>> choices_of({"steps": "5", "data.num_examples": "100"})
    {'data.num_examples': 100}

    Raises:
      ValueError: a number of images that is none.
    """
    choices = {name: value for name, value in overrides.items() if name in CHOICES}
    if "data.num_examples" in choices:
        count = choices["data.num_examples"]
        count = _parse("data.num_examples", count, int) if isinstance(count, str) else count
        require(
            isinstance(count, int) and count >= 1,
            "config.data.num_examples",
            count,
            "an integer of 1 or more",
        )
        choices["data.num_examples"] = count
    return choices


def apply_overrides(config: ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Set values of a config, each in the type of the value that stands there; of a method's group of options those given.

    Args:
      config: changed in place.
      overrides: from dotted names to values, or to texts of them.

    Raises:
      ValueError: an option that the config does not have (names the nearest), or a value of another type.

    >>> config = ConfigDict({"steps": 10, "views": {"area": (0.2, 1.0)}})
    >>> apply_overrides(config, {"steps": "500", "views.area": "0.5,1"})
    >>> config.steps, config.views.area
    (500, (0.5, 1))
    >>> apply_overrides(config, {"stpes": "5"})
    Traceback (most recent call last):
    ...
    ValueError: config.stpes is not an option: did you mean 'steps'? allowed: steps, views
    """
    for name, value in overrides.items():
        *parents, last = name.split(".")
        part = config
        for parent in parents:
            part = _member(part, parent, name)
        present, kind = _member(part, last, name), part.get_type(last)
        try:
            value = _parse(name, value, kind) if isinstance(value, str) else value
            if (
                name.startswith("method.")
                and isinstance(present, ConfigDict)
                and isinstance(value, Mapping | ConfigDict)
            ):
                apply_overrides(config, {f"{name}.{field}": value[field] for field in value})
            else:
                part[last] = value
        except TypeError as error:
            allowed = ALLOWED.get(kind, kind.__name__)
            raise ValueError(f"config.{name}={value!r}: allowed is {allowed}") from error


def _member(part: Any, member: str, name: str) -> Any:
    """Look up one step of a dotted name."""
    if not isinstance(part, ConfigDict):
        raise ValueError(f"config.{name} is not an option: there is a value before .{member}")
    if member not in part:
        raise ValueError(f"config.{name} is not an option: {did_you_mean(member, part)}")
    return part[member]


def _parse(name: str, text: str, kind: type) -> Any:
    """Parse a text as a type; options of a part may also be ``None``, which the function that takes them can refuse."""
    if text in ("None", "none") and kind is not str and "." in name:
        return None
    try:
        if kind is str:
            return text
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if kind in (int, float):
            return kind(text)
        if kind is tuple:
            return _parse_tuple(text)
        value = _parse_literal(text)
        return ConfigDict(dict(value)) if kind is ConfigDict else value
    except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        if kind is object:
            return text
        raise ValueError(f"config.{name}={text!r}: allowed is {ALLOWED[kind]}") from error


def _parse_tuple(text: str) -> tuple[Any, ...]:
    words = [word.strip() for word in text.split(",")]
    if all(re.fullmatch(r"[A-Za-z][\w.-]*", word) for word in words):
        return tuple(words)
    value = _parse_literal(text)
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _parse_literal(text: str) -> Any:
    """Parse a Python literal that JSON has too: no set, bytes, complex number or ``...``.

    Raises:
      ValueError, SyntaxError, RecursionError, MemoryError: it is none.
    """
    value = ast.literal_eval(text)
    json.dumps(value)
    return value
