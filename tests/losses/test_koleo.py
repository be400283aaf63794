"""KoLeo: golden numbers of lightly, a loop, collapse, direction of the gradient."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.koleo import koleo
from tests.golden_files import assert_close, golden

koleo_and_gradient = jax.jit(jax.value_and_grad(koleo))


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("dtype", "loss_tolerance", "tolerance"), [(jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)]
)
def test_koleo_equals_golden(dtype, loss_tolerance, tolerance):
    file = golden("koleo_hypersphere")
    with jax.enable_x64(dtype == jnp.float64):
        loss, gradient = koleo_and_gradient(jnp.asarray(file["in__z0"], dtype))
        np.testing.assert_allclose(loss, file["koleo__loss"], rtol=loss_tolerance)
        assert_close(gradient, file["koleo__grad__z0"], tolerance=tolerance)


def test_koleo_equals_a_loop_over_all_others():
    x = rows(7, 3)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = [min(np.linalg.norm(u[i] - u[j]) for j in range(7) if j != i) for i in range(7)]
    found = koleo(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, -np.mean(np.log(nearest)), rtol=1e-5)


def test_collapse_gives_the_constant_of_theory_and_finite_gradients():
    loss, gradient = koleo_and_gradient(jnp.ones((4, 16)))
    np.testing.assert_allclose(loss, -np.log(1e-8 * (np.sqrt(16) + 1)), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_the_gradient_pushes_the_closest_pair_apart():
    x = jnp.asarray(rows(6, 4), jnp.float32)
    x = x.at[1].set(x[0] + 0.05)

    def distance(x):
        u = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        return jnp.linalg.norm(u[0] - u[1])

    _, gradient = koleo_and_gradient(x)
    assert distance(x - 1e-3 * gradient) > distance(x)
    # Both of the pair move: the gradient goes through the vector and through its neighbour.
    assert (jnp.linalg.norm(gradient[:2], axis=1) > 2 * jnp.linalg.norm(gradient[2:], axis=1).max()).all()


def test_order_and_norm_of_the_vectors_do_not_matter():
    x, order = jnp.asarray(rows(6, 4), jnp.float32), np.array([4, 2, 0, 5, 1, 3])
    np.testing.assert_allclose(koleo(3 * x[order]), koleo(x), rtol=1e-5)


def test_bfloat16_is_computed_in_float32():
    x = jnp.asarray(rows(6, 4), jnp.bfloat16)
    assert koleo(x).dtype == jnp.float32
    np.testing.assert_allclose(koleo(x), koleo(x.astype(jnp.float32)), rtol=1e-6)


def test_a_single_vector_is_refused():
    with pytest.raises(ValueError, match=r"x\.shape=\(1, 4\)"):
        inspect.unwrap(koleo)(jnp.ones((1, 4)))
