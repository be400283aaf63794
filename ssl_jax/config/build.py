"""From a config to the objects of a run. Below this nobody sees a ConfigDict."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.augment.views import without_effect
from ssl_jax.config import weights
from ssl_jax.config.images import open_images
from ssl_jax.config.ranges import check_config
from ssl_jax.core.check import call, require
from ssl_jax.core.types import Array, Params, State
from ssl_jax.data.batches import mixture_of
from ssl_jax.data.frames import Clips
from ssl_jax.data.labels import FewLabels, known_labels
from ssl_jax.data.sources import Source
from ssl_jax.methods.method import Method
from ssl_jax.methods.registry import method_module
from ssl_jax.models.network import Network
from ssl_jax.models.packing import pack_crops
from ssl_jax.optim.optimizer import Optimizer
from ssl_jax.train import workdir as directory
from ssl_jax.train.checkpoint import RestoredModel, restore_model
from ssl_jax.train.run import Host, Run
from ssl_jax.train.sharding import make_mesh
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import make_init

Config = dict[str, Any]

_log = logging.getLogger(__name__)


def to_dict(config: ConfigDict) -> Config:
    """Convert a config to nested plain dicts, JSON-able, references resolved."""
    return tuples(json.loads(config.to_json()))


def tuples(value: Any) -> Any:
    """Turn JSON's lists back into tuples, at every depth.

    >>> tuples({"a": [1, [2]]})
    {'a': (1, (2,))}
    """
    if isinstance(value, Mapping):
        return {name: tuples(inner) for name, inner in value.items()}
    return tuple(tuples(inner) for inner in value) if isinstance(value, list | tuple) else value


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """Copy a config with other values at dotted names.

    >>> with_changes({"a": {"b": 1}, "c": 2}, {"a.b": 3})
    {'a': {'b': 3}, 'c': 2}
    """
    new = dict(config)
    for path, value in changes.items():
        *parents, last = path.split(".")
        part = new
        for parent in parents:
            part[parent] = dict(part[parent])
            part = part[parent]
        part[last] = value
    return new


def with_corrupt_fraction(config: Config, share: float | None) -> Config:
    """Copy a config with another share of unreadable images that is put up with, in whatever is done with its run.

    Args:
      config: config of a run.
      share: new ``data.max_corrupt_fraction``; ``None``: that of the run.

    Raises:
      ValueError: not a share.

    >>> with_corrupt_fraction({"data": {"max_corrupt_fraction": 0.1}}, 0.5)
    {'data': {'max_corrupt_fraction': 0.5}}
    """
    if share is None:
        return config
    require(0 <= share <= 1, "max_corrupt_fraction", share, "a share from 0 to 1")
    return with_changes(config, {"data.max_corrupt_fraction": share})


def same_run(recorded: Any, config: Config, *, watched: tuple[str, ...] = ()) -> bool:
    """Tell whether two runs had the same result to expect.

    Args:
      recorded: config of a result, as JSON gives it.
      config: config of a run that would be made now.
      watched: parts of ``watch`` that count too.
    """
    ours, theirs = (
        {name: part for name, part in whole.items() if name not in directory.INCIDENTAL}
        | {name: whole["watch"][name] for name in watched}
        for whole in (config, tuples(recorded))
    )
    return ours == theirs


class RunObjects(NamedTuple):
    """What a run is made of, built before anything is written: a run that cannot start leaves no folder."""

    method: Method
    optimizer: Optimizer
    source: Source


def run_objects(config: Config, *, starts: bool = True) -> RunObjects:
    """Build method and optimizer of a config, and open its training images.

    Args:
      config: config of the run.
      starts: whether it begins, so that the weights that it may start from are needed.

    Raises:
      ValueError: an option that does not exist, does not fit or is outside of its range, or images that cannot be opened.
    """
    check_config(config)
    data = config["data"]
    images = open_images(config, data["source"], data["split"])
    if "window" in data and not isinstance(images, Clips):
        raise ValueError(
            f"config.data.source={data['source']!r}: allowed is frames:<path> or frames:moving, since "
            f"{config['method']['name']} learns from clips and these are single images"
        )
    if data.get("num_labels"):
        images = FewLabels(images, data["num_labels"], seed=config["seed"])
        if data["labeled_fraction"] is not None:
            mixture_of(images, data["labeled_fraction"], config["batch_size"])
    num_examples = config["method"].get("num_examples")
    if num_examples is not None and num_examples < len(images):
        raise ValueError(
            f"config.method.num_examples={num_examples}, but {data['source']} has {len(images)} images, for each of which "
            f"the method keeps something: give --config.method.num_examples={len(images)}"
        )
    built = method(config)
    if config["method"].get("labels") is True or built.classify is not None or "classes" in config["method"]:
        require_labels(images, config)
    parts = 1 if config["cached_gradients"] else config["accumulate"]
    built.limits.require(batch_size=config["batch_size"], accumulate=parts, images=len(images))
    if starts and weights.start_of(config) is not None:
        _check_start(config, built, images.channels)
    idle = without_effect(built.views, images.channels)
    if idle:
        options = ", ".join(f"views.{option}" for option in idle)
        _log.info("images of %d channel(s): %s without effect", images.channels, options)
    return RunObjects(built, optimizer(config), images)


def _check_start(config: Config, built: Method, channels: int) -> None:
    """Raise unless a run can start from its weights; say what it starts from."""
    weights.started_encoder(config, channels)
    config = {**config, "data": {**config["data"], "channels": channels}}
    name = config["method"]["name"]
    try:
        first = jax.eval_shape(make_init(built, optimizer(config), sample(config)), 0)
    except ValueError as error:
        raise ValueError(f"{name} cannot start from {config['encoder']['weights']}: {error}") from error
    if "encoder" not in first.params:
        raise ValueError(
            f"config.encoder.weights: {name} keeps no encoder of its own that weights could be put into"
        )
    if weights.freeze(config) and first.params.keys() == {"encoder"}:
        _log.info("the method has no head to warm up: set --config.encoder.frozen_share=0")
    start = weights.start_of(config)
    if start is not None and start.with_heads:
        weights.with_heads(
            first.params, first.state, weights.open_weights(start.weights).heads, start.weights
        )
    _log.info("%s", weights.describe_start(config, channels))


def require_labels(images: Source, config: Config) -> None:
    """Raise where a method that learns from labels has none to learn from, or fewer outputs than there are classes.

    Images without a label are no error where others have one: losses leave them out.

    Args:
      images: training images.
      config: config of the run.

    Raises:
      ValueError: names the method, and the option that gives the number of classes.
    """
    name, known = config["method"]["name"], known_labels(images)
    if not images.classes or (known is not None and not np.any(known >= 0)):
        raise ValueError(
            f"config.method.name={name!r} learns from labels, but none of the {len(images)} images of {images.name} has one"
        )
    for part in ("method", "encoder"):
        outputs = config[part].get("classes")
        if outputs is not None and outputs < len(images.classes):
            raise ValueError(
                f"config.{part}.classes={outputs}: allowed is {len(images.classes)} or more, as many as {images.name} has"
            )


def encoder(config: Config) -> Network:
    """Build the encoder that a config describes; its ``init`` draws also where the run starts from weights, see :func:`run`."""
    with options_that_fit("config.encoder", config["encoder"]):
        adapted = weights.adaptation(weights.start_of(config))
        return models.build(**weights.architecture(config), **adapted)


def method(config: Config, network: Network | None = None) -> Method:
    """Build the method that a config describes, with its encoder and views.

    Args:
      config: config of the run.
      network: the encoder, to begin with other variables; ``None``: that of :func:`encoder`.

    Raises:
      ValueError: an option that does not exist, does not fit or is outside of its range
        (:data:`ssl_jax.config.ranges.RANGES`).
    """
    check_config({part: config[part] for part in ("encoder", "views", "method")})
    network = encoder(config) if network is None else network
    with options_that_fit("config.views", config["views"]):
        views = call(presets.build, where="config.views", options=config["views"])
    # Runs that were recorded before there was the option have none.
    if config.get("host", {}).get("packed_crops"):
        sizes = [view.size for view in views]
        several = len(set(sizes)) > 1
        require(several, "config.host.packed_crops", True, f"False where all views have one size, {sizes[0]}")
        network = pack_crops(network)
    with options_that_fit("config.method", config["method"]):
        options = {**config["method"], "views": views}
        name = options.pop("name")
        try:
            return call(method_module(name).build, network, where="config.method", options=options)
        except ValueError as error:
            start = config["encoder"].get("weights")
            if not start or not str(error).startswith("encoder"):
                raise
            raise ValueError(f"{name} cannot start from {start}: {error}") from error


def optimizer(config: Config) -> Optimizer:
    """Build the optimizer that a config describes.

    Raises:
      ValueError: as of :func:`method`.
    """
    check_config({"optimizer": config["optimizer"]})
    options = config["optimizer"]
    held = weights.freeze(config)
    if held:
        options = {**options, "freeze": (*options["freeze"], *held)}
    with options_that_fit("config.optimizer", config["optimizer"]):
        return call(optim.from_options, where="config.optimizer", options=options)


@contextlib.contextmanager
def options_that_fit(where: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Turn what Python says where a value has the wrong type or two do not go together into an error of one line.

    An error that names an argument by its name alone gets the prefix, if that is the name of an option.

    Args:
      where: prefix by which the user addresses the options.
      options: options that are built from, by name.

    Raises:
      ValueError: names where, and what Python said.
    """
    try:
        yield
    except jax.errors.JAXTypeError:
        raise  # an option that is traced, where it cannot be: who traces it knows
    except ValueError as error:
        if str(error).split("=")[0].split(".")[0] in options:
            raise ValueError(f"{where}.{error}") from error
        raise
    except (TypeError, ArithmeticError, LookupError, AttributeError, MemoryError) as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(
            f"{where}: a value has the wrong type, or two do not go together ({type(error).__name__}: {said})"
        ) from error


def run(config: Config, objects: RunObjects) -> Run:
    """Collect what decides the bits of a config's run.

    Args:
      config: config of the run.
      objects: what it is made of, from :func:`run_objects`.
    """
    data = config["data"]
    return Run(
        objects.method,
        objects.optimizer,
        objects.source,
        steps=config["steps"],
        batch_size=config["batch_size"],
        seed=config["seed"],
        accumulate=config["accumulate"],
        cached_gradients=config["cached_gradients"],
        crop_on=data["crop_on"],
        max_corrupt_fraction=data["max_corrupt_fraction"],
        labeled_fraction=labeled_fraction(config),
        refresh_every=config.get("refresh_every", 0),
        init_state=None if weights.start_of(config) is None else start_from_weights(config, objects),
    )


def start_from_weights(config: Config, objects: RunObjects) -> Callable[[TrainState], TrainState]:
    """Make the function that replaces a drawn state by the one that a run starts with from its weights.

    The method makes it by its own ``init``, so that teachers are copies of the encoder, and nothing of it is compiled in as a
    constant. The weights are read when the function is called, which is not the case where a checkpoint is restored.

    Args:
      config: config of the run.
      objects: what it is made of.
    """

    def start(state: TrainState) -> TrainState:
        channels = objects.source.channels
        data = {**config["data"], "channels": channels}
        first = _start_state({**config, "data": data}, objects.optimizer)
        weights.forget_weights()
        return first._replace(key=state.key)

    return start


def started_state(config: Config) -> TrainState:
    """Make the state that a run starts with from its weights, on the host, without the key.

    Args:
      config: config of the run; ``data.channels`` is known.

    Raises:
      ValueError: weights that cannot be loaded or do not fit.
    """
    return _start_state(config, optimizer(config))


def _start_state(config: Config, optimizer: Optimizer) -> TrainState:
    start, rows = weights.start_of(config), sample(config)
    assert start is not None
    network, params, state = weights.started_encoder(config, config["data"]["channels"])

    def init(seed: Array, params: Params, state: State) -> TrainState:
        started = method(config, weights.started(network, params, state, start))
        return make_init(started, optimizer, rows)(seed)

    first = jax.jit(init)(config["seed"], params, state)
    # On the host, where the devices of several processes can take it from; but for the key, which all of them have.
    first = jax.tree.map(np.asarray, first._replace(key=jnp.int32(0)))
    if start.with_heads:
        heads = weights.open_weights(start.weights).heads
        params, state = weights.with_heads(first.params, first.state, heads, start.weights)
        first = first._replace(params=params, state=state)
    return first


def host(config: Config) -> Host:
    """Say where a config's run happens."""
    return Host(mesh=mesh(config), workers=config["host"]["workers"])


def mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange the devices that a config asks for.

    Args:
      config: config of the run.
      devices: those to choose from; ``None``: all that there are.
    """
    return make_mesh(data=config["host"]["data"], fsdp=config["host"]["fsdp"], devices=devices)


def labeled_fraction(config: Config) -> float | None:
    """Look up the share of labeled images in every batch; ``None``: images as they come, as where none has lost its label.

    >>> [labeled_fraction({"data": {"num_labels": n, "labeled_fraction": 0.5}}) for n in (0, 100)]
    [None, 0.5]
    """
    return config["data"].get("labeled_fraction") if config["data"].get("num_labels") else None


def sample(config: Config) -> dict[str, Any]:
    """Describe one raw example by its shapes, enough to initialise without opening the data."""
    size = config["views"]["size"]
    return {"image": jax.ShapeDtypeStruct((1, size, size, config["data"]["channels"]), jnp.uint8)}


def read_config(workdir: Path) -> Config:
    """Read the configuration of the run in a folder.

    Raises:
      ValueError: there is none, or it lacks a part.
    """
    config = tuples(directory.read_config(workdir))
    for part in ("method", "encoder", "views", "optimizer", "data", "host", "watch"):
        if not isinstance(config.get(part), Mapping):
            raise ValueError(f"{workdir / directory.CONFIG} is no configuration of a run: it has no {part}")
    return config


def restore(workdir: Path, step: str) -> tuple[Config, Method, RestoredModel]:
    """Restore the config, method and weights of a run.

    Args:
      workdir: folder that ``experiments.pretrain`` made.
      step: ``latest``, ``best`` (by the online kNN) or a number.

    Raises:
      ValueError: no run or no such checkpoint in the folder.
    """
    number = step.isascii() and step.isdigit() and len(step) <= 10
    require(number or step in ("latest", "best"), "step", step, "latest, best or a number of steps")
    config = read_config(workdir)
    check_config(config)
    built = method(config)
    abstract = jax.eval_shape(make_init(built, optimizer(config), sample(config)), 0)
    which: Any = int(step) if number else step
    model = restore_model(workdir / "checkpoints", step=which, abstract=(abstract.params, abstract.state))
    return config, built, model
