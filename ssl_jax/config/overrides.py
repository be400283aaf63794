"""Values of a config from text: what the command line says after ``--config.``."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config.options import CHOICES
from ssl_jax.config.ranges import COUNT, PATTERNS, TEXTS, check_option, exact, is_integer, range_of
from ssl_jax.core.check import did_you_mean, require, shorten

ALLOWED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    tuple: "values separated by commas",
    ConfigDict: "a mapping such as {'name': 1}",
}
WHOLE = "optimizer.groups"
"""The part whose members are named by the user: a mapping takes the place of the whole one."""
MAY_BE_NONE = ("views.jitter",)
"""Parts that ``None`` switches off."""


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
    choices = {
        name: value for name, value in overrides.items() if name in CHOICES or name.split(".")[0] in CHOICES
    }
    if "data.num_examples" in choices:
        count = choices["data.num_examples"]
        count = _parse("data.num_examples", count, int) if isinstance(count, str) else count
        # Asked for here, where None would be no number of images.
        require(is_integer(count), "config.data.num_examples", count, "an integer of 1 or more, below 2^31")
        check_option("data.num_examples", count)
        choices["data.num_examples"] = count
    for name in choices.keys() & set(CHOICES) - {"data"}:
        require(isinstance(choices[name], str), f"config.{name}", choices[name], "a name")
    return choices


def apply_overrides(config: ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Set values of a config, each in the type of the value that stands there; of a part or group those that are given.

    Args:
      config: changed in place.
      overrides: from dotted names to values, or to texts of them.

    Raises:
      ValueError: an option that the config does not have (names the nearest), or a value of another type or outside of the
        option's range (:data:`ssl_jax.config.ranges.RANGES`).

    >>> config = ConfigDict({"steps": 10, "views": {"area": (0.2, 1.0)}})
    >>> apply_overrides(config, {"steps": "5e2", "views.area": "0.5,1"})
    >>> config.steps, config.views.area
    (500, (0.5, 1))
    >>> apply_overrides(config, {"stpes": "5"})
    Traceback (most recent call last):
    ...
    ValueError: config.stpes is not an option: did you mean 'steps'? allowed: steps, views
    """
    for name, given in overrides.items():
        *parents, last = name.split(".")
        part = config
        for parent in parents:
            part = _member(part, parent, name)
        present, kind = _member(part, last, name), part.get_type(last)
        value = _parse(name, given, kind) if isinstance(given, str) else given
        found = range_of(name)
        value = value if found is None else exact(value, found)
        if isinstance(present, ConfigDict) and present and not name.startswith(WHOLE):
            if isinstance(value, Mapping | ConfigDict):
                apply_overrides(config, {f"{name}.{field}": value[field] for field in value})
                continue
            allowed = f"a mapping of options, of {', '.join(sorted(present))}"
            require(value is None and name in MAY_BE_NONE, f"config.{name}", given, allowed)
        fits = value is not None or present is None or name in MAY_BE_NONE or found is not None
        require(fits, f"config.{name}", given, _allowed(name, kind))
        check_option(name, value.to_dict() if isinstance(value, ConfigDict) else value, text=given)
        try:
            part[last] = value
        except TypeError as error:
            shown = shorten(repr(given))
            raise ValueError(f"config.{name}={shown}: allowed is {_allowed(name, kind)}") from error


def _member(part: Any, member: str, name: str) -> Any:
    """Look up one step of a dotted name."""
    if not isinstance(part, ConfigDict):
        raise ValueError(f"config.{name} is not an option: there is a value before .{member}")
    if member not in part:
        raise ValueError(f"config.{name} is not an option: {did_you_mean(member, part)}")
    return part[member]


def _allowed(name: str, kind: type) -> str:
    """Say what an option may be: its range, else its type."""
    found = range_of(name)
    return ALLOWED.get(kind, kind.__name__) if found is None else found.allowed


def _parse(name: str, text: str, kind: type) -> Any:
    """Parse a text as a type; options of a part may also be ``None``, where their range allows it."""
    if text in ("None", "none") and kind is not str and "." in name:
        return None
    try:
        if kind is str:
            return text
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()]
        if kind in (int, float):
            return parse_number(text, kind)
        if kind is tuple:
            return _parse_texts(text) if range_of(name) in (TEXTS, PATTERNS) else _parse_tuple(text)
        value = _parse_literal(text)
        return ConfigDict(dict(value)) if kind is ConfigDict else value
    except (
        ValueError,
        KeyError,
        SyntaxError,
        TypeError,
        OverflowError,
        RecursionError,
        MemoryError,
    ) as error:
        if kind is object:
            return text
        raise ValueError(f"config.{name}={shorten(repr(text))}: allowed is {_allowed(name, kind)}") from error


def parse_number(text: str, kind: type) -> int | float:
    """Parse a number; an integer may be written as a float that is one.

    >>> parse_number("1e3", int), parse_number("1_000", int), parse_number("5.0", int), parse_number("2", float)
    (1000, 1000, 5, 2.0)

    Raises:
      ValueError: it is no number of this kind.
    """
    if not text.isascii():
        raise ValueError(f"{text!r}: allowed is digits from 0 to 9")
    if kind is float:
        return float(text)
    try:
        return int(text)
    except ValueError:
        value = exact(float(text), COUNT)
        if isinstance(value, float):
            raise
        return value


def _parse_tuple(text: str) -> tuple[Any, ...]:
    words = [word.strip() for word in text.split(",")]
    if all(re.fullmatch(r"[A-Za-z][\w.-]*", word) for word in words):
        return tuple(words)
    value = _parse_literal(text)
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _parse_texts(text: str) -> tuple[Any, ...]:
    """Parse texts: a literal, or what stands between commas, such as a pattern."""
    try:
        return _parse_tuple(text)
    except (ValueError, SyntaxError):
        if not text.strip() or text.lstrip()[0] in "([{'\"":
            raise
        return tuple(word.strip() for word in text.split(","))


def _parse_literal(text: str) -> Any:
    """Parse a Python literal that JSON has too: no set, bytes, complex number or ``...``.

    Raises:
      ValueError, SyntaxError, RecursionError, MemoryError: it is none.
    """
    value = ast.literal_eval(text.strip())
    json.dumps(value)
    return value
