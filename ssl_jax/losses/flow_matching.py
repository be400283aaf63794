"""Flow matching: a network learns the velocity of straight paths from noise to data."""

import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array


def interpolate(
    noise: Float[Array, "b ..."], data: Float[Array, "b ..."], time: Float[Array, " b"]
) -> Float[Array, "b ..."]:
    """Compute points of the straight paths from noise to data: ``x_t = (1 − t) x₀ + t x₁``.

    Args:
      noise: x₀, the points at time 0.
      data: x₁, the points at time 1.
      time: t of each example, in [0, 1].

    >>> import jax.numpy as jnp
    >>> interpolate(jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.array([0.25, 1.0])).ravel().tolist()
    [0.25, 1.0]
    """
    share = time.reshape(-1, *(1,) * (data.ndim - 1))
    return (1.0 - share) * noise + share * data


def flow_matching(
    velocity: Float[Array, "b ..."], noise: Float[Array, "b ..."], data: Float[Array, "b ..."]
) -> Float[Array, ""]:
    """Compute the loss of conditional flow matching on straight paths: ``mean (v(x_t, t) − (x₁ − x₀))²``.

    The velocity that minimises it is ``E[x₁ − x₀ | x_t = x]``, whose flow carries the distribution of the noise to that of the
    data (of x₁ given a condition, where v sees the condition too). The loss does not fall to 0: what is left is the variance of
    ``x₁ − x₀`` that x_t does not determine.

    Args:
      velocity: v at the points of :func:`interpolate`.
      noise: x₀ of each example.
      data: x₁ of each example.

    Returns:
      Scalar, float32 or wider.

    >>> import jax.numpy as jnp
    >>> float(flow_matching(jnp.ones((2, 3)), jnp.zeros((2, 3)), jnp.full((2, 3), 3.0)))
    4.0

    References: Lipman et al., Flow Matching for Generative Modeling (ICLR 2023), equation 9; Liu et al., Flow Straight and Fast
    (ICLR 2023), equation 1. Noise is at time 0, data at time 1.
    """
    error = at_least_float32(velocity) - (at_least_float32(data) - at_least_float32(noise))
    return jnp.mean(error * error)
