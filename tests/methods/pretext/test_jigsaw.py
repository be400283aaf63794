"""Jigsaw."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import presets
from ssl_jax.methods.pretext import jigsaw
from ssl_jax.ops.tiles import Layout, permutations
from tests.methods.case import loss_of, method_of, zero_params_loss
from tests.methods.pretext.seeing import seeing


def collapsed(case):
    return zero_params_loss(case), math.log(case.config["method"]["permutations"])


@pytest.mark.parametrize(("grid", "count"), [(3, 20), (2, 24)])
def test_a_head_that_sees_every_tile_knows_the_permutation(grid, count):
    """The score of a permutation is the number of tiles that it puts where they are seen."""
    size, tiles = 5 * grid, grid * grid
    seen = []

    def look(images):
        corner = images[:, 0, 0, 0].astype(int)
        cell = corner // size // 5 * grid + corner % size // 5
        seen.append(cell)
        return jax.nn.one_hot(cell, tiles)

    options = {"tiles": Layout(grid=grid, tile=3, gap=1, jitter=1), "hidden_layers": 0}
    options |= {"permutations": count, "projection": tiles, "normalize_tiles": False, "permutation_seed": 5}
    method = jigsaw.build(seeing(look, tiles), views=presets.mae(size), **options)
    images = jnp.arange(size * size, dtype=jnp.float32).reshape(1, 1, size, size, 1) * jnp.ones(
        (32, 1, 1, 1, 1)
    )
    batch = {"views": (images,)}
    params, state = method.init(jax.random.key(0), batch)
    orders = permutations(count, tiles=tiles, seed=5)
    kernel = np.stack([np.eye(tiles)[order].ravel() for order in orders], axis=1)
    params["projector"]["dense_0"] = {"kernel": jnp.eye(tiles)}
    params["head"]["dense_0"] = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(count)}
    _, (_, metrics) = method.loss(params, state, batch, jax.random.key(2), jnp.int32(0))
    assert float(metrics["accuracy"]) == 1.0
    shown = {tuple(row) for row in np.asarray(seen[-1]).reshape(-1, tiles).tolist()}
    assert len(shown) > 5 and shown <= {tuple(order) for order in orders.tolist()}


def test_tiles_share_one_tower_and_a_head_that_adds_them_up_cannot_know():
    method = method_of("jigsaw", hidden_layers=0)
    images = jax.random.normal(jax.random.key(1), (8, 1, 28, 28, 1))
    batch = {"views": (images,)}
    params, state = method.init(jax.random.key(0), batch)
    kernel = params["head"]["dense_0"]["kernel"]
    added = jnp.tile(kernel[: len(kernel) // 9], (9, 1))

    def logits(order):
        """Of tiles in another order, the same permutation drawn."""
        head = {"dense_0": {**params["head"]["dense_0"], "kernel": added}}
        shuffled = method_of("jigsaw", hidden_layers=0, permutation_seed=order)
        return loss_of(shuffled, {**params, "head": head}, state, batch)[0]

    np.testing.assert_allclose(logits(0), logits(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tiles": {"tile": 10}},
            "views='28 x 28 pixels': allowed is 33 or more a side: 3 x 3 tiles of 10 pixels.*overlap",
        ),
        ({"tiles": {"grid": 4, "tile": 4}}, r"tiles\.grid=4"),
        ({"tiles": {"grid": 2}, "permutations": 25}, "count=25"),
        ({"permutations": 1}, "permutations=1"),
        ({"objective": "max"}, "objective='max'"),
        ({"hidden_layers": -1}, "hidden_layers=-1"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("jigsaw", **options)
