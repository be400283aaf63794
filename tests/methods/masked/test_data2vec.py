"""data2vec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from tests.methods.case import config_of, loss_of, method_of, start


def collapsed(case):
    """Predictions 0 of targets with mean 0 and variance 1, none beyond β with β as large: half the variance over β."""
    return zero_params_loss_of_large_beta(), 0.5 / 100.0


def zero_params_loss_of_large_beta():
    method = method_of("data2vec", beta=100.0)
    params, state, batch = start(method)
    return loss_of(method, jax.tree.map(jnp.zeros_like, params), state, batch)[0]


def test_loss_at_zero_predictions_is_the_smooth_error_of_the_targets():
    method = method_of("data2vec", layers=1, mask_ratio=0.9, mask="filled", beta=1e-3)
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    images = batch["views"][0][:, 0]
    encoder = models.build(**config_of("data2vec")["encoder"])
    outputs, _ = encoder.apply(params["encoder"], state["encoder"], images, output="layers")
    y = np.asarray(outputs["blocks_1"][:, 1:], np.float64)
    for _ in range(2):
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    sizes = np.abs(y).mean(axis=-1)
    value, _, _ = loss_of(method, zero, state, batch)
    low, high = ((sizes.sum(1) - edge).sum() / (16 * 15) for edge in (sizes.max(1), sizes.min(1)))
    assert low - 1e-3 <= value <= high


def test_targets_come_from_the_whole_image_and_average_the_last_blocks():
    one, two = (method_of("data2vec", layers=k) for k in (1, 2))
    params, state, batch = start(one)
    assert loss_of(one, params, state, batch)[0] != loss_of(two, params, state, batch)[0]


def test_teacher_follows_the_student_after_the_update():
    method = method_of("data2vec", decay=0.75)
    params, state, _ = start(method)
    moved = {**params, "encoder": jax.tree.map(lambda x: x + 1, params["encoder"])}
    after = method.after_update(moved, state, jnp.int32(0))
    for old, new in zip(
        jax.tree.leaves(state["teacher"].params), jax.tree.leaves(after["teacher"].params), strict=True
    ):
        np.testing.assert_allclose(new, old + 0.25, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        ({"layers": 3}, {}, "layers=3.*2 blocks"),
        ({"mask": "grid"}, {}, "mask='grid'"),
        ({"mask_ratio": 0.0}, {}, r"mask_ratio=0\.0"),
        ({}, {"mask_token": False}, "mask_token=True"),
    ],
)
def test_bad_options_are_refused_by_name(options, encoder, message):
    with pytest.raises(ValueError, match=message):
        method_of("data2vec", encoder=encoder, **options)
