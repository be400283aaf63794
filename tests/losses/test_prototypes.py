"""Cross entropies over prototypes: golden numbers of iBOT's patch loss, loops, gradients, collapse constants."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.distillation import dino_loss, teacher_log_probabilities
from ssl_jax.losses.prototypes import crop_cross_entropy, patch_cross_entropy
from tests.golden_files import assert_close, golden

PRECISIONS = [(jnp.float32, 1e-5, 5e-5), (jnp.float64, 1e-9, 1e-8)]
patch_and_gradients = jax.jit(jax.value_and_grad(patch_cross_entropy, argnums=(0, 1)))


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def distributions(seed, *shape):
    return jax.nn.softmax(rows(seed, *shape), axis=-1)


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(("step", "temperature"), [(0, 0.04), (1, 0.07)])
def test_patch_loss_equals_golden_for_a_given_centre(step, temperature, dtype, loss_tolerance, tolerance):
    file = golden("ibot")
    mask = file["in__mask"].reshape(4, 16)

    def dense(tokens):
        full = np.full((4, 16, 32), 7.0)  # what stands at visible patches must not matter
        full[mask] = tokens
        return jnp.asarray(full, dtype)

    with jax.enable_x64(dtype == jnp.float64):
        center = jnp.asarray(np.zeros(32) if step == 0 else file["step0__out__centre_after"], dtype)
        beliefs = teacher_log_probabilities(dense(file[f"in__t{step}"]), center, dtype(temperature))
        loss, (gradient, _) = patch_and_gradients(
            dense(file[f"in__s{step}"]), jnp.exp(beliefs), jnp.asarray(mask)
        )
        np.testing.assert_allclose(loss, file[f"step{step}__loss"], rtol=loss_tolerance)
        assert_close(np.asarray(gradient)[mask], file[f"step{step}__grad__s{step}"], tolerance=tolerance)
        assert not np.asarray(gradient)[~mask].any()


def test_patch_loss_equals_a_loop_over_crops_and_hidden_patches():
    student, targets = rows(0, 3, 2, 4, 5), distributions(1, 3, 2, 4, 5)
    masked = np.random.default_rng(2).random((3, 2, 4)) < 0.4
    masked[0, 0], masked[1, 1] = False, True
    predictions = np.asarray(jax.nn.softmax(student / 0.3), np.float64)
    crops = []
    for i in np.ndindex(3, 2):
        terms = [
            -(np.asarray(targets)[i][j] * np.log(predictions[i][j])).sum() for j in np.flatnonzero(masked[i])
        ]
        crops.append(np.mean(terms) if terms else 0.0)
    found = patch_cross_entropy(student, targets, jnp.asarray(masked), student_temperature=0.3)
    np.testing.assert_allclose(found, np.mean(crops), rtol=1e-5)


def test_nothing_hidden_gives_zero_loss_and_gradient():
    student, targets = rows(0, 2, 3, 4), distributions(1, 2, 3, 4)
    loss, (gradient, _) = patch_and_gradients(student, targets, jnp.zeros((2, 3), bool))
    assert loss == 0
    assert not gradient.any()


def test_no_gradient_reaches_the_targets():
    _, (student, targets) = patch_and_gradients(
        rows(0, 2, 3, 4), distributions(1, 2, 3, 4), jnp.ones((2, 3), bool)
    )
    assert student.any() and not targets.any()
    to_targets = jax.grad(crop_cross_entropy, argnums=1)(rows(0, 2, 3, 4), distributions(1, 2, 2, 4))
    assert not to_targets.any()


def test_crop_loss_is_dino_s_for_centred_targets():
    student, teacher, center = rows(0, 3, 5, 4), rows(1, 3, 2, 4), rows(2, 4)
    targets = jnp.exp(teacher_log_probabilities(teacher, center, 0.04))
    np.testing.assert_allclose(
        crop_cross_entropy(student, targets), dino_loss(student, teacher, center), rtol=1e-6
    )


def test_crop_loss_has_the_weights_of_dinov2():
    """Over n local crops: (sum over the 2n pairs with locals + sum over the 2 swapped globals) / (2 + 2n)."""
    student, targets = rows(0, 3, 5, 4), distributions(1, 3, 2, 4)
    log_q = np.asarray(jax.nn.log_softmax(student / 0.1))
    pair = lambda g, v: -(np.asarray(targets)[:, g] * log_q[:, v]).sum(-1).mean()  # noqa: E731
    local = sum(pair(g, v) for g in (0, 1) for v in (2, 3, 4)) / (2 + 2 * 3)
    both = 2 * np.mean([pair(0, 1), pair(1, 0)]) / (2 + 2 * 3)
    np.testing.assert_allclose(crop_cross_entropy(student, targets), local + both, rtol=1e-5)


def test_uniform_collapse_gives_the_logarithm_of_the_number_of_prototypes():
    uniform, masked = jnp.full((2, 3, 8), 1 / 8), jnp.ones((2, 3), bool)
    np.testing.assert_allclose(crop_cross_entropy(jnp.zeros((2, 3, 8)), uniform), np.log(8), rtol=1e-6)
    np.testing.assert_allclose(
        patch_cross_entropy(jnp.ones((2, 3, 8)), uniform, masked), np.log(8), rtol=1e-6
    )


def test_patch_loss_does_not_change_with_order_or_a_common_offset_of_logits():
    student, targets, masked = (
        rows(0, 2, 4, 5),
        distributions(1, 2, 4, 5),
        jnp.array([[True, False, True, True]] * 2),
    )
    order = np.array([2, 0, 3, 1])
    expected = patch_cross_entropy(student, targets, masked)
    found = patch_cross_entropy(student[:, order] + 4, targets[:, order], masked[:, order])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_bfloat16_logits_are_computed_in_float32():
    student, targets, masked = (
        rows(0, 2, 3, 5).astype(jnp.bfloat16),
        distributions(1, 2, 3, 5),
        jnp.ones((2, 3), bool),
    )
    found = patch_cross_entropy(student, targets, masked)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, patch_cross_entropy(student.astype(jnp.float32), targets, masked), rtol=1e-6
    )
    assert crop_cross_entropy(student, targets).dtype == jnp.float32


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3, 5), (2, 3, 4), (2, 3)), {}, r"targets\.shape"),
        (((2, 3, 5), (2, 3, 5), (2, 1)), {}, r"masked\.shape"),
        (((2, 3, 5), (2, 3, 5), (2, 3)), {"student_temperature": 0.0}, "student_temperature"),
    ],
)
def test_bad_input_is_refused_by_name(shapes, options, message):
    student, targets, masked = shapes
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(patch_cross_entropy)(
            jnp.zeros(student), jnp.zeros(targets), jnp.zeros(masked, bool), **options
        )
