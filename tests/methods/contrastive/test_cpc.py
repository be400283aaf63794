"""CPC."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cpc as cpc_recipes
from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.methods.contrastive import cpc
from ssl_jax.models.context import row_context
from ssl_jax.ops.tiles import PatchGrid
from tests.methods.case import config_of, loss_of, method_of, start, zero_params_loss

PLAIN = {"side": 10, "stride": 6, "jitter": 0}  # 4 x 4 patches of 28 pixels
FROM = {
    "down": lambda i, j, n: (i, j),
    "up": lambda i, j, n: (n - 1 - i, n - 1 - j),
    "left": lambda i, j, n: (j, n - 1 - i),
    "right": lambda i, j, n: (n - 1 - j, i),
}
"""Where in the image the place (i, j) lies of a grid in which the direction is downwards."""


def collapsed(case):
    """Scores of 0 for all patches of the batch."""
    return zero_params_loss(case), math.log(16 * 9)


def loss_by_hand(method, params, state, images, *, toward, ahead, skip, temperature, projection):
    """By loops over directions, rows ahead, images and places, in float64."""
    options = config_of("cpc")["method"]
    side, stride = PLAIN["side"], PLAIN["stride"]
    n = (images.shape[1] - side) // stride + 1
    z = {}
    for i, j in np.ndindex(n, n):
        patch = images[:, i * stride : i * stride + side, j * stride : j * stride + side]
        z[i, j] = np.asarray(
            method.encoder.apply(params["encoder"], state["encoder"], patch, train=True)[0], np.float64
        )
    target = z
    if projection is not None:
        w, b = (np.asarray(params["target"]["dense_0"][x], np.float64) for x in ("kernel", "bias"))
        target = {place: x @ w + b for place, x in z.items()}
    candidates = np.concatenate(list(target.values()))
    context = row_context(
        method.encoder.features, width=options["context_width"], depth=options["context_depth"]
    )
    directions = []
    for name in toward:
        turned = np.stack([[z[FROM[name](i, j, n)] for j in range(n)] for i in range(n)])  # [n, n, b, f]
        c, _ = context.apply(
            params[name]["context"], {}, jnp.asarray(turned.transpose(2, 0, 1, 3), jnp.float32)
        )
        w, b = (np.asarray(params[name]["rows"]["dense_0"][x], np.float64) for x in ("kernel", "bias"))
        p = np.split(np.asarray(c, np.float64) @ w + b, ahead - skip, axis=-1)
        by_row = []
        for number, k in enumerate(range(skip + 1, ahead + 1)):
            terms = []
            for image in range(len(images)):
                for i, j in np.ndindex(n - k, n):
                    prediction = p[number][image, i, j]
                    right = target[FROM[name](i + k, j, n)][image]
                    scores = candidates @ prediction / temperature
                    terms.append(np.log(np.exp(scores).sum()) - right @ prediction / temperature)
            by_row.append(np.mean(terms))
        directions.append(np.mean(by_row))
    return np.mean(directions)


@pytest.mark.parametrize(
    "options",
    [
        {"toward": ("down",), "ahead": 3, "skip": 1, "temperature": 2.0, "projection": None},
        {"toward": ("left", "up", "right"), "ahead": 1, "skip": 0, "temperature": 10.0, "projection": 6},
    ],
)
def test_loss_equals_a_loop_over_places_and_rows_ahead(options):
    method = method_of("cpc", encoder={"widths": (8,), "grid": 1}, patches=PLAIN, **options)
    params, state, batch = start(method)
    images = batch["views"][0][:4, 0]
    small = {**batch, "views": (images[:, None],)}
    value, _, metrics = loss_of(method, params, state, small)
    expected = loss_by_hand(method, params, state, np.asarray(images), **options)
    assert value == pytest.approx(expected, rel=1e-4)
    assert float(metrics["information"]) == pytest.approx(math.log(4 * 16) - expected, abs=1e-3)


def test_blocks_of_candidates_give_the_same_loss_and_gradient():
    whole, blocks = (method_of("cpc", block_size=size) for size in (None, 50))
    params, state, batch = start(whole)

    def step(method):
        loss = lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params)

    (value, gradients), (other, others) = step(whole), step(blocks)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, others)


@pytest.mark.parametrize("recipe", cpc_recipes.RECIPES)
def test_no_recipe_has_statistics_of_the_batch_which_would_tell_patches_apart(recipe):
    encoder = cpc_recipes.RECIPES[recipe].encoder
    network = models.build(cpc_recipes.RECIPES[recipe].backbone, **encoder)
    _, state = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert not jax.tree.leaves(state)


def test_whole_images_are_encoded_by_what_was_trained_on_patches():
    vit = models.build("vit_micro", patch=7, image_size=28, width=32, depth=1, heads=2)
    grid = PatchGrid(side=14, stride=7)
    method = cpc.build(
        vit, views=presets.mae(28), patches=grid, ahead=2, context_depth=1, context_width=8, temperature=10.0
    )
    batch = {"views": (jnp.ones((4, 1, 28, 28, 1)),)}
    params, state = method.init(jax.random.key(0), batch)
    value, _, _ = loss_of(method, params, state, batch)
    assert np.isfinite(value)
    assert method.encode(params, state, jnp.ones((2, 28, 28, 1))).shape == (2, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patches": {"side": 29}}, "side=29: allowed is at most the 28 pixels"),
        ({"patches": {"jitter": 14}}, "jitter=14: allowed is 0 to 13"),
        ({"patches": {"stride": 0}}, "stride=0"),
        ({"ahead": 3}, "ahead=3: allowed is 1 to 2: there are 3 rows"),
        ({"skip": 2}, "skip=2: allowed is 0 to 1"),
        ({"toward": ("down", "north")}, "toward='north'"),
        ({"toward": ("down", "down")}, "toward=.*different"),
        ({"context_depth": -1}, "depth=-1"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("cpc", **options)
