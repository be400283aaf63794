"""DeepCluster."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_inputs, loss_of, method_of, start

OPTIONS = {"num_examples": 60, "clusters": 4, "hidden_dim": 16, "pca": 3}


def collapsed(case):
    """A top that says nothing gives every cluster the same share."""
    params, state, batch = loss_inputs(case)
    params = {**params, "top": jax.tree.map(jnp.zeros_like, params["top"])}
    (loss, _), _ = case.gradient(params, state, batch)
    return float(loss), math.log(case.config["method"]["clusters"])


def features_of_groups(sizes, width=16):
    """Points in well separated groups, and the group of each."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    centers = np.eye(len(sizes), width) * 20
    order = random.permutation(len(groups))
    points = centers[groups] + random.normal(size=(len(groups), width))
    return points[order].astype(np.float32), groups[order]


def test_refresh_finds_the_groups_and_keeps_the_labels_before():
    method = method_of("deepcluster", **OPTIONS)
    _, state, _ = start(method)
    points, groups = features_of_groups([20, 15, 10, 5])
    first = jax.jit(method.refresh.update)(state, points, jax.random.key(0))
    labels = np.asarray(first["labels"][0])
    assert np.all(labels[50:] == -1)
    pairs = set(zip(groups.tolist(), labels[:50].tolist(), strict=True))
    assert len(pairs) == 4
    assert sorted(first["sizes"].tolist()) == [5, 10, 15, 20]
    second = jax.jit(method.refresh.update)(first, points, jax.random.key(1))
    np.testing.assert_array_equal(second["previous"], first["labels"])
    now, before = method.refresh.cluster_labels(second)
    np.testing.assert_array_equal(now, second["labels"])
    np.testing.assert_array_equal(before, first["labels"])


def test_training_goes_through_clusters_evenly_or_through_images_once():
    method = method_of("deepcluster", **OPTIONS)
    _, state, _ = start(method)
    groups = np.repeat([0, 1, 2, 3, -1], [30, 15, 4, 1, 10]).astype(np.int32)
    chosen = method.refresh.order({**state, "labels": jnp.asarray(groups)[None]}, jax.random.key(1))
    assert np.bincount(groups[np.asarray(chosen)]).tolist() == [15, 15, 15, 15]
    assert method_of("deepcluster", **OPTIONS, sampling="images").refresh.order is None


def test_loss_is_cross_entropy_of_the_labels_and_ignores_images_without_one():
    method = method_of("deepcluster", **OPTIONS)
    params, state, batch = start(method)
    unlabelled, *_ = loss_of(method, params, state, batch)
    assert unlabelled == 0.0
    labels = np.full((1, 60), -1, np.int32)
    labels[0, :5] = [0, 3, 1, 1, 2]
    state = {**state, "labels": jnp.asarray(labels)}
    found, *_ = loss_of(method, params, state, batch)
    logits = hidden_units(method, params, state, batch)[:5] @ params["top"]["dense_0"]["kernel"]
    shifted = logits + params["top"]["dense_0"]["bias"]
    logs = np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    assert found == pytest.approx(-logs[np.arange(5), labels[0, :5]].mean(), rel=1e-5)


def hidden_units(method, params, state, batch):
    """relu(f(x)) of a batch with its own statistics; f ends in one dense layer."""
    images = batch["views"][0][:, 0]
    features, _ = method.encoder.apply(params["encoder"], state["online"]["encoder"], images, train=True)
    dense = params["perceptron"]["dense_0"]
    return np.maximum(np.asarray(features) @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]), 0)


def test_without_perceptron_the_features_themselves_are_clustered():
    method = method_of("deepcluster", **{**OPTIONS, "hidden_layers": 0, "pca": 0})
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    described = method.refresh.features(params, state, images)
    np.testing.assert_allclose(described, method.encode(params, state, images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 1}, "clusters=1"),
        ({"clusters": 61}, "clusters=61"),
        ({"pca": 17}, "pca=17"),
        ({"hidden_layers": -1}, "hidden_layers=-1"),
        ({"sampling": "even"}, "sampling='even'"),
        ({"num_examples": 1}, "num_examples=1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("deepcluster", **{**OPTIONS, **options})
