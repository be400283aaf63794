"""Triplet loss."""

import math

import jax.numpy as jnp
import pytest

from tests.methods.case import loss_of, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), case.config["method"]["margin"]


def test_the_declared_collapse_value_follows_the_variant():
    for options, metric, value in (
        ({"soft": True, "margin": 0.0, "mining": "batch_hard"}, "loss", math.log(2)),
        ({"margin": 0.7}, "loss", 0.7),
        # Its loss is 0 when all is alike, and when all is learned.
        ({"mining": "semi_hard"}, "embedding_std", 0.0),
    ):
        (collapse,) = (value.at(16) for value in method_of("triplet", **options).collapse)
        assert (collapse.metric, collapse.value) == (metric, pytest.approx(value))


def test_with_labels_other_images_of_the_class_are_positives():
    """All of one class: no negative is left, so no triplet. Each of a class of its own: the other view is the positive."""
    method = method_of("triplet", labels=True)
    params, state, batch = start(method)
    assert loss_of(method, params, state, {**batch, "label": jnp.zeros(16, int)})[0] == 0.0
    loss, _, metrics = loss_of(method, params, state, {**batch, "label": jnp.full(16, -1)})
    assert loss > 0 and 0 < float(metrics["active"]) <= 1
