"""The first layer of an encoder for another number of channels than it was trained with."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import trees
from ssl_jax.core.types import Params, State
from ssl_jax.models.network import Network


def change_channels(network: Network, params: Params, state: State, *, channels: int) -> tuple[Params, State]:
    """Give the first layer of an encoder another number of input channels.

    ``W'[..., k, :] = (c / c') mean over j of W[..., j, :]`` for every channel k, with c channels before and c' after: each gets
    the mean kernel, scaled so that an image whose channels are all x has the features that it had. For gray images (c' = 1)
    this is the sum of the kernels: they get the features of the same image repeated c times. For c' = c nothing changes.

    Args:
      network: the encoder, from ``models.build``.
      params: its params, for any number of channels.
      state: its state.
      channels: c'.

    Returns:
      ``(params, state)``; only the arrays of the first layer differ from those given.

    Raises:
      ValueError: no first layer is found whose kernel depends on the number of channels.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models.build import build
    >>> network, gray = build("resnet18", stem="small", width=0.0625), jnp.ones((1, 8, 8, 1))
    >>> variables = network.init(jax.random.key(0), jnp.repeat(gray, 3, -1))
    >>> params, state = change_channels(network, *variables, channels=1)
    >>> params["conv1"]["kernel"].shape
    (3, 3, 1, 4)
    """
    given = {"params": params, "state": state}
    needed = shapes_for(network, channels)
    kernels = {
        path: leaf
        for path, leaf in trees.flatten(given).items()
        if path in needed and needed[path] != np.shape(leaf)
    }

    def convert(path: str, leaf: np.ndarray) -> np.ndarray:
        if path not in kernels:
            return leaf
        shape = needed[path]
        alike = len(shape) == leaf.ndim >= 2 and shape[:-2] + shape[-1:] == leaf.shape[:-2] + leaf.shape[-1:]
        taps = shape[-2] // channels if alike else 0  # pixels of a patch, which come before the channels
        if not taps or shape[-2] % channels or leaf.shape[-2] % taps:
            raise ValueError(
                f"channels={channels}: {path} has the shape {leaf.shape}, images of {channels} channels need {shape}"
            )
        before = leaf.shape[-2] // taps
        split = np.asarray(leaf).reshape(*leaf.shape[:-2], taps, before, leaf.shape[-1])
        mean = split.mean(axis=-2, keepdims=True) * (before / channels)
        return np.repeat(mean, channels, axis=-2).reshape(shape).astype(leaf.dtype)

    changed = trees.map_with_path(convert, given)
    return changed["params"], changed["state"]


def shapes_for(network: Network, channels: int) -> dict[str, tuple[int, ...]]:
    """List the shapes of an encoder's arrays by path, ``params/...`` and ``state/...``, for images of so many channels."""
    side = int(network.config.get("image_size", 32))
    images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    params, state = jax.eval_shape(network.init, jax.random.key(0), images)
    return {path: leaf.shape for path, leaf in trees.flatten({"params": params, "state": state}).items()}
