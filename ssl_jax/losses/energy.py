"""Restricted Boltzmann machines: energy, samples, and the loss whose gradient is contrastive divergence.

The machine of visible units v and hidden units h, both 0 or 1, has ``p(v, h) ∝ exp(−E)``,
``E(v, h) = −a·v − b·h − vᵀ W h``. ``kernel`` is W ``[visible, hidden]``, ``hidden_bias`` b, ``visible_bias`` a.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Key


def free_energy(
    visible: Float[Array, "n v"],
    kernel: Float[Array, "v h"],
    hidden_bias: Float[Array, " h"],
    visible_bias: Float[Array, " v"],
) -> Float[Array, " n"]:
    """Compute ``F(v) = −log Σ_h exp(−E(v, h)) = −a·v − Σ_j log(1 + exp(b_j + (vᵀ W)_j))``.

    Args:
      visible: ``[n, v]`` in [0, 1].
      kernel: W.
      hidden_bias: b.
      visible_bias: a.

    Returns:
      ``[n]``: ``p(v) ∝ exp(−F(v))``; float32 (float64 for float64 inputs), as all results here.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(free_energy(jnp.ones((1, 2)), jnp.zeros((2, 3)), jnp.zeros(3), jnp.ones(2))[0]), 4)  # −2 − 3 log 2
      -4.0794

    Reference: Hinton, A Practical Guide to Training Restricted Boltzmann Machines (2010), section 16.1.
    """
    arrays = (visible, kernel, hidden_bias, visible_bias)
    visible, kernel, hidden_bias, visible_bias = map(at_least_float32, arrays)
    return -visible @ visible_bias - jnp.sum(jax.nn.softplus(visible @ kernel + hidden_bias), axis=-1)


def gibbs(
    key: Key,
    visible: Float[Array, "n v"],
    kernel: Float[Array, "v h"],
    hidden_bias: Float[Array, " h"],
    visible_bias: Float[Array, " v"],
    *,
    steps: int,
) -> Float[Array, "n v"]:
    """Draw visible units by some steps of a Markov chain: ``h ~ p(h | v)``, then ``v = E[v | h]``, and again.

    Args:
      key: used once.
      visible: ``[n, v]`` in [0, 1], where the chains start.
      kernel: W.
      hidden_bias: b.
      visible_bias: a.
      steps: 1 or more.

    Returns:
      ``[n, v]`` probabilities, without gradient.

    Raises:
      ValueError: fewer than one step.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> gibbs(jax.random.key(0), jnp.ones((1, 2)), jnp.zeros((2, 3)), jnp.zeros(3), jnp.zeros(2), steps=2).tolist()
      [[0.5, 0.5]]

    Reference: Hinton 2010, section 3: hidden units are drawn, visible ones carry probabilities, as the pixels do.
    """
    check.require(steps >= 1, "steps", steps, "an integer of 1 or more")
    arrays = (visible, kernel, hidden_bias, visible_bias)
    visible, kernel, hidden_bias, visible_bias = map(at_least_float32, arrays)

    def step(v: Array, step_key: Key) -> tuple[Array, None]:
        hidden = jax.random.bernoulli(step_key, jax.nn.sigmoid(v @ kernel + hidden_bias)).astype(v.dtype)
        return jax.nn.sigmoid(hidden @ kernel.T + visible_bias), None

    return jax.lax.stop_gradient(jax.lax.scan(step, visible, jax.random.split(key, steps))[0])


def contrastive_divergence(
    data: Float[Array, "n v"],
    samples: Float[Array, "m v"],
    kernel: Float[Array, "v h"],
    hidden_bias: Float[Array, " h"],
    visible_bias: Float[Array, " v"],
) -> Float[Array, ""]:
    """Compute ``mean F(data) − mean F(samples)``, the samples held fixed: descending it is contrastive divergence.

    Its gradient is that of the negative log-likelihood with the machine's expectation replaced by the mean over the samples::

        −∂L/∂W = mean v E[h|v]ᵀ of the data − mean v E[h|v]ᵀ of the samples,  −∂L/∂b = mean E[h|v] − ...,  −∂L/∂a = mean v − ...

    The value itself says nothing: it is near 0 for a good machine and for a useless one.

    Args:
      data: ``[n, v]`` in [0, 1].
      samples: ``[m, v]`` of :func:`gibbs`: chains that start at the data (CD-k) or where they ended last (persistent).
      kernel: W.
      hidden_bias: b.
      visible_bias: a.

    Returns:
      Scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> same = jnp.full((4, 2), 0.5)
      >>> float(contrastive_divergence(same, same, jnp.ones((2, 3)), jnp.zeros(3), jnp.zeros(2)))
      0.0

    References: Hinton, Training Products of Experts by Minimizing Contrastive Divergence (2002); Tieleman, Training Restricted
    Boltzmann Machines using Approximations to the Likelihood Gradient (2008), for chains that persist.
    """
    machine = (kernel, hidden_bias, visible_bias)
    fixed = jax.lax.stop_gradient(samples)
    return jnp.mean(free_energy(data, *machine)) - jnp.mean(free_energy(fixed, *machine))
