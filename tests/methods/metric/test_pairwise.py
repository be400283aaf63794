"""Pairwise contrastive loss."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_of, method_of, start, zero_params_loss


def collapsed(case):
    options = case.config["method"]
    return zero_params_loss(case), options["margin"] ** options["power"] / options["power"]


def test_with_labels_images_of_one_class_attract_and_those_without_are_alone():
    method = method_of("pairwise", labels=True)
    params, state, batch = start(method)
    view = batch["views"][0][:, :1]
    batch |= {"views": (jnp.concatenate([view, view], axis=1),)}
    # Twins are at distance 0 and cost nothing; of 15 positives in a class of 8 images, 14 are not the twin.
    for label, share in ((jnp.arange(16) // 8, 14 / 15), (jnp.full(16, -1), 0.0)):
        _, _, metrics = loss_of(method, params, state, {**batch, "label": label})
        assert float(metrics["active_positives"]) == pytest.approx(share)


def test_the_declared_collapse_value_follows_margin_and_power():
    for options, value in (({"margin": 1.5, "power": 1}, 1.5), ({"margin": 2.0, "power": 2}, 2.0)):
        (collapse,) = (value.at(8) for value in method_of("pairwise", **options).collapse)
        np.testing.assert_allclose(collapse.value, value)
