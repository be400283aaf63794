import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from ssl_jax.models.norm import BatchNorm, GroupNorm, standardize
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


@pytest.mark.parametrize(("shape", "spatial_axes"), [((3, 5, 4, 12), 2), ((3, 12), 0), ((3, 5, 12), 0)])
def test_group_norm_equals_a_loop_over_images_and_groups(shape, spatial_axes):
    x = 3.0 + jax.random.normal(jax.random.key(1), shape)
    norm = GroupNorm(groups=4, spatial_axes=spatial_axes)
    scale, bias = jnp.arange(1.0, 13.0), jnp.arange(12.0)
    found = norm.apply({"params": {"scale": scale, "bias": bias}}, x, train=True)
    lead = x.ndim - 1 - spatial_axes
    flat = np.asarray(x, np.float64).reshape(int(np.prod(shape[:lead])), -1, 12)
    expected = np.zeros_like(flat)
    for i in range(len(flat)):
        for first in range(0, 12, 3):
            part = flat[i, :, first : first + 3]
            expected[i, :, first : first + 3] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    np.testing.assert_allclose(found, expected.reshape(shape) * scale + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_group_norm_treats_each_image_alone_the_same_in_training_and_evaluation_and_keeps_no_state():
    x = jax.random.normal(jax.random.key(1), (4, 3, 3, 8))
    norm = GroupNorm()
    variables = variables_of(norm, x)
    assert set(variables) == {"params"}
    y, _ = train(norm, variables, x)
    np.testing.assert_array_equal(y, norm.apply(variables, x, train=False))
    np.testing.assert_allclose(y[1:2], train(norm, variables, x[1:2])[0], atol=1e-6)
    np.testing.assert_allclose(y, train(norm, variables, 5 * x + 2)[0], atol=1e-4)
    assert train(norm, variables, x.astype(jnp.bfloat16))[0].dtype == jnp.bfloat16
    with jax.enable_x64(True):
        apply = lambda x: jnp.sin(norm.apply(variables, jnp.asarray(x), train=True))  # noqa: E731
        check_grads(apply, (x[:1, :2].astype(float),), 1, ["rev"])


def test_groups_that_do_not_divide_the_channels_become_the_greatest_common_divisor():
    x = jax.random.normal(jax.random.key(1), (2, 3, 3, 24))
    found, expected = (
        norm.apply(variables_of(norm, x), x, train=False)
        for norm in (GroupNorm(groups=16), GroupNorm(groups=8))
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.long
def test_standardised_weights_have_mean_zero_and_deviation_one_for_each_output():
    kernel = 2.0 + 0.1 * jax.random.normal(jax.random.key(1), (3, 3, 4, 5))
    found = np.asarray(standardize(kernel), np.float64).reshape(-1, 5)
    wide = np.asarray(kernel, np.float64).reshape(-1, 5)
    expected = (wide - wide.mean(0)) / (wide.std(0) + 1e-5)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    assert standardize(kernel.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    gradient = jax.grad(lambda k: jnp.sum(jnp.sin(standardize(k))))
    assert np.isfinite(gradient(jnp.ones((4, 2)))).all()
    with jax.enable_x64(True):
        check_grads(
            lambda k: standardize(jnp.asarray(k)),
            (jax.random.normal(jax.random.key(2), (4, 2), float),),
            1,
            ["rev"],
        )
