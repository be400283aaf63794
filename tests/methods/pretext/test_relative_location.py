"""Relative location."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.methods.pretext import relative_location
from ssl_jax.ops.tiles import Layout
from tests.methods.case import method_of, zero_params_loss
from tests.methods.pretext.seeing import seeing


def collapsed(case):
    return zero_params_loss(case), math.log(8)


@pytest.mark.parametrize(("form", "grid"), [("center", 3), ("all", 3), ("all", 2)])
def test_a_head_that_sees_where_tiles_lie_is_always_right(form, grid):
    """Of places p the direction with step s is the one with the greatest 2 s·(p_j − p_i) − s², which is linear."""
    size = 5 * grid
    place = lambda tiles: jnp.stack([tiles[:, 0, 0, 0] // size // 5, tiles[:, 0, 0, 0] % size // 5], axis=-1)  # noqa: E731
    views = presets.mae(size)
    tiles = Layout(grid=grid, tile=3, gap=1, jitter=1)
    options = {"form": form, "tiles": tiles, "hidden_layers": 0}
    method = relative_location.build(seeing(place, 2), views=views, normalize_tiles=False, **options)
    images = jnp.arange(size * size, dtype=jnp.float32).reshape(1, 1, size, size, 1) * jnp.ones(
        (7, 1, 1, 1, 1)
    )
    batch = {"views": (images,)}
    params, state = method.init(jax.random.key(0), batch)
    steps = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
    kernel = 2.0 * np.concatenate([-steps.T, steps.T])
    params["head"]["dense_0"] = {
        "kernel": jnp.asarray(kernel),
        "bias": jnp.asarray(-(steps**2).sum(axis=1), float),
    }
    _, (_, metrics) = method.loss(params, state, batch, jax.random.key(2), jnp.int32(0))
    assert float(metrics["accuracy"]) == 1.0


def test_whole_images_are_encoded_by_what_was_trained_on_tiles():
    method = method_of("relative_location")
    batch = {"views": (jnp.ones((4, 1, 28, 28, 1)),)}
    params, state = method.init(jax.random.key(0), batch)
    features = method.encode(params, state, jnp.ones((2, 28, 28, 1)))
    assert features.shape == (2, method.encoder.features)
    vit = models.build("vit_micro", patch=4, image_size=28, width=32, depth=1, heads=2)
    method = relative_location.build(vit, views=presets.mae(28), tiles=Layout(3, 8, jitter=1), hidden_dim=16)
    params, state = method.init(jax.random.key(0), batch)
    value, _ = jax.jit(method.loss)(params, state, batch, jax.random.key(1), jnp.int32(0))
    assert np.isfinite(value)
    assert method.encode(params, state, jnp.ones((2, 28, 28, 1))).shape == (2, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tiles": {"tile": 10}},
            "views='28 x 28 pixels': allowed is 33 or more a side: 3 x 3 tiles of 10 pixels.*overlap",
        ),
        ({"form": "ring"}, "form='ring'"),
        ({"form": "center", "tiles": {"grid": 2}}, "grid=2: allowed is 3"),
        ({"tiles": {"gap": -1}}, "gap=-1"),
        ({"hidden_layers": -1}, "hidden_layers=-1"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("relative_location", **options)
