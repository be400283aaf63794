"""MoCo v3."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core.trees import flatten
from tests.methods.case import BATCH, config_of, loss_of, method_of, start, with_views, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), 4 * case.config["method"]["temperature"] * math.log(BATCH)


@pytest.mark.parametrize(("heads", "layers"), [("resnet", 2), ("vit", 3), (None, 3)])
def test_heads_follow_the_encoder_and_have_no_biases(heads, layers):
    method = method_of("moco_v3", heads=heads)
    params, state = jax.eval_shape(method.init, jax.random.key(0), with_views(method))
    dense = [path for head in ("projector", "predictor") for path in flatten(params[head]) if "dense" in path]
    assert len(dense) == layers + 2
    assert all(path.endswith("kernel") for path in dense)
    assert {name for name in params["projector"] if "norm" in name} == {
        f"norm_{i}" for i in range(layers - 1)
    }
    assert {name for name in params["predictor"] if "norm" in name} == {"norm_0"}
    statistics = {head: set(state["online"][head]["batch_stats"]) for head in ("projector", "predictor")}
    assert statistics["projector"] == {f"norm_{i}" for i in range(layers)}
    assert statistics["predictor"] == ({"norm_0", "norm_1"} if layers == 3 else {"norm_0"})
    assert set(state["teacher"].params) == {"encoder", "projector"}, "no predictor"


def test_frozen_patch_projection_is_in_no_params_and_the_same_in_the_teacher():
    assert config_of("moco_v3")["encoder"]["freeze_patch"]
    method = method_of("moco_v3")
    params, state, batch = start(method)
    assert not [path for path in flatten(params) if "patch_embed" in path]
    _, after, _ = loss_of(method, params, state, batch)
    frozen = [
        tree["frozen"]["patch_embed"]["kernel"]
        for tree in (
            state["online"]["encoder"],
            after["online"]["encoder"],
            state["teacher"].state["encoder"],
            after["teacher"].state["encoder"],
        )
    ]
    for kernel in frozen:
        np.testing.assert_array_equal(kernel, frozen[0])


def test_bound_is_that_of_one_direction_whatever_the_temperature_scales():
    method = method_of("moco_v3", temperature=0.5)
    params, state, batch = start(method)
    loss, _, metrics = loss_of(method, params, state, batch)
    one_direction = loss / (2 * 0.5) / 2
    np.testing.assert_allclose(
        metrics["information_bound"], np.log(BATCH) - one_direction, rtol=1e-5, atol=1e-5
    )


def test_options_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match="heads='vitt'"):
        method_of("moco_v3", heads="vitt")


def test_decay_rises_to_one_over_the_run():
    method = method_of("moco_v3", decay=0.5, decay_steps=4)
    params, state, _ = start(method)
    moved = jax.tree.map(lambda x: x + 1.0, params)
    teacher = state["teacher"].params["projector"]["dense_0"]["kernel"]
    steps = []
    for step in range(5):
        state = method.after_update(moved, state, jnp.int32(step))
        average = state["teacher"].params["projector"]["dense_0"]["kernel"]
        left = moved["projector"]["dense_0"]["kernel"] - teacher
        steps.append(float(jnp.mean((average - teacher) / left)))
        teacher = average
    expected = 0.5 * 0.5 * (1 + np.cos(np.pi * np.arange(5) / 4))
    np.testing.assert_allclose(steps, expected, atol=1e-5)
