"""MaskFeat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.hog import hog
from tests.methods.case import loss_inputs, loss_of, method_of, start


def collapsed(case):
    """Predictions 0 of histograms of unit length: one part in as many as there are bins."""
    params, state, batch = loss_inputs(case)
    noise = jax.random.normal(jax.random.key(3), batch["views"][0].shape)
    zero = jax.tree.map(jnp.zeros_like, params)
    return loss_of(case.method, zero, state, {**batch, "views": (noise,)})[0], 1 / 9


def test_targets_are_the_cells_of_each_patch_in_raster_order():
    method = method_of("maskfeat", cell=1, bins=3, window=None, mask_ratio=0.9)
    params, state, batch = start(method)
    # One number a place: the linear layer's bias is the prediction.
    params["head"]["dense_0"]["kernel"] = jnp.zeros_like(params["head"]["dense_0"]["kernel"])
    bias = jax.random.normal(jax.random.key(1), params["head"]["dense_0"]["bias"].shape)
    params["head"]["dense_0"]["bias"] = bias
    histograms = np.asarray(hog(batch["views"][0][:, 0], cell=1, bins=3, window=None))
    cells = histograms.reshape(16, 4, 7, 4, 7, 3).transpose(0, 1, 3, 2, 4, 5).reshape(16, 16, -1)
    errors = np.mean((np.asarray(bias) - cells) ** 2, axis=-1)
    value, _, _ = loss_of(method, params, state, batch)
    # 15 of 16 patches are masked: the mean over them lies between those without the largest and without the smallest.
    mean = [np.mean((errors.sum(1) - edge) / 15) for edge in (errors.max(1), errors.min(1))]
    assert mean[0] <= value <= mean[1]


def test_brightness_and_contrast_change_no_target():
    method = method_of("maskfeat")
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    bright = {**batch, "views": (2 * batch["views"][0] + 0.5,)}
    values = [loss_of(method, zero, state, x)[0] for x in (batch, bright)]
    np.testing.assert_allclose(*values, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": 4}, "cell=4.*patch of 7"),
        ({"mask": "cross"}, "mask='cross'"),
        ({"mask_ratio": 0.0}, r"mask_ratio=0\.0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("maskfeat", **options)
