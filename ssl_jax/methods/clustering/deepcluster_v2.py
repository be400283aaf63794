"""DeepCluster-v2 (Caron et al., NeurIPS 2020): each crop predicts the cluster that its image had in the last epoch."""

import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, positive, require
from ssl_jax.core.numerics import entropy, normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.clustering import cluster_cross_entropy
from ssl_jax.methods.method import CollapseValue, Limits, Method, Refresh, encoder_at
from ssl_jax.methods.parts.memory_bank import update_memory_bank
from ssl_jax.methods.parts.multi_crop import (
    VIEWS,
    cosines,
    global_count,
    require_global_views,
    swav_projector,
    unit_projections,
)
from ssl_jax.methods.parts.siamese import pair_metrics
from ssl_jax.models.network import Network, chain
from ssl_jax.ops.kmeans import EMPTY, INITS, Clusters, kmeans

FOLLOWS = {"num_examples": "data.num_examples"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    num_examples: int = 1_281_167,
    clusters: int = 3000,
    clusterings: int = 3,
    temperature: float = 0.1,
    iterations: int = 10,
    init: str = "random",
    empty: str = "keep",
    projector_width: int = 2048,
    projection: int = 128,
) -> Method:
    """DeepCluster-v2.

    With ``z = n(g(f(crop)))``, τ ``temperature``, and for each of H clusterings the centroids C_h and the cluster y_h of every
    image::

        L = 1/H Σ_h  mean over images and all crops of  −log softmax(z C_hᵀ / τ)[y_h]

    A memory holds, for each global crop, the last z of every image; steps write it and do not read it. A refresh, each epoch,
    clusters it anew by spherical k-means: clustering h takes the memory of the global crop h modulo their number. Its centroids
    are the classifier until the next refresh; they lie in the state, where no gradient, decay or momentum reaches them. The
    first refresh fills the memory with z of the whole images, less their mean.

    Args:
      encoder: the network to train.
      views: global crops, which are remembered, then local ones; ``None``: 2 x 224 and 6 x 96 pixels, colours of SimCLR.
      num_examples: M, the number of training images, at least.
      clusters: K, of each clustering, up to ``num_examples``.
      clusterings: H.
      temperature: τ > 0. May be traced.
      iterations: of k-means.
      init: of k-means, ``"random"`` or ``"k-means++"``.
      empty: ``"keep"``: a centroid without images stays, as in the authors' code; ``"split"``: it takes a part of a big
        cluster.
      projector_width: width of g's hidden layer.
      projection: width d of z.

    Returns:
      The method. ``encode`` gives the encoder's features. State: ``bank`` ``[global crops, M, d]`` (zeros: never seen),
      ``centroids`` ``[H, K, d]``, ``labels`` and ``previous`` ``[H, M]``, the clusters of the last refresh and the one before
      (-1: none; the loss ignores the image). Metrics: ``accuracy``, the share of crops whose cluster is told; and of the
      last refresh ``clusters_used`` (mean over clusterings), ``cluster_entropy`` (mean entropy of the clusters' shares of the
      images, at most log K) and ``largest_cluster`` (largest share).

    Raises:
      ValueError: a count out of range, an unknown option of k-means, a temperature that is not positive, fewer than two global
        views.

    Reference: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, appendix on DeepCluster-v2;
    facebookresearch/swav ``main_deepclusterv2.py``. Deviations: its memory is ordered by the position in the last epoch and
    loses images that it left out, ours by image and remembers them; at the start it is filled with z of random crops under
    batch statistics, ours without augmentation and under running statistics, which do not depend on the order of images.
    """
    require(num_examples >= 1, "num_examples", num_examples, "an integer of 1 or more")
    require(
        1 <= clusters <= num_examples, "clusters", clusters, f"an integer from 1 to the {num_examples} images"
    )
    require(clusterings >= 1, "clusterings", clusterings, "an integer of 1 or more")
    require(iterations >= 1, "iterations", iterations, "an integer of 1 or more")
    choice("init", init, INITS)
    choice("empty", empty, EMPTY)
    positive("temperature", temperature)
    views = presets.dino(**VIEWS) if views is None else views
    require_global_views(views)
    crops = global_count(views)
    projector = swav_projector(encoder, width=projector_width, projection=projection, batch_norm=True)
    network = chain(encoder=encoder, projector=projector)

    def init_state(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, centroid_key = jax.random.split(key)
        params, online = network.init(network_key, batch["views"][0][:, 0])
        none = jnp.full((clusterings, num_examples), -1, jnp.int32)
        rows = jax.random.normal(centroid_key, (clusterings, clusters, projection), jnp.float32)
        return params, {
            "online": online,
            "bank": jnp.zeros((crops, num_examples, projection), jnp.float32),
            "centroids": normalize(rows),
            "labels": none,
            "previous": none,
            "sizes": size_metrics(none, clusters),
        }

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        z, online = unit_projections(encoder, projector, params, state["online"], batch, key)  # [b, v, d]
        index = batch["index"]
        labels = state["labels"][:, index]  # [h, b]
        centroids = jax.lax.stop_gradient(state["centroids"])
        scores = jax.vmap(lambda rows: cosines(z, rows))(centroids)  # [h, b, v, k]
        value = cluster_cross_entropy(scores, labels, temperature=temperature)

        update = jax.vmap(lambda bank, rows: update_memory_bank(bank, index, rows, 0.0), (0, 1))
        state = {**state, "online": online, "bank": update(state["bank"], z[:, :crops])}
        known = labels >= 0
        right = jnp.mean(jnp.argmax(scores, axis=-1) == labels[..., None], axis=-1)
        metrics = {
            **pair_metrics(z[:, 0], z[:, 1]),
            "accuracy": jnp.sum(right, where=known) / jnp.maximum(jnp.sum(known), 1),
            **state["sizes"],
        }
        return value, (state, metrics)

    def project(params: Params, state: State, images: Array) -> Array:
        (_, projections), _ = network.apply(params, state["online"], images, train=False)
        return normalize(projections)

    def cluster_bank(state: State, features: Array | None, key: Key) -> State:
        bank = state["bank"]
        if features is not None:
            # Before training all images point nearly the same way, and so would all centroids.
            spread = normalize(features - jnp.mean(features, axis=0))
            bank = bank.at[:, : features.shape[0]].set(spread)
        counted = jnp.any(bank[0] != 0, axis=1)

        def cluster(each: tuple[Key, Array]) -> Clusters:
            return kmeans(
                each[0],
                bank[each[1]],
                clusters,
                iterations=iterations,
                init=init,
                spherical=True,
                empty=empty,
                counted=counted,
            )

        keys = jax.random.split(key, clusterings)
        clustered = jax.lax.map(cluster, (keys, jnp.arange(clusterings) % crops))
        return {
            **state,
            "bank": bank,
            "centroids": clustered.centroids,
            "labels": clustered.labels,
            "previous": state["labels"],
            "sizes": size_metrics(clustered.labels, clusters),
        }

    collapse = (
        CollapseValue("loss", math.log(clusters), "the clusters of images cannot be told from their crops"),
        CollapseValue("largest_cluster", 1.0, "one cluster holds every image"),
    )
    clustering = Refresh(
        project,
        cluster_bank,
        features_once=True,
        cluster_labels=lambda state: (state["labels"], state["previous"]),
    )
    variables = encoder_at("online")
    limits = Limits(least_images=clusters, follows_from=f"clusters={clusters}")
    return Method(
        views,
        init_state,
        loss,
        encoder,
        variables,
        refresh=clustering,
        collapse=collapse,
        limits=limits,
        keeps_images=True,
    )


def size_metrics(labels: Array, clusters: int) -> Metrics:
    """Measure how evenly images are spread over the clusters, of labels ``[h, m]``; -1 does not count."""
    sizes = jax.vmap(lambda each: jnp.bincount(jnp.where(each < 0, clusters, each), length=clusters))(labels)
    shares = sizes / jnp.maximum(jnp.sum(sizes, axis=1, keepdims=True), 1)
    return {
        "clusters_used": jnp.mean(jnp.sum(sizes > 0, axis=1, dtype=jnp.float32)),
        "cluster_entropy": jnp.mean(entropy(jnp.log(shares))),
        "largest_cluster": jnp.max(shares),
    }
