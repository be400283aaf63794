"""Weights of ResNets and ConvNeXts to and from torch's layouts, under the names of timm (for ResNets torchvision's too)."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import check, trees
from ssl_jax.core.types import Params, State
from ssl_jax.models.network import Network

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
FROM_TORCH, TO_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}, {4: (3, 2, 0, 1), 2: (1, 0)}
"""Axes of our arrays in torch's and of torch's in ours, by their number: convolutions and linear layers."""
AROUND_NUMBERS = re.compile(r"_(?=\d)|(?<=\d)_")
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
    return _from_torch({name: a for name, a in state_dict.items() if name not in IGNORED}, "conv1", network)


def convnext_from_torch(state_dict: Mapping[str, np.ndarray], network: Network) -> tuple[Params, State]:
    """Read the variables of a ConvNeXt from torch's layouts, under the names of :func:`convnext_to_torch`.

    Args:
      state_dict: name to array; linear layers as ``[out, in]``, convolutions as ``[out, in, h, w]``.
      network: the ConvNeXt that the weights are for.

    Returns:
      ``(params, {})``, float32.

    Raises:
      ValueError: a weight is missing, left over, or of another shape than the network's.
    """
    return _from_torch(state_dict, "stem.0", network)


def _from_torch(state_dict: Mapping[str, np.ndarray], first: str, network: Network) -> tuple[Params, State]:
    """Read variables; ``first`` is the layer that sees the images and tells their channels."""
    kernel = f"{first}.weight"
    count = np.shape(state_dict[kernel])[1] if kernel in state_dict else 3
    images = jax.ShapeDtypeStruct((1, 224, 224, count), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    expected = {_torch_name(path): path for path in trees.flatten(variables)}
    given = {name: a for name, a in state_dict.items() if not name.endswith("num_batches_tracked")}
    for name in sorted(expected.keys() ^ given.keys()):
        problem = "missing from" if name in expected else "not expected in"
        raise ValueError(f"{name} is {problem} the state_dict for {dict(network.config)}")

    def convert(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = _torch_name(path)
        value = _transposed(np.asarray(given[name], np.float32), FROM_TORCH)
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
    return _to_torch((params, state))


def convnext_to_torch(params: Params) -> dict[str, np.ndarray]:
    """Write the variables of a ConvNeXt in torch's layouts, the inverse of :func:`convnext_from_torch`.

    Names are timm's, but for the last normalisation, ``norm`` in place of ``head.norm``.

    Args:
      params: params of a ConvNeXt, which has no state.

    Returns:
      Name to float32 array, linear layers as ``[out, in]``, convolutions as ``[out, in, h, w]``.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax import models
    >>> network = models.build("convnext_tiny", depths=(1, 1), widths=(4, 8))
    >>> weights = convnext_to_torch(network.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))[0])
    >>> weights["stages.1.blocks.0.conv_dw.weight"].shape, weights["stages.0.blocks.0.mlp.fc1.weight"].shape
    ((8, 1, 7, 7), (16, 4))
    """
    return _to_torch((params, {}))


def _to_torch(variables: tuple[Params, State]) -> dict[str, np.ndarray]:
    arrays = {
        _torch_name(path): np.asarray(leaf, np.float32) for path, leaf in trees.flatten(variables).items()
    }
    return {name: _transposed(array, TO_TORCH) for name, array in arrays.items()}


def _transposed(array: np.ndarray, axes: Mapping[int, tuple[int, ...]]) -> np.ndarray:
    return array.transpose(axes[array.ndim]) if array.ndim in axes else array


def _torch_name(path: str) -> str:
    """Path in ``(params, state)`` to torch's name.

    >>> _torch_name("1/batch_stats/layer2_0/downsample_1/var"), _torch_name("0/stages_0_blocks_1/conv_dw/kernel")
    ('layer2.0.downsample.1.running_var', 'stages.0.blocks.1.conv_dw.weight')
    """
    parts = [part for part in path.split("/")[1:] if part != "batch_stats"]
    return ".".join(
        [*(AROUND_NUMBERS.sub(".", part) for part in parts[:-1]), LEAVES.get(parts[-1], parts[-1])]
    )
