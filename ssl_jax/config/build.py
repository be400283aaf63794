"""From a config to the objects of a run. Below this nobody sees a ConfigDict."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.config.recipe import with_defaults
from ssl_jax.core.check import call
from ssl_jax.data.batches import mixture_of
from ssl_jax.data.frames import Clips
from ssl_jax.data.labels import FewLabels
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import Source
from ssl_jax.methods.method import Method
from ssl_jax.methods.registry import method_module
from ssl_jax.optim.optimizer import Optimizer
from ssl_jax.train.checkpoint import RestoredModel, restore_model
from ssl_jax.train.run import Host, Run
from ssl_jax.train.sharding import make_mesh
from ssl_jax.train.step import make_init
from ssl_jax.train.workdir import CONFIG, INCIDENTAL, read_config

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


def changed(config: Config, change: Mapping[str, Any]) -> Config:
    """A plain config with other values at dotted names.

    >>> changed({"a": {"b": 1}, "c": 2}, {"a.b": 3})
    {'a': {'b': 3}, 'c': 2}
    """
    new = dict(config)
    for path, value in change.items():
        *parents, last = path.split(".")
        part = new
        for parent in parents:
            part[parent] = dict(part[parent])
            part = part[parent]
        part[last] = value
    return new


def method(config: Config) -> Method:
    """The method that a config describes, with its encoder and views."""
    encoder = models.build(**config["encoder"])
    options = dict(config["method"])
    module = method_module(options.pop("name"))
    options["views"] = call(presets.build, where="config.views", options=config["views"])
    return call(module.build, encoder, where="config.method", options=options)


def same(there: Any, now: Config, *, beside: tuple[str, ...] = ()) -> bool:
    """Whether two runs had the same result to expect.

    Args:
      there: config of a result file, as JSON gives it; options that have come since count as their defaults.
      now: config of a run that would be made now.
      beside: parts of ``watch`` that count too.
    """
    there = with_defaults(tuples(there), now)
    ours, theirs = (
        {name: part for name, part in config.items() if name not in INCIDENTAL}
        | {name: config["watch"][name] for name in beside}
        for config in (now, there)
    )
    return ours == theirs


def optimizer(config: Config) -> Optimizer:
    """The optimizer that a config describes."""
    return call(optim.from_options, where="config.optimizer", options=config["optimizer"])


def mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices that a config asks for.

    Args:
      config: of a run.
      devices: those to choose from; ``None``: all that there are.
    """
    return make_mesh(data=config["host"]["data"], fsdp=config["host"]["fsdp"], devices=devices)


def source(config: Config, spec: str, split: str) -> Source:
    """Images for a config: of its number of channels, where the kind of source can convert.

    Raises:
      ValueError: what the source finds wrong, or another number of channels.
    """
    channels = config["data"]["channels"]
    converts = channels is not None and spec.startswith(("folder:", "parquet:", "frames:"))
    options = {"channels": channels} if converts else {}
    if spec.startswith("frames:"):
        options |= {name: config["data"][name] for name in ("window", "stride") if name in config["data"]}
    opened = open_source(spec, split, **options)
    if channels not in (None, opened.channels):
        raise ValueError(f"config.data.channels={channels}, but the images of {spec} have {opened.channels}")
    return opened


class Parts(NamedTuple):
    """What a run is made of, built before anything is written: a run that cannot start leaves no folder."""

    method: Method
    optimizer: Optimizer
    source: Source


def parts(config: Config) -> Parts:
    """Method, optimizer and training images of a config.

    Raises:
      ValueError: an option that does not exist or does not fit, or images that cannot be opened.
    """
    data = config["data"]
    images = source(config, data["source"], data["split"])
    if "window" in data and not isinstance(images, Clips):
        raise ValueError(
            f"config.data.source={data['source']!r}: allowed is frames:<path> or frames:moving, since "
            f"{config['method']['name']} learns from clips and these are single images"
        )
    if data.get("num_labels"):
        images = FewLabels(images, data["num_labels"], seed=config["seed"])
        if data["labeled_fraction"] is not None:
            mixture_of(images, data["labeled_fraction"], config["batch_size"])
    kept = config["method"].get("examples")
    if kept is not None and kept < len(images):
        raise ValueError(
            f"config.method.examples={kept}, but {data['source']} has {len(images)} images, for each of which the method "
            f"keeps something: give --config.method.examples={len(images)}"
        )
    return Parts(method(config), optimizer(config), images)


def run(config: Config, parts: Parts) -> Run:
    """What decides the bits of a config's run.

    Args:
      config: of the run.
      parts: what it is made of, from :func:`parts`.
    """
    data = config["data"]
    return Run(
        parts.method,
        parts.optimizer,
        parts.source,
        steps=config["steps"],
        batch_size=config["batch_size"],
        seed=config["seed"],
        accumulate=config["accumulate"],
        cached_gradients=config["cached_gradients"],
        crop_on=data["crop_on"],
        max_corrupt_fraction=data["max_corrupt_fraction"],
        labeled_fraction=labeled_fraction(config),
        refresh_every=config.get("refresh_every", 0),
    )


def host(config: Config) -> Host:
    """Where a config's run happens."""
    return Host(mesh=mesh(config), workers=config["host"]["workers"])


def labeled_fraction(config: Config) -> float | None:
    """Share of labelled images in every batch; ``None``: images as they come, as where none has lost its label.

    >>> [labeled_fraction({"data": {"num_labels": n, "labeled_fraction": 0.5}}) for n in (0, 100)]
    [None, 0.5]
    """
    return config["data"].get("labeled_fraction") if config["data"].get("num_labels") else None


def sample(config: Config) -> dict[str, Any]:
    """Shapes of one raw example, enough to initialise without opening the data."""
    size = config["views"]["size"]
    return {"image": jax.ShapeDtypeStruct((1, size, size, config["data"]["channels"]), jnp.uint8)}


def recorded(workdir: Path) -> Config:
    """The configuration of the run in a folder.

    Raises:
      ValueError: there is none, or it lacks a part.
    """
    config = tuples(read_config(workdir))
    for part in ("method", "encoder", "views", "optimizer", "data", "host", "watch"):
        if not isinstance(config.get(part), Mapping):
            raise ValueError(f"{workdir / CONFIG} is no configuration of a run: it has no {part}")
    return config


def restore(workdir: Path, step: str) -> tuple[Config, Method, RestoredModel]:
    """The config, method and weights of a run.

    Args:
      workdir: of ``experiments.pretrain``.
      step: ``latest``, ``best`` (by the online kNN) or a number.

    Raises:
      ValueError: no run or no such checkpoint in the folder.
    """
    if step not in ("latest", "best") and not step.isdigit():
        raise ValueError(f"step={step!r}: allowed is latest, best or a number of steps")
    config = recorded(workdir)
    built = method(config)
    abstract = jax.eval_shape(make_init(built, optimizer(config), sample(config)), 0)
    which: Any = int(step) if step.isdigit() else step
    model = restore_model(workdir / "checkpoints", step=which, abstract=(abstract.params, abstract.state))
    return config, built, model
