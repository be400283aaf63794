"""k-means: scikit-learn and a numpy loop from the same start, the objective, empty clusters, devices; PCA-whitening."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from ssl_jax.ops.kmeans import assign, kmeans, pca_whiten
from ssl_jax.train.sharding import batch_sharding, make_mesh

STATIC = ("clusters", "iterations", "spherical", "empty", "block_size")
cluster = jax.jit(kmeans, static_argnames=STATIC)
KEY = jax.random.key(0)


def blobs(seed=0, count=90, width=4, centers=5):
    random = np.random.default_rng(seed)
    return 4 * random.normal(size=(centers, width))[random.integers(0, centers, count)] + random.normal(
        size=(count, width)
    )


def single(x):
    return jnp.asarray(x, jnp.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def nearest(points, centroids):
    distances = np.array([[np.sum((x - c) ** 2) for c in centroids] for x in points])
    return distances.argmin(axis=1), distances.min(axis=1).sum()


def lloyd(points, centroids, iterations, *, spherical=False):
    """Point by point, in float64; empty clusters stay."""
    centroids, history = np.array(centroids, np.float64), []
    for _ in range(iterations):
        labels, inertia = nearest(points, centroids)
        history.append(inertia)
        for k in np.unique(labels):
            mean = points[labels == k].mean(axis=0)
            centroids[k] = unit(mean) if spherical else mean
    labels, inertia = nearest(points, centroids)
    return centroids, labels, [*history, inertia]


def test_from_the_same_start_it_ends_where_scikit_learn_does():
    x = blobs()
    oracle = KMeans(5, init=x[:5], n_init=1, max_iter=50, tol=0, algorithm="lloyd").fit(x)
    found = cluster(KEY, single(x), 5, init=single(x[:5]), iterations=50)
    np.testing.assert_array_equal(found.labels, oracle.labels_)
    np.testing.assert_allclose(found.inertia, oracle.inertia_, rtol=1e-5)
    np.testing.assert_allclose(found.centroids, oracle.cluster_centers_, atol=1e-4)


@pytest.mark.parametrize("spherical", [False, True])
def test_every_update_equals_a_loop(spherical):
    x = unit(blobs()) if spherical else blobs()
    centroids, labels, history = lloyd(x, x[:6], 4, spherical=spherical)
    for block_size in (4096, 7):
        options = {"init": single(x[:6]), "iterations": 4, "block_size": block_size}
        found = cluster(KEY, single(x), 6, spherical=spherical, empty="keep", **options)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.centroids, centroids, atol=1e-5)
        np.testing.assert_allclose(found.history, history, rtol=1e-5)
        assert found.inertia == found.history[-1]


@pytest.mark.parametrize("empty", ["split", "keep"])
@pytest.mark.parametrize("spherical", [False, True])
def test_the_objective_never_rises_and_labels_are_those_of_the_nearest_centroid(spherical, empty):
    x = single(blobs())
    # Four of the five start far away from all points.
    start = jnp.concatenate([x[:1], -100 + jnp.eye(4)])
    found = cluster(KEY, x, 5, init=start, spherical=spherical, empty=empty, iterations=12)
    history = np.asarray(found.history, np.float64)
    assert np.all(np.diff(history) <= 1e-5 * history[0])
    points = unit(np.asarray(x)) if spherical else x
    labels, distances = assign(single(points), found.centroids)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.inertia, distances.sum(), rtol=1e-5)
    if spherical:
        np.testing.assert_allclose(jnp.linalg.norm(found.centroids, axis=1), 1, rtol=1e-5)


def test_empty_clusters_split_big_ones_or_keep_their_centroids():
    x = single(np.concatenate([blobs(centers=1), blobs(1, count=4, centers=1) + 50]))
    start = jnp.concatenate([x[:1], x[-1:], jnp.full((3, 4), -300.0)])
    kept = cluster(KEY, x, 5, init=start, empty="keep", iterations=5)
    np.testing.assert_array_equal(kept.centroids[2:], start[2:])
    assert set(np.asarray(kept.labels)) == {0, 1}
    split = cluster(KEY, x, 5, init=start, empty="split", iterations=1)
    # Beside the big cluster, at a thousandth of the typical distance, and drawing a good part of its points.
    assert np.linalg.norm(np.asarray(split.centroids[2:]) - split.centroids[0], axis=1).max() < 1
    sizes = np.bincount(split.labels, minlength=5)
    assert sizes.min() > 0 and sizes[0] < 80
    later = cluster(KEY, x, 5, init=start, empty="split", iterations=10)
    assert later.inertia < 0.8 * kept.inertia


@pytest.mark.long
def test_fewer_different_points_than_clusters_are_found_exactly():
    x = single(np.repeat(np.eye(3), 4, axis=0))
    for init in ("k-means++", "random"):
        for empty in ("split", "keep"):
            found = kmeans(KEY, x, 6, init=init, empty=empty, iterations=3)
            assert np.isfinite(found.centroids).all()
            if init == "k-means++":  # a copy is drawn only once nothing else is left
                assert float(found.inertia) == pytest.approx(0, abs=1e-6)
                assert len(set(np.asarray(found.labels))) == 3


def test_points_that_do_not_count_change_nothing_whatever_they_hold():
    x = blobs()
    counted = np.random.default_rng(3).random(len(x)) < 0.6
    holes = x.copy()
    holes[~counted] = np.nan
    options = {"init": single(x[:5]), "iterations": 5, "empty": "keep"}
    found = cluster(KEY, single(holes), 5, counted=jnp.asarray(counted), **options)
    dense = cluster(KEY, single(x[counted]), 5, **options)
    np.testing.assert_allclose(found.centroids, dense.centroids, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found.labels)[counted], dense.labels)
    np.testing.assert_allclose(found.inertia, dense.inertia, rtol=1e-5)
    assert set(np.asarray(found.labels)[~counted]) == {-1}
    for init in ("k-means++", "random"):
        drawn = kmeans(KEY, single(holes), 5, counted=jnp.asarray(counted), init=init, iterations=2)
        assert np.isfinite(drawn.inertia)


def test_nobody_counted_gives_finite_centroids_and_no_labels():
    found = kmeans(KEY, single(blobs()), 3, counted=jnp.zeros(90, bool), iterations=2)
    assert np.isfinite(found.centroids).all() and float(found.inertia) == 0.0
    assert set(np.asarray(found.labels)) == {-1}


def test_a_point_that_is_not_finite_shows_in_the_inertia():
    for bad in (np.nan, np.inf):
        x = blobs()
        x[7, 1] = bad
        assert np.isnan(cluster(KEY, single(x), 5, init=single(x[:5])).inertia)


def test_opposite_points_of_a_spherical_cluster_leave_its_centroid():
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    start = jnp.array([[0.0, -1.0], [0.0, 1.0]])
    found = kmeans(KEY, x, 2, init=start, spherical=True, empty="keep", iterations=1)
    np.testing.assert_allclose(jnp.linalg.norm(found.centroids, axis=1), 1, rtol=1e-6)


def test_plus_plus_draws_by_squared_distance():
    """Of 0, 1 and 3 the pair {0, 1}, whose inertia is 4, is drawn as 0 then 1 (1 of 1 + 9) or 1 then 0 (1 of 1 + 4)."""
    x = single(np.array([[0.0], [1.0], [3.0]]))
    start = jax.vmap(lambda key: kmeans(key, x, 2, iterations=1).history[0])
    first = np.asarray(start(jax.random.split(KEY, 4000)))
    expected = 1 / 3 * (1 / 10) + 1 / 3 * (1 / 5)
    assert np.mean(np.isclose(first, 4)) == pytest.approx(expected, abs=0.02)


@pytest.mark.long
def test_the_start_follows_from_the_key_and_holds_different_points():
    x = single(blobs())
    for init in ("k-means++", "random"):
        first, again, other = (
            kmeans(key, x, 40, init=init, iterations=1) for key in (KEY, KEY, jax.random.key(1))
        )
        np.testing.assert_array_equal(first.centroids, again.centroids)
        assert np.any(first.history[0] != other.history[0])
        # 40 different points of 90 are 40 at distance 0: no cluster of the start is empty.
        assert len(set(np.asarray(kmeans(KEY, x, 90, init=init, iterations=1).labels))) == 90


@pytest.mark.parametrize("spherical", [False, True])
def test_eight_devices_find_what_one_does(spherical):
    x = single(blobs(count=96))
    options = {"iterations": 6, "spherical": spherical, "block_size": 40}
    one = cluster(KEY, jax.device_put(x, jax.devices()[0]), 7, **options)
    spread = jax.device_put(x, batch_sharding(make_mesh(devices=jax.devices()[:8])))
    eight = cluster(KEY, spread, 7, **options)
    np.testing.assert_array_equal(one.labels, eight.labels)
    np.testing.assert_allclose(one.centroids, eight.centroids, atol=1e-5)
    np.testing.assert_allclose(one.history, eight.history, rtol=1e-5)


@pytest.mark.long
def test_vmap_equals_a_loop_and_jit_equals_eager():
    x = single(np.stack([blobs(0, 30), blobs(1, 30)]))
    run = functools.partial(kmeans, clusters=4, iterations=3)
    keys = jax.random.split(KEY, 2)
    mapped = jax.vmap(run)(keys, x)
    for i in range(2):
        for expected in (run(keys[i], x[i]), cluster(keys[i], x[i], 4, iterations=3)):
            np.testing.assert_array_equal(mapped.labels[i], expected.labels)
            np.testing.assert_allclose(mapped.centroids[i], expected.centroids, atol=1e-5)


def test_shifts_and_scales_move_the_centroids_alone():
    x = single(blobs())
    plain = cluster(KEY, x, 5, init=x[:5])
    moved = cluster(KEY, 8 * x + 1000, 5, init=8 * x[:5] + 1000)
    np.testing.assert_array_equal(plain.labels, moved.labels)
    np.testing.assert_allclose(8 * plain.centroids + 1000, moved.centroids, atol=2e-3)


def test_bfloat16_points_are_clustered_in_float32_and_float64_stays():
    x = jnp.asarray(blobs(), jnp.bfloat16)
    wide = x.astype(jnp.float32)
    found = cluster(KEY, x, 5, init=wide[:5])
    assert found.centroids.dtype == found.inertia.dtype == jnp.float32
    np.testing.assert_array_equal(found.labels, cluster(KEY, wide, 5, init=wide[:5]).labels)
    with jax.enable_x64(True):
        assert kmeans(KEY, jnp.asarray(blobs()), 2, iterations=1).centroids.dtype == jnp.float64


@pytest.mark.parametrize(
    ("clusters", "options", "message"),
    [
        (0, {}, "clusters=0"),
        (4, {}, "clusters=4: allowed is an integer from 1 to the 3 points"),
        (2, {"iterations": 0}, "iterations=0"),
        (2, {"init": "kmeans"}, "init='kmeans'"),
        (2, {"init": jnp.ones((3, 2))}, r"init\.shape=\(3, 2\)"),
        (2, {"empty": "drop"}, "empty='drop'"),
        (2, {"counted": jnp.ones(4, bool)}, r"counted\.shape=\(4,\)"),
        (2, {"block_size": 0}, "block_size=0"),
    ],
)
def test_bad_input_is_refused_by_name(clusters, options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(kmeans)(KEY, jnp.ones((3, 2)), clusters, **options)


def test_whitened_points_are_those_of_scikit_learn_and_have_the_identity_as_covariance():
    x = blobs(count=200, width=6) @ np.random.default_rng(2).normal(size=(6, 6))
    for dim in (6, 3):
        found = jax.jit(pca_whiten, static_argnums=1)(single(x), dim, epsilon=0.0)
        expected = PCA(dim, whiten=True).fit_transform(x)
        signs = np.sign(np.sum(expected * found, axis=0))
        np.testing.assert_allclose(found * signs, expected, atol=2e-3)
        np.testing.assert_allclose(np.cov(found, rowvar=False), np.eye(dim), atol=1e-3)


def test_whitening_does_not_see_shifts_scales_and_rotations_of_the_points():
    x = blobs(count=50, width=3)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    plain, moved = (np.asarray(pca_whiten(single(y), 2)) for y in (x, 5 * x @ rotation + 3))
    np.testing.assert_allclose(plain @ plain.T, moved @ moved.T, atol=1e-3)


def test_directions_without_variance_stay_finite_and_small():
    x = np.concatenate([blobs(width=2), np.zeros((90, 1))], axis=1)
    found = np.asarray(pca_whiten(single(x), 3))
    assert np.isfinite(found).all() and np.abs(found[:, 2]).max() < 1e-2


@pytest.mark.parametrize("dim", [0, 4])
def test_dimensions_out_of_range_are_refused(dim):
    with pytest.raises(ValueError, match=f"dim={dim}: allowed is an integer from 1 to 3"):
        inspect.unwrap(pca_whiten)(jnp.ones((3, 5)), dim)
