"""The queue: golden numbers of lightly's memory bank, and a simulation with a list."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.assignment import Queue, queue_init, queue_push
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
