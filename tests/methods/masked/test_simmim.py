"""SimMIM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.methods.masked import simmim
from ssl_jax.ops.patches import patchify
from tests.methods.case import loss_inputs, loss_of, method_of, start, with_views


def collapsed(case):
    """Predictions 0: the mean size of the pixels, which all count alike when all images are of one gray."""
    params, state, batch = loss_inputs(case)
    gray = jnp.full(batch["views"][0].shape, -0.7)
    zero = jax.tree.map(jnp.zeros_like, params)
    return loss_of(case.method, zero, state, {**batch, "views": (gray,)})[0], 0.7


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_loss_is_that_of_the_hidden_patches_in_a_loop(loss):
    method = method_of("simmim", loss=loss)
    params, state, batch = start(method)
    value, _, metrics = loss_of(method, params, state, batch)
    reconstruction = jax.jit(method.reconstruct)(params, state, batch["views"][0][:, 0], jax.random.key(2))
    errors = []
    for arrays in zip(*(patchify(x, patch=7) for x in reconstruction), strict=True):
        image, prediction, masked = (np.asarray(x, np.float64) for x in arrays)
        for true, predicted, one in zip(image, prediction, masked, strict=True):
            if one.any():
                difference = predicted - true
                errors.append(np.mean(np.abs(difference) if loss == "l1" else difference**2))
    # The report draws its mask with the key of the call, as the loss does.
    np.testing.assert_allclose(value, np.mean(errors), rtol=1e-5)
    assert float(metrics["masked"]) == 0.5


def test_what_is_hidden_reaches_the_loss_as_a_target_only():
    method = method_of("simmim")
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    masked = jax.jit(method.reconstruct)(params, state, images, jax.random.key(2)).masked
    other = jnp.where(masked, -images, images)
    predictions = [
        jax.jit(method.reconstruct)(params, state, x, jax.random.key(2)).predictions for x in (images, other)
    ]
    np.testing.assert_allclose(*predictions, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        ({"mask": "cross"}, {}, "mask='cross'"),
        ({"loss": "huber"}, {}, "loss='huber'"),
        ({"mask_ratio": 1.0}, {}, r"mask_ratio=1\.0"),
        ({"unit": 0}, {}, "unit=0"),
        ({}, {"mask_token": False}, "mask_token=True"),
    ],
)
def test_bad_options_are_refused_by_name(options, encoder, message):
    with pytest.raises(ValueError, match=message):
        method_of("simmim", encoder=encoder, **options)


def test_an_encoder_that_is_no_vit_is_refused():
    with pytest.raises(ValueError, match="encoder='convnet'"):
        simmim.build(models.build("convnet"))


def test_a_grid_that_has_no_squares_of_the_unit_is_refused_at_the_first_loss():
    method = method_of("simmim", unit=3)
    params, state = method.init(jax.random.key(0), with_views(method))
    with pytest.raises(ValueError, match="unit=3"):
        method.loss(params, state, with_views(method), jax.random.key(2), jnp.int32(0))
