"""MoCo v2."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core.numerics import normalize
from ssl_jax.train.sharding import batch_sharding, make_mesh, state_shardings
from tests.methods.case import BATCH, loss_of, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(case.config["method"]["queue_size"] + 1)


def test_keys_enter_after_the_loss_and_the_queue_wraps():
    method = method_of("moco_v2", queue_size=24)
    params, state, batch = start(method)
    first, after, _ = loss_of(method, params, state, batch)
    queue = after["queue"]
    np.testing.assert_array_equal(queue.items[BATCH:], state["queue"].items[BATCH:])
    # The keys are those of the second view by the key encoder: with its weights the query encoder gives the same.
    swapped = {**batch, "views": (batch["views"][0][:, ::-1],)}
    positives = normalize(queue.items[:BATCH])
    np.testing.assert_allclose(queue.items[:BATCH], positives, atol=1e-6)
    again = loss_of(method, params, after, batch)
    assert again[0] > first, "the queue holds the positives now, as negatives"
    second = again[1]["queue"]
    assert (int(queue.pointer), int(second.pointer)) == (16, 8)
    np.testing.assert_allclose(second.items[16:], positives[:8], atol=1e-6)
    np.testing.assert_allclose(second.items[:8], positives[8:], atol=1e-6)
    np.testing.assert_array_equal(second.items[8:16], queue.items[8:16])
    others = loss_of(method, params, state, swapped)[1]["queue"].items[:BATCH]
    assert np.abs(others - positives).max() > 1e-3


def test_key_encoder_moves_by_one_minus_the_decay():
    method = method_of("moco_v2", decay=0.75)
    params, state, _ = start(method)
    moved = jax.tree.map(lambda x: x + 1.0, params)
    average = method.after_update(moved, state, jnp.int32(0))["key_encoder"].params
    for found, before in zip(jax.tree.leaves(average), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(found, before + 0.25, atol=1e-6)


@pytest.mark.parametrize("name", ["moco_v2", "nnclr"])
def test_a_big_queue_is_split_over_fsdp_and_gives_the_same_loss(name):
    method = method_of(name, queue_size=4096, projection=16)
    params, state, batch = start(method)
    mesh = make_mesh(fsdp=4)
    shardings = state_shardings(state, mesh)
    assert tuple(shardings["queue"].items.spec) == ("fsdp",)
    placed = jax.device_put(state, shardings)
    expected, after, metrics = loss_of(method, params, state, batch)
    found, split, split_metrics = loss_of(method, params, placed, jax.device_put(batch, batch_sharding(mesh)))
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(split["queue"].items, after["queue"].items, atol=1e-5)
    for metric, value in metrics.items():
        np.testing.assert_allclose(split_metrics[metric], value, rtol=1e-4, err_msg=metric)


def test_options_out_of_range_are_refused_by_name():
    for options, message in (
        ({"queue_size": 0}, "queue_size=0"),
        ({"projector_layers": 0}, "projector_layers=0"),
    ):
        with pytest.raises(ValueError, match=message):
            method_of("moco_v2", **options)
