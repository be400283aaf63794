"""A small convolutional encoder for quick runs on small images."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.models.network import DTYPES, Network, from_linen
from ssl_jax.models.norm import NORMS, map_norm, standardized_conv
from ssl_jax.models.remat import rematerialize, require_remat
from ssl_jax.models.sobel import sobel as sobel_of

OUTPUTS = ("features", "tokens", "layers")


class Block(nn.Module):
    """3x3 convolution of stride 2, normalisation, ReLU: half the side, rounded up."""

    width: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 width"]:
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        conv = partial(nn.Conv, strides=2, padding=1, use_bias=False, kernel_init=init)
        function = standardized_conv if self.norm == "group" else None
        x = conv(self.width, (3, 3), dtype=self.dtype, conv_general_dilated=function, name="conv")(x)
        return nn.relu(map_norm(self.norm, dtype=self.dtype, name="norm")(x, train=train))


class ConvNet(nn.Module):
    """Blocks, then average pooling to ``grid`` x ``grid``, flattened."""

    widths: tuple[int, ...]
    grid: int
    norm: str
    dtype: Any
    remat: bool
    remat_keeps: str
    sobel: bool

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool, output: str = "features") -> Any:
        check.choice("output", output, OUTPUTS)
        block: Any = rematerialize(Block, self.remat, self.remat_keeps, static=(2,))
        x, layers = (sobel_of(images) if self.sobel else images).astype(self.dtype), {}
        for i, width in enumerate(self.widths):
            x = layers[f"block_{i}"] = block(width, self.norm, self.dtype, name=f"block_{i}")(x, train)
        if output != "features":
            return x if output == "tokens" else layers
        x = pool_to_grid(at_least_float32(x), grid=self.grid)
        return x.reshape(x.shape[0], -1)


def pool_to_grid(x: Float[Array, "b h w c"], *, grid: int) -> Float[Array, "b {grid} {grid} c"]:
    """Average over the cells of a fixed grid, for any input size: torch's ``adaptive_avg_pool2d``.

    Cell i of n averages the rows from ``floor(i·h/n)`` to before ``ceil((i + 1)·h/n)``.

    >>> import jax.numpy as jnp
    >>> pool_to_grid(jnp.arange(9.0).reshape(1, 3, 3, 1), grid=2)[0, ..., 0].tolist()
    [[2.0, 3.0], [5.0, 6.0]]
    """
    rows, columns = (jnp.asarray(_pooling_matrix(size, grid), x.dtype) for size in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns)


def _pooling_matrix(size: int, cells: int) -> np.ndarray:
    matrix = np.zeros((cells, size))
    for i in range(cells):
        start, stop = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix


def convnet(
    *,
    widths: Sequence[int] = (32, 64, 128),
    grid: int = 2,
    norm: str = "batch",
    dtype: str = "float32",
    remat: bool = False,
    remat_keeps: str = "nothing",
    sobel: bool = False,
) -> Network:
    """Build a small encoder: 3x3 stride-2 convolutions with normalisation and ReLU, pooled to a coarse grid.

    ``features = flatten(average pool to grid x grid)``, width ``grid² · widths[-1]``, float32. Keeping a
    coarse grid is worth 2 to 4 points of kNN accuracy over the global mean on aligned images such as
    Fashion-MNIST.

    Args:
      widths: channels of the blocks, each of which halves the side.
      grid: side of the pooled grid; 1 is the global mean.
      norm: ``"batch"``, or ``"group"``: GroupNorm in 16 groups (or fewer, to divide the channels) and standardised weights.
      dtype: compute dtype, ``"float32"`` or ``"bfloat16"`` (``"float64"`` under x64); params are float32.
      remat: recompute the blocks in the backward pass instead of keeping their activations.
      remat_keeps: with ``remat``, what of a block is kept all the same, see :func:`ssl_jax.models.remat.recomputed`.
      sobel: the first layer sees :func:`ssl_jax.models.sobel.sobel` of the images, edges without colour.

    Returns:
      ``Network`` on images ``[batch, h, w, c]``. Option of apply: ``output="tokens"`` gives the last map
      ``[batch, h, w, widths[-1]]`` in the compute dtype; ``output="layers"`` the map of every block,
      ``{"block_0": ..., "block_1": ...}``.

    Raises:
      ValueError: no widths, a grid below 1, or an unknown norm, dtype or ``remat_keeps``.

    >>> import jax, jax.numpy as jnp
    >>> network = convnet(widths=(4, 8))
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> network.apply(params, state, jnp.ones((3, 28, 28, 1)))[0].shape
    (3, 32)
    """
    check.require(len(widths) >= 1, "widths", widths, "one width or more")
    check.require(grid >= 1, "grid", grid, "1 or more")
    check.choice("norm", norm, NORMS)
    check.choice("dtype", dtype, DTYPES)
    require_remat(remat, remat_keeps)
    config = {
        "name": "convnet",
        "widths": list(widths),
        "grid": grid,
        "norm": norm,
        "dtype": dtype,
        "remat": remat,
        "remat_keeps": remat_keeps,
        "sobel": sobel,
    }
    module = ConvNet(tuple(widths), grid, norm, jnp.dtype(dtype), remat, remat_keeps, sobel)
    return from_linen(module, features=grid * grid * widths[-1], config=config)


BUILDERS: dict[str, Callable[..., Network]] = {"convnet": convnet}
