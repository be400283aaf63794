"""What a family of checkpoints is, and which one a file belongs to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.core.types import Params, State
from ssl_jax.interop.names import Arrays, Names, has_name, translate
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.models.network import Network


class Weights(NamedTuple):
    """What a file, or a model of a hub, holds.

    Attributes:
      arrays: by dotted name, float32 unless integers; containers and prefixes such as ``state_dict`` and ``module.`` are off.
      metadata: what came with them: ``config`` (``config.json`` of the hub), ``preprocessor`` (``preprocessor_config.json``),
        ``pretrained_cfg`` (timm), ``header`` (of a safetensors file); those that there are.
      provenance: where they come from: ``name``, ``file``, ``sha256``, ``revision``, ``part`` (such as ``teacher``), ``dtype``.
    """

    arrays: dict[str, np.ndarray]
    metadata: Mapping[str, Any]
    provenance: Mapping[str, Any]


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
    unknown = {family.name: translate(arrays, family.names).unknown for family in families}
    for family in families:
        marked = all(any(has_name(name, mark) for name in arrays) for mark in family.marks)
        foreign = any(has_name(name, mark) for mark in family.unmarked for name in arrays)
        if marked and not foreign and not unknown[family.name]:
            return family
    nearest = min(families, key=lambda family: (len(unknown[family.name]), -len(family.marks)))
    missing = [mark for mark in nearest.marks if not any(has_name(name, mark) for name in arrays)]
    some = ", ".join(unknown[nearest.name][:3])
    reasons = [
        f"does not have {', '.join(missing[:3])}" if missing else "",
        f"has {some}{', ...' if len(unknown[nearest.name]) > 3 else ''}, which that family does not know"
        if some
        else "",
    ]
    raise ValueError(
        f"{source}: no family of checkpoints fits its {len(arrays)} arrays; the nearest is {nearest.name}, but the file "
        f"{' and '.join(filter(None, reasons)) or 'is of another shape'}"
    )
