"""W-MSE."""

import jax
import numpy as np
import pytest

from configs import wmse
from ssl_jax.config import build
from tests.methods.case import config_of, loss_of, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), 2.0


def test_four_views_are_six_pairs():
    config = config_of("wmse")
    config["views"]["count"] = 4
    # One group, so that no draw of images differs.
    config["method"]["w_size"] = None
    method = build.method(config)
    params, state, batch = start(method)
    assert batch["views"][0].shape[:2] == (16, 4)
    loss, _, _ = loss_of(method, params, state, batch)
    same = np.array(batch["views"][0])
    same[:] = same[:, :1]
    agreeing, _, _ = loss_of(method, params, state, {**batch, "views": (same,)})
    assert 0.1 < loss < 4
    np.testing.assert_allclose(agreeing, 0, atol=1e-5)


def test_groups_are_drawn_anew_for_each_key():
    method = method_of("wmse")
    params, state, batch = start(method)
    compiled = jax.jit(method.loss)
    losses = [float(compiled(params, state, batch, jax.random.key(k), 0)[0]) for k in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_the_declared_collapse_value_without_normalisation_counts_the_group():
    for size, expected in ((8, 2 * 7 / 8), (None, 2 * 15 / 16)):
        (collapse,) = (value.at(16) for value in method_of("wmse", normalize=False, w_size=size).collapse)
        assert collapse.value == pytest.approx(expected)


def test_groups_that_do_not_fit_are_refused_with_batch_group_and_width():
    method = method_of("wmse", w_size=4)
    params, state, batch = start(method)
    with pytest.raises(ValueError, match=r"w_size=4: .* width 4 .* batch of 16"):
        jax.eval_shape(method.loss, params, state, batch, jax.random.key(0), 0)


def test_one_view_is_refused():
    config = config_of("wmse")
    config["views"]["count"] = 1
    with pytest.raises(ValueError, match="two views or more"):
        build.method(config)


def test_the_rate_of_the_paper_drops_to_a_fifth_fifty_and_twenty_five_epochs_before_the_end():
    optimizer = build.optimizer(build.to_dict(wmse.get_config("cifar10,paper")))
    epoch = 50_000 // 512
    rates = [float(optimizer.learning_rate(e * epoch)) for e in (949, 951, 976)]
    np.testing.assert_allclose(rates, [3e-3, 3e-3 / 5, 3e-3 / 25], rtol=1e-6)
