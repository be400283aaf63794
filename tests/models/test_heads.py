import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core import trees
from ssl_jax.models import heads
from tests.golden_files import assert_close, golden


def features(n=16, width=6):
    return jax.random.normal(jax.random.key(1), (n, width))


def numpy_mlp(params, x, *, layers):
    """Batch statistics, ReLU; norms and biases where params or the name of the layer have them."""
    x = np.asarray(x, np.float64)
    for i in range(layers):
        dense, norm = params[f"dense_{i}"], params.get(f"norm_{i}", {})
        x = x @ np.asarray(dense["kernel"], np.float64) + dense.get("bias", 0.0)
        if norm:
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * norm["scale"] + norm.get("bias", 0.0)
        x = np.maximum(x, 0.0) if i < layers - 1 else x
    return x


def randomised(params):
    """Every leaf away from its initial value, so that biases and scales matter."""
    keys = iter(jax.random.split(jax.random.key(7), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda p: p + 0.3 * jax.random.normal(next(keys), p.shape), params)


RECIPES = {
    "simclr": (
        {"hidden_bias": False, "last_bias": False, "last_norm": "batch_scale", "kernel_init": 0.01},
        {"dense_0/kernel", "dense_1/kernel", "norm_0/bias", "norm_0/scale", "norm_1/scale"},
    ),
    "moco_v2": (
        {"hidden_norm": "none"},
        {"dense_0/bias", "dense_0/kernel", "dense_1/bias", "dense_1/kernel"},
    ),
    "byol": (
        {"last_bias": False, "kernel_init": "lecun"},
        {"dense_0/bias", "dense_0/kernel", "dense_1/kernel", "norm_0/bias", "norm_0/scale"},
    ),
    "batch": (
        {"hidden_bias": False, "last_norm": "batch", "kernel_init": "xavier"},
        {"dense_0/kernel", "dense_1/bias", "dense_1/kernel"}
        | {f"norm_{i}/{leaf}" for i in (0, 1) for leaf in ("bias", "scale")},
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_heads_of_the_papers_have_their_params_and_equal_a_numpy_oracle(recipe):
    options, names = RECIPES[recipe]
    head = heads.mlp((8, 4), **options)
    params, state = head.init(jax.random.key(0), features())
    assert set(trees.flatten(params)) == names
    params = randomised(params)
    found, _ = head.apply(params, state, features(), train=True)
    np.testing.assert_allclose(found, numpy_mlp(params, features(), layers=2), atol=2e-5)


def test_a_last_norm_without_affine_standardises_the_projections():
    head = heads.mlp((8, 8, 4), last_norm="batch_no_affine", last_bias=False)
    params, state = head.init(jax.random.key(0), features())
    assert "norm_2" not in params
    found, new = head.apply(params, state, features(), train=True)
    np.testing.assert_allclose(found.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(found.std(0), 1.0, atol=1e-3)
    assert set(new["batch_stats"]) == {"norm_0", "norm_1", "norm_2"}


def test_evaluation_uses_the_running_statistics_and_returns_the_state_as_it_came():
    head = heads.mlp((8, 4), last_norm="batch")
    params, state = head.init(jax.random.key(0), features())
    alone, same = head.apply(params, state, features()[:1])
    assert same is state
    np.testing.assert_allclose(alone, head.apply(params, state, features())[0][:1], atol=1e-6)


@pytest.mark.parametrize(
    ("kernel_init", "std"),
    [("torch", 1 / np.sqrt(3 * 400)), ("lecun", 1 / 20), (0.01, 0.01), ("xavier", 1 / 20)],
)
def test_kernels_start_with_the_spread_that_was_asked_for(kernel_init, std):
    params, _ = heads.mlp((400,), kernel_init=kernel_init).init(jax.random.key(0), jnp.ones((1, 400)))
    np.testing.assert_allclose(params["dense_0"]["kernel"].std(), std, rtol=0.02)
    np.testing.assert_array_equal(params["dense_0"]["bias"], 0.0)


def test_gelu_is_the_exact_form():
    numbers = golden("norms")
    x = jnp.asarray(numbers["in__x0"], jnp.float32)
    assert_close(heads.ACTIVATIONS["gelu"](x), numbers["gelu__out__exact"], tolerance=1e-5)


def test_jit_equals_eager_and_vmap_over_seeds_equals_a_loop():
    head = heads.mlp((8, 4))
    x = features()

    def outputs(key):
        return head.apply(*head.init(key, x), x, train=True)[0]

    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(outputs))(keys)
    np.testing.assert_allclose(together, np.stack([outputs(key) for key in keys]), atol=1e-5)


@pytest.mark.parametrize(
    "head",
    [heads.mlp((8, 4), last_norm="batch"), heads.dino_head(12, hidden_dim=8, bottleneck=4, batch_norm=True)],
    ids=["mlp", "dino_head"],
)
def test_bfloat16_is_close_to_float32_and_constant_features_give_finite_gradients(head):
    half = (
        heads.mlp((8, 4), last_norm="batch", dtype="bfloat16")
        if head.features == 4
        else heads.dino_head(12, hidden_dim=8, bottleneck=4, batch_norm=True, dtype="bfloat16")
    )
    params, state = head.init(jax.random.key(0), features())
    expected, _ = head.apply(params, state, features(), train=True)
    found, _ = half.apply(params, state, features(), train=True)
    assert found.dtype == expected.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=0.05)
    loss = lambda p, x: jnp.sum(jnp.cos(head.apply(p, state, x, train=True)[0]))  # noqa: E731
    for x in (jnp.zeros((4, 6)), jnp.ones((4, 6))):
        gradients = jax.grad(loss, (0, 1))(params, x)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def dino(**options):
    head = heads.dino_head(12, hidden_dim=8, bottleneck=4, **options)
    return head, *head.init(jax.random.key(0), features())


def test_dino_logits_are_scaled_cosines_between_bottleneck_and_prototypes():
    head, params, state = dino(norm_last_layer=False)
    params = randomised(params)
    found, _ = head.apply(params, state, features())
    mlp = heads.mlp((8, 8, 4), hidden_norm="none", activation="gelu")
    z = np.asarray(mlp.apply(params["mlp"], {}, features())[0], np.float64)
    v, gain = (np.asarray(params["prototypes"][name], np.float64) for name in ("direction", "gain"))
    cosines = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ (v / np.linalg.norm(v, axis=0))
    np.testing.assert_allclose(found, gain * cosines, atol=1e-5)


def test_the_gain_is_a_parameter_only_when_the_last_layer_is_not_normalised():
    assert set(dino()[1]["prototypes"]) == {"direction"}
    _, params, _ = dino(norm_last_layer=False)
    np.testing.assert_array_equal(params["prototypes"]["gain"], np.ones(12))


def test_the_length_of_a_prototype_matters_not_and_its_gradient_is_orthogonal_to_it():
    head, params, state = dino()
    longer = {**params, "prototypes": {"direction": 5.0 * params["prototypes"]["direction"]}}
    logits = lambda p: head.apply(p, state, features())[0]  # noqa: E731
    np.testing.assert_allclose(logits(longer), logits(params), atol=1e-6)
    gradient = jax.grad(lambda p: jnp.sum(jnp.sin(3 * logits(p))))(params)["prototypes"]["direction"]
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose((gradient * params["prototypes"]["direction"]).sum(0), 0.0, atol=1e-5)


def test_batch_norm_in_the_dino_head_is_in_the_hidden_layers_only():
    _, params, state = dino(batch_norm=True)
    assert set(state["batch_stats"]["mlp"]) == {"norm_0", "norm_1"}
    assert dino()[2] == {}
    assert set(params["mlp"]) == {"dense_0", "dense_1", "dense_2", "norm_0", "norm_1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last_norm": "batchs"}, "last_norm='batchs'.*did you mean 'batch'"),
        ({"hidden_norm": "instance"}, "hidden_norm='instance'"),
        ({"activation": "gleu"}, "activation='gleu'.*did you mean 'gelu'"),
        ({"kernel_init": "lecum"}, "kernel_init='lecum'.*did you mean 'lecun'"),
        ({"dtype": "half"}, "dtype='half'"),
    ],
)
def test_wrong_options_are_errors_that_name_the_nearest_right_one(options, message):
    with pytest.raises(ValueError, match=message):
        heads.mlp((8, 4), **options)
    with pytest.raises(ValueError, match=r"widths=\(\)"):
        heads.mlp(())
    with pytest.raises(ValueError, match="layers=0"):
        heads.dino_head(layers=0)


def test_hidden_norm_by_layer_normalises_each_vector_alone_and_keeps_no_statistics():
    head = heads.mlp((32, 4), hidden_norm="layer")
    params, state = head.init(jax.random.key(0), features())
    assert state == {}
    assert set(params) == {"dense_0", "dense_1", "norm_0"}
    params = randomised(params)
    found, _ = head.apply(params, state, features(), train=True)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = np.asarray(features(), np.float64) @ wide["dense_0"]["kernel"] + wide["dense_0"]["bias"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = np.maximum(x * wide["norm_0"]["scale"] + wide["norm_0"]["bias"], 0)
    expected = x @ wide["dense_1"]["kernel"] + wide["dense_1"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_hidden_norm_by_group_standardises_the_weights_and_normalises_each_vector_alone():
    head = heads.mlp((32, 4), hidden_norm="group")
    params, state = head.init(jax.random.key(0), features())
    assert state == {}
    assert set(params) == {"dense_0", "dense_1", "norm_0"}
    params = randomised(params)
    found, _ = head.apply(params, state, features(), train=True)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    kernel = wide["dense_0"]["kernel"]
    kernel = (kernel - kernel.mean(0)) / (kernel.std(0) + 1e-5)
    x = (np.asarray(features(), np.float64) @ kernel + wide["dense_0"]["bias"]).reshape(-1, 16, 2)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = np.maximum(x.reshape(-1, 32) * wide["norm_0"]["scale"] + wide["norm_0"]["bias"], 0)
    np.testing.assert_allclose(
        found, x @ wide["dense_1"]["kernel"] + wide["dense_1"]["bias"], rtol=1e-3, atol=1e-3
    )
    alone, _ = head.apply(params, state, features()[:1], train=True)
    np.testing.assert_allclose(alone, found[:1], atol=1e-5)
