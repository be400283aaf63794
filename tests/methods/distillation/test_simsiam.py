"""SimSiam."""

import jax.numpy as jnp

from tests.methods.case import loss_of, method_of, start


def collapsed(case):
    """No predictor, identical views: every projection meets itself."""
    del case
    method = method_of("simsiam", predictor="none")
    params, state, batch = start(method)
    view = batch["views"][0][:, :1]
    return loss_of(method, params, state, {**batch, "views": (jnp.concatenate([view, view], axis=1),)})[0], -1.0
