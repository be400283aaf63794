"""DeepCluster: classify images by the clusters of their features, cluster again, and so on."""

import math

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Limits, Method, Refresh, encoder_at
from ssl_jax.methods.parts.siamese import direction_std
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, identity
from ssl_jax.ops.kmeans import kmeans, pca_whiten, sample_clusters_evenly

FOLLOWS = {"num_examples": "data.num_examples"}
"""Options whose values follow others of the config."""


SAMPLING = ("clusters", "images")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    num_examples: int = 1_281_167,
    clusters: int = 10_000,
    hidden_dim: int = 4096,
    hidden_layers: int = 2,
    pca: int = 256,
    iterations: int = 20,
    sampling: str = "clusters",
) -> Method:
    """DeepCluster.

    ``L = mean −log softmax(W relu(f(x)) + b)_y``, with ``f`` the encoder and a perceptron on it, and ``y`` the cluster of the
    image. Every refresh gathers ``f`` of all images without augmentation, projects it on ``pca`` principal directions of
    variance 1, scales the rows to length 1, clusters them by k-means, and draws W and b anew, because clusters come in
    another order each time. Training then goes through the clusters evenly.

    Args:
      encoder: the network to train.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of the whole range, a crop and a flip.
      num_examples: number of training images.
      clusters: k, 2 to ``num_examples``; ten times the number of classes is customary.
      hidden_dim: width of the perceptron.
      hidden_layers: its depth; 0: the encoder's features are clustered and classified.
      pca: directions kept, at most the width of what is clustered; 0: neither projected nor whitened.
      iterations: of k-means, 1 or more.
      sampling: ``"clusters"``: evenly over clusters, see :func:`ssl_jax.ops.kmeans.sample_clusters_evenly`; ``"images"``: every
        image once an epoch, with which large clusters can swallow the rest.

    Returns:
      The method. Params: ``encoder``, ``perceptron`` and ``top``; state: their batch statistics (``online``), ``labels`` and
      ``previous`` ``[1, num_examples]``, ``sizes`` of the clusters. ``encode`` gives the encoder's features.

    Raises:
      ValueError: an option out of its range.

    Reference: Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018;
    facebookresearch/deepcluster. Deviations: images are Sobel-filtered only if the encoder is built with ``sobel=True``; the
    perceptron has BatchNorm and no dropout; k-means starts by k-means++; W and b move with the optimizer of the rest, whose
    moments for them are set to 0 at each refresh, where the code gives them a plain SGD of their own.
    """
    choice("sampling", sampling, SAMPLING)
    require(num_examples >= 2, "num_examples", num_examples, "an integer of 2 or more")
    require(
        2 <= clusters <= num_examples, "clusters", clusters, f"an integer from 2 to the {num_examples} images"
    )
    require(hidden_layers >= 0, "hidden_layers", hidden_layers, "an integer of 0 or more")
    width = hidden_dim if hidden_layers else encoder.features
    require(0 <= pca <= width, "pca", pca, f"an integer from 0 to the {width} features that are clustered")
    views = presets.mae(area=(0.08, 1.0)) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    dtype = compute_dtype(encoder)
    perceptron = heads.mlp((hidden_dim,) * hidden_layers, dtype=dtype) if hidden_layers else identity(width)
    network = chain(encoder=encoder, perceptron=perceptron)
    top = heads.mlp((clusters,), kernel_init=0.01, dtype=dtype)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, top_key = jax.random.split(key)
        params, online = network.init(network_key, batch["views"][0][:, 0])
        params["top"], _ = top.init(top_key, jnp.zeros((1, width)))
        none = jnp.full((1, num_examples), -1, jnp.int32)
        sizes = jnp.zeros(clusters, jnp.int32)
        return params, {"online": online, "labels": none, "previous": none, "sizes": sizes}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        (features, hidden_units), online = network.apply(params, state["online"], images, train=True, key=key)
        logits, _ = top.apply(params["top"], {}, jax.nn.relu(hidden_units))
        labels = state["labels"][0, batch["index"]]
        known = (labels >= 0) / jnp.maximum(jnp.sum(labels >= 0), 1)
        value = jnp.sum(
            known * optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        )
        metrics = {
            "accuracy": jnp.sum(known * (jnp.argmax(logits, axis=1) == labels)),
            "clusters_used": jnp.sum(state["sizes"] > 0),
            "largest_cluster": jnp.max(state["sizes"]) / jnp.maximum(jnp.sum(state["sizes"]), 1),
            "embedding_std": direction_std(features),
        }
        return value, ({**state, "online": online}, metrics)

    def perceptron_features(params: Params, state: State, images: Array) -> Array:
        (_, hidden_units), _ = network.apply(params, state["online"], images, train=False)
        return hidden_units

    def cluster_features(state: State, features: Array, key: Key) -> State:
        points = pca_whiten(features, pca) if pca else features
        clustered = kmeans(key, normalize(points), clusters, iterations=iterations)
        labels = state["labels"].at[0, : features.shape[0]].set(clustered.labels)
        sizes = jnp.bincount(clustered.labels, length=clusters).astype(jnp.int32)
        return {**state, "labels": labels, "previous": state["labels"], "sizes": sizes}

    def order(state: State, key: Key) -> Array:
        return sample_clusters_evenly(key, state["labels"][0], clusters)

    clustering = Refresh(
        perceptron_features,
        cluster_features,
        reinit=("top",),
        order=order if sampling == "clusters" else None,
        cluster_labels=lambda state: (state["labels"], state["previous"]),
    )

    collapse = (
        CollapseValue("loss", math.log(clusters), "the clusters of images cannot be told from what is seen"),
        CollapseValue("largest_cluster", 1.0, "one cluster holds every image"),
    )
    return Method(
        views,
        init,
        loss,
        encoder,
        encoder_at("online"),
        refresh=clustering,
        collapse=collapse,
        limits=Limits(
            least_images=max(clusters, pca + 1),
            follows_from=f"pca={pca}" if pca >= clusters else f"clusters={clusters}",
        ),
        keeps_images=True,
    )
