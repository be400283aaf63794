"""MAE."""

import jax
import jax.numpy as jnp

from tests.methods.case import loss_inputs, loss_of


def collapsed(case):
    """Predictions 0 against standardised patches: their mean square, (P - 1)/P for the unbiased variance."""
    params, state, batch = loss_inputs(case)
    pixels = case.config["encoder"]["patch"] ** 2
    noise = jax.random.normal(jax.random.key(3), batch["views"][0].shape)
    zero = jax.tree.map(jnp.zeros_like, params)
    return loss_of(case.method, zero, state, {**batch, "views": (noise,)})[0], (pixels - 1) / pixels
