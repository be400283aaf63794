"""Counting: a loop, its constants, its gradient."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.pretext import counting

RNG = np.random.default_rng(0)
WHOLES, OTHERS = (jnp.asarray(RNG.random((5, 3)), jnp.float32) for _ in range(2))
TILES = jnp.asarray(RNG.random((5, 4, 3)), jnp.float32)


@pytest.mark.parametrize(("margin", "elementwise"), [(4.0, False), (1.0, True), (0.01, False)])
def test_loss_equals_a_loop_over_images(margin, elementwise):
    costs = []
    for whole, tiles, other in zip(
        *(np.asarray(x, np.float64) for x in (WHOLES, TILES, OTHERS)), strict=True
    ):
        own, apart = (whole - tiles.sum(axis=0)) ** 2, (other - tiles.sum(axis=0)) ** 2
        if elementwise:
            costs.append(np.mean([own[k] + max(0.0, margin - apart[k]) for k in range(3)]))
        else:
            costs.append(own.sum() + max(0.0, margin - apart.sum()))
    options = {"margin": margin, "elementwise": elementwise}
    found = jax.jit(lambda *x: counting(*x, **options))(WHOLES, TILES, OTHERS)
    np.testing.assert_allclose(found, np.mean(costs), rtol=1e-6)
    np.testing.assert_allclose(counting(WHOLES, TILES, OTHERS, **options), found, rtol=1e-6)


@pytest.mark.parametrize("elementwise", [False, True])
def test_counting_nothing_costs_the_margin_and_counting_right_costs_nothing(elementwise):
    options = {"margin": 7.0, "elementwise": elementwise}
    zeros = [jnp.zeros_like(x) for x in (WHOLES, TILES, OTHERS)]
    assert float(counting(*zeros, **options)) == pytest.approx(7.0)
    sums = TILES.sum(axis=1)
    assert float(counting(sums, TILES, sums + 3.0, **options)) == pytest.approx(0.0, abs=1e-9)


def test_gradient_is_that_of_the_squares_and_stops_where_the_other_image_is_far():
    gradients = jax.grad(counting, argnums=(0, 1, 2))(WHOLES, TILES, OTHERS, margin=1e-3)
    difference = 2 * (WHOLES - TILES.sum(axis=1)) / 5
    np.testing.assert_allclose(gradients[0], difference, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], -difference[:, None] * jnp.ones((5, 4, 1)), rtol=1e-5)
    assert not gradients[2].any()
    near = jax.grad(counting, argnums=2)(WHOLES, TILES, OTHERS, margin=100.0)
    np.testing.assert_allclose(near, -2 * (OTHERS - TILES.sum(axis=1)) / 5, rtol=1e-5)


def test_margins_may_be_mapped_over_and_bfloat16_is_summed_in_float32():
    margins = jnp.array([0.5, 2.0, 8.0])
    mapped = jax.vmap(lambda m: counting(WHOLES, TILES, OTHERS, margin=m))(margins)
    single = [counting(WHOLES, TILES, OTHERS, margin=float(m)) for m in margins]
    np.testing.assert_allclose(mapped, single, rtol=1e-6)
    half = [x.astype(jnp.bfloat16) for x in (WHOLES, TILES, OTHERS)]
    found = counting(*half)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, counting(*(x.astype(jnp.float32) for x in half)), rtol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "margin", "message"),
    [
        (((5, 2), (5, 4, 3), (5, 3)), 1.0, r"wholes\.shape"),
        (((5, 3), (5, 4, 3), (1, 3)), 1.0, r"others\.shape"),
        (((5, 3), (5, 4, 3), (5, 3)), 0.0, r"margin=0\.0"),
    ],
)
def test_what_would_broadcast_or_means_nothing_is_refused(shapes, margin, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(counting)(*(jnp.zeros(shape) for shape in shapes), margin=margin)
