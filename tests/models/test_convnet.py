import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_jax import models
from ssl_jax.core import trees
from ssl_jax.core.flops import matmul_flops
from ssl_jax.models.convnet import pool_to_grid
from ssl_jax.models.remat import KEEPS


@pytest.fixture(scope="module")
def small():
    network = models.build("convnet", widths=(4, 8))
    images = jax.random.normal(jax.random.key(1), (8, 12, 12, 1))
    return network, *network.init(jax.random.key(0), images), images


def numpy_convnet(params, state, images, *, train):
    """Loops over output pixels, float64."""
    x = np.asarray(images, np.float64)
    for name in ("block_0", "block_1"):
        kernel, norm = np.asarray(params[name]["conv"]["kernel"], np.float64), params[name]["norm"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        side = -(-x.shape[1] // 2)
        x = np.stack(
            [
                np.stack(
                    [
                        np.tensordot(padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, 3)
                        for j in range(side)
                    ]
                )
                for i in range(side)
            ]
        ).transpose(2, 0, 1, 3)
        statistics = state["batch_stats"][name]["norm"]
        mean = x.mean((0, 1, 2)) if train else statistics["mean"]
        var = x.var((0, 1, 2)) if train else statistics["var"]
        x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"], 0.0)
    half = x.shape[1] - x.shape[1] // 2
    rows = (slice(0, half), slice(x.shape[1] // 2, None))
    return np.stack([x[:, r, c].mean((1, 2)) for r in rows for c in rows], axis=1).reshape(len(x), -1)


@pytest.mark.parametrize("train", [False, True])
def test_features_equal_a_numpy_oracle(small, train):
    network, params, state, images = small
    features, _ = network.apply(params, state, images, train=train)
    assert features.shape == (8, network.features)
    np.testing.assert_allclose(features, numpy_convnet(params, state, images, train=train), atol=1e-5)


def test_evaluation_is_deterministic_per_example_and_returns_the_state_as_it_came(small):
    network, params, state, images = small
    features, same = network.apply(params, state, images)
    assert same is state
    np.testing.assert_allclose(network.apply(params, state, images[2:5])[0], features[2:5], atol=1e-6)


def test_training_moves_the_running_statistics_only(small):
    network, params, state, images = small
    _, new = network.apply(params, state, images, train=True)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert not np.array_equal(
        new["batch_stats"]["block_0"]["norm"]["mean"], state["batch_stats"]["block_0"]["norm"]["mean"]
    )


def test_tokens_are_the_map_that_is_pooled(small):
    network, params, state, images = small
    tokens, _ = network.apply(params, state, images, output="tokens")
    assert tokens.shape == (8, 3, 3, 8)
    features, _ = network.apply(params, state, images)
    np.testing.assert_allclose(pool_to_grid(tokens, grid=2).reshape(8, -1), features, atol=1e-6)


def test_layers_are_the_maps_of_every_block_and_end_in_the_tokens(small):
    network, params, state, images = small
    layers, same = network.apply(params, state, images, output="layers")
    assert same is state and list(layers) == ["block_0", "block_1"]
    assert layers["block_0"].shape == (8, 6, 6, 4)
    np.testing.assert_array_equal(layers["block_1"], network.apply(params, state, images, output="tokens")[0])


@pytest.mark.parametrize(("height", "width", "grid"), [(4, 6, 2), (7, 5, 3), (1, 2, 2)])
def test_pooling_averages_the_cells_of_adaptive_pooling(height, width, grid):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    found = pool_to_grid(jnp.asarray(x), grid=grid)
    for i in range(grid):
        for j in range(grid):
            rows = slice(i * height // grid, -(-(i + 1) * height // grid))
            columns = slice(j * width // grid, -(-(j + 1) * width // grid))
            np.testing.assert_allclose(found[:, i, j], x[:, rows, columns].mean((1, 2)), atol=1e-6)


def test_any_image_size_gives_features_of_the_same_width(small):
    network, params, state, _ = small
    for shape in ((2, 7, 9, 1), (2, 2, 2, 1)):
        assert network.apply(params, state, jnp.ones(shape))[0].shape == (2, network.features)


def test_outputs_and_statistics_are_the_same_on_one_device_and_on_eight(small):
    network, params, state, images = small
    step = jax.jit(lambda x: network.apply(params, state, x, train=True))
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    one, eight = step(images), step(jax.device_put(images, sharding))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), eight, one)


def test_jit_equals_eager_and_vmap_over_seeds_equals_a_loop(small):
    network, _, _, images = small
    keys = jax.random.split(jax.random.key(3), 2)

    def features(key):
        return network.apply(*network.init(key, images), images, train=True)[0]

    together = jax.jit(jax.vmap(features))(keys)
    for i in range(2):
        np.testing.assert_allclose(together[i], features(keys[i]), atol=1e-5)


def gradient(network, params, state, images):
    def loss(params):
        return jnp.sum(jnp.sin(network.apply(params, state, images, train=True)[0]))

    return jax.grad(loss)(params)


def test_remat_changes_no_gradient_and_with_products_kept_no_convolution_comes_twice(small):
    network, params, state, images = small
    trace = lambda n: jax.make_jaxpr(lambda p: gradient(n, p, state, images))(params)  # noqa: E731
    operations = {}
    for keeps in KEEPS:
        again = models.build("convnet", widths=(4, 8), remat=True, remat_keeps=keeps)
        found, expected = (gradient(n, params, state, images) for n in (again, network))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
        operations[keeps] = matmul_flops(trace(again))
    assert operations["nothing"] > operations["products"] == matmul_flops(trace(network))


def test_products_are_kept_only_where_something_is_computed_again():
    with pytest.raises(ValueError, match=r"remat_keeps='products'.*'nothing' where remat=False"):
        models.build("convnet", remat_keeps="products")
    with pytest.raises(ValueError, match=r"remat_keeps='product'.*'products'"):
        models.build("vit_micro", remat=True, remat_keeps="product")


def test_constant_images_give_finite_gradients(small):
    network, params, state, images = small
    gradients = gradient(network, params, state, jnp.zeros_like(images))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_bfloat16_compute_is_close_to_float32_with_params_of_float32(small):
    network, params, state, images = small
    half = models.build("convnet", widths=(4, 8), dtype="bfloat16")
    half_params, _ = half.init(jax.random.key(0), images)
    jax.tree.map(np.testing.assert_array_equal, half_params, params)
    features, expected = (n.apply(params, state, images, train=True)[0] for n in (half, network))
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, expected, atol=0.05)


def test_no_widths_and_no_grid_are_errors():
    with pytest.raises(ValueError, match=r"widths=\(\)"):
        models.build("convnet", widths=())
    with pytest.raises(ValueError, match="grid=0"):
        models.build("convnet", grid=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnet", {"widths": (4, 8)}),
        pytest.param("resnet18", {"stem": "small", "width": 1 / 16}, marks=pytest.mark.long),
    ],
)
def test_norm_by_group_knows_no_batch_and_no_scale_of_weights(name, options):
    """Of both encoders: images pass by themselves, training is evaluation, and a convolution's gain and offset are void."""
    network, plain = (models.build(name, norm=norm, **options) for norm in ("group", "batch"))
    images = jax.random.normal(jax.random.key(1), (4, 12, 12, 1))
    params, state = network.init(jax.random.key(0), images)
    assert state == {}
    assert trees.flatten(params).keys() == trees.flatten(plain.init(jax.random.key(0), images)[0]).keys()
    apply = jax.jit(lambda params, images: network.apply(params, state, images, train=True)[0])
    features = apply(params, images)
    np.testing.assert_allclose(features, network.apply(params, state, images)[0], atol=1e-4)
    np.testing.assert_allclose(features[2:3], apply(params, images[2:3]), atol=1e-4)
    other = jax.tree.map(lambda x: 3.0 * x + 1.0 if x.ndim == 4 else x, params)
    np.testing.assert_allclose(features, apply(other, images), atol=2e-3)
    assert features.std(axis=0).max() > 1e-3
