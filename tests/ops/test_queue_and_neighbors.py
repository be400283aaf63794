"""The queue: golden numbers of lightly's memory bank, and a simulation with a list. Neighbours: a sort of all cosines."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssl_jax.ops.kmeans import sample_clusters_evenly
from ssl_jax.ops.neighbors import largest_by_groups, nearest_neighbors
from ssl_jax.ops.queue import Queue, queue_init, queue_push
from ssl_jax.train.sharding import batch_sharding, make_mesh
from tests.golden_files import golden


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_two_pushes_equal_golden_and_the_third_wraps_where_lightly_truncates():
    file = golden("moco_queue")
    keys = unit(file["in__k"]), unit(file["in__k2"])
    queue = Queue(jnp.asarray(file["in__bank"], jnp.float32), jnp.int32(0))
    for key, suffix in zip(keys, ("", "2"), strict=True):
        queue = queue_push(queue, jnp.asarray(key, jnp.float32))
        np.testing.assert_allclose(queue.items, file[f"wrap__out__bank_after{suffix}"], atol=1e-6)
        assert queue.pointer == file[f"wrap__out__ptr_after{suffix}"][0]
    third = np.arange(16.0 * 64).reshape(16, 64)
    wrapped = queue_push(queue, jnp.asarray(third, jnp.float32))
    np.testing.assert_array_equal(wrapped.items[32:], third[:8])
    np.testing.assert_array_equal(wrapped.items[:8], third[8:])
    np.testing.assert_array_equal(wrapped.items[8:32], queue.items[8:32])
    assert wrapped.pointer == 8


@pytest.mark.parametrize(("size", "batch"), [(7, 3), (6, 3), (4, 4)])
def test_queue_holds_the_last_items_first_in_first_out(size, batch):
    push = jax.jit(queue_push)
    queue = Queue(jnp.full((size, 1), -1.0), jnp.int32(0))
    seen = [-1.0] * size
    for step in range(5):
        items = np.arange(step * batch, (step + 1) * batch, dtype=np.float32)
        queue = push(queue, jnp.asarray(items)[:, None])
        seen = (seen + items.tolist())[-size:]
        oldest_first = np.roll(np.asarray(queue.items)[:, 0], -int(queue.pointer))
        np.testing.assert_array_equal(oldest_first, seen)


def test_push_keeps_tree_shapes_and_dtypes():
    queue = queue_init(jax.random.key(0), 6, 4)
    pushed = queue_push(queue, jnp.ones((4, 4), jnp.bfloat16))
    described = [jax.tree.map(lambda x: (x.shape, x.dtype), q) for q in (queue, pushed)]
    assert described[0] == described[1] == Queue(((6, 4), jnp.float32), ((), jnp.int32))


def test_new_queue_is_uniform_on_the_unit_sphere():
    items = queue_init(jax.random.key(0), 2000, 3).items
    np.testing.assert_allclose(jnp.linalg.norm(items, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(items.mean(axis=0), 0, atol=5 / np.sqrt(3 * 2000))
    np.testing.assert_allclose(items.T @ items / 2000, np.eye(3) / 3, atol=0.05)


def test_vmap_over_queues_equals_a_loop():
    queues = jax.vmap(lambda key: queue_init(key, 5, 2))(jax.random.split(jax.random.key(0), 3))
    queues = Queue(queues.items, jnp.array([0, 3, 4], jnp.int32))
    items = jnp.arange(18.0).reshape(3, 3, 2)
    mapped = jax.vmap(queue_push)(queues, items)
    for i in range(3):
        one = queue_push(Queue(queues.items[i], queues.pointer[i]), items[i])
        np.testing.assert_array_equal(mapped.items[i], one.items)
        np.testing.assert_array_equal(mapped.pointer[i], one.pointer)


@pytest.mark.parametrize("shape", [(7, 4), (2, 3)])
def test_items_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"items\.shape"):
        inspect.unwrap(queue_push)(queue_init(jax.random.key(0), 6, 4), jnp.zeros(shape))


@pytest.mark.parametrize(("size", "dim", "name"), [(0, 4, "size"), (4, 0, "dim")])
def test_empty_queues_are_refused(size, dim, name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        queue_init(jax.random.key(0), size, dim)


@functools.cache
def search(k, block_size):
    return jax.jit(lambda queries, bank: nearest_neighbors(queries, bank, k, block_size=block_size))


def random_rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("block_size", [None, 1, 7, 23, 100])
@pytest.mark.parametrize("k", [1, 5, 23])
def test_neighbors_equal_a_sort_of_all_cosines(k, block_size):
    queries, bank = random_rows(0, 6, 4), random_rows(1, 23, 4)
    similarities, indices = search(k, block_size)(queries, bank)
    cosines = unit(np.float64(queries)) @ unit(np.float64(bank)).T
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(similarities, np.take_along_axis(cosines, expected, axis=1), atol=1e-6)
    assert indices.dtype == jnp.int32


@pytest.mark.parametrize("block_size", [None, 2])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_of_duplicate_rows_the_lowest_index_comes_first(k, block_size):
    bank = np.array([[0, 1], [1, 0], [2, 0], [0, 3], [1, 0]], np.float32)
    similarities, indices = search(k, block_size)(np.array([[5, 0], [0, 1]], np.float32), bank)
    np.testing.assert_array_equal(indices, np.array([[1, 2, 4, 0, 3], [0, 3, 1, 2, 4]])[:, :k])
    np.testing.assert_array_equal(similarities, np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])[:, :k])


@pytest.mark.parametrize("block_size", [None, 1])
def test_the_only_row_is_everyones_neighbor_and_zeros_are_near_nothing(block_size):
    similarities, indices = search(1, block_size)(random_rows(0, 3, 4), np.zeros((1, 4), np.float32))
    np.testing.assert_array_equal(similarities, 0)
    np.testing.assert_array_equal(indices, 0)


def test_the_neighbor_of_a_row_of_the_bank_is_itself_at_any_scale_and_dtype():
    bank = random_rows(0, 50, 8)
    _, indices = search(1, None)(jnp.asarray(7 * bank[::-1], jnp.bfloat16), bank)
    np.testing.assert_array_equal(indices[:, 0], np.arange(50)[::-1])


@pytest.mark.parametrize(("k", "block_size"), [(1, None), (4, None), (4, 16)])
def test_neighbors_in_a_split_bank_are_those_on_one_device(k, block_size):
    mesh = make_mesh(fsdp=4)
    queries, bank = random_rows(0, 16, 8), random_rows(1, 64, 8)
    placed = (
        jax.device_put(queries, batch_sharding(mesh)),
        jax.device_put(bank, NamedSharding(mesh, PartitionSpec("fsdp"))),
    )
    similarities, indices = search(k, block_size)(*placed)
    expected, expected_indices = search(k, block_size)(queries, bank)
    np.testing.assert_allclose(similarities, expected, atol=1e-6)
    np.testing.assert_array_equal(indices, expected_indices)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f(jnp.ones((2, 3)), jnp.ones((5, 4))), r"bank\.shape=\(5, 4\)"),
        (lambda f: f(jnp.ones((2, 3)), jnp.ones((5, 3)), 6), "k=6"),
        (lambda f: f(jnp.ones((2, 3)), jnp.ones((5, 3)), 0), "k=0"),
        (lambda f: f(jnp.ones((2, 3)), jnp.ones((5, 3)), block_size=0), "block_size=0"),
    ],
)
def test_searches_that_cannot_be_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(inspect.unwrap(nearest_neighbors))


@pytest.mark.parametrize(
    ("sizes", "expected"), [([7, 0, 2, 1], [4, 0, 3, 3]), ([3, 3, 4], [3, 3, 4]), ([0, 1], [0, 1])]
)
def test_clusters_are_drawn_evenly_and_members_of_each_too(sizes, expected):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    draw = jax.jit(sample_clusters_evenly, static_argnums=2)
    every = np.zeros((200, len(labels)), int)
    for seed in range(200):
        chosen = np.asarray(draw(jax.random.key(seed), labels, len(sizes)))
        every[seed] = np.bincount(chosen, minlength=len(labels))
        found = np.bincount(labels[chosen], minlength=len(sizes))
        assert sorted(found) == sorted(expected)
        assert found[np.array(sizes) == 0].sum() == 0
        for cluster in np.flatnonzero(sizes):
            assert np.ptp(every[seed][labels == cluster]) <= 1
    share = every.mean(axis=0) * sum(s > 0 for s in sizes) * np.array(sizes)[labels] / len(labels)
    np.testing.assert_allclose(share, 1.0, atol=0.2)


def test_examples_without_a_cluster_are_not_drawn():
    labels = jnp.array([-1, 0, 1, -1, 1, 1])
    chosen = np.asarray(sample_clusters_evenly(jax.random.key(0), labels, 2))
    assert np.bincount(chosen, minlength=6)[[0, 3]].tolist() == [0, 0]
    assert np.bincount(labels[chosen]).tolist() == [3, 3]
    with pytest.raises(ValueError, match="clusters=0"):
        sample_clusters_evenly(jax.random.key(0), labels, 0)


@pytest.mark.parametrize(("width", "k"), [(40, 3), (1000, 2), (1003, 2)])
def test_the_search_by_groups_is_that_of_whole_rows_or_says_that_it_is_not_sure(width, k):
    random = np.random.default_rng(0)
    distinct = random.permuted(np.tile(np.arange(width, dtype=np.float32), (4, 1)), axis=1)
    few_ties = np.minimum(distinct, width - 6)  # six equal entries at the top
    for rows in (distinct, few_ties):
        entries, places, sure = jax.jit(largest_by_groups, static_argnums=1)(rows, k)
        order = np.argsort(-rows, axis=1, kind="stable")[:, :k]
        assert sure
        np.testing.assert_array_equal(places, order)
        np.testing.assert_array_equal(entries, np.take_along_axis(rows, order, axis=1))


def test_the_search_by_groups_is_not_sure_of_many_equal_maxima_or_a_nan():
    for rows in (np.zeros((1, 1000), np.float32), np.full((1, 1000), np.nan, np.float32)):
        assert not largest_by_groups(jnp.asarray(rows), 2)[2]
