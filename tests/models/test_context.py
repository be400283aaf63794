"""The context of a grid: what a place depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.context import row_context


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
def test_a_place_depends_on_its_own_row_and_a_cone_above_and_on_nothing_below(depth):
    rows, columns, place = 6, 7, (3, 2)
    network = row_context(4, width=16, depth=depth)
    grid = jax.random.normal(jax.random.key(1), (2, rows, columns, 4))
    params, state = network.init(jax.random.key(0), grid)

    def output(x):
        return jnp.sum(network.apply(params, state, x)[0][0, place[0], place[1]] ** 2)

    slopes = np.abs(jax.jit(jax.grad(output))(grid)).sum(axis=-1)
    assert not slopes[1].any()
    reached = np.zeros((rows, columns), bool)
    for i, j in np.ndindex(rows, columns):
        above, aside = place[0] - i, abs(place[1] - j)
        reached[i, j] = 0 <= above <= depth and aside <= depth
    np.testing.assert_array_equal(slopes[0] > 0, reached)


def test_without_blocks_it_is_the_features_themselves():
    network = row_context(3, depth=0)
    grid = jax.random.normal(jax.random.key(1), (1, 2, 2, 3))
    params, state = network.init(jax.random.key(0), grid)
    np.testing.assert_array_equal(network.apply(params, state, grid)[0], grid)
    assert params == {} and state == {}


@pytest.mark.parametrize(("option", "value"), [("depth", -1), ("width", 0), ("dtype", "int8")])
def test_bad_options_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"{option}="):
        row_context(4, **{option: value})
