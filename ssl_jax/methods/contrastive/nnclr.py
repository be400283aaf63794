"""NNCLR (Dwibedi et al., ICCV 2021): the positive is the nearest neighbour of the other view in a queue."""

import functools
import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.numerics import entropy, normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.contrastive import info_nce
from ssl_jax.losses.nce import information_bound
from ssl_jax.methods.method import CollapseValue, Method, encoder_at
from ssl_jax.methods.parts.siamese import pair_health
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.ops.neighbors import nearest_neighbors
from ssl_jax.ops.queue import Queue, queue_init, queue_push


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    temperature: float = 0.1,
    queue_size: int = 98304,
    projector_width: int = 2048,
    projection: int = 256,
    predictor_width: int = 4096,
    block_size: int | None = None,
    search_block: int | None = None,
) -> Method:
    """NNCLR.

    ``L = ½ [ InfoNCE(NN(z₁), p₂; τ) + InfoNCE(NN(z₂), p₁; τ) ]`` with ``z = g(f(v))``, ``p = q(z)``, encoder f, projector g,
    predictor q, τ ``temperature`` and ``NN(z) = argmax_{c in queue} c·n(z)``, a constant: gradients reach the network through
    p alone. A neighbour has to be told from the N predictions of the other view, its own being the positive.

    Order in a step: both views search the queue as it was before this batch; the loss; then ``sg n(z₁)`` enters the queue. So
    no image finds itself, unless the queue is longer than an epoch and still holds what it was then. Each view passes through
    the network by itself, so BatchNorm statistics are per view.

    Metrics: ``neighbor_similarity``, mean cosine of z₁ and its neighbour; ``neighbor_distinct``, the share of different
    neighbours in the batch, and ``neighbor_entropy``, the entropy in nats of how often each is taken, at most log N: both
    fall when a few entries become everyone's neighbour; ``neighbor_accuracy``, the share of neighbours of the same label
    among those where both labels are known (0 where none is).

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.byol`.
      temperature: τ > 0. May be traced.
      queue_size: length K of the queue, at least the batch; 98304 in the paper.
      projector_width: width of the two hidden layers of g, which has BatchNorm after each of its three layers.
      projection: width of the outputs of g and q.
      predictor_width: width of q's hidden layer.
      block_size: candidates a block of the loss that never holds the N x N matrix; ``None``: the plain form.
      search_block: queue entries a block of the search that never holds the N x K matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the encoder's features. State: batch statistics, ``queue`` and ``labels``, the queue of the
      entries' labels, which the loss does not read.

    Raises:
      ValueError: ``queue_size`` below 1.

    Reference: With a Little Help from My Friends, equations 2 to 4 and section 4; there is no official code. Deviations:
    lightly's has the predictions of the same view among the candidates and stores vectors that are not normalised; the paper
    and solo-learn do not, nor do we.
    """
    check.require(queue_size >= 1, "queue_size", queue_size, "an integer of 1 or more")
    dtype = compute_dtype(encoder)
    network = chain(
        encoder=encoder,
        projector=heads.mlp((projector_width, projector_width, projection), last_norm="batch", dtype=dtype),
        predictor=heads.mlp((predictor_width, projection), dtype=dtype),
    )

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, queue_key = jax.random.split(key)
        params, state = network.init(network_key, batch["views"][0][:, 0])
        labels = Queue(jnp.full((queue_size, 1), -1.0, jnp.float32), jnp.int32(0))
        return params, {
            "network": state,
            "queue": queue_init(queue_key, queue_size, projection),
            "labels": labels,
        }

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        online, z, p = state["network"], [], []
        for view, images in enumerate(batch["views"][0].swapaxes(0, 1)):
            view_key = jax.random.fold_in(key, view)
            (_, projections, predictions), online = network.apply(
                params, online, images, train=True, key=view_key
            )
            z.append(jax.lax.stop_gradient(normalize(projections)))
            p.append(predictions)
        bank = jax.lax.stop_gradient(state["queue"].items)
        similarities, indices = zip(
            *(nearest_neighbors(rows, bank, block_size=search_block) for rows in z), strict=True
        )
        one_way = functools.partial(info_nce, temperature=temperature, block_size=block_size)
        directions = ((indices[0], p[1]), (indices[1], p[0]))
        value = sum((one_way(bank[i[:, 0]], p_) for i, p_ in directions), jnp.float32(0)) / 2
        metrics = {
            **pair_health(z[0], z[1]),
            **neighbor_health(indices[0][:, 0], state["labels"], batch["label"]),
            "neighbor_similarity": jnp.mean(similarities[0]),
            "information_bound": information_bound(value, z[0].shape[0]),
        }
        queue = queue_push(state["queue"], z[0])
        labels = queue_push(state["labels"], jnp.asarray(batch["label"], jnp.float32)[:, None])
        return value, ({"network": online, "queue": queue, "labels": labels}, metrics)

    collapse = (CollapseValue("loss", math.log, "predictions are all alike"),)

    views = presets.byol() if views is None else views
    return Method(views, init, loss, encoder, encoder_at("network"), collapse=collapse)


def neighbor_health(indices: Array, queued: Queue, labels: Array) -> Metrics:
    """How many different entries a batch found, how evenly, and how often of its own label.

    Args:
      indices: ``[n]`` entries found.
      queued: labels ``[K, 1]`` of the entries, -1 where unknown.
      labels: ``[n]`` of the batch, -1 where unknown.

    Returns:
      Scalars ``neighbor_distinct``, ``neighbor_entropy`` and ``neighbor_accuracy``.

    >>> import jax.numpy as jnp
    >>> queued = Queue(jnp.array([[0.0], [1.0], [-1.0]]), jnp.int32(0))
    >>> health = neighbor_health(jnp.array([0, 0, 1, 2]), queued, jnp.array([0, 1, 1, 1]))
    >>> float(health["neighbor_distinct"]), round(float(health["neighbor_accuracy"]), 4)
    (0.75, 0.6667)
    """
    count = indices.shape[0]
    hits = jnp.zeros(queued.items.shape[0]).at[indices].add(1.0)
    found = queued.items[indices, 0]
    known = (found >= 0) & (labels >= 0)
    right = jnp.sum(known & (found == labels)) / jnp.maximum(jnp.sum(known), 1)
    return {
        "neighbor_distinct": jnp.sum(hits > 0) / count,
        "neighbor_entropy": entropy(jnp.log(hits / count)),
        "neighbor_accuracy": right,
    }
