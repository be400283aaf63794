"""NNCLR."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core.numerics import normalize
from ssl_jax.losses.contrastive import info_nce
from ssl_jax.methods.contrastive.nnclr import neighbor_metrics
from ssl_jax.models import heads
from ssl_jax.ops.neighbors import nearest_neighbors
from ssl_jax.ops.queue import Queue, queue_push
from tests.golden_files import assert_close, golden
from tests.methods.case import BATCH, loss_of, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(BATCH)


def test_search_loss_and_push_equal_golden():
    file = golden("nnclr")
    bank, z0, z1, p0, p1 = (
        jnp.asarray(file[f"in__{n}"], jnp.float32) for n in ("bank", "z0", "z1", "p0", "p1")
    )
    neighbors = [bank[nearest_neighbors(z, bank)[1][:, 0]] for z in (z0, z1)]
    for i in (0, 1):
        assert_close(neighbors[i], file[f"lightly__out__nn{i}"], tolerance=1e-6)
    queue = queue_push(Queue(bank, jnp.int32(0)), z1)
    assert_close(queue.items, file["lightly__out__bank_after"], tolerance=1e-6)
    one_way = jax.jit(jax.value_and_grad(lambda nn, p: info_nce(nn, p, temperature=0.1), argnums=1))
    (first, to_p1), (second, to_p0) = one_way(neighbors[0], p1), one_way(neighbors[1], p0)
    np.testing.assert_allclose(first, file["solo__out__direction01"], rtol=1e-5)
    np.testing.assert_allclose(second, file["solo__out__direction10"], rtol=1e-5)
    np.testing.assert_allclose((first + second) / 2, file["solo__loss"], rtol=1e-5)
    assert_close(to_p0 / 2, file["solo__grad__p0"], tolerance=1e-5)
    assert_close(to_p1 / 2, file["solo__grad__p1"], tolerance=1e-5)


def test_queue_is_searched_before_the_first_view_enters_it_and_wraps():
    method = method_of("nnclr", queue_size=24)
    params, state, batch = start(method)
    batch = {**batch, "label": jnp.arange(BATCH) // 2}
    _, first, metrics = loss_of(method, params, state, batch)
    online = state["network"]
    features, _ = method.encoder.apply(
        params["encoder"], online["encoder"], batch["views"][0][:, 0], train=True
    )
    projector = heads.mlp((32, 32, 16), last_norm="batch")
    z1 = normalize(projector.apply(params["projector"], online["projector"], features, train=True)[0])
    np.testing.assert_allclose(first["queue"].items[:BATCH], z1, atol=1e-5)
    np.testing.assert_array_equal(first["queue"].items[BATCH:], state["queue"].items[BATCH:])
    assert metrics["neighbor_similarity"] < 0.95, "the image itself is not in the queue yet"
    assert metrics["neighbor_accuracy"] == 0, "no label is known"
    np.testing.assert_array_equal(nearest_neighbors(z1, first["queue"].items)[1][:, 0], np.arange(BATCH))
    # The same images again find themselves, and now the queue wraps.
    _, second, metrics = loss_of(method, params, first, batch)
    np.testing.assert_allclose(metrics["neighbor_similarity"], 1, atol=1e-5)
    assert metrics["neighbor_distinct"] == metrics["neighbor_accuracy"] == 1
    np.testing.assert_allclose(metrics["neighbor_entropy"], np.log(BATCH), rtol=1e-5)
    assert (int(first["queue"].pointer), int(second["queue"].pointer)) == (16, 8)
    order = np.r_[8:16, 8:16, 0:8]  # of the rows of z₁ that the queue holds
    np.testing.assert_allclose(second["queue"].items, z1[order], atol=1e-5)
    np.testing.assert_array_equal(second["labels"].items[:, 0], order // 2)


def test_no_gradient_passes_through_the_projections_themselves():
    """With a predictor of zeros the loss depends on the queue's neighbours alone, which are constant."""
    method = method_of("nnclr")
    params, state, batch = start(method)
    params = {**params, "predictor": jax.tree.map(jnp.zeros_like, params["predictor"])}
    gradients = jax.jit(jax.grad(lambda p: method.loss(p, state, batch, jax.random.key(2), 0)[0]))(params)
    assert not any(np.any(x) for part in ("encoder", "projector") for x in jax.tree.leaves(gradients[part]))


def test_hubs_show_in_distinct_neighbors_and_entropy():
    queued = Queue(jnp.full((8, 1), 3.0), jnp.int32(0))
    one = neighbor_metrics(jnp.zeros(4, jnp.int32), queued, jnp.full(4, -1))
    assert [float(one[f"neighbor_{n}"]) for n in ("distinct", "entropy", "accuracy")] == [0.25, 0.0, 0.0]


def test_options_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match="queue_size=0"):
        method_of("nnclr", queue_size=0)
