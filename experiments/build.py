"""From a config to the objects of a run. Below this nobody sees a ConfigDict."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.core.check import call
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import Source
from ssl_jax.methods.find import method_module
from ssl_jax.methods.method import Method
from ssl_jax.optim.build import Optimizer
from ssl_jax.optim.build import build as build_optimizer

Config = dict[str, Any]


def plain(config: ConfigDict) -> Config:
    """A config as nested plain dicts, JSON-able, references resolved."""
    return tuples(json.loads(config.to_json()))


def tuples(value: Any) -> Any:
    """JSON's lists back to tuples, at every depth.

    >>> tuples({"a": [1, [2]]})
    {'a': (1, (2,))}
    """
    if isinstance(value, Mapping):
        return {name: tuples(inner) for name, inner in value.items()}
    return tuple(tuples(inner) for inner in value) if isinstance(value, list | tuple) else value


def read_config(workdir: Path) -> Config:
    """The config of a finished or running run.

    Raises:
      FileNotFoundError: the folder holds no run.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"workdir={str(workdir)!r} holds no run: {path.name} is missing. Give the --workdir of experiments.pretrain"
        )
    return tuples(json.loads(path.read_text()))


def method(config: Config) -> Method:
    """The method that a config describes, with its encoder and views."""
    encoder = models.build(**config["encoder"])
    options = dict(config["method"])
    module = method_module(options.pop("name"))
    options["views"] = call(presets.build, where="config.views", options=config["views"])
    return call(module.build, encoder, where="config.method", options=options)


def optimizer(config: Config) -> Optimizer:
    """The optimizer that a config describes."""
    return call(build_optimizer, where="config.optimizer", options=config["optimizer"])


def source(config: Config, split: str) -> Source:
    """A split of the data that a config describes."""
    data = config["data"]
    options = {} if data["channels"] is None else {"channels": data["channels"]}
    return open_source(data["source"], split, **options)
