"""Features of every layer under every pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.evaluate.layers import pool_layers

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
TOKENS = RNG.normal(size=(2, 7, 5)).astype(np.float32)


def test_maps_are_pooled_over_positions_and_have_no_class_token():
    found = pool_layers({"layer1": MAPS, "layer2": 2 * MAPS}, prefix=1)
    assert list(found) == ["layer1/mean", "layer1/max", "layer2/mean", "layer2/max"]
    np.testing.assert_allclose(found["layer1/mean"], MAPS.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(found["layer2/max"], 2 * MAPS.max((1, 2)))


def test_tokens_before_the_patches_do_not_enter_the_mean_and_the_first_is_the_class():
    found = pool_layers({"blocks_0": TOKENS}, prefix=3)
    np.testing.assert_allclose(found["blocks_0/mean"], TOKENS[:, 3:].mean(1), atol=1e-6)
    np.testing.assert_allclose(found["blocks_0/max"], TOKENS[:, 3:].max(1))
    np.testing.assert_array_equal(found["blocks_0/class"], TOKENS[:, 0])
    assert "blocks_0/class" not in pool_layers({"blocks_0": TOKENS})


def test_the_order_of_the_patches_does_not_matter():
    found, turned = (pool_layers({"a": t}, prefix=1) for t in (TOKENS, TOKENS[:, [0, 6, 5, 4, 3, 2, 1]]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, turned)


def test_jit_equals_eager_and_bfloat16_comes_out_as_float32():
    outputs = {"a": jnp.asarray(MAPS, jnp.bfloat16)}
    eager, compiled = pool_layers(outputs), jax.jit(pool_layers)(outputs)
    assert eager["a/mean"].dtype == jnp.float32
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), eager, compiled)


@pytest.mark.parametrize(
    ("outputs", "prefix", "message"),
    [
        ({"a": TOKENS}, -1, "prefix=-1"),
        ({"a": TOKENS}, 7, "prefix=7.*less than the length 7"),
        ({"a": TOKENS[0]}, 0, r"outputs\['a'\]='shape \(7, 5\)'"),
    ],
)
def test_wrong_arguments_are_refused(outputs, prefix, message):
    with pytest.raises(ValueError, match=message):
        pool_layers(outputs, prefix)
