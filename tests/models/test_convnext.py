"""ConvNeXt against timm and transformers (golden numbers), its response normalisation, its depthwise convolutions."""

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.interop.convnext import NAMES_DINOV3, NAMES_TIMM
from ssl_jax.interop.names import translate
from ssl_jax.models import depthwise
from ssl_jax.models.convnext import ResponseNorm
from ssl_jax.models.depthwise import depthwise_conv
from ssl_jax.models.torch_names import convnext_from_torch, convnext_to_torch
from tests.golden_files import assert_close, golden
from tests.models.fill import random_variables

TINY = {"depths": (1, 1), "widths": (8, 12), "stem_patch": 2}
GOLDEN = {"widths": (8, 12, 16, 24)}


def nhwc(images):
    return jnp.asarray(images.transpose(0, 2, 3, 1))


def golden_network(case, names, *, x64, **options):
    weights = {
        key.split("__w__")[1]: a for key, a in golden("convnext").items() if key.startswith(f"{case}__w__")
    }
    network = models.build("convnext_tiny", **GOLDEN, dtype="float64" if x64 else "float32", **options)
    translation = translate(weights, names)
    assert not translation.unknown
    variables = convnext_from_torch(translation.arrays, network)
    return network, jax.tree.map(lambda a: a.astype(jnp.float64), variables) if x64 else variables


PRECISIONS = pytest.mark.parametrize(
    ("x64", "tolerance"), [(False, 2e-5), pytest.param(True, 1e-8, marks=pytest.mark.long)]
)


@PRECISIONS
@pytest.mark.parametrize("case", ["timm_small", "hf_small"])
def test_features_maps_and_gradients_are_those_of_timm_and_transformers(case, x64, tolerance):
    numbers, dinov3 = golden("convnext"), case == "hf_small"
    options = {"depths": (1, 1, 1, 2) if dinov3 else (1, 1, 2, 1), "norm_tokens": dinov3}
    with jax.enable_x64(x64):
        network, variables = golden_network(case, NAMES_DINOV3 if dinov3 else NAMES_TIMM, x64=x64, **options)

        def loss(images):
            features, tokens = (
                network.apply(*variables, images, output=o)[0] for o in ("features", "tokens")
            )
            return jnp.sum(features * jnp.cos(jnp.arange(48.0) + 1).reshape(2, 24)), (features, tokens)

        images = nhwc(numbers["in__img"])
        images = images if x64 else images.astype(jnp.float32)
        (_, (features, tokens)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(images)
    assert_close(features, numbers[f"{case}__out__pooled"], tolerance=tolerance)
    if dinov3:
        found = np.concatenate([features[:, None], tokens.reshape(2, -1, 24)], axis=1)
        assert_close(found, numbers["hf_small__out__tokens"], tolerance=tolerance)
    else:
        assert_close(tokens.transpose(0, 3, 1, 2), numbers["timm_small__out__map"], tolerance=tolerance)
        assert_close(gradient.transpose(0, 3, 1, 2), numbers["timm_small__grad__img"], tolerance=tolerance)


@pytest.mark.long
def test_convnext_tiny_at_its_real_size_is_timms():
    network = models.build("convnext_tiny")
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params, _ = jax.eval_shape(network.init, jax.random.key(0), images)
    shapes = {
        ("head.norm" + n.removeprefix("norm") if n.startswith("norm.") else n): a.shape
        for n, a in convnext_to_torch(
            jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), params)
        ).items()
    }
    weights = {name: recipe_weight(name, shape) for name, shape in shapes.items()}
    params, state = convnext_from_torch(translate(weights, NAMES_TIMM).arrays, network)
    numbers = golden("convnext")
    features, tokens = jax.jit(
        lambda x: [network.apply(params, state, x, output=o)[0] for o in ("features", "tokens")]
    )(nhwc(numbers["in__img64"]).astype(jnp.float32))
    assert_close(features, numbers["timm_tiny_recipe__out__pooled"], tolerance=2e-5)
    assert_close(tokens.transpose(0, 3, 1, 2), numbers["timm_tiny_recipe__out__map"], tolerance=2e-5)


def recipe_weight(name, shape):
    """The weight behind the golden numbers of the real size, drawn from a seed that its name gives."""
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        return (x * 0.5 / math.sqrt(math.prod(shape[1:]))).astype(np.float32)
    around_one = name.endswith(("weight", "gamma"))
    return ((1 + 0.1 * x) if around_one else 0.05 * x).astype(np.float32)


def plain_depthwise(x, kernel):
    """The sum of the definition, by loops over taps, in float64."""
    size = kernel.shape[0]
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, u : u + height, v : v + width] * np.asarray(kernel, np.float64)[u, v, 0]
        for u in range(size)
        for v in range(size)
    )


@pytest.mark.parametrize("shape", [(2, 9, 10, 3), (2, 3, 5, 2)])
def test_depthwise_convolutions_and_their_gradients_are_the_definitions(shape):
    random = np.random.default_rng(0)
    x, g = random.standard_normal((2, *shape)).astype(np.float32)
    kernel = random.standard_normal((7, 7, 1, shape[-1])).astype(np.float32)
    y, pull = jax.vjp(jax.jit(depthwise_conv), x, kernel)
    np.testing.assert_allclose(y, plain_depthwise(x, kernel), atol=1e-5)
    # The map is linear in either argument, so that one inner product tests each gradient against the forward pass.
    to_x, to_kernel = pull(g)
    other_x, other_kernel = random.standard_normal(x.shape), random.standard_normal(kernel.shape)
    for found, expected in (
        (np.sum(to_x * other_x), np.sum(g * plain_depthwise(other_x, kernel))),
        (np.sum(to_kernel * other_kernel), np.sum(g * plain_depthwise(x, other_kernel))),
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_all_forms_of_depthwise_convolutions_have_the_same_outputs_and_gradients():
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel, g = (
        jax.random.normal(k, s) for k, s in zip(keys, [(2, 4, 6, 3), (7, 7, 1, 3), (2, 4, 6, 3)], strict=True)
    )
    forms = (depthwise._grouped, depthwise._shifted, depthwise._multiplied)
    y, *others = (form(x, kernel) for form in forms)
    for other in others:
        np.testing.assert_allclose(other, y, atol=1e-5)
    found = depthwise._gradients_of_shifted(x, kernel, g)
    for one, expected in zip(found, depthwise._gradients_of_grouped(x, kernel, g), strict=True):
        np.testing.assert_allclose(one, expected, atol=2e-5)


def test_response_norm_of_maps_that_are_zero_has_finite_gradients():
    x = jnp.zeros((1, 2, 2, 3))
    variables = {"params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}
    gradient = jax.grad(lambda x: jnp.sum(ResponseNorm().apply(variables, x)))(x)
    np.testing.assert_array_equal(gradient, np.ones_like(gradient))


@pytest.fixture(scope="module")
def tiny():
    network = models.build("convnext_tiny", **TINY)
    images = jax.random.normal(jax.random.key(1), (4, 9, 8, 3))
    return network, *random_variables(network, images), images


def gradient(network, params, state, images, **options):
    def loss(params):
        features, _ = network.apply(params, state, images, **options)
        return jnp.sum(jnp.sin(3.0 * features)), features

    (_, features), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return grads, features


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_bfloat16_compute_is_close_to_float32_with_params_of_float32(tiny):
    network, params, state, images = tiny
    half = models.build("convnext_tiny", **TINY, dtype="bfloat16")
    grads, features = gradient(network, params, state, images)
    half_grads, half_features = gradient(half, params, state, images)
    assert half_features.dtype == jnp.float32
    assert half.apply(params, state, images, output="tokens")[0].dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half_grads))
    np.testing.assert_allclose(half_features, features, atol=0.05 * np.abs(features).max())
    cosine = flat(grads) @ flat(half_grads) / np.linalg.norm(flat(grads)) / np.linalg.norm(flat(half_grads))
    assert 0.95 < cosine < 1.0


def test_remat_changes_no_gradient(tiny):
    network, params, state, images = tiny
    again = models.build("convnext_tiny", **TINY, remat=True, remat_keeps="products")
    found, expected = (gradient(n, params, state, images)[0] for n in (again, network))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def test_layers_are_the_maps_of_every_stage_and_end_in_the_tokens(tiny):
    network, params, state, images = tiny
    layers, tokens = (network.apply(params, state, images, output=o)[0] for o in ("layers", "tokens"))
    assert {name: layer.shape for name, layer in layers.items()} == {
        "stages_0": (4, 4, 4, 8),
        "stages_1": (4, 2, 2, 12),
    }
    np.testing.assert_array_equal(layers["stages_1"], tokens)


def test_drop_path_draws_in_training_only(tiny):
    _, params, state, images = tiny
    network = models.build("convnext_tiny", **TINY, drop_path=0.5)
    apply = jax.jit(network.apply, static_argnames="train")
    first, second = (apply(params, state, images, train=True, key=jax.random.key(k))[0] for k in (0, 1))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(apply(params, state, images)[0], apply(params, state, images)[0])
    with pytest.raises(ValueError, match="key=None: allowed is a key"):
        network.apply(params, state, images, train=True)


def test_the_norm_of_tokens_is_that_of_the_features(tiny):
    network, params, state, images = tiny
    normed = models.build("convnext_tiny", **TINY, norm_tokens=True)
    plain, tokens = (n.apply(params, state, images, output="tokens")[0] for n in (network, normed))
    x = np.asarray(plain, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(tokens, x * params["norm"]["scale"] + params["norm"]["bias"], atol=1e-5)
    features = (n.apply(params, state, images)[0] for n in (network, normed))
    np.testing.assert_array_equal(*features)


def test_parameter_counts_are_timms_without_the_classifier():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    network = models.build("convnext_tiny")
    params, _ = jax.eval_shape(network.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 28_589_128 - 1000 * (768 + 1)


def test_wrong_options_and_images_are_errors_of_one_line():
    with pytest.raises(ValueError, match=r"depths=\(1, 2\): allowed is one for each of widths=\(8,\)"):
        models.build("convnext_tiny", depths=(1, 2), widths=(8,))
    network = models.build("convnext_tiny", **TINY)
    with pytest.raises(ValueError, match=r"images=\(3, 8\): allowed is 4 pixels a side or more"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 3, 8, 3)))
