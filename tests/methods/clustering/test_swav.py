"""SwAV."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.config import build
from tests.methods.case import config_of, loss_of, make_gradient, method_of, start, zero_params_loss


def collapsed(case):
    """With all params 0 every z is 0: scores are alike, codes uniform."""
    return zero_params_loss(case), math.log(case.config["method"]["prototypes"])


def test_the_value_is_that_of_unit_prototypes_and_the_gradient_that_of_a_plain_matrix():
    method = method_of("swav", queue_size=0)
    params, state, batch = start(method)
    gradient = make_gradient(method)
    (loss, _), (plain, _) = gradient(params, state, batch)
    (scaled_loss, _), (scaled, _) = gradient({**params, "prototypes": 3 * params["prototypes"]}, state, batch)
    assert float(scaled_loss) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(scaled["prototypes"], plain["prototypes"], atol=1e-5)
    # A weight normalisation would have removed the part along the rows.
    assert np.abs(np.sum(plain["prototypes"] * params["prototypes"], axis=1)).max() > 1e-3


def test_the_queue_is_filled_from_its_start_and_used_from_the_step_at_which_it_is_full():
    with_queue, without = method_of("swav", queue_size=24, queue_start=1), method_of("swav", queue_size=0)
    params, state, batch = start(with_queue)
    assert state["queue"].items.shape == (24, 2 * 16)
    bare = {"online": state["online"]}
    expected, *_ = loss_of(without, params, bare, batch)
    losses, pushed = [], []
    for step in range(5):
        loss, new, _ = loss_of(with_queue, params, state, batch, step)
        state = {"online": state["online"], "queue": new["queue"]}  # the same z in every step
        losses.append(loss)
        pushed.append(np.any(np.asarray(new["queue"].items) != 0, axis=1).sum())
    assert pushed == [0, 16, 24, 24, 24]
    assert losses[:3] == pytest.approx([expected] * 3, rel=1e-6)
    assert losses[3] != pytest.approx(expected, rel=1e-4)
    # A row is the z of the two global crops of an image, each of norm 1.
    rows = np.asarray(state["queue"].items).reshape(24, 2, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, rtol=1e-5)
    # 64 rows were pushed: the last 24 of them are images 8 to 15 and all 16 of the last batch.
    order = np.roll(rows, -int(state["queue"].pointer), axis=0)
    np.testing.assert_allclose(order[:8], order[16:], atol=1e-6)


def test_hard_codes_have_no_entropy_and_count_the_prototypes_that_are_used():
    method = method_of("swav", queue_size=0, sinkhorn={"hard": True}, prototypes=8)
    _, _, metrics = loss_of(method, *start(method))
    assert float(metrics["code_entropy"]) == pytest.approx(0, abs=1e-5)
    assert 1 <= float(metrics["prototypes_used"]) <= 8
    assert float(metrics["prototypes_used"]) == int(metrics["prototypes_used"])


def test_two_crops_may_change_places_and_the_head_may_do_without_batchnorm():
    config = config_of("swav")
    config["views"]["local_count"] = 0
    config["method"] |= {"queue_size": 0, "head_batch_norm": False}
    method = build.method(config)
    params, state, batch = start(method)
    assert "norm_0" not in params["projector"]
    loss, *_ = loss_of(method, params, state, batch)
    swapped = {**batch, "views": (batch["views"][0][:, ::-1],)}
    assert loss_of(method, params, state, swapped)[0] == pytest.approx(loss, rel=1e-5)


def test_prototypes_of_the_real_config_keep_their_bits_for_an_epoch_and_unit_norm_after_it():
    config = build.to_dict(importlib.import_module("configs.swav").get_config("embedded"))
    ((pattern, boundary),) = config["optimizer"]["freeze"]
    assert pattern == "prototypes" and boundary == round(config["steps"] / 10)
    optimizer = build.optimizer(config)
    params = start(method_of("swav"))[0]
    gradients = jax.tree.map(jnp.ones_like, params)
    initial, update = optimizer.init(params), jax.jit(optimizer.update)
    frozen, _ = update(gradients, initial._replace(count=jnp.int32(boundary - 1)), params)
    moving, _ = update(gradients, initial._replace(count=jnp.int32(boundary)), params)
    assert not frozen["prototypes"].any() and frozen["projector"]["dense_0"]["kernel"].any()
    moved = params["prototypes"] + moving["prototypes"]
    assert np.abs(moving["prototypes"]).max() > 0
    np.testing.assert_allclose(jnp.linalg.norm(moved, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prototypes": 0}, "prototypes=0"),
        ({"queue_size": -1}, "queue_size=-1"),
        ({"sinkhorn": {"iterations": 0}}, r"sinkhorn\.iterations=0"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"sinkhorn": {"epsilon": 0.0}}, r"sinkhorn\.epsilon=0\.0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("swav", **options)


def test_a_single_global_view_is_refused():
    config = config_of("swav")
    config["views"] = {"preset": "mae", "size": 28}
    with pytest.raises(ValueError, match="views=1"):
        build.method(config)
