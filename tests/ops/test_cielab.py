"""CIELAB against scikit-image, the bins against the gamut, soft codes and weights against loops."""

import hashlib
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.cielab import ab_bins, annealed_mean, lab_to_rgb, rebalancing_weights, rgb_to_lab, soft_bins

skimage_color = pytest.importorskip("skimage.color")

CORNERS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
GAMUT = np.stack(np.meshgrid(*[np.linspace(0, 1, 41)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
RGB = np.concatenate([CORNERS, GAMUT[::97], np.random.default_rng(0).random((200, 3)) ** 4])


def test_lab_equals_scikit_image():
    found = jax.jit(rgb_to_lab)(jnp.asarray(RGB, jnp.float32))
    np.testing.assert_allclose(found, skimage_color.rgb2lab(RGB[None])[0], atol=2e-3)
    assert rgb_to_lab(jnp.asarray(RGB, jnp.bfloat16)).dtype == jnp.float32


def test_rgb_equals_scikit_image_and_the_way_there_and_back_is_the_identity():
    lab = skimage_color.rgb2lab(RGB[None])[0]
    back = jax.jit(lab_to_rgb)(jnp.asarray(lab, jnp.float32))
    np.testing.assert_allclose(back, skimage_color.lab2rgb(lab[None])[0], atol=1e-4)
    rgb = jnp.asarray(RGB, jnp.float32)
    np.testing.assert_allclose(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=1e-5)
    wild = lab_to_rgb(jnp.array([[50.0, 120.0, -120.0], [0.0, -90.0, 90.0], [100.0, 90.0, 90.0]]))
    assert ((wild >= 0) & (wild <= 1)).all()


def test_gradients_are_finite_at_black_and_at_the_ends_of_the_gamut():
    for function in (rgb_to_lab, lambda x: lab_to_rgb(rgb_to_lab(x))):
        gradient = jax.grad(lambda x, f=function: jnp.sum(f(x)))(jnp.asarray(CORNERS, jnp.float32))
        assert jnp.isfinite(gradient).all()


def test_bins_are_313_hold_every_colour_and_lie_near_one():
    bins = ab_bins()
    assert bins.shape == (313, 2)
    assert len({tuple(b) for b in bins}) == 313
    # The published table, in its order, as OpenCV's sample colorization.cpp lists it.
    assert hashlib.sha256(bins.astype("<i2").tobytes()).hexdigest()[:16] == "e74b520cf1929e90"
    ab = skimage_color.rgb2lab(GAMUT[None])[0][:, 1:]
    nearest = {tuple(x) for x in 10 * np.round(ab / 10)}
    assert nearest <= {tuple(b) for b in bins.tolist()}
    distances = np.stack([np.linalg.norm(ab - b, axis=1).min() for b in bins])
    assert distances.max() < 15


@pytest.mark.parametrize(("neighbors", "sigma"), [(10, 5.0), (1, 5.0), (3, 20.0)])
def test_soft_codes_equal_a_loop(neighbors, sigma):
    colors = np.random.default_rng(0).uniform(-60, 60, (3, 4, 2))
    found = jax.jit(lambda x: soft_bins(x, neighbors=neighbors, sigma=sigma))(
        jnp.asarray(colors, jnp.float32)
    )
    bins = ab_bins().astype(np.float64)
    expected = np.zeros((3, 4, 313))
    for i, j in np.ndindex(3, 4):
        squared = ((bins - colors[i, j]) ** 2).sum(axis=1)
        chosen = np.argsort(squared)[:neighbors]
        weights = np.exp(-squared[chosen] / (2 * sigma**2))
        expected[i, j, chosen] = weights / weights.sum()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    assert ((found > 0).sum(axis=-1) == neighbors).all()


def test_a_colour_far_from_all_bins_has_a_code():
    code = soft_bins(jnp.array([500.0, 500.0]))
    assert jnp.isfinite(code).all()
    np.testing.assert_allclose(code.sum(), 1, rtol=1e-6)


def test_weights_have_the_mean_1_and_are_the_formula():
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.full(313, 0.3))
    prior[:20] = 0
    prior /= prior.sum()
    for gamma, alpha in ((0.5, 1.0), (0.0, 0.5), (1.0, 2.0), (0.3, 0.0)):
        found = np.asarray(rebalancing_weights(jnp.asarray(prior, jnp.float32), gamma=gamma, alpha=alpha))
        kept = prior[20:]
        expected = ((1 - gamma) * kept + gamma / len(kept)) ** -alpha
        np.testing.assert_allclose(found[20:], expected / (kept * expected).sum(), rtol=1e-4)
        np.testing.assert_allclose(found @ prior, 1, rtol=1e-5)
        assert not found[:20].any()
    assert not rebalancing_weights(jnp.zeros(313)).any()
    swept = jax.jit(jax.vmap(lambda a: rebalancing_weights(jnp.asarray(prior, jnp.float32), alpha=a)))
    np.testing.assert_allclose(swept(jnp.array([0.0, 1.0]))[0, 20:], 1, rtol=1e-5)


def test_the_annealed_mean_goes_from_the_mean_to_the_best_bin():
    logits = jax.random.normal(jax.random.key(0), (4, 313))
    shares = np.exp(np.asarray(logits, np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(annealed_mean(logits, temperature=1.0), shares @ ab_bins(), atol=1e-3)
    best = ab_bins()[np.argmax(logits, axis=1)]
    np.testing.assert_allclose(annealed_mean(logits, temperature=1e-3), best, atol=1e-3)


@pytest.mark.parametrize("options", [{"neighbors": 0}, {"neighbors": 314}, {"sigma": 0.0}])
def test_codes_that_cannot_be_are_refused(options):
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        inspect.unwrap(soft_bins)(jnp.zeros(2), **options)
