"""A multi-layer perceptron on pixels as an encoder, layer by layer if need be, and its decoder in reverse."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Params
from ssl_jax.models.network import DTYPES, Network, from_linen

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "linear": lambda x: x,
}
OUTPUTS = ("features", "layers")
KERNEL_INIT = nn.initializers.xavier_uniform()


class Perceptron(nn.Module):
    """See :func:`mlp`."""

    widths: tuple[int, ...]
    activation: str
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Array, *, train: bool, output: str = "features", layer: int | None = None
    ) -> Any:
        del train
        check.choice("output", output, OUTPUTS)
        x, layers = inputs.reshape(inputs.shape[0], -1).astype(self.dtype), {}
        for i in range(len(self.widths)) if layer is None else (layer,):
            dense = nn.Dense(self.widths[i], dtype=self.dtype, kernel_init=KERNEL_INIT, name=f"dense_{i}")
            x = ACTIVATIONS[self.activation](dense(x))
            layers[f"dense_{i}"] = x[:, None]
        return layers if output == "layers" else at_least_float32(x)


def mlp(*, widths: Sequence[int] = (512, 256), activation: str = "relu", dtype: str = "float32") -> Network:
    """Build a multi-layer perceptron: the pixels in one row, then dense layers with activations; no normalisation.

    Params: ``dense_<i>/kernel`` (Glorot uniform) and ``dense_<i>/bias`` (0).

    Args:
      widths: widths of the layers, one or more.
      activation: ``"relu"``, ``"sigmoid"``, ``"tanh"`` or ``"linear"``.
      dtype: compute dtype, ``"float32"`` or ``"bfloat16"`` (``"float64"`` under x64); params are float32.

    Returns:
      ``Network`` on images ``[b, h, w, c]`` of the size that it was made for. Options of apply: ``output="layers"`` gives every
      layer, ``{"dense_0": [b, 1, widths[0]], ...}``, as tokens of length 1; ``layer=i`` applies layer i alone, to ``[b,
      widths[i − 1]]`` or, the first, to images.

    Raises:
      ValueError: no widths, an unknown activation or dtype.

    >>> import jax, jax.numpy as jnp
    >>> network = mlp(widths=(8, 4), activation="sigmoid")
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> network.apply(params, state, jnp.ones((3, 28, 28, 1)))[0].shape
    (3, 4)
    >>> network.apply(params, state, jnp.ones((3, 8)), layer=1)[0].shape
    (3, 4)

    Reference: Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks (2010), equation 16.
    """
    check.require(len(widths) >= 1, "widths", widths, "one width or more")
    check.choice("activation", activation, ACTIVATIONS)
    check.choice("dtype", dtype, DTYPES)
    config = {"name": "mlp", "widths": list(widths), "activation": activation, "dtype": dtype}
    return from_linen(
        Perceptron(tuple(widths), activation, jnp.dtype(dtype)), features=widths[-1], config=config
    )


class Mirror(nn.Module):
    """See :func:`mirror`."""

    widths: tuple[int, ...]
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, code: Float[Array, "b d"], *, train: bool, layer: int | None = None) -> Array:
        del train
        x = code.astype(self.dtype)
        for i in reversed(range(len(self.widths))) if layer is None else (layer,):
            dense = nn.Dense(self.widths[i], dtype=self.dtype, kernel_init=KERNEL_INIT, name=f"dense_{i}")
            x = dense(x)
            if i and layer is None:
                x = ACTIVATIONS[self.activation](x)
        return at_least_float32(x)


def mirror(encoder: Network, pixels: int) -> Network:
    """Build the decoder of a perceptron: its layers in reverse, ``dense_<i>`` from the width of layer i to that of i − 1.

    The activation is the encoder's, but for the pixels, which have none.

    Args:
      encoder: encoder of :func:`mlp`.
      pixels: numbers in an image, the width of the output.

    Returns:
      ``Network`` from features ``[b, features]`` to ``[b, pixels]`` float32. Option of apply: ``layer=i`` applies ``dense_<i>``
      alone, without activation.

    >>> import jax, jax.numpy as jnp
    >>> decoder = mirror(mlp(widths=(8, 4)), 6)
    >>> params, state = decoder.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> params["dense_1"]["kernel"].shape, params["dense_0"]["kernel"].shape
    ((4, 8), (8, 6))
    """
    config = encoder.config
    module = Mirror(
        (pixels, *config["widths"][:-1]), str(config["activation"]), jnp.dtype(str(config["dtype"]))
    )
    return from_linen(module, features=pixels)


def tie_params(encoder: Params, decoder: Params) -> Params:
    """Return params of :func:`mirror` with the transposed kernels of the encoder and the decoder's own biases.

    >>> import jax.numpy as jnp
    >>> made = tie_params({"dense_0": {"kernel": jnp.ones((6, 4))}}, {"dense_0": {"bias": jnp.zeros(6)}})
    >>> made["dense_0"]["kernel"].shape
    (4, 6)
    """
    return {
        name: {"kernel": encoder[name]["kernel"].T, "bias": layer["bias"]} for name, layer in decoder.items()
    }


def count_pixels(shape: Sequence[int]) -> int:
    """Count the numbers in one image of a batch of this shape.

    >>> count_pixels((16, 28, 28, 1))
    784
    """
    return math.prod(shape[1:])


BUILDERS: dict[str, Callable[..., Network]] = {"mlp": mlp}
