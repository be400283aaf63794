"""Losses of distillation from a frozen teacher: loops, constants, gradients."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.distillation import feature_mse, softened_kl


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_softened_kl_equals_a_loop():
    student, teacher = rows(0, 4, 5), rows(1, 4, 5)
    terms = []
    for s, t in zip(np.asarray(student, np.float64), np.asarray(teacher, np.float64), strict=True):
        p, q = np.exp(t / 0.5), np.exp(s / 2.0)
        p, q = p / p.sum(), q / q.sum()
        terms.append(sum(p[k] * np.log(p[k] / q[k]) for k in range(5)))
    found = softened_kl(student, teacher, student_temperature=2.0, teacher_temperature=0.5)
    np.testing.assert_allclose(found, 4.0 * np.mean(terms), rtol=1e-5)


def test_gradients_of_softened_kl_are_those_of_theory_and_none_reaches_the_teacher():
    student, teacher = rows(0, 4, 5), rows(1, 4, 5)
    loss = lambda s, t: softened_kl(s, t, student_temperature=3.0, teacher_temperature=3.0)  # noqa: E731
    to_student, to_teacher = jax.jit(jax.grad(loss, argnums=(0, 1)))(student, teacher)
    difference = jax.nn.softmax(student / 3) - jax.nn.softmax(teacher / 3)
    np.testing.assert_allclose(to_student, 3.0 * difference / 4, atol=1e-6)
    assert not to_teacher.any()
    assert not jax.grad(feature_mse, argnums=1)(student, teacher).any()


def test_losses_are_zero_where_student_and_teacher_agree_up_to_an_offset_of_logits():
    x = rows(0, 4, 5)
    np.testing.assert_allclose(
        softened_kl(x + 2, x, student_temperature=0.1, teacher_temperature=0.1), 0, atol=1e-6
    )
    assert feature_mse(x, x) == 0


def test_high_temperatures_match_centred_logits_as_hinton_shows():
    student, teacher = rows(0, 6, 5), rows(1, 6, 5)
    center = lambda x: x - x.mean(axis=1, keepdims=True)  # noqa: E731
    expected = jnp.mean((center(student) - center(teacher)) ** 2) / 2
    found = softened_kl(student, teacher, student_temperature=100.0, teacher_temperature=100.0)
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_feature_mse_equals_numpy_and_narrow_inputs_are_computed_in_float32():
    student, teacher = rows(0, 4, 5), rows(1, 4, 5)
    np.testing.assert_allclose(feature_mse(student, teacher), np.mean((student - teacher) ** 2), rtol=1e-6)
    narrow = [x.astype(jnp.bfloat16) for x in (student, teacher)]
    wide = [x.astype(jnp.float32) for x in narrow]
    for loss in (feature_mse, softened_kl):
        assert loss(*narrow).dtype == jnp.float32
        np.testing.assert_allclose(loss(*narrow), loss(*wide), rtol=1e-6)


@pytest.mark.parametrize("loss", [feature_mse, softened_kl])
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(ValueError, match=r"teacher\.shape=\(1, 5\)"):
        inspect.unwrap(loss)(jnp.ones((4, 5)), jnp.ones((1, 5)))


@pytest.mark.parametrize("name", ["student_temperature", "teacher_temperature"])
def test_temperatures_that_are_not_positive_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}=0\.0"):
        softened_kl(rows(0, 4, 5), rows(1, 4, 5), **{name: 0.0})
