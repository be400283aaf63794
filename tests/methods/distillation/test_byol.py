"""BYOL."""

import jax.numpy as jnp

from tests.methods.case import loss_of, method_of, start


def collapsed(case):
    """Teacher equal to student, no predictor, identical views: perfect agreement."""
    del case
    method = method_of("byol", predictor="none")
    params, state, batch = start(method)
    teacher = {name: params[name] for name in ("encoder", "projector")}
    state["teacher"]["variables"] = state["teacher"]["variables"]._replace(average=teacher)
    view = batch["views"][0][:, :1]
    return loss_of(method, params, state, {**batch, "views": (jnp.concatenate([view, view], axis=1),)})[
        0
    ], 0.0
