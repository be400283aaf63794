"""The discrete autoencoder's transposed convolution against flax's, which has the same parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.dvae import TransposedConv


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (1, 5, 2, 1), (3, 1, 1, 6)])
def test_transposed_convolution_is_flax_s(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    ours = TransposedConv(7, jnp.dtype("float32"))
    flax = nn.ConvTranspose(7, (4, 4), strides=(2, 2), padding="SAME")
    variables = flax.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, ours.init(jax.random.key(1), x))
    bias = jax.random.normal(jax.random.key(2), (7,))
    variables = {"params": {**variables["params"], "bias": bias}}
    weights = jax.random.normal(jax.random.key(3), (shape[0], 2 * shape[1], 2 * shape[2], 7))

    def gradients(module):
        return jax.grad(lambda v, x: jnp.sum(weights * module.apply(v, x)), argnums=(0, 1))(variables, x)

    np.testing.assert_allclose(ours.apply(variables, x), flax.apply(variables, x), atol=1e-5)
    for got, expected in zip(*(jax.tree.leaves(gradients(m)) for m in (ours, flax)), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_transposed_convolution_computes_in_its_dtype():
    x = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
    y, variables = TransposedConv(4, jnp.dtype("bfloat16")).init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32
