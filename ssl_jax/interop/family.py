"""What a family of checkpoints is, and which one a file belongs to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_jax.core import trees
from ssl_jax.core.check import require
from ssl_jax.core.types import Params, State
from ssl_jax.interop.names import Arrays, Names, count_known, has_name, unknown_names
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.models.network import Network, require_same_arrays


class Weights(NamedTuple):
    """What a file, or a model of a hub, holds.

    Attributes:
      arrays: by dotted name, float32 unless integers; containers and prefixes such as ``state_dict`` and ``module.`` are off.
      metadata: what came with them: ``config`` (``config.json`` of the hub), ``preprocessor`` (``preprocessor_config.json``),
        ``open_clip`` (``open_clip_config.json``), ``pretrained_cfg`` (timm), ``header`` (of a safetensors file); those that
        there are. ``architecture``: options that the caller gave, see :func:`ssl_jax.interop.pretrained.load_pretrained`.
      provenance: where they come from: ``name``, ``file``, ``sha256``, ``revision``, ``part`` (such as ``teacher``), ``dtype``.
    """

    arrays: dict[str, np.ndarray]
    metadata: Mapping[str, Any]
    provenance: Mapping[str, Any]


def timm_architecture(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    """Read what timm calls a model and the arguments that it was built with; ``("", {})`` where a file says nothing.

    >>> timm_architecture(Weights({}, {"config": {"architecture": "resnet18"}}, {}))
    ('resnet18', {})
    """
    config = weights.metadata.get("config", {})
    pretrained = weights.metadata.get("pretrained_cfg", config.get("pretrained_cfg", {}))
    name = config.get("architecture", pretrained.get("architecture")) or ""
    return str(name), config.get("model_args") or pretrained.get("model_args") or {}


class Converted(NamedTuple):
    """A checkpoint as a network of ours.

    Attributes:
      network: from ``models.build``.
      params: its params.
      state: its state.
      preprocessing: what the network expects of a picture.
      heads: ``(params, state)`` of what else the file holds, by our methods' names: ``projector``, ``predictor``,
        ``prototypes``, ``decoder``.
    """

    network: Network
    params: Params
    state: State
    preprocessing: Preprocessing
    heads: Mapping[str, tuple[Params, State]] = {}


class Family(NamedTuple):
    """Checkpoints of one architecture under one set of names.

    Attributes:
      name: for people, such as ``transformers Dinov2``.
      names: table of names; its ``pairs`` and ``left_out`` must know every array of a file.
      marks: their names (``{i}`` for numbers), all of which a file of the family has.
      convert: function from a file's weights to a network.
      unmarked: their names, none of which a file of the family has.
    """

    name: str
    names: Names
    marks: tuple[str, ...]
    convert: Callable[[Weights], Converted]
    unmarked: tuple[str, ...] = ()


def recognize(arrays: Arrays, families: Sequence[Family], *, source: str) -> Family:
    """Find the family of a checkpoint by the names in it.

    Args:
      arrays: by their name.
      families: those to choose from; of several that fit the first counts.
      source: name of the file, for the error.

    Raises:
      ValueError: none fits; names the nearest family and the first names that do not fit.
    """
    for family in families:
        if (
            not unknown_names(arrays, family.names)
            and not _missing(arrays, family)
            and not _foreign(arrays, family)
        ):
            return family
    require(bool(arrays), "name", source, "a file with the arrays of a network; this one has none")
    known = [count_known(arrays, family.names) for family in families]
    if not any(known):
        some = ", ".join(list(arrays)[:3])
        raise ValueError(
            f"{source}: no family of checkpoints has one of its {len(arrays)} names, such as {some}"
        )
    missed = [len(_missing(arrays, family)) for family in families]
    nearest = families[max(range(len(families)), key=lambda index: (known[index], -missed[index]))]
    missing = _missing(arrays, nearest)
    foreign = _foreign(arrays, nearest) + unknown_names(arrays, nearest.names)
    reasons = [
        f"does not have {', '.join(missing[:3])}" if missing else "",
        f"has {', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}, which that family does not"
        if foreign
        else "",
    ]
    raise ValueError(
        f"{source}: no family of checkpoints fits its {len(arrays)} arrays; the nearest is {nearest.name}, but the file "
        f"{' and '.join(filter(None, reasons))}"
    )


def _missing(arrays: Arrays, family: Family) -> tuple[str, ...]:
    return tuple(mark for mark in family.marks if not any(has_name(name, mark) for name in arrays))


def _foreign(arrays: Arrays, family: Family) -> tuple[str, ...]:
    return tuple(name for name in arrays if any(has_name(name, mark) for mark in family.unmarked))


def convert(weights: Weights, family: Family, *, source: str) -> Converted:
    """Convert a checkpoint of a family; what does not fit is a line that names the array.

    Args:
      weights: the checkpoint.
      family: that of :func:`recognize`.
      source: name of the file, for errors.

    Raises:
      ValueError: an array is missing, or has another shape than the network that the others describe.
    """
    try:
        converted = family.convert(weights)
    except KeyError as error:
        raise ValueError(f"{source} ({family.name}) lacks the array {error.args[0]}") from error
    except ValueError as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{source} ({family.name}): {message}") from error
    network = converted.network
    size = network.config.get("image_size", 64)
    images = jax.ShapeDtypeStruct((1, size, size, len(converted.preprocessing.mean)), np.float32)
    needed = jax.eval_shape(network.init, jax.random.key(0), images)
    given, wanted = (
        {
            path: tuple(leaf.shape)
            for path, leaf in trees.flatten(dict(zip(("params", "state"), both, strict=True))).items()
        }
        for both in ((converted.params, converted.state), needed)
    )
    try:
        require_same_arrays(given, wanted)
    except ValueError as error:
        raise ValueError(f"{source} ({family.name}): {error}") from error
    return converted
