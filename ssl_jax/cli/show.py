"""The whole config of a run as text, with where each value comes from."""

from collections.abc import Mapping
from typing import Any

from ssl_jax.config import build
from ssl_jax.config.load import load_config, load_entry
from ssl_jax.config.origins import find_origins, leaves
from ssl_jax.config.overrides import choices_of


def describe_config(spec: str, overrides: Mapping[str, Any] = {}) -> str:
    """Write one line a value: its name, the value, where it comes from.

    Args:
      spec: name of a method, or path of a config file, and, after a colon, its arguments.
      overrides: other values at dotted names, as for :func:`ssl_jax.config.load.load_config`.

    Raises:
      ValueError: an argument, option or value that does not exist.
    """
    path, _, arguments = spec.partition(":")
    config, entry = load_config(spec, overrides), load_entry(path)
    basis = entry.find_basis(arguments, choices_of(overrides))
    origins = find_origins(config, entry, basis, overrides)
    values = {name: repr(value) for name, value in leaves(build.to_dict(config))}
    names, widths = max(map(len, values)), min(max(map(len, values.values())), 40)
    lines = [f"# recipe {basis.recipe_name} of {path}: {basis.recipe.source}"]
    lines += [f"{name:{names}}  {value:{widths}}  {origins[name]}" for name, value in values.items()]
    return "\n".join(lines)
