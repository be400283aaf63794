"""DINO."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.config import build
from ssl_jax.core import trees
from tests.methods.case import config_of, loss_of, method_of, start, zero_params_loss

LAST = "head/prototypes/direction"


def collapsed(case):
    return zero_params_loss(case), math.log(case.config["method"]["head"]["prototypes"])


def test_multi_crop_can_be_switched_off():
    config = config_of("dino")
    config["views"]["local_count"] = 0
    method = build.method(config)
    params, state, batch = start(method)
    assert [crops.shape[1] for crops in batch["views"]] == [2]
    # Two pairs remain, each crop against the other, so their order does not matter.
    loss, _, metrics = loss_of(method, params, state, batch)
    assert np.isfinite(loss) and 0 < float(metrics["teacher_entropy"]) < math.log(64)
    swapped = {**batch, "views": (batch["views"][0][:, ::-1],)}
    assert loss_of(method, params, state, swapped)[0] == pytest.approx(loss, rel=1e-5)


def test_a_predictor_belongs_to_the_student_alone():
    method = method_of("dino", predictor="mlp")
    params, state, batch = start(method)
    assert "predictor" not in state["teacher"].params
    gradient = jax.jit(jax.grad(lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[0]))(
        params
    )
    assert gradient["predictor"]["dense_1"]["kernel"].any()
    moved = method.after_update(params, state, jnp.int32(0))
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    with pytest.raises(ValueError, match="predictor='mpl'"):
        method_of("dino", predictor="mpl")


def test_without_centring_the_centre_stays():
    method = method_of("dino", centering=False)
    _, state, _ = loss_of(method, *start(method))
    assert not state["center"].average.any()


def test_the_last_layer_of_the_real_config_stands_still_for_its_first_epoch_and_not_longer():
    config = build.to_dict(importlib.import_module("configs.dino").get_config("embedded"))
    ((pattern, boundary),) = config["optimizer"]["freeze"]
    assert pattern == "head/prototypes" and boundary == round(config["steps"] / 10)
    optimizer = build.optimizer(config)
    params = method_of("dino").init(jax.random.key(0), start(method_of("dino"))[2])[0]
    gradients = jax.tree.map(jnp.ones_like, params)
    initial = optimizer.init(params)
    update = jax.jit(optimizer.update)

    def at(step):
        updates, state = update(gradients, initial._replace(count=jnp.int32(step)), params)
        moments = {path: leaf for path, leaf in trees.flatten(state.rule).items() if LAST in path}
        return trees.flatten(updates), moments

    updates, moments = at(boundary - 1)
    assert not updates[LAST].any()  # neither the gradient nor weight decay
    assert moments and not any(leaf.any() for leaf in moments.values())
    assert updates["head/mlp/dense_0/kernel"].any()
    updates, moments = at(boundary)
    assert updates[LAST].any()
    assert all(leaf.any() for leaf in moments.values())
