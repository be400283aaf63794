"""DeepCluster-v2."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.kmeans import assign
from tests.methods.case import loss_inputs, loss_of, method_of, start

OPTIONS = {"num_examples": 40, "clusters": 5, "clusterings": 3, "projection": 8, "iterations": 8}


def collapsed(case):
    """With all params 0 every z is 0 and scores as much with each centroid, whatever the labels are."""
    params, state, batch = loss_inputs(case)
    state["labels"] = jnp.zeros_like(state["labels"])
    (loss, _), _ = case.gradient(jax.tree.map(jnp.zeros_like, params), state, batch)
    return float(loss), math.log(case.config["method"]["clusters"])


def blobs(seed, count):
    """Points about five axes of the sphere in 8 dimensions."""
    random = np.random.default_rng(seed)
    return np.eye(8)[np.arange(count) % 5] + 0.05 * random.normal(size=(count, 8))


def refreshed(method, state, features, seed=0):
    refresh = jax.jit(method.refresh.update)
    return refresh(
        state, None if features is None else jnp.asarray(features, jnp.float32), jax.random.key(seed)
    )


def same_groups(labels, others):
    """Whether two clusterings are one but for the clusters' names."""
    pairs = set(zip(np.asarray(labels).tolist(), np.asarray(others).tolist(), strict=True))
    return len(pairs) == len(set(np.asarray(labels).tolist())) == len(set(np.asarray(others).tolist()))


def test_before_the_first_refresh_nothing_is_learnt_and_nothing_is_nan():
    method = method_of("deepcluster_v2", **OPTIONS)
    loss, state, metrics = loss_of(method, *start(method))
    assert loss == 0 and float(metrics["accuracy"]) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_refresh_labels_the_images_it_was_given_and_no_others():
    method = method_of("deepcluster_v2", **{**OPTIONS, "init": "k-means++"})
    _, state, _ = start(method)
    first = refreshed(method, state, blobs(0, 30))
    assert first["labels"].shape == (3, 40) and first["centroids"].shape == (3, 5, 8)
    for labels in first["labels"]:
        assert same_groups(labels[:30], np.arange(30) % 5)
    assert np.all(first["labels"][:, 30:] == -1) and np.all(first["previous"] == -1)
    np.testing.assert_allclose(jnp.linalg.norm(first["centroids"], axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(first["bank"][:, :30], axis=-1), 1, rtol=1e-5)
    assert not first["bank"][:, 30:].any()
    assert float(first["sizes"]["clusters_used"]) == 5
    assert float(first["sizes"]["largest_cluster"]) == pytest.approx(6 / 30)
    assert float(first["sizes"]["cluster_entropy"]) == pytest.approx(math.log(5), rel=1e-5)
    np.testing.assert_array_equal(refreshed(method, first, None)["previous"], first["labels"])


def test_a_later_refresh_reads_the_memory_and_each_clustering_that_of_its_crop():
    method = method_of("deepcluster_v2", **{**OPTIONS, "init": "k-means++"})
    _, state, _ = start(method)
    groups = np.arange(40) % 5, np.arange(40) // 8
    state["bank"] = jnp.asarray(np.stack([np.eye(8)[g] for g in groups]), jnp.float32)
    found = refreshed(method, state, None)
    for clustering in range(3):
        assert same_groups(found["labels"][clustering], groups[clustering % 2])
        labels, _ = assign(state["bank"][clustering % 2], found["centroids"][clustering])
        np.testing.assert_array_equal(found["labels"][clustering], labels)
    other = refreshed(method, state, None, seed=1)
    assert np.any(other["labels"] != found["labels"])  # names are drawn anew


def test_steps_write_the_memory_of_their_images_and_leave_clusters_and_centroids():
    method = method_of("deepcluster_v2", **OPTIONS)
    params, state, batch = start(method)
    state = refreshed(method, state, blobs(0, 40))
    batch["index"] = jnp.arange(16) + 20
    loss, after, metrics = loss_of(method, params, state, batch)
    assert loss > 0 and 0 <= float(metrics["accuracy"]) <= 1
    for name in ("centroids", "labels", "previous"):
        np.testing.assert_array_equal(after[name], state[name])
    before, bank = np.asarray(state["bank"]), np.asarray(after["bank"])
    np.testing.assert_array_equal(
        np.delete(bank, np.arange(20, 36), axis=1), np.delete(before, np.arange(20, 36), axis=1)
    )
    assert np.all(np.any(bank[:, 20:36] != before[:, 20:36], axis=-1))
    np.testing.assert_allclose(np.linalg.norm(bank[:, 20:36], axis=-1), 1, rtol=1e-5)
    assert np.abs(bank[0, 20:36] - bank[1, 20:36]).max() > 1e-3  # the two global crops, each in its own
    described = method.refresh.features(params, state, batch["views"][0][:, 0])
    assert described.shape == (16, 8)


def test_images_without_a_cluster_are_ignored():
    method = method_of("deepcluster_v2", **OPTIONS)
    params, state, batch = start(method)
    state = refreshed(method, state, blobs(0, 40))
    state["labels"] = state["labels"].at[:, 8:16].set(-1)
    loss, *_ = loss_of(method, params, state, batch)
    state["labels"] = state["labels"].at[:, 0:8].set(-1)
    nothing, *_ = loss_of(method, params, state, batch)
    assert loss > 0 and nothing == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_examples": 0}, "num_examples=0"),
        ({"clusters": 41}, "clusters=41"),
        ({"clusterings": 0}, "clusterings=0"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"iterations": 0}, "iterations=0"),
        ({"init": "kmeans"}, "init='kmeans'"),
        ({"empty": "drop"}, "empty='drop'"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("deepcluster_v2", **{**OPTIONS, **options})
