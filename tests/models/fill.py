"""Variables of a network drawn with numpy: no compilation, unlike ``network.init``."""

import jax
import jax.numpy as jnp
import numpy as np


def random_variables(network, inputs, seed=0):
    """``(params, state)`` of the right shapes: matrices from N(0, 0.3²), scales around 1, biases around 0."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), inputs)

    def draw(path, leaf):
        around = 1.0 if path[-1].key in ("scale", "gamma") else 0.0
        return jnp.asarray(around + 0.3 * generator.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
