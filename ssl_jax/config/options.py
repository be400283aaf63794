"""Options of encoder, views, method and optimizer: defaults from signatures, then what a recipe gives."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections.config_dict import placeholder

from ssl_jax import models, optim
from ssl_jax.augment import options as flat_options
from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.config.datasets import Dataset
from ssl_jax.core.check import choice, did_you_mean, is_group, options_of, require
from ssl_jax.methods.registry import method_module
from ssl_jax.optim.options import RULES

CHOICES = ("optimizer.name", "encoder.name", "encoder.weights", "views.preset", "data")
"""Values, or parts with all their values, on which other options of a config depend: what these are, how many steps an epoch
has, and what pixels are normalised by."""
SMALL = 64
"""Images up to this side get the small ResNet stem and small patches."""
TINY = 32
"""Images up to this side get a ConvNeXt whose stem sees single pixels, larger ones up to ``SMALL`` patches of two."""

Options = dict[str, Any]


def encoder_options(name: str, dataset: Dataset, given: Mapping[str, Any]) -> Options:
    """List the options of an encoder: its defaults, what the size of the images asks for, what a recipe gives.

    Args:
      name: of :data:`ssl_jax.models.BUILDERS`.
      dataset: what it will see.
      given: options of the recipe; those that the encoder does not have are left out.
    """
    defaults = defaults_of(models.BUILDERS[choice("config.encoder.name", name, models.BUILDERS)])
    return {
        "name": name,
        **typed(defaults, {k: v for k, v in {**fitting_options(dataset), **given}.items() if k in defaults}),
    }


def fitting_options(dataset: Dataset) -> Options:
    """List what the size of the images asks for, of the options of encoders."""
    if dataset.size <= SMALL:
        patches = {"patch": 7 if dataset.size == 28 else 4, "stem_patch": 1 if dataset.size <= TINY else 2}
        return {"stem": "small", "image_size": dataset.size, **patches}
    return {"image_size": dataset.size, "dtype": "bfloat16"}


def method_options(name: str, given: Mapping[str, Any]) -> Options:
    """List the options of a method: its defaults, then what a recipe gives."""
    defaults = defaults_of(method_module(name).build)
    return {
        **typed({k: v for k, v in defaults.items() if k not in ("encoder", "views")}, given),
        "name": name,
    }


def optimizer_options(given: Mapping[str, Any]) -> Options:
    """List the options of an optimizer: its defaults, then what a recipe gives, ``name`` among it."""
    name = choice("config.optimizer.name", given["name"], RULES)
    return typed(_defaults(optim.options_of(name)), given)


def rule_options(name: str) -> Options:
    """List the options that belong to an update rule alone, such as ``momentum``."""
    return {option: value for option, value in defaults_of(RULES[name]).items() if option != "exclude"}


def views_options(size: int, given: Mapping[str, Any]) -> Options:
    """List the options of views: the preset's own, and the fields of its views that they all share.

    Args:
      size: side in pixels, where none is given.
      given: ``preset`` and its options.
    """
    options = {"size": size, **given}
    preset = options.pop("preset")
    views = presets.build(preset, **options)
    defaults = defaults_of(presets.PRESETS[preset])
    own = {name: default for name, default in defaults.items() if name not in ("strength", "overrides")}
    shared = {
        name: value
        for name, value in _shared_options(views, options).items()
        if name not in own and f"global_{name}" not in own
    }
    if shared.get("jitter", ()) is None:
        del shared["jitter"]
    if shared.get("blur_kernel", 0) is None:
        shared["blur_kernel"] = placeholder(int)
    return {"preset": preset, **{name: options.get(name, default) for name, default in own.items()}, **shared}


def _shared_options(views: Sequence[View], given: Mapping[str, Any]) -> Options:
    """List the options on which views agree; what none of them says, as of an operation that is off, is as given."""
    each = [flat_options.options_of(view) for view in views]
    values = {
        name: [options[name] for options in each if name in options] or [given.get(name, default)]
        for name, default in flat_options.default_options().items()
    }
    return {name: found[0] for name, found in values.items() if all(value == found[0] for value in found)}


def defaults_of(function: Callable[..., Any]) -> Options:
    """List the keyword options of a function and their defaults; a type's placeholder where the default is None."""
    return _defaults(options_of(function))


def _defaults(parameters: Mapping[str, inspect.Parameter]) -> Options:
    return {name: _default(parameter.default, parameter.annotation) for name, parameter in parameters.items()}


def _fields(group: Any) -> Options:
    """List the fields of a group of options, as :func:`defaults_of` does those of a function."""
    return {
        field.name: _default(getattr(group, field.name), field.type) for field in dataclasses.fields(group)
    }


def _default(value: Any, annotation: Any) -> Any:
    return placeholder(_type_of(annotation)) if value is None else value


def _type_of(annotation: Any) -> type:
    """Find the plain type in an annotation such as ``int | None``."""
    text = str(annotation)
    return next((kind for kind in (str, float, int) if kind.__name__ in text), object)


def typed(defaults: Mapping[str, Any], given: Mapping[str, Any], *, where: str = "") -> Options:
    """Replace defaults by what is given; integers become floats where the default is a float.

    Args:
      defaults: by name; of a group of options, which is a dataclass there and a mapping in the result, those are its fields.
      given: values by name, for a group a mapping of some of its fields.
      where: prefix by which errors address the options.

    Raises:
      ValueError: an option that has no default.
    """
    for name in given:
        if name not in defaults:
            raise ValueError(f"{where}{name} is not an option: {did_you_mean(name, defaults)}")
    return {
        name: _typed(f"{where}{name}", defaults[name], value)
        for name, value in {**defaults, **given}.items()
        if value is not inspect.Parameter.empty
    }


def _typed(name: str, default: Any, value: Any) -> Any:
    if is_group(default):
        given = {} if value is default else value
        require(isinstance(given, Mapping), name, value, "a mapping of options")
        return typed(_fields(default), given, where=f"{name}.")
    return float(value) if isinstance(default, float) and isinstance(value, int) else value
