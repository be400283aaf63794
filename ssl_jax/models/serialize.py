"""Encoders as files: safetensors with the configuration inside, and StableHLO programs that need only jax."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from ssl_jax.core import check, trees
from ssl_jax.core.files import write_atomically
from ssl_jax.core.types import Array, Params, State
from ssl_jax.models.build import build
from ssl_jax.models.network import Network

FORMAT = "ssl_jax encoder 1"


def save_encoder(
    path: str | os.PathLike[str],
    network: Network,
    params: Params,
    state: State,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write an encoder to one ``.safetensors`` file: arrays by path, configuration and metadata as JSON.

    The file appears complete or not at all. In a run of several processes call it from one.

    Args:
      path: file to write; its folder exists.
      network: an encoder from ``models.build``.
      params: its params.
      state: its state.
      metadata: further facts to keep, such as method, step and data set; JSON-able.

    Raises:
      ValueError: a network without a configuration, as heads are.

    >>> import jax, jax.numpy as jnp, tempfile
    >>> network = build("convnet", widths=(4,), grid=1)
    >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_encoder(f"{folder}/encoder.safetensors", network, *variables, metadata={"step": 3})
    ...     loaded, params, state, metadata = load_encoder(f"{folder}/encoder.safetensors")
    >>> loaded.features, metadata
    (4, {'step': 3})
    """
    check.require("name" in network.config, "network.config", dict(network.config), "that of models.build")
    variables = trees.flatten({"params": params, "state": state})
    arrays = {name: np.asarray(leaf) for name, leaf in variables.items()}
    header = {
        "format": FORMAT,
        "config": json.dumps(dict(network.config)),
        "metadata": json.dumps(dict(metadata or {})),
    }
    write_atomically(path, safetensors.numpy.save(arrays, header))


def load_encoder(path: str | os.PathLike[str]) -> tuple[Network, Params, State, dict[str, Any]]:
    """Read what :func:`save_encoder` wrote.

    Args:
      path: the file.

    Returns:
      ``(network, params, state, metadata)``.

    Raises:
      ValueError: a safetensors file that :func:`save_encoder` did not write.
    """
    with safetensors.safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        check.require(header.get("format") == FORMAT, "path", str(path), f"a file of the format {FORMAT!r}")
        arrays = {name: jnp.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    tree = trees.unflatten(arrays)
    try:
        network, metadata = build(**json.loads(header["config"])), json.loads(header["metadata"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} has no configuration that can be read: {error}") from error
    return network, tree.get("params", {}), tree.get("state", {}), metadata


def export_stablehlo(
    path: str | os.PathLike[str],
    function: Callable[[Array], Any],
    image_shape: Sequence[int],
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> None:
    """Write ``images -> features`` with its weights as a StableHLO program for any batch size.

    To run it nothing but jax is needed: ``jax.export.deserialize(bytearray(file.read())).call(images)``.

    Args:
      path: file to write; its folder exists.
      function: float32 ``[b, h, w, c]`` to an array or a tree; traced once, arrays it closes over go into the
        file.
      image_shape: ``(h, w, c)``.
      platforms: on which the program is to run.

    >>> import jax.numpy as jnp, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_stablehlo(f"{folder}/mean.stablehlo", lambda x: x.mean((1, 2)), (4, 4, 3))
    ...     load_stablehlo(f"{folder}/mean.stablehlo")(jnp.ones((5, 4, 4, 3))).shape
    (5, 3)
    """
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    exported = jax.export.export(jax.jit(function), platforms=tuple(platforms))(images)
    write_atomically(path, bytes(exported.serialize()))


def load_stablehlo(path: str | os.PathLike[str]) -> Callable[[Array], Any]:
    """Read a program that :func:`export_stablehlo` wrote.

    Args:
      path: the file.

    Returns:
      The function, float32 ``[b, h, w, c]`` to features, for any ``b``.
    """
    return jax.export.deserialize(bytearray(Path(path).read_bytes())).call
