import hashlib
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import trees
from ssl_jax.models.torch_names import resnet_from_torch, resnet_to_torch
from tests.golden_files import assert_close, golden

TINY = {"stem": "small", "width": 1 / 16}
CHECKSUM = "849837eda255004a2c891c0e0bb0fe06e8074c45eec4c2c03ca0edc060069b8e"
"""SHA-256 of the weights behind the golden outputs, concatenated in the order of the state_dict."""


def resnet18_shapes():
    """Torch names and shapes in the order of the state_dict."""

    def norm(name, width):
        return {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}

    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    for stage in range(4):
        width = 64 * 2**stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            inputs = width // 2 if stage and not block else width
            shapes |= {f"{name}.conv1.weight": (width, inputs, 3, 3), **norm(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **norm(f"{name}.bn2", width)}
            if inputs != width:
                shapes[f"{name}.downsample.0.weight"] = (width, inputs, 1, 1)
                shapes |= norm(f"{name}.downsample.1", width)
    return {**shapes, "fc.weight": (1000, 512), "fc.bias": (1000,)}


def golden_weight(name, normal):
    """Weight from standard normal numbers: scaled, then rounded to 16 bits of float32."""
    if normal.ndim > 1:
        value = normal / math.sqrt(math.prod(normal.shape[1:]))
    elif name.endswith("running_var"):
        value = 0.5 + np.abs(normal)
    elif name.endswith("weight"):
        value = 1.0 + 0.1 * normal
    else:
        value = (0.1 if name.endswith("running_mean") else 0.05) * normal
    bits = value.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.fixture(scope="module")
def weights():
    """The state_dict behind ``resnet18_forward.npz`` (22 MB), drawn again from its seed."""
    random = np.random.RandomState(7002)
    state_dict = {n: golden_weight(n, random.standard_normal(s)) for n, s in resnet18_shapes().items()}
    digest = hashlib.sha256(b"".join(a.tobytes() for a in state_dict.values())).hexdigest()
    assert digest == CHECKSUM, (
        "numpy draws other numbers from the seed than when the golden outputs were made"
    )
    return state_dict


def nhwc(images):
    return images.transpose(0, 2, 3, 1)


def logits_of(features, weights):
    return np.asarray(features, np.float64) @ weights["fc.weight"].T + weights["fc.bias"]


def load(state_dict, *, x64, **options):
    """Network and variables; under x64 all of them float64."""
    network = models.build("resnet18", dtype="float64" if x64 else "float32", **options)
    variables = resnet_from_torch(state_dict, network)
    return network, jax.tree.map(lambda a: a.astype(jnp.float64), variables) if x64 else variables


PRECISIONS = pytest.mark.parametrize(("x64", "tolerance"), [(False, 5e-5), (True, 1e-8)])


@PRECISIONS
def test_evaluation_equals_torchvision_and_timm(weights, x64, tolerance):
    numbers = golden("resnet18_forward")
    with jax.enable_x64(x64):
        network, (params, state) = load(weights, x64=x64)
        images = jnp.asarray(nhwc(numbers["in__img64"]))
        features, tokens = jax.jit(
            lambda p, s, x: [network.apply(p, s, x, output=o)[0] for o in ("features", "tokens")]
        )(params, state, images)
    assert_close(features, numbers["eval64__out__features"], tolerance=tolerance)
    assert_close(np.moveaxis(tokens, 3, 1), numbers["eval64__out__layer4_map"], tolerance=tolerance)
    assert_close(logits_of(features, weights), numbers["eval64__out__logits"], tolerance=tolerance)


def test_evaluation_at_224_equals_torchvision_and_timm(weights):
    numbers = golden("resnet18_forward")
    network, (params, state) = load(weights, x64=False)
    features = jax.jit(network.apply)(params, state, nhwc(numbers["in__img"]))[0]
    assert_close(features, numbers["eval224__out__features"], tolerance=5e-5)


@PRECISIONS
def test_the_small_stem_equals_timm_with_a_3x3_stem_and_no_pooling(weights, x64, tolerance):
    numbers = golden("resnet18_forward")
    with jax.enable_x64(x64):
        state_dict = {**weights, "conv1.weight": numbers["in__cifar_conv1"]}
        network, (params, state) = load(state_dict, x64=x64, stem="small")
        features = jax.jit(network.apply)(params, state, nhwc(numbers["in__img32"]))[0]
    assert_close(features, numbers["cifar_stem__out__features"], tolerance=tolerance)
    assert_close(logits_of(features, weights), numbers["cifar_stem__out__logits"], tolerance=tolerance)


@PRECISIONS
def test_training_mode_equals_torch_in_outputs_and_running_statistics(weights, x64, tolerance):
    numbers = golden("resnet18_forward")
    with jax.enable_x64(x64):
        network, (params, state) = load(weights, x64=x64)
        images = nhwc(numbers["in__img64"])
        features, state = jax.jit(partial(network.apply, train=True))(params, state, images)
    statistics = state["batch_stats"]
    assert_close(logits_of(features, weights), numbers["train64__out__logits"], tolerance=tolerance)
    assert_close(statistics["bn1"]["mean"], numbers["train64__out__bn1_running_mean"], tolerance=tolerance)
    assert_close(statistics["bn1"]["var"], numbers["train64__out__bn1_running_var"], tolerance=tolerance)
    last = statistics["layer4_1"]["bn2"]["var"]
    assert_close(last, numbers["train64__out__layer4_last_bn_running_var"], tolerance=tolerance)


def test_weights_survive_the_way_to_torch_and_back(weights):
    network = models.build("resnet18")
    again = resnet_to_torch(*resnet_from_torch(weights, network))
    assert again.keys() == weights.keys() - {"fc.weight", "fc.bias"}
    for name, value in again.items():
        np.testing.assert_array_equal(value, weights[name])


def test_weights_that_do_not_fit_are_an_error_that_names_them(weights):
    missing = {name: value for name, value in weights.items() if name != "layer2.0.bn1.bias"}
    with pytest.raises(ValueError, match=r"layer2.0.bn1.bias is missing"):
        resnet_from_torch(missing, models.build("resnet18"))
    with pytest.raises(ValueError, match=r"layer\S+ is missing"):
        resnet_from_torch(weights, models.build("resnet34"))
    with pytest.raises(ValueError, match=r"has the shape \(64.*does not fit \(32"):
        resnet_from_torch(weights, models.build("resnet18", width=0.5))


def shapes_of(network, side=64):
    return jax.eval_shape(
        network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        pytest.param("resnet152", 60_192_808, marks=pytest.mark.long),
    ],
)
def test_parameter_counts_are_torchvisions_without_the_classifier(name, count):
    network = models.build(name)
    assert trees.size(shapes_of(network)[0]) == count - 1000 * (network.features + 1)


def test_width_multiplies_the_channels_of_every_layer():
    one, two = (trees.flatten(shapes_of(models.build("resnet50", width=w))[0]) for w in (1, 2))
    assert models.build("resnet50", width=2).features == 4096
    for path, leaf in one.items():
        expected = tuple(2 * d for d in leaf.shape[-2:])
        if path == "conv1/kernel":
            expected = (3, 128)
        assert two[path].shape == (*leaf.shape[:-2], *expected), path


def test_resnet50_has_its_strides_on_the_3x3_convolutions():
    network = models.build("resnet50")
    params, state = shapes_of(network)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda p, s, x: network.apply(p, s, x)[0])(params, state, images)
    convolutions = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert len(convolutions) == 53
    strided = [e.invars[1].aval.shape[0] for e in convolutions if e.params["window_strides"] == (2, 2)]
    assert sorted(strided) == [1, 1, 1, 3, 3, 3, 7]  # three shortcuts, three branches, the stem


@pytest.fixture(scope="module")
def tiny():
    network = models.build("resnet18", **TINY)
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    return network, *network.init(jax.random.key(0), images), images


def gradient(network, params, state, images, **options):
    """Gradient of a scalar of the features, the features, the new state."""

    def loss(params):
        features, new = network.apply(params, state, images, **options)
        return jnp.sum(jnp.sin(3.0 * features)), (features, new)

    (_, (features, new)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return grads, features, new


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_bfloat16_compute_is_close_to_float32_with_params_of_float32(tiny):
    network, params, state, images = tiny
    half = models.build("resnet18", **TINY, dtype="bfloat16")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes_of(half)))
    grads, features, _ = gradient(network, params, state, images)
    half_grads, half_features, half_new = gradient(half, params, state, images)
    assert half_features.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((half_grads, half_new)))
    np.testing.assert_allclose(half_features, features, atol=0.02 * np.abs(features).max())
    cosine = flat(grads) @ flat(half_grads) / np.linalg.norm(flat(grads)) / np.linalg.norm(flat(half_grads))
    assert 0.95 < cosine < 1.0


def test_remat_changes_neither_gradients_nor_statistics(tiny):
    network, params, state, images = tiny
    again = models.build("resnet18", **TINY, remat=True, remat_keeps="products")
    expected = gradient(network, params, state, images, train=True)
    found = gradient(again, params, state, images, train=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
    jaxpr = jax.make_jaxpr(lambda p: again.apply(p, state, images, train=True)[0])(params)
    assert sum("remat" in e.primitive.name or "checkpoint" in e.primitive.name for e in jaxpr.eqns) == 8


def test_constant_images_give_finite_gradients_in_training(tiny):
    network, params, state, images = tiny
    grads, _, _ = gradient(network, params, state, jnp.full_like(images, 0.3), train=True)
    assert np.isfinite(flat(grads)).all()


def test_zero_init_residual_makes_every_block_start_as_its_shortcut():
    network = models.build("resnet18", **TINY, zero_init_residual=True)
    params, _ = network.init(jax.random.key(0), jnp.ones((1, 16, 16, 3)))
    scales = [leaf for path, leaf in trees.flatten(params).items() if path.endswith("bn2/scale")]
    assert len(scales) == 8
    assert all((scale == 0).all() for scale in scales)
    assert (params["layer1_0"]["bn1"]["scale"] == 1).all()


def test_layers_are_the_maps_of_every_stage_and_end_in_the_tokens():
    network = models.build("resnet18", stem="small", width=0.0625)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    params, state = network.init(jax.random.key(1), images)
    layers, tokens = jax.jit(
        lambda x: [network.apply(params, state, x, output=o)[0] for o in ("layers", "tokens")]
    )(images)
    shapes = [layer.shape for layer in layers.values()]
    assert list(layers) == ["layer1", "layer2", "layer3", "layer4"]
    assert shapes == [(2, 8, 8, 4), (2, 4, 4, 8), (2, 2, 2, 16), (2, 1, 1, 32)]
    np.testing.assert_array_equal(layers["layer4"], tokens)


def test_wrong_options_are_errors_that_name_the_nearest_right_one():
    with pytest.raises(ValueError, match=r"stem='smal'.*did you mean 'small'"):
        models.build("resnet18", stem="smal")
    with pytest.raises(ValueError, match=r"width=0\.001"):
        models.build("resnet18", width=0.001)
    with pytest.raises(ValueError, match=r"output='token'.*did you mean 'tokens'"):
        network = models.build("resnet18")
        jax.eval_shape(
            lambda p, s: network.apply(p, s, jnp.ones((1, 32, 32, 3)), output="token"), *shapes_of(network)
        )


def test_norm_by_group_has_no_weights_of_torch():
    network = models.build("resnet18", norm="group", **TINY)
    variables = network.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"state=\[\].*norm='batch'"):
        resnet_to_torch(*variables)
    with pytest.raises(ValueError, match=r"norm='grup'.*did you mean 'group'"):
        models.build("resnet18", norm="grup")
