"""MAE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_inputs, loss_of, method_of, start


def collapsed(case):
    """Predictions 0 against standardised patches: their mean square, (P - 1)/P for the unbiased variance."""
    params, state, batch = loss_inputs(case)
    pixels = case.config["encoder"]["patch"] ** 2
    noise = jax.random.normal(jax.random.key(3), batch["views"][0].shape)
    zero = jax.tree.map(jnp.zeros_like, params)
    return loss_of(case.method, zero, state, {**batch, "views": (noise,)})[0], (pixels - 1) / pixels


@pytest.mark.long
@pytest.mark.parametrize(
    ("mask", "ratio", "unit"),
    [("block", 0.5, 1), ("grid", 0.75, 1), ("uniform", 0.75, 1), ("random", 0.75, 2)],
)
def test_masks_of_every_kind_hide_their_share_and_nothing_of_it_is_seen(mask, ratio, unit):
    method = method_of("mae", mask=mask, mask_ratio=ratio, unit=unit)
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    reconstruction = jax.jit(method.reconstruct)(params, state, images, jax.random.key(2))
    assert float(reconstruction.masked.mean()) == ratio
    raw = method_of("mae", mask=mask, mask_ratio=ratio, unit=unit, norm_pix=False)
    predictions = [
        jax.jit(raw.reconstruct)(params, state, x, jax.random.key(2)).predictions
        for x in (images, jnp.where(reconstruction.masked, -images, images))
    ]
    np.testing.assert_allclose(*predictions, atol=1e-6)


@pytest.mark.long
def test_secondary_masking_hides_visible_patches_from_the_encoder_and_not_from_the_count():
    options = {"mask": "uniform", "mask_ratio": 0.75, "norm_pix": False}
    veiled = method_of("mae", encoder={"mask_token": True}, secondary=0.5, **options)
    plain = method_of("mae", encoder={"mask_token": True}, **options)
    params, state, batch = start(veiled)
    images = batch["views"][0][:, 0]
    first, second = (
        jax.jit(m.reconstruct)(params, state, images, jax.random.key(2)) for m in (veiled, plain)
    )
    np.testing.assert_array_equal(first.masked, second.masked)
    assert np.abs(first.predictions - second.predictions).max() > 1e-4

    def reach(method):
        """How many patches of the first image change its prediction."""
        predict = lambda x: method.reconstruct(params, state, x, jax.random.key(2)).predictions[0].sum()  # noqa: E731
        slopes = np.abs(jax.jit(jax.grad(predict))(images)[0, ..., 0])
        return int((slopes.reshape(4, 7, 4, 7).sum(axis=(1, 3)) > 0).sum())

    assert (reach(veiled), reach(plain)) == (2, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "cross"}, "mask='cross'"),
        ({"secondary": 0.25}, "mask_token=True"),
        ({"secondary": 1.0}, r"secondary=1\.0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("mae", **options)
