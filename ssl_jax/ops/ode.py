"""Ordinary differential equations by fixed steps: how a flow carries noise to images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.types import Array

SOLVERS = ("euler", "heun")


def integrate(
    velocity: Callable[[Array, Array], Array],
    start: Float[Array, "*b"],
    *,
    steps: int,
    solver: str = "heun",
    span: tuple[float, float] = (0.0, 1.0),
) -> Float[Array, "*b"]:
    """Solve ``dx/dt = velocity(x, t)`` from ``span[0]`` to ``span[1]`` in equal steps ``h``.

    * ``"euler"``: ``x ← x + h v(x, t)``, an error of order h;
    * ``"heun"``: with ``x' = x + h v(x, t)``, ``x ← x + h/2 (v(x, t) + v(x', t + h))``, an error of order h², two evaluations a
      step.

    Args:
      velocity: ``(x, t) -> dx/dt`` of the shape of x; t is a scalar of its dtype.
      start: x at ``span[0]``.
      steps: number of steps, 1 or more.
      solver: one of :data:`SOLVERS`.
      span: first and last time; the second may be the smaller one.

    Returns:
      x at ``span[1]``.

    Raises:
      ValueError: fewer than one step, or an unknown solver.

    >>> import jax.numpy as jnp
    >>> round(float(integrate(lambda x, t: x, jnp.array(1.0), steps=100)), 3)
    2.718

    Reference: Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, section II.1; Karras et al., Elucidating the
    Design Space of Diffusion-Based Generative Models (2022), section 3, for Heun's steps in sampling.
    """
    check.choice("solver", solver, SOLVERS)
    check.require(steps >= 1, "steps", steps, "an integer of 1 or more")
    first, last = (jnp.asarray(time, start.dtype) for time in span)
    length = (last - first) / steps

    def advance(x: Array, step: Array) -> tuple[Array, None]:
        time = first + step.astype(x.dtype) * length
        slope = velocity(x, time)
        if solver == "heun":
            slope = (slope + velocity(x + length * slope, time + length)) / 2
        return x + length * slope, None

    return jax.lax.scan(advance, start, jnp.arange(steps))[0]
