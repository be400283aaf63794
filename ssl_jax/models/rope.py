"""Rotary position embedding of patch grids (RoPE in two dimensions), in the form of DINOv3."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.types import Array, Key


def patch_coordinates(height: int, width: int) -> Float[np.ndarray, "length 2"]:
    """Compute where the centers of patches lie: row and column, each from −1 to 1 over the image.

    The patch in row ``y`` and column ``x`` lies at ``(2 (y + 1/2)/height − 1, 2 (x + 1/2)/width − 1)``.

    Args:
      height: rows of the grid, ``>= 1``.
      width: columns of the grid, ``>= 1``.

    Returns:
      ``[height * width, 2]`` float64, patches in row-major order.

    >>> patch_coordinates(1, 2).tolist()
    [[0.0, -0.5], [0.0, 0.5]]

    Reference: Siméoni et al. 2025 (DINOv3), section 3.2; facebookresearch/dinov3 ``layers/rope_position_encoding.py``, there
    ``normalize_coords="separate"``.
    """
    row, column = (axis.ravel() for axis in np.indices((height, width)))
    return np.stack([2 * (row + 0.5) / height - 1, 2 * (column + 0.5) / width - 1], axis=1)


def augment_coordinates(
    key: Key, coordinates: Float[Array, "*length 2"], *, shift: float, jitter: float, rescale: float
) -> Float[Array, "*length 2"]:
    """Move and scale coordinates by one draw for all patches, as in the training of DINOv3.

    ``c ← (c + s) · j · r`` with ``s ~ U(−shift, shift)`` and ``log j ~ U(−log jitter, log jitter)`` for each axis, and
    ``log r ~ U(−log rescale, log rescale)`` for both.

    Args:
      key: used once.
      coordinates: ``[..., 2]``, row and column.
      shift: largest shift, ``>= 0``; the image is 2 wide.
      jitter: largest factor of an axis, ``>= 1``.
      rescale: largest factor of both axes, ``>= 1``.

    Returns:
      Coordinates of the same shape.

    >>> import jax, jax.numpy as jnp
    >>> c = jnp.ones((4, 2))
    >>> bool((augment_coordinates(jax.random.key(0), c, shift=0.0, jitter=1.0, rescale=1.0) == c).all())
    True

    Reference: as :func:`patch_coordinates`; the released models use ``rescale=2`` alone.
    """
    keys, dtype = jax.random.split(key, 3), coordinates.dtype
    bound = jnp.log(jnp.asarray([jitter, rescale], dtype))
    moved = jax.random.uniform(keys[0], (2,), dtype, -shift, shift)
    axes = jnp.exp(jax.random.uniform(keys[1], (2,), dtype, -bound[0], bound[0]))
    both = jnp.exp(jax.random.uniform(keys[2], (), dtype, -bound[1], bound[1]))
    return (coordinates + moved) * axes * both


def rotation(
    coordinates: Float[Array, "*length 2"], *, features: int, base: float
) -> tuple[Float[Array, "*length features"], Float[Array, "*length features"]]:
    """Compute cosines and sines of the angles by which queries and keys of a head are turned.

    With the periods ``λ_k = base^(2k / (features/2))``, ``k = 0 … features/4 − 1``, the angles are ``2π row/λ_k``, then ``2π
    column/λ_k``, and these ``features/2`` once more.

    Args:
      coordinates: ``[..., 2]``, row and column of the patches; floating point.
      features: width of a head, divisible by 4.
      base: of the periods, above 0.

    Returns:
      Cosines and sines, each ``[..., features]``, of the coordinates' type.

    Raises:
      ValueError: ``features`` is not divisible by 4.

    >>> import jax.numpy as jnp
    >>> cosines, sines = rotation(jnp.array([[0.0, 0.25]]), features=4, base=100.0)
    >>> cosines.round(3).tolist(), sines.round(3).tolist()
    ([[1.0, -0.0, 1.0, -0.0]], [[0.0, 1.0, 0.0, 1.0]])

    Reference: as :func:`patch_coordinates`.
    """
    check.require(features % 4 == 0, "features", features, "a multiple of 4")
    periods = base ** (2 * np.arange(features // 4) / (features // 2))
    angles = coordinates[..., None] * jnp.asarray(2 * math.pi / periods, coordinates.dtype)
    angles = angles.reshape(*coordinates.shape[:-1], features // 2)
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "*length features"],
    cosines: Float[Array, "*length features"],
    sines: Float[Array, "*length features"],
) -> Float[Array, "*length features"]:
    """Turn pairs of features ``(x_i, x_(i + features/2))`` by their angle.

    ``x cos + [−x₂ | x₁] sin``, of the halves ``x = [x₁ | x₂]``, in the type of the angles; returned in that of ``x``.

    Args:
      x: ``[..., features]``, queries or keys.
      cosines: of the angles, broadcast against ``x``.
      sines: of the angles.

    >>> import jax.numpy as jnp
    >>> rotate(jnp.array([1.0, 2.0]), jnp.zeros(2), jnp.ones(2)).tolist()
    [-2.0, 1.0]

    Reference: Su et al. 2021 (RoFormer), section 3.4.2, with pairs of the two halves.
    """
    first, second = jnp.split(x, 2, axis=-1)
    return (x * cosines + jnp.concatenate([-second, first], axis=-1) * sines).astype(x.dtype)
