"""Errors on masked patches: golden numbers of MAE and SimMIM, loops, what is not read."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.reconstruction import (
    masked_l1,
    masked_mean,
    masked_mse,
    masked_smooth_l1,
    weighted_cross_entropy,
    weighted_mse,
)
from ssl_jax.ops.patches import normalize_patches, patchify
from tests.golden_files import assert_close, golden


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


MASK = jnp.array([[True, False, True], [False, False, True]])


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 5e-5), (jnp.float64, 1e-8)])
@pytest.mark.parametrize("normalise", [0, 1])
def test_pixel_loss_equals_golden_with_gradients_to_predictions_and_image(normalise, dtype, tolerance):
    file = golden("mae")

    def loss(predictions, images):
        patches = patchify(images.transpose(0, 2, 3, 1), patch=8)
        return masked_mse(predictions, normalize_patches(patches) if normalise else patches, mask)

    with jax.enable_x64(dtype == jnp.float64):
        predictions, images, mask = (
            jnp.asarray(file[f"in__{x}"], dtype) for x in ("pred", "img", "mask_0p75")
        )
        value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(predictions, images)
        case = f"loss_norm{normalise}"
        np.testing.assert_allclose(value, file[f"{case}__loss"], rtol=tolerance / 10)
        assert_close(gradients[0], file[f"{case}__grad__pred"], tolerance=tolerance)
        assert_close(gradients[1], file[f"{case}__grad__img"], tolerance=tolerance)


def test_loss_is_the_mean_over_all_hidden_patches_of_the_batch():
    predictions, targets = rows(0, 2, 3, 4), rows(1, 2, 3, 4)
    masked = [(0, 0), (0, 2), (1, 2)]
    expected = np.mean([((predictions[i] - targets[i]) ** 2).mean() for i in masked])
    np.testing.assert_allclose(masked_mse(predictions, targets, MASK), expected, rtol=1e-6)
    np.testing.assert_allclose(masked_mse(predictions, targets, 2.0 * MASK), expected, rtol=1e-6)


def test_visible_patches_are_not_read_and_get_no_gradient():
    predictions, targets = rows(0, 2, 3, 4), rows(1, 2, 3, 4)
    gradient = jax.grad(masked_mse)(predictions, targets, MASK)
    assert not gradient[~MASK].any()
    assert gradient[MASK].all()
    np.testing.assert_allclose(gradient[0, 0], 2 * (predictions - targets)[0, 0] / (4 * 3), rtol=1e-5)


def test_loss_is_zero_with_zero_gradient_when_nothing_is_hidden():
    predictions, targets = rows(0, 2, 3, 4), rows(1, 2, 3, 4)
    loss, gradient = jax.value_and_grad(masked_mse)(predictions, targets, jnp.zeros((2, 3), bool))
    assert loss == 0
    assert not gradient.any()


def test_jit_equals_eager_and_vmap_equals_a_loop():
    predictions, targets = rows(0, 4, 2, 3, 4), rows(1, 4, 2, 3, 4)
    one_by_one = jnp.stack([masked_mse(p, t, MASK) for p, t in zip(predictions, targets, strict=True)])
    mapped = jax.jit(jax.vmap(masked_mse, in_axes=(0, 0, None)))(predictions, targets, MASK)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-6)


def test_bfloat16_predictions_are_compared_in_float32():
    predictions, targets = rows(0, 2, 3, 4).astype(jnp.bfloat16), rows(1, 2, 3, 4)
    found = masked_mse(predictions, targets, MASK)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, masked_mse(predictions.astype(jnp.float32), targets, MASK), rtol=1e-6)


@pytest.mark.parametrize(
    ("targets", "mask", "message"), [((2, 3, 1), (2, 3), "targets.shape"), ((2, 3, 4), (1, 3), "mask.shape")]
)
def test_shapes_that_would_broadcast_are_refused(targets, mask, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(masked_mse)(jnp.zeros((2, 3, 4)), jnp.zeros(targets), jnp.zeros(mask))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.float64, 1e-9)])
def test_absolute_error_equals_golden_of_simmim_with_its_gradient(dtype, tolerance):
    file = golden("simmim_posembed")
    with jax.enable_x64(dtype == jnp.float64):
        images, predictions = (
            jnp.asarray(file[f"in__{x}"], dtype).transpose(0, 2, 3, 1) for x in ("x", "rec")
        )
        mask = jnp.asarray(file["in__mask"]).astype(bool)

        def loss(predictions):
            patches = [patchify(x, patch=4) for x in (predictions, images)]
            return masked_l1(*patches, mask.reshape(len(mask), -1), epsilon=1e-5 / 16)

        value, gradient = jax.jit(jax.value_and_grad(loss))(predictions)
    np.testing.assert_allclose(value, file["simmim__loss"], rtol=tolerance)
    assert_close(gradient.transpose(0, 3, 1, 2), file["simmim__grad__rec"], tolerance=tolerance)


@pytest.mark.parametrize(
    ("dtype", "loss_tolerance", "tolerance"), [(jnp.float32, 1e-5, 2e-5), (jnp.float64, 1e-9, 1e-8)]
)
@pytest.mark.parametrize("case", ["dbot_norm", "dbot_raw"])
def test_smooth_error_of_standardised_tokens_equals_golden_of_dbot(case, dtype, loss_tolerance, tolerance):
    """The class token is the first one and counts."""
    file = golden("mim_extra")
    with jax.enable_x64(dtype == jnp.float64):
        predictions, targets, mask = (
            jnp.asarray(file[f"in__{x}"], dtype) for x in ("dpred", "dtarget", "dmask")
        )
        assert mask[:, 0].all()

        def loss(predictions):
            y = normalize_patches(targets) if case == "dbot_norm" else targets
            return masked_smooth_l1(predictions, y, mask, beta=2.0)

        value, gradient = jax.jit(jax.value_and_grad(loss))(predictions)
    np.testing.assert_allclose(value, file[f"{case}__loss"], rtol=loss_tolerance)
    assert_close(gradient, file[f"{case}__grad__dpred"], tolerance=tolerance)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_absolute_and_smooth_errors_equal_a_loop(beta):
    predictions, targets = rows(0, 2, 3, 4), rows(1, 2, 3, 4)
    absolute, smooth = [], []
    for i, j in zip(*np.nonzero(MASK), strict=True):
        d = np.abs(np.asarray(predictions - targets, np.float64)[i, j])
        absolute.append(d.mean())
        smooth.append(np.mean([x * x / (2 * beta) if x < beta else x - beta / 2 for x in d]))
    np.testing.assert_allclose(masked_l1(predictions, targets, MASK), np.mean(absolute), rtol=1e-6)
    found = masked_smooth_l1(predictions, targets, MASK, beta=beta)
    np.testing.assert_allclose(found, np.mean(smooth), rtol=1e-6)


@pytest.mark.parametrize("loss", [masked_l1, masked_smooth_l1])
def test_errors_of_hidden_patches_alone_move_anything_and_nothing_hidden_is_zero(loss):
    inputs = rows(0, 2, 3, 4), rows(1, 2, 3, 4)
    gradient = jax.grad(loss)(*inputs, MASK)
    assert (jnp.any(gradient != 0, axis=-1) == MASK).all()
    value, gradient = jax.value_and_grad(loss)(*inputs, jnp.zeros_like(MASK))
    assert float(value) == 0.0
    assert not gradient.any()
    assert loss(*(x.astype(jnp.bfloat16) for x in inputs), MASK).dtype == jnp.float32


def test_weights_count_as_often():
    values = jnp.array([[1.0, 4.0]])
    assert float(masked_mean(values, jnp.array([[2.0, 1.0]]))) == 2.0
    assert float(masked_mean(values, jnp.array([[2.0, 1.0]]), epsilon=1.0)) == 1.5


@pytest.mark.parametrize("loss", [masked_l1, masked_smooth_l1])
def test_shapes_that_do_not_fit_are_refused(loss):
    with pytest.raises(ValueError, match=r"targets\.shape"):
        inspect.unwrap(loss)(jnp.ones((2, 3, 4)), jnp.ones((2, 3, 5)), MASK)
    with pytest.raises(ValueError, match=r"mask\.shape"):
        inspect.unwrap(loss)(jnp.ones((2, 4, 4)), jnp.ones((2, 4, 4)), MASK)


@pytest.mark.parametrize("loss", [weighted_mse, weighted_cross_entropy])
def test_weighted_errors_equal_a_loop_with_their_gradient(loss):
    outputs, targets, weights = rows(0, 2, 3), jax.nn.sigmoid(rows(1, 2, 3)), jnp.abs(rows(2, 2, 3))
    errors, slopes = [], []
    for x, t, w in zip(
        *(np.asarray(a, np.float64).ravel() for a in (outputs, targets, weights)), strict=True
    ):
        p = 1 / (1 + np.exp(-x))
        square = loss is weighted_mse
        errors.append(w * (x - t) ** 2 if square else -w * (t * np.log(p) + (1 - t) * np.log(1 - p)))
        slopes.append(w * (2 * (x - t) if square else p - t) / 6)
    value, gradient = jax.jit(jax.value_and_grad(loss))(outputs, targets, weights)
    np.testing.assert_allclose(value, np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(gradient.ravel(), slopes, rtol=1e-4)
    half = loss(outputs.astype(jnp.bfloat16), targets, weights)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, value, rtol=2e-2)


def test_cross_entropy_is_finite_for_logits_of_any_size_and_least_at_the_targets():
    targets, ones = jnp.array([0.0, 1.0, 0.3]), jnp.ones(3)
    assert float(weighted_cross_entropy(jnp.array([-1e4, 1e4, 0.0]), targets, ones)) == pytest.approx(
        np.log(2) / 3, rel=1e-5
    )
    best = jnp.array([-50.0, 50.0, np.log(0.3 / 0.7)])
    entropy = -(0.3 * np.log(0.3) + 0.7 * np.log(0.7)) / 3
    np.testing.assert_allclose(weighted_cross_entropy(best, targets, ones), entropy, rtol=1e-5)
