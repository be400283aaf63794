"""Pseudo-labels."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_of, method_of, start, zero_params_loss


def collapsed(case):
    """Every class is as likely."""
    return zero_params_loss(case), math.log(case.config["method"]["classes"])


def rounds(method, probabilities, truth=None):
    """The state after the refresh before step 0, and after the one that follows."""
    _, state, _ = start(method)
    probabilities = jnp.asarray(probabilities, jnp.float32)
    first = method.refresh.update(state, probabilities, jax.random.key(0))
    if truth is not None:
        first["truth"] = first["truth"].at[: len(truth)].set(jnp.asarray(truth))
    return first, method.refresh.update(first, probabilities, jax.random.key(1))


def confident(count, classes=3, sure=0.9, seed=0):
    """Rows whose best class has the probability ``sure``, and every other row 0.5."""
    best = np.random.default_rng(seed).integers(0, classes, count)
    top = np.where(np.arange(count) % 2 == 0, sure, 0.5)
    rows = np.repeat(((1 - top) / (classes - 1))[:, None], classes, axis=1)
    rows[np.arange(count), best] = top
    return rows, best


OPTIONS = {"classes": 3, "num_labels": 4, "threshold": 0.8, "num_examples": 60}


def test_a_round_has_the_labelled_images_and_those_that_the_network_is_sure_of():
    method = method_of("pseudo_labels", **OPTIONS)
    probabilities, best = confident(40)
    first, second = rounds(method, probabilities)
    given = [0, 13, 26, 39]
    assert np.flatnonzero(first["labeled"]).tolist() == given
    assert (int(first["round"]), int(second["round"])) == (0, 1)
    assert not (first["labels"] >= 0).any()
    sure = [i for i in range(0, 40, 2) if i not in given]
    assert np.flatnonzero(second["labels"] >= 0).tolist() == sure
    np.testing.assert_array_equal(second["labels"][np.array(sure)], best[sure])
    assert float(second["share"]) == pytest.approx(len(sure) / 40)


@pytest.mark.parametrize("balance", [False, True])
def test_training_goes_through_the_images_of_the_round(balance):
    method = method_of("pseudo_labels", balance=balance, **OPTIONS)
    probabilities, best = confident(40, seed=1)
    first, second = rounds(method, probabilities, truth=np.zeros(40, np.int32))
    order = jax.jit(method.refresh.order)
    given = {0, 13, 26, 39}
    assert set(np.asarray(order(first, jax.random.key(0))).tolist()) == given
    drawn = np.asarray(order(second, jax.random.key(0)))
    members = sorted({*range(0, 40, 2)} | given)
    assert set(drawn.tolist()) == set(members)
    labels = np.where(np.isin(np.arange(40), list(given)), 0, best)
    counts = np.bincount(labels[drawn], minlength=3)
    if balance:
        assert np.ptp(counts) <= 1
    else:
        assert np.ptp(np.bincount(drawn, minlength=40)[members]) <= 1


@pytest.mark.parametrize("soft", [False, True])
def test_loss_takes_labels_of_labelled_images_and_predictions_of_others(soft):
    method = method_of("pseudo_labels", soft=soft, **OPTIONS)
    params, _, batch = start(method)
    probabilities, best = confident(40)
    _, state = rounds(method, probabilities)
    dense = params["classifier"]["dense_0"]
    dense["kernel"], dense["bias"] = jnp.zeros_like(dense["kernel"]), jnp.array([0.0, 1.0, 3.0])
    # Of the images 0 to 15, 0 and 13 are labelled; the others that are even have pseudo-labels. The label of 14 is right.
    batch["label"] = jnp.full(16, 1).at[14].set(int(best[14]))
    logs = np.asarray(jax.nn.log_softmax(dense["bias"]))
    costs = [-logs[1], -logs[1]]
    for i in range(2, 16, 2):
        costs.append(-(probabilities[i] @ logs) if soft else -logs[best[i]])
    found, new, metrics = loss_of(method, params, state, batch)
    np.testing.assert_allclose(found, np.mean(costs), rtol=1e-5)
    right = np.mean([best[i] == (1 if i < 14 else best[14]) for i in range(2, 16, 2)])
    assert float(metrics["pseudo_accuracy"]) == pytest.approx(right)
    # Labels are met, and only those that may be read.
    assert np.flatnonzero(new["truth"] >= 0).tolist() == [0, 13]


def test_other_labels_change_nothing():
    method = method_of("pseudo_labels", **OPTIONS)
    params, _, batch = start(method)
    _, state = rounds(method, confident(40)[0])
    batch["label"] = jnp.ones(16, jnp.int32)
    other = {**batch, "label": jnp.where(state["labeled"][:16], 1, 2)}
    first, second = (loss_of(method, params, state, x) for x in (batch, other))
    assert first[0] == second[0]
    for a, b in zip(jax.tree.leaves(first[1]), jax.tree.leaves(second[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_restart_draws_the_network_anew():
    assert method_of("pseudo_labels").refresh.reinit == ()
    assert method_of("pseudo_labels", restart=True).refresh.reinit == ("encoder", "classifier")


@pytest.mark.parametrize(
    ("options", "message"), [({"classes": 1}, "classes=1"), ({"num_labels": 0}, "num_labels=0")]
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("pseudo_labels", **options)
