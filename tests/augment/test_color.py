"""Colour operations against torchvision's numbers and PIL's levels, and for any number of channels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import color, jitter
from tests.golden_files import assert_close, golden

G = golden("augment")
IMAGE = np.moveaxis(G["in__img"], 0, -1)
ADJUST = {
    "brightness": jitter.adjust_brightness,
    "contrast": jitter.adjust_contrast,
    "saturation": jitter.adjust_saturation,
    "hue": jitter.adjust_hue,
}


def number(text):
    return float(text.replace("m", "-").replace("p", "."))


def cases(operation, prefix="tv"):
    start = f"{prefix}_{operation}_"
    return {key: number(key[len(start) :].split("__")[0]) for key in G if key.startswith(start)}


def small(channels=3, seed=0, side=6):
    return jnp.asarray(np.random.default_rng(seed).random((side, side, channels)), jnp.float32)


@pytest.mark.parametrize("name", [*ADJUST, "solarize"])
def test_operation_equals_torchvision_in_both_precisions(name):
    operation = (
        jax.jit(ADJUST[name])
        if name in ADJUST
        else jax.jit(lambda image, t: color.solarize(image, threshold=t))
    )
    assert len(cases(name)) >= 3
    for x64 in (False, True):
        # torchvision's hue computes in float32 whatever it is given.
        tolerance = 1e-5 if not x64 else (2e-6 if name == "hue" else 1e-8)
        with jax.enable_x64(x64):
            image = jnp.asarray(IMAGE, jnp.float64 if x64 else jnp.float32)
            for key, value in cases(name).items():
                found = operation(image, jnp.asarray(value, image.dtype))
                assert_close(np.moveaxis(np.asarray(found), -1, 0), G[key], tolerance=tolerance)


def test_gray_and_normalize_equal_torchvision():
    image = jnp.asarray(IMAGE, jnp.float32)
    gray = np.moveaxis(np.asarray(color.grayscale(image)), -1, 0)
    assert_close(gray, G["tv_gray3__out__y"], tolerance=1e-5)
    normalized = color.normalize(image, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert_close(np.moveaxis(np.asarray(normalized), -1, 0), G["tv_normalize__out__y"], tolerance=1e-5)


# PIL rounds each result to a level and the mean of contrast to a gray level, and turns the hue in 8-bit HSV.
@pytest.mark.parametrize(
    ("name", "levels"),
    [("brightness", 1), ("contrast", 1), ("saturation", 2), ("hue", 14), ("solarize", 1e-3)],
)
def test_operation_is_within_levels_of_pil(name, levels):
    image = jnp.asarray(IMAGE, jnp.float32)
    assert cases(name, "pil")
    for key, value in cases(name, "pil").items():
        if name == "solarize":
            found = color.solarize(image, threshold=value / 255)
        else:
            found = ADJUST[name](image, value)
        assert np.abs(np.asarray(found) * 255 - G[key]).max() <= levels


def test_jitter_chain_equals_torchvision():
    planes = jnp.asarray(G["in__img"], jnp.float32)
    found = jax.jit(jitter.jitter_planes)(planes, jnp.array([1.3, 0.7, 1.2, 0.08]), jnp.arange(4))
    assert_close(found, G["tv_jitter_chain__out__y"], tolerance=1e-5)


def test_jitter_follows_the_given_order_for_all_24_and_jit_vmap_and_loop_agree():
    image, factors = small(), jnp.array([1.6, 0.4, 1.7, -0.15])
    planes, orders = jnp.moveaxis(image, -1, 0), jnp.array(list(itertools.permutations(range(4))))
    functions = [jax.jit(f) for f in ADJUST.values()]
    mapped = jax.jit(jax.vmap(jitter.jitter_planes, (None, None, 0)))(planes, factors, orders)
    looped = jax.jit(lambda o: jax.lax.map(lambda one: jitter.jitter_planes(planes, factors, one), o))(orders)
    np.testing.assert_allclose(mapped, looped, atol=2e-6)
    for order, found in zip(orders, mapped, strict=True):
        expected = image
        for operation in order:
            expected = functions[int(operation)](expected, factors[operation])
        np.testing.assert_allclose(jnp.moveaxis(found, 0, -1), expected, atol=2e-6)
    assert len({np.asarray(x).round(4).tobytes() for x in mapped}) == 24


def test_hue_of_a_pixel_computed_in_a_fused_chain_is_right():
    """Compiled code may round one value in two ways; then asking for the maximum goes wrong."""
    planes = jnp.asarray(np.random.default_rng(3).random((16, 3, 16, 16)), jnp.float32)
    factors = jnp.array([0.8776, 1.0188, 1.2285, 0.1865])
    order = jnp.array([1, 2, 3, 0])
    compiled = jax.jit(jax.vmap(lambda x: jitter.jitter_planes(x, factors, order)))(planes)
    with jax.disable_jit():
        plain = jitter.jitter_planes(planes[0], factors, order)
    np.testing.assert_allclose(compiled[0], plain, atol=1e-5)


def test_hue_turns_add_up_and_a_whole_turn_is_identity_and_gray_stays_gray():
    image = small()
    turned = jitter.adjust_hue(jitter.adjust_hue(image, 0.2), 0.3)
    np.testing.assert_allclose(turned, jitter.adjust_hue(image, 0.5), atol=1e-5)
    np.testing.assert_allclose(jitter.adjust_hue(image, 1.0), image, atol=1e-5)
    gray = color.grayscale(image)
    np.testing.assert_allclose(jitter.adjust_hue(gray, 0.3), gray, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channel_counts_use_the_mean_of_the_channels_and_have_no_hue(channels):
    image = small(channels)
    mean = np.asarray(image).mean(-1, keepdims=True)
    np.testing.assert_allclose(color.grayscale(image), np.broadcast_to(mean, image.shape), atol=1e-6)
    np.testing.assert_array_equal(jitter.adjust_hue(image, 0.3), image)
    saturated = jitter.adjust_saturation(image, 0.25)
    np.testing.assert_allclose(saturated, 0.25 * np.asarray(image) + 0.75 * mean, atol=1e-6)
    contrasted = jitter.adjust_contrast(image, 0.25)
    np.testing.assert_allclose(contrasted, 0.25 * np.asarray(image) + 0.75 * mean.mean(), atol=1e-6)
    if channels == 1:
        np.testing.assert_allclose(color.grayscale(image), image, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_composed_jitter_is_exact_where_nothing_clips_and_the_hue_stays(channels):
    planes = 0.4 + 0.2 * jnp.moveaxis(small(channels), -1, 0)
    factors = jnp.array([1.1, 0.9, 1.2, 0.0])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        exact = jitter.jitter_planes(planes, factors, jnp.array(order))
        fast = jitter.composed_jitter_planes(planes, factors, jnp.array(order))
        np.testing.assert_allclose(fast, exact, atol=1e-5)


def test_composed_hue_keeps_luma_and_turns_in_the_direction_of_the_exact_hue():
    red = jnp.array([0.6, 0.4, 0.4]).reshape(3, 1, 1)
    for turns in (0.1, -0.1):
        factors = jnp.array([1.0, 1.0, 1.0, turns])
        changes = [
            np.asarray(function(red, factors, jnp.arange(4)) - red)[:, 0, 0]
            for function in (jitter.jitter_planes, jitter.composed_jitter_planes)
        ]
        assert abs(jitter.YIQ[0] @ changes[1]) < 1e-4
        # HSV keeps its value, not luma: compare what is left without the gray part.
        exact, fast = (change - change.mean() for change in changes)
        assert exact @ fast / np.linalg.norm(exact) / np.linalg.norm(fast) > 0.7


def test_gradients_of_the_colour_operations_are_finite_where_colours_tie():
    image = small().at[0].set(0.5).at[1].set(0.0).at[2].set(1.0)
    for operation in ADJUST.values():
        gradient = jax.grad(lambda x, f=operation: jnp.sum(f(x, 0.3) ** 2))(image)
        assert jnp.isfinite(gradient).all()


def test_bfloat16_images_stay_bfloat16_and_agree_loosely():
    image = small()
    for operation in ADJUST.values():
        found = operation(image.astype(jnp.bfloat16), jnp.bfloat16(0.75))
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), operation(image, 0.75), atol=0.06)


def test_integers_become_floats_between_0_and_1_and_unknown_types_are_errors():
    assert color.to_float(np.array([0, 65535], np.uint16)).tolist() == [0.0, 1.0]
    assert color.to_float(np.array([0.25], np.float32)).tolist() == [0.25]
    with pytest.raises(ValueError, match=r"images\.dtype='int32'"):
        color.to_float(np.array([1], np.int32))


def test_normalize_wants_one_number_or_one_a_channel():
    image = small(5)
    assert color.normalize(image, mean=(0.5,), std=(0.5,)).shape == image.shape
    with pytest.raises(ValueError, match="5 channels"):
        color.normalize(image, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))
