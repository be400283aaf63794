"""Counted operations against closed forms, published sizes of networks, and what XLA counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core.flops import matmul_flops


def flops(function, *shapes):
    return matmul_flops(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)))


def counted_by_xla(function, *shapes):
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*inputs).cost_analysis()["flops"]


def test_products_by_their_closed_form():
    assert flops(lambda a, b: a @ b, (4, 6), (6, 5)) == 2 * 4 * 6 * 5
    assert flops(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (3, 4, 6), (3, 5, 6)) == 2 * 3 * 4 * 5 * 6
    # Forward, and a product of the same size for each of the two gradients.
    both = jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), argnums=(0, 1))
    assert flops(both, (4, 6), (6, 5)) == 3 * 2 * 4 * 6 * 5


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_as_a_loop_over_outputs_and_taps_counts_them(stride, padding, dilation):
    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), padding, rhs_dilation=(dilation, 1), dimension_numbers=numbers
        )

    shapes = (2, 9, 7, 4), (3, 3, 4, 5)
    assert flops(convolve, *shapes) == counted_by_xla(convolve, *shapes)
    taps = 3 + 2 * (dilation - 1), 3
    outputs = jax.eval_shape(convolve, *(jnp.zeros(s) for s in shapes)).shape
    sizes = zip(outputs[1:3], taps, (9, 7), strict=True)
    low = [max((o - 1) * stride + t - n, 0) // 2 * (padding == "SAME") for o, t, n in sizes]
    count = 0
    for row, column in np.ndindex(*outputs[1:3]):
        for i, j in np.ndindex(3, 3):
            y, x = row * stride + i * dilation - low[0], column * stride + j - low[1]
            count += (0 <= y < 9) and (0 <= x < 7)
    assert flops(convolve, *shapes) == 2 * 2 * 4 * 5 * count


def test_gradients_of_strided_grouped_convolutions_as_xla_counts_them():
    def loss(x, w):
        y = jax.lax.conv_general_dilated(
            x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )
        return jnp.sum(y**2)

    shapes = (2, 8, 8, 4), (3, 3, 2, 6)
    gradients = jax.grad(loss, argnums=(0, 1))
    # XLA counts the factor 2 of the square's derivative too.
    assert flops(gradients, *shapes) == counted_by_xla(gradients, *shapes) - 2 * 4 * 4 * 6


def test_a_scan_counts_its_turns_and_a_conditional_its_dearest_branch():
    product = 2 * 4 * 4 * 4

    def scanned(x):
        return jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=7)[0]

    def chosen(x):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ x, lambda: x @ x @ x)

    assert flops(scanned, (4, 4)) == 7 * product
    assert flops(chosen, (4, 4)) == 2 * product
    assert flops(jax.jit(jax.vmap(lambda x: x @ x)), (5, 4, 4)) == 5 * product


def test_what_is_computed_again_counts_again():
    def loss(w, x):
        return jnp.sum(jnp.tanh(x @ w) ** 2)

    shapes = (4, 4), (8, 4)
    plain, again = (flops(jax.grad(f), *shapes) for f in (loss, jax.checkpoint(loss)))
    assert (plain, again) == (2 * 256, 3 * 256)


@pytest.mark.parametrize(
    ("name", "giga", "padding"),
    # Multiplications and additions of one image of 224 pixels: torchvision's table of ResNets, timm's of ViTs. The published
    # numbers count zeros of the padding as inputs, a few percent of a ResNet.
    [("resnet18", 1.81, 0.075), ("resnet50", 4.09, 0.04), ("vit_small", 4.61, 0.0), ("vit_large", 61.6, 0.0)],
)
def test_networks_have_the_published_size(name, giga, padding):
    network = models.build(name)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params, state = jax.eval_shape(network.init, jax.random.key(0), images)
    traced = jax.make_jaxpr(lambda p, s, x: network.apply(p, s, x))(params, state, images)
    assert 1 - padding - 0.005 <= matmul_flops(traced) / 2e9 / giga <= 1.005
