"""Weights of ResNets to and from torch's names and layouts (torchvision and timm use the same)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import check, trees
from ssl_jax.core.types import Params, State
from ssl_jax.models.network import Network

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
IGNORED = ("fc.weight", "fc.bias")
"""The classifier, which an encoder does not have."""


def resnet_from_torch(state_dict: Mapping[str, np.ndarray], network: Network) -> tuple[Params, State]:
    """Read the variables of a ResNet from a torch ``state_dict``.

    Convolutions turn from ``[out, in, h, w]`` to ``[h, w, in, out]``. The classifier and
    ``num_batches_tracked`` are left out.

    Args:
      state_dict: torch name to numpy array, as in torchvision and timm.
      network: the ResNet that the weights are for.

    Returns:
      ``(params, state)``, float32.

    Raises:
      ValueError: a weight is missing, left over, or of another shape than the network's.
    """
    count = np.shape(state_dict["conv1.weight"])[1] if "conv1.weight" in state_dict else 3
    variables = jax.eval_shape(
        network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, count), jnp.float32)
    )
    expected = {_torch_name(path): path for path in trees.flatten(variables)}
    given = {
        n: a for n, a in state_dict.items() if n not in IGNORED and not n.endswith("num_batches_tracked")
    }
    for name in sorted(expected.keys() ^ given.keys()):
        problem = "missing from" if name in expected else "not expected in"
        raise ValueError(f"{name} is {problem} the state_dict for {dict(network.config)}")

    def convert(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = _torch_name(path)
        value = np.asarray(given[name], np.float32)
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        if value.shape != leaf.shape:
            raise ValueError(f"{name} has the shape {given[name].shape}, which does not fit {leaf.shape}")
        return jnp.asarray(value)

    params, state = trees.map_with_path(convert, variables)
    return params, state


def resnet_to_torch(params: Params, state: State) -> dict[str, np.ndarray]:
    """Write the variables of a ResNet as a torch ``state_dict``: the inverse of :func:`resnet_from_torch`.

    It has no classifier and no ``num_batches_tracked``: load it with ``strict=False``.

    Args:
      params: params of a ResNet.
      state: its state.

    Returns:
      Torch name to float32 array, convolutions as ``[out, in, h, w]``.

    Raises:
      ValueError: a ResNet without batch statistics (``norm="group"``), which torch's is not.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax import models
    >>> network = models.build("resnet18", width=0.0625)
    >>> weights = resnet_to_torch(*network.init(jax.random.key(0), jnp.ones((1, 32, 32, 3))))
    >>> weights["layer2.0.downsample.0.weight"].shape
    (8, 4, 1, 1)
    """
    names = sorted(state)
    check.require(
        "batch_stats" in state, "state", names, "that of a ResNet with batch statistics, norm='batch'"
    )
    arrays = {_torch_name(path): np.asarray(leaf) for path, leaf in trees.flatten((params, state)).items()}
    return {name: a.transpose(3, 2, 0, 1) if a.ndim == 4 else a for name, a in arrays.items()}


def _torch_name(path: str) -> str:
    """Path in ``(params, state)`` to torch's name.

    >>> _torch_name("1/batch_stats/layer2_0/downsample_1/var")
    'layer2.0.downsample.1.running_var'
    """
    parts = [part for part in path.split("/")[1:] if part != "batch_stats"]
    return ".".join(part.replace("_", ".") for part in parts[:-1]) + "." + LEAVES[parts[-1]]
