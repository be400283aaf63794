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
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at
from ssl_jax.methods.parts.siamese import apply_per_view, pair_metrics, require_pair
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
    projector = heads.mlp(
        (projector_width, projector_width, projection), last_norm="batch", dtype=compute_dtype(encoder)
    )
    predictor = heads.mlp((predictor_width, projection), dtype=compute_dtype(encoder))
    embed = chain(encoder=encoder, projector=projector)
    network = chain(encoder=encoder, projector=projector, predictor=predictor)

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
        z, online = apply_per_view(embed, params, state["network"], batch["views"][0], key)  # [n, 2, d]
        p, online["predictor"] = apply_per_view(predictor, params["predictor"], online["predictor"], z)
        z = jax.lax.stop_gradient(normalize(z))
        bank = jax.lax.stop_gradient(state["queue"].items)  # [K, d]
        search = functools.partial(nearest_neighbors, block_size=search_block)
        (similarities, nearest_1), (_, nearest_2) = search(z[:, 0], bank), search(z[:, 1], bank)  # [n, 1]
        info = functools.partial(info_nce, temperature=temperature, block_size=block_size)
        value = (info(bank[nearest_1[:, 0]], p[:, 1]) + info(bank[nearest_2[:, 0]], p[:, 0])) / 2
        metrics = {
            **pair_metrics(z[:, 0], z[:, 1]),
            **neighbor_metrics(nearest_1[:, 0], state["labels"], batch["label"]),
            "neighbor_similarity": jnp.mean(similarities),
            "information_bound": information_bound(value, len(z)),
        }
        queue = queue_push(state["queue"], z[:, 0])
        labels = queue_push(state["labels"], jnp.asarray(batch["label"], jnp.float32)[:, None])
        return value, ({"network": online, "queue": queue, "labels": labels}, metrics)

    views = presets.byol() if views is None else views
    require_pair(views)
    collapse = (CollapseValue("loss", math.log, "predictions are all alike"),)
    limits = Limits(least_batch=2, most_batch=queue_size)
    return Method(views, init, loss, encoder, encoder_at("network"), collapse=collapse, limits=limits)


def neighbor_metrics(indices: Array, queued: Queue, labels: Array) -> Metrics:
    """Measure how many different entries are neighbours in a batch, how evenly, and how often of the same label.

    Args:
      indices: ``[n]`` nearest entry of each image.
      queued: labels ``[K, 1]`` of the entries, -1 where unknown.
      labels: labels ``[n]`` of the batch, -1 where unknown.

    Returns:
      Scalars ``neighbor_distinct``, ``neighbor_entropy`` and ``neighbor_accuracy``.

    >>> import jax.numpy as jnp
    >>> queued = Queue(jnp.array([[0.0], [1.0], [-1.0]]), jnp.int32(0))
    >>> metrics = neighbor_metrics(jnp.array([0, 0, 1, 2]), queued, jnp.array([0, 1, 1, 1]))
    >>> float(metrics["neighbor_distinct"]), round(float(metrics["neighbor_accuracy"]), 4)
    (0.75, 0.6667)
    """
    count = indices.shape[0]
    hits = jnp.zeros(queued.items.shape[0]).at[indices].add(1.0)
    neighbor_labels = queued.items[indices, 0]
    known = (neighbor_labels >= 0) & (labels >= 0)
    correct = jnp.sum(known & (neighbor_labels == labels))
    return {
        "neighbor_distinct": jnp.sum(hits > 0) / count,
        "neighbor_entropy": entropy(jnp.log(hits / count)),
        "neighbor_accuracy": correct / jnp.maximum(jnp.sum(known), 1),
    }
