import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from ssl_jax.models.norm import BatchNorm
from tests.golden_files import assert_close, golden


def train(norm, variables, x):
    y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    return y, {**variables, **updated}


def variables_of(norm, x):
    return norm.init(jax.random.key(0), x, train=False)


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-5), (True, 1e-8)])
def test_three_training_steps_and_evaluation_equal_torch(x64, tolerance):
    numbers = golden("norms")
    case = {key.removeprefix("batchnorm1d__out__"): value for key, value in numbers.items()}
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32
        norm = BatchNorm()
        variables = {
            "params": {"scale": jnp.asarray(case["weight"], dtype), "bias": jnp.asarray(case["bias"], dtype)},
            "batch_stats": {"mean": jnp.zeros(6, dtype), "var": jnp.ones(6, dtype)},
        }
        for i in range(3):
            y, variables = train(norm, variables, jnp.asarray(numbers[f"in__x{i}"], dtype))
            assert_close(y, case[f"y{i}"], tolerance=tolerance)
            assert_close(variables["batch_stats"]["mean"], case[f"running_mean{i}"], tolerance=tolerance)
            assert_close(variables["batch_stats"]["var"], case[f"running_var{i}"], tolerance=tolerance)
        y = norm.apply(variables, jnp.asarray(numbers["in__x0"], dtype), train=False)
        assert_close(y, case["eval_y0"], tolerance=tolerance)


def test_affine_variants_have_only_their_params_and_agree_at_the_start():
    x = jax.random.normal(jax.random.key(1), (6, 2, 3))
    outputs = {}
    for affine, names in (("full", {"scale", "bias"}), ("scale", {"scale"}), ("none", set())):
        norm = BatchNorm(affine=affine)
        variables = variables_of(norm, x)
        assert set(variables.get("params", {})) == names
        outputs[affine] = train(norm, variables, x)[0]
    np.testing.assert_array_equal(outputs["full"], outputs["none"])
    np.testing.assert_array_equal(outputs["scale"], outputs["none"])
    np.testing.assert_allclose(outputs["none"].mean((0, 1)), 0.0, atol=1e-6)
    np.testing.assert_allclose(outputs["none"].std((0, 1)), 1.0, atol=1e-4)


def test_output_is_invariant_to_shift_and_scale_of_the_batch_even_far_from_zero():
    x = jax.random.normal(jax.random.key(1), (64, 3))
    norm = BatchNorm(epsilon=0.0)
    variables = variables_of(norm, x)
    far, _ = train(norm, variables, 2.0 * x + 1000.0)
    np.testing.assert_allclose(far, train(norm, variables, x)[0], atol=2e-3)


def test_bfloat16_input_keeps_its_dtype_while_statistics_are_float32():
    x = (100.0 + jax.random.normal(jax.random.key(1), (256, 2))).astype(jnp.bfloat16)
    norm = BatchNorm()
    y, variables = train(norm, variables_of(norm, x), x)
    assert y.dtype == jnp.bfloat16
    assert variables["batch_stats"]["mean"].dtype == jnp.float32
    expected = 0.1 * np.asarray(x, np.float64).mean(0)
    np.testing.assert_allclose(variables["batch_stats"]["mean"], expected, rtol=1e-5)


def test_gradients_equal_finite_differences():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(1), (5, 2), jnp.float64)
        norm = BatchNorm()
        variables = variables_of(norm, x)
        weights = jnp.arange(10.0).reshape(5, 2)
        check_grads(
            lambda x: jnp.sum(weights * train(norm, variables, jnp.asarray(x))[0]),
            (x,),
            order=2,
            modes=["rev"],
        )


def test_a_constant_batch_gives_the_bias_and_finite_gradients():
    norm = BatchNorm()
    x = jnp.full((4, 3), 7.0)
    variables = variables_of(norm, x)
    np.testing.assert_array_equal(train(norm, variables, x)[0], 0.0)
    gradient = jax.grad(lambda x: jnp.sum(jnp.cos(train(norm, variables, x)[0] + jnp.arange(4)[:, None])))(x)
    assert np.isfinite(gradient).all()


def test_running_statistics_get_no_gradient():
    norm = BatchNorm()
    x = jax.random.normal(jax.random.key(1), (4, 3))
    variables = variables_of(norm, x)
    gradient = jax.grad(lambda x: train(norm, variables, x)[1]["batch_stats"]["var"].sum())(x)
    np.testing.assert_array_equal(gradient, 0.0)


def test_statistics_are_those_of_the_global_batch_on_eight_devices():
    norm = BatchNorm()
    x = jax.random.normal(jax.random.key(1), (16, 3)) * jnp.arange(1.0, 17.0)[:, None]
    variables = variables_of(norm, x)
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    step = jax.jit(lambda x: train(norm, variables, x))
    (one, one_state), (eight, eight_state) = step(x), step(jax.device_put(x, sharding))
    assert len(eight.sharding.device_set) == 8
    np.testing.assert_allclose(eight, one, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), eight_state, one_state)


def test_training_on_one_value_a_channel_is_an_error():
    norm = BatchNorm()
    x = jnp.ones((1, 3))
    with pytest.raises(ValueError, match="more than one value a channel"):
        train(norm, variables_of(norm, x), x)


def test_an_unknown_affine_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"affine='scales'.*did you mean 'scale'"):
        variables_of(BatchNorm(affine="scales"), jnp.ones((2, 3)))
