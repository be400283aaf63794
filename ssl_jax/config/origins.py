"""Where the values of a config come from: a signature, a recipe, the command line."""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.config import build, make
from ssl_jax.config.make import OF_IMAGES, Basis, Entry, is_own_source, smoke_values
from ssl_jax.config.options import fitting_options
from ssl_jax.config.weights import OF_TRAINING, START, Start
from ssl_jax.methods.registry import method_module

COMMAND_LINE = "command line"
OF_RECIPE = {
    "steps": "epochs",
    "batch_size": "batch_size",
    "refresh_every": "refresh_epochs",
    "data.num_labels": "num_labels",
    "data.labeled_fraction": "labeled_fraction",
    "optimizer.warmup_steps": "warmup_epochs",
    "optimizer.rampdown_steps": "rampdown_epochs",
    "optimizer.boundaries": "boundary_epochs",
    "optimizer.freeze": "freeze_epochs",
    "optimizer.steps_per_epoch": "hold_each_epoch",
}
"""Fields of a recipe from which values follow, where it has them."""
OF_DATASET = ("data.source", "data.split", "data.num_examples", "views.size", "views.mean", "views.std")
FOLLOWING = {"optimizer.steps": "steps", "optimizer.batch_size": "batch_size"}


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of a config by dotted name.

    >>> list(leaves({"seed": 0, "host": {"fsdp": 1}}))
    [('seed', 0), ('host.fsdp', 1)]
    """
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def find_origins(
    config: ConfigDict, entry: Entry, basis: Basis, overrides: Mapping[str, Any]
) -> dict[str, str]:
    """Say where each value of a config comes from, by dotted name.

    Args:
      config: the whole config.
      entry: what made it.
      basis: dataset and recipe that it was made from.
      overrides: values of the command line, by dotted name.
    """
    smoke = smoke_values(config, entry.smoke) if basis.budget == "smoke" else {}
    signatures = {
        "method": method_module(entry.method).build,
        "encoder": models.BUILDERS[config.encoder.name],
        "views": presets.PRESETS[config.views.preset],
        "optimizer": optim.from_options,
    }

    from_weights = _from_weights(config, basis)
    following = {**FOLLOWING, **{f"method.{option}": name for option, name in entry.follows.items()}}
    of_dataset = [*OF_DATASET, *(f"encoder.{option}" for option in fitting_options(basis.dataset))]

    def find_origin(name: str) -> str:
        part = name.partition(".")[0]
        if any(f"{name}.".startswith(f"{given}.") for given in overrides):
            return COMMAND_LINE
        if name in smoke:
            return "smoke"
        if name in from_weights:
            return from_weights[name]
        if name in following:
            return f"follows {following[name]}"
        if _is_in_recipe(name, basis, overrides):
            return "recipe"
        if name in ("views.mean", "views.std") and not is_own_source(basis.dataset, config.data.source):
            return "measured on the images"
        if name in of_dataset:
            return "dataset"
        function = getattr(signatures.get(part), "func", signatures.get(part))
        module, own_name = (function.__module__, f".{function.__name__}") if function else (make.__name__, "")
        return f"default of {module}{own_name}"

    return {name: find_origin(name) for name, _ in leaves(build.to_dict(config))}


def _from_weights(config: ConfigDict, basis: Basis) -> dict[str, str]:
    """Say of each value where it comes from that a run has because it starts from weights."""
    if basis.origin is None:
        return {}
    origins = {
        f"encoder.{option}": f"from {config.encoder.weights}"
        for option in config.encoder
        if option in basis.origin.encoder and option not in OF_TRAINING
    }
    origins |= {f"encoder.{option}": f"default of {Start.__module__}.Start" for option in START}
    views = [name for name in config.views if name.endswith("size")]
    known = len(config.views.mean) in (1, len(basis.origin.mean))
    views += ["mean", "std"] if known else []
    origins |= {f"views.{name}": f"from {config.encoder.weights}" for name in views}
    if "crop_ratio" not in basis.recipe.evaluate:
        origins["watch.evaluate.crop_ratio"] = f"from {config.encoder.weights}"
    return origins


def _is_in_recipe(name: str, basis: Basis, overrides: Mapping[str, Any]) -> bool:
    recipe = basis.recipe
    part, _, option = name.partition(".")
    if name in OF_RECIPE:
        return bool(getattr(recipe, OF_RECIPE[name]))
    if part == "views" and "views.preset" in overrides:
        return option in OF_IMAGES and option in recipe.views
    given: dict[str, Mapping[str, Any]] = {
        "method": {**recipe.method, **recipe.method_epochs, "name": ""},
        "views": recipe.views,
        "optimizer": recipe.optimizer,
        "encoder": {**recipe.encoder, "name": recipe.backbone},
        "data": recipe.data,
    }
    if name.startswith("watch.evaluate."):
        return name.removeprefix("watch.evaluate.") in recipe.evaluate
    return any(option == leaf or option.startswith(f"{leaf}.") for leaf, _ in leaves(given.get(part, {})))
