"""Colorization."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.operations import ColorJitter, Flip
from ssl_jax.augment.views import View
from ssl_jax.methods.pretext import colorization
from ssl_jax.methods.pretext.colorization import Rebalancing, at_middles, is_counted
from ssl_jax.ops.cielab import ab_bins, lab_to_rgb, rebalancing_weights, rgb_to_lab, soft_bins
from tests.methods.case import loss_of, method_of, zero_params_loss

PLAIN = View(size=8, ops=(Flip(),))


def collapsed(case):
    """Every one of the 313 colours is as likely."""
    return zero_params_loss(case), math.log(313)


def small_method(name="convnet", **options):
    encoder = {"convnet": {"widths": (8, 16)}, "resnet18": {"width": 0.125, "stem": "small"}}[name]
    return colorization.build(models.build(name, **encoder), views=(PLAIN,), hidden_dim=8, **options)


def begun(method, images):
    batch = {"views": (images[:, None],)}
    return *method.init(jax.random.key(0), batch), batch


IMAGES = jax.random.uniform(jax.random.key(1), (6, 8, 8, 3))


@pytest.mark.parametrize("gray", ["images", "pixels", "keep"])
def test_loss_is_the_weighted_mean_over_places_written_as_a_loop(gray):
    """Scores 0 but for a bias, so that the places are told apart by their targets alone."""
    images = IMAGES.at[0].set(0.5).at[1, :4].set(0.25)
    prior = np.random.default_rng(0).dirichlet(np.ones(313))
    rebalancing = Rebalancing(prior=tuple(prior), alpha=0.7, gamma=0.3)
    method = small_method(ignore_gray=gray, rebalancing=rebalancing)
    params, state, batch = begun(method, images)
    bias = jax.random.normal(jax.random.key(2), (313,))
    params["head"] = jax.tree.map(jnp.zeros_like, params["head"])
    params["head"]["dense_1"]["bias"] = bias
    found, _, metrics = loss_of(method, params, state, batch)
    logs = np.asarray(jax.nn.log_softmax(bias), np.float64)
    weights_of = np.asarray(rebalancing_weights(jnp.asarray(prior), gamma=0.3, alpha=0.7))
    total, norm, places = 0.0, 0.0, 0
    for image in np.asarray(rgb_to_lab(images)):
        ab = image[[2, 6]][:, [2, 6], 1:].reshape(-1, 2)
        strong = (np.abs(ab) > 5).any(axis=1)
        kept = {"images": np.full(4, strong.any()), "pixels": strong, "keep": np.ones(4, bool)}[gray]
        for code, counts in zip(np.asarray(soft_bins(jnp.asarray(ab))), kept, strict=True):
            weight = weights_of[code.argmax()] * counts
            total, norm, places = total - weight * (code @ logs), norm + weight, places + counts
    np.testing.assert_allclose(found, total / norm, rtol=1e-5)
    assert float(metrics["counted"]) == pytest.approx(places / 24)


def test_prior_is_the_mean_soft_code_of_the_batches_and_rare_colours_weigh_more():
    method = small_method(rebalancing=Rebalancing(prior_decay=0.5))
    params, state, batch = begun(method, IMAGES)
    codes = [
        soft_bins(at_middles(rgb_to_lab(x), (2, 2))[..., 1:]).mean(axis=(0, 1, 2))
        for x in (IMAGES, IMAGES[:2])
    ]
    _, state, metrics = loss_of(method, params, state, batch)
    entropy = -np.sum(np.where(codes[0] > 0, codes[0] * np.log(np.maximum(codes[0], 1e-30)), 0))
    np.testing.assert_allclose(metrics["bins_in_use"], np.exp(entropy), rtol=1e-4)
    _, state, _ = loss_of(method, params, state, {"views": (IMAGES[:2, None],)})
    np.testing.assert_allclose(
        state["prior"].average / state["prior"].weight, (codes[0] + 2 * codes[1]) / 3, atol=1e-6
    )


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_places_are_those_of_the_finest_map(name):
    method = small_method(name, levels=2)
    params, state, batch = begun(method, IMAGES)
    shown = jax.jit(method.reconstruct)(params, state, IMAGES, jax.random.key(0))
    assert shown.predictions.shape == IMAGES.shape
    assert shown.masked.all()
    # What is painted has the lightness of the image where the gamut allows it; random scores paint near gray.
    np.testing.assert_allclose(rgb_to_lab(shown.predictions)[..., 0], rgb_to_lab(IMAGES)[..., 0], atol=3)
    assert np.isfinite(loss_of(method, params, state, batch)[0])


def test_colours_change_neither_features_nor_scores():
    method = small_method()
    params, state, _ = begun(method, IMAGES)
    lab = rgb_to_lab(IMAGES).at[..., 0].set(50.0)
    first = lab_to_rgb(jnp.concatenate([lab[..., :1], jnp.clip(lab[..., 1:], -10, 10)], axis=-1))
    second = lab_to_rgb(lab.at[..., 1:].set(0.0))
    assert np.abs(first - second).max() > 0.05
    np.testing.assert_allclose(
        method.encode(params, state, first), method.encode(params, state, second), atol=1e-4
    )


def test_normalised_views_give_the_same_colours():
    mean, std = (0.3, 0.4, 0.5), (0.2, 0.3, 0.4)
    network = models.build("convnet", widths=(8, 16))
    method = colorization.build(
        network,
        views=(View(size=8, ops=(Flip(),), mean=mean, std=std),),
        hidden_dim=8,
    )
    normalised = (IMAGES - jnp.array(mean)) / jnp.array(std)
    params, state, batch = begun(method, normalised)
    plain = small_method()
    zero = jax.tree.map(jnp.zeros_like, params)
    zero["head"]["dense_1"]["bias"] = jax.random.normal(jax.random.key(2), (313,))
    np.testing.assert_allclose(
        loss_of(method, zero, state, batch)[0],
        loss_of(plain, zero, state, {"views": (IMAGES[:, None],)})[0],
        rtol=1e-5,
    )


def test_gray_images_are_marked_by_place_or_as_a_whole():
    ab = jnp.zeros((2, 1, 2, 2)).at[0, 0, 1, 0].set(-6.0)
    assert is_counted(ab, "images", 5.0).tolist() == [[[1.0, 1.0]], [[0.0, 0.0]]]
    assert is_counted(ab, "pixels", 5.0).tolist() == [[[0.0, 1.0]], [[0.0, 0.0]]]
    assert is_counted(ab, "keep", 5.0).all()


def test_a_batch_without_colour_costs_nothing():
    method = small_method()
    params, state, batch = begun(method, jnp.full((2, 8, 8, 3), 0.5))
    loss = lambda p: method.loss(p, state, batch, jax.random.key(0), jnp.int32(0))[0]  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(params)
    assert float(value) == 0
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))


def test_images_of_one_channel_are_refused_with_the_reason():
    method = method_of("colorization")
    with pytest.raises(
        ValueError, match=r"channels=1: allowed is 3: .* which are defined for red, green and blue"
    ):
        method.init(jax.random.key(0), {"views": (jnp.zeros((2, 1, 28, 28, 1)),)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore_gray": "all"}, "ignore_gray='all'"),
        ({"rebalancing": {"prior": (0.5, 0.5)}}, "prior=2: allowed is .* 313"),
        ({"sigma": 0.0}, r"sigma=0\.0"),
        ({"levels": 0}, "levels=0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("colorization", **options)


def test_views_that_change_colours_and_encoders_without_maps_are_refused():
    with pytest.raises(ValueError, match="without jitter"):
        colorization.build(models.build("convnet"), views=(View(size=8, ops=(ColorJitter(),)),))
    with pytest.raises(ValueError, match="encoder='vit_micro'"):
        colorization.build(models.build("vit_micro", image_size=28, patch=7))


def test_more_levels_than_maps_are_refused():
    with pytest.raises(ValueError, match="levels=3"):
        begun(small_method(levels=3), IMAGES)


def test_bins_are_313():
    assert len(ab_bins()) == colorization.BINS == 313
