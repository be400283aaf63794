"""Exemplar-CNN."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_of, method_of, start, zero_params_loss


def collapsed(case):
    """Every seed is as likely."""
    return zero_params_loss(case), math.log(case.config["method"]["exemplars"])


def refreshed(method, energies, seed=0):
    _, state, _ = start(method)
    return method.refresh.update(state, jnp.asarray(energies)[:, None], jax.random.key(seed))


def test_seeds_are_classes_and_training_goes_through_them_alone():
    method = method_of("exemplar", exemplars=30, num_examples=100)
    state = refreshed(method, np.ones(80))
    seeds = np.asarray(state["seeds"])
    assert len(set(seeds.tolist())) == 30
    np.testing.assert_array_equal(state["classes"][seeds], np.arange(30))
    assert int((state["classes"] >= 0).sum()) == 30
    np.testing.assert_array_equal(method.refresh.order(state, jax.random.key(0)), seeds)
    assert method.refresh.update(state, None, jax.random.key(0)) is state


def test_images_with_gradients_are_drawn_more_often_and_flat_ones_last():
    energies = np.where(np.arange(100) < 50, 9.0, 1.0)
    energies[90:] = 0
    counts = {name: np.zeros(100) for name in ("gradient", "uniform")}
    for name, count in counts.items():
        method = method_of("exemplar", exemplars=20, num_examples=100, seeds=name)
        _, state, _ = start(method)
        refresh = jax.jit(method.refresh.update)
        for seed in range(40):
            chosen = refresh(state, jnp.asarray(energies, jnp.float32)[:, None], jax.random.key(seed))[
                "seeds"
            ]
            count[np.asarray(chosen)] += 1
    assert counts["gradient"][:50].sum() > 4 * counts["gradient"][50:90].sum()
    assert counts["gradient"][90:].sum() == 0
    assert counts["uniform"][90:].sum() > 40


def test_described_is_the_mean_square_of_the_gradient():
    method = method_of("exemplar")
    images = jnp.zeros((2, 28, 28, 1)).at[1, :, 10].set(2.0)
    found = method.refresh.features({}, {}, images)
    # Two steps of 2 in each of 28 rows of 27 differences.
    np.testing.assert_allclose(found, [[0.0], [28 * 2 * 4 / (28 * 27)]], rtol=1e-6)


def test_fewer_images_than_exemplars_are_all_seeds():
    method = method_of("exemplar", exemplars=50, num_examples=100)
    state = refreshed(method, np.ones(20))
    assert sorted(set(np.asarray(state["seeds"]).tolist())) == list(range(20))
    np.testing.assert_array_equal(np.sort(state["classes"][:20]), np.arange(20))


def test_images_that_are_no_seeds_cost_nothing():
    method = method_of("exemplar", exemplars=4, num_examples=100)
    params, state, batch = start(method)
    classes = jnp.full(100, -1).at[jnp.array([2, 5])].set(jnp.array([3, 1]))
    state = {**state, "classes": classes}
    top = params["top"]["dense_0"]
    top["kernel"], top["bias"] = jnp.zeros_like(top["kernel"]), jnp.arange(4.0)
    expected = np.log(np.exp(np.arange(4.0)).sum()) - (3 + 1) / 2
    found, _, metrics = loss_of(method, params, state, batch)
    assert found == pytest.approx(expected, rel=1e-5)
    assert float(metrics["accuracy"]) == 0.5


@pytest.mark.parametrize(
    ("options", "message"), [({"exemplars": 1}, "exemplars=1"), ({"seeds": "all"}, "seeds='all'")]
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("exemplar", **options)
