"""Spectral contrastive loss: golden numbers, a loop written from the definition, and the graph that it factorises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.spectral import project_to_ball, spectral_contrastive
from tests.golden_files import assert_close, golden


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def loop(z1, z2, mu):
    """Terms of the definition, pair by pair."""
    z1, z2 = np.asarray(z1, np.float64), np.asarray(z2, np.float64)
    if mu is not None:
        z1, z2 = (
            [z if np.sqrt(z @ z) < np.sqrt(mu) else np.sqrt(mu / (z @ z)) * z for z in x] for x in (z1, z2)
        )
    n, scale = len(z1), mu or 1.0
    attraction = sum(-2 * z1[i] @ z2[i] / n for i in range(n))
    repulsion = sum((z1[i] @ z2[j]) ** 2 / (n * (n - 1)) for i in range(n) for j in range(n) if i != j)
    return attraction / scale, repulsion / scale


@pytest.mark.parametrize(
    ("case", "inputs", "mu"), [("spectral_mu1", "u", 1.0), ("spectral_mu3_all_projected", "z", 3.0)]
)
def test_loss_terms_and_gradients_equal_golden(case, inputs, mu):
    file = golden("contrastive_extra")
    step = jax.jit(jax.value_and_grad(lambda a, b: spectral_contrastive(a, b, mu=mu), (0, 1), has_aux=True))
    for dtype, loss_tolerance, tolerance in ((jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)):
        with jax.enable_x64(dtype == jnp.float64):
            (loss, terms), gradients = step(*(jnp.asarray(file[f"in__{inputs}{i}"], dtype) for i in (0, 1)))
            np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=loss_tolerance)
            for term, name in (("attraction", "part1"), ("repulsion", "part2")):
                np.testing.assert_allclose(terms[term], file[f"{case}__out__{name}"], rtol=loss_tolerance)
            for i in (0, 1):
                assert_close(gradients[i], file[f"{case}__grad__{inputs}{i}"], tolerance=tolerance)


@pytest.mark.parametrize("mu", [None, 0.5, 4.0, 100.0])
def test_terms_equal_a_loop_over_the_definition(mu):
    z1, z2 = rows(0, 6, 4), rows(1, 6, 4)
    loss, terms = spectral_contrastive(z1, z2, mu=mu)
    expected = loop(z1, z2, mu)
    np.testing.assert_allclose([terms["attraction"], terms["repulsion"]], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, sum(expected), rtol=1e-5)


def test_without_the_ball_its_expectation_is_the_factorisation_of_the_graph_of_views():
    """All batches of two pairs of a graph with five nodes, each weighed by how likely it is."""
    random = np.random.default_rng(0)
    weights = random.uniform(size=(5, 5))
    pairs = (weights + weights.T) / np.sum(weights + weights.T)  # probability of a pair of views
    views = pairs.sum(axis=1)
    f = random.normal(size=(5, 3)).astype(np.float32)
    nodes = np.array(list(itertools.product(range(5), repeat=4)))
    likely = pairs[nodes[:, 0], nodes[:, 1]] * pairs[nodes[:, 2], nodes[:, 3]]
    batches = f[nodes].reshape(-1, 2, 2, 3)  # [batch, image, view, d]
    losses = jax.vmap(lambda z: spectral_contrastive(z[:, 0], z[:, 1], mu=None)[0])(batches)
    adjacency = pairs / np.sqrt(np.outer(views, views))
    factors = np.sqrt(views)[:, None] * f
    error = np.sum((adjacency - factors @ factors.T) ** 2) - np.sum(adjacency**2)
    np.testing.assert_allclose(np.sum(likely * losses), error, rtol=1e-4)


@pytest.mark.parametrize("mu", [0.25, 1.0, 4.0])
def test_one_vector_for_all_images_gives_the_parabola_of_its_squared_length(mu):
    for squared in (0.0, 0.1, 0.25, 1.0, 9.0):
        z, r = jnp.full((5, 4), np.sqrt(squared / 4)), min(squared, mu)
        np.testing.assert_allclose(spectral_contrastive(z, z, mu=mu)[0], (r**2 - 2 * r) / mu, atol=1e-6)


def test_orthogonal_images_whose_views_agree_reach_the_least_value_and_have_no_gradient():
    z = np.sqrt(3) * jnp.eye(4)
    (loss, _), gradient = jax.value_and_grad(lambda x: spectral_contrastive(x, x, mu=3.0), has_aux=True)(
        2 * z
    )
    assert float(loss) == pytest.approx(-2.0)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_vectors_inside_the_ball_stay_and_those_outside_have_no_gradient_along_themselves():
    z = jnp.array([[0.3, 0.4], [3.0, 4.0]])
    direction = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(project_to_ball(x, 1.0) * direction))(z)
    np.testing.assert_allclose(value, 0.3 + 0.8 + 0.6 * 3 - 0.8, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], direction[0], rtol=1e-6)
    assert abs(float(gradient[1] @ z[1])) < 1e-5 and np.abs(gradient[1]).max() > 0.1


def test_one_image_has_nothing_to_be_told_from():
    with pytest.raises(ValueError, match=r"z1.shape=\(1, 3\): allowed is \[n, d\] with n >= 2"):
        spectral_contrastive(jnp.ones((1, 3)), jnp.ones((1, 3)))
