"""Exemplar-CNN (Dosovitskiy et al., NeurIPS 2014): every seed image is a class, whose members are its random transforms."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import top_k
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.consistency import labeled_cross_entropy
from ssl_jax.methods.method import CollapseValue, Limits, Method, Refresh, encoder_at
from ssl_jax.methods.parts.siamese import direction_std, merge_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype

FOLLOWS = {"num_examples": "data.num_examples"}
"""Options whose values follow others of the config."""


SEEDS = ("gradient", "uniform")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    num_examples: int = 1_281_167,
    exemplars: int = 8000,
    seeds: str = "gradient",
) -> Method:
    """Exemplar-CNN.

    ``L = mean −log softmax(W f(v) + b)_k`` over views v of the seed images, k the number of the seed, 0 to N − 1. Before the
    first step N seeds are drawn without replacement from the training images, with probabilities that grow with the mean square
    of their gradient, so that they show something; training goes through the seeds only. W and b grow with N: NPID is the form
    that takes all images.

    Args:
      encoder: the network to train.
      views: one view or more of one size, each an example of its own; ``None``: :func:`ssl_jax.augment.presets.npid`.
      num_examples: number of training images.
      exemplars: N, 2 to ``num_examples``. With fewer images than N all are seeds, and the other classes stay empty.
      seeds: ``"gradient"``, or ``"uniform"``: every image is as likely.

    Returns:
      The method. ``encode`` gives the encoder's features. Metrics: ``accuracy``; ``embedding_std`` as in
      :func:`ssl_jax.methods.parts.siamese.direction_std`. State: ``online`` (batch statistics), ``seeds`` ``[N]`` and
      ``classes`` ``[num_examples]``, -1 where an image is no seed.

    Raises:
      ValueError: an option out of its range, no view or several sizes.

    Reference: "Discriminative Unsupervised Feature Learning with Convolutional Neural Networks", section 2. Deviations: K, the
    number of transforms of a seed, is not fixed (about 100 in the paper): every view is drawn anew; the views have no
    rotations, and their colours change by a jitter instead of powers in HSV and PCA; seeds are whole images, drawn by their
    gradients, where the paper samples patches from regions with considerable gradients.
    """
    choice("seeds", seeds, SEEDS)
    require(
        2 <= exemplars <= num_examples,
        "exemplars",
        exemplars,
        f"an integer from 2 to the {num_examples} images",
    )
    views = presets.npid() if views is None else views
    sizes = {view.size for view in views}
    require(len(sizes) == 1, "views", sorted(sizes), "one view or more of one size")
    top = heads.mlp((exemplars,), kernel_init=0.01, dtype=compute_dtype(encoder))
    network = chain(encoder=encoder, top=top)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, online = network.init(key, batch["views"][0][:, 0])
        none = jnp.full(num_examples, -1, jnp.int32)
        return params, {"online": online, "seeds": jnp.zeros(exemplars, jnp.int32), "classes": none}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        views = batch["views"][0]
        (features, logits), online = network.apply(
            params, state["online"], merge_views(views), train=True, key=key
        )
        classes = jnp.repeat(state["classes"][batch["index"]], views.shape[1])
        known = (classes >= 0) / jnp.maximum(jnp.sum(classes >= 0), 1)
        metrics = {
            "accuracy": jnp.sum(known * (jnp.argmax(logits, axis=1) == classes)),
            "embedding_std": direction_std(features),
        }
        value = labeled_cross_entropy(logits, classes, normalize_by="labeled")
        return value, ({**state, "online": online}, metrics)

    def gradient_energies(params: Params, state: State, images: Array) -> Array:
        """Measure the mean square ``[b, 1]`` of the gradient of each image."""
        del params, state
        down, across = jnp.diff(images, axis=1), jnp.diff(images, axis=2)
        return (jnp.mean(down**2, axis=(1, 2, 3)) + jnp.mean(across**2, axis=(1, 2, 3)))[:, None]

    def draw_seeds(state: State, energies: Any, key: Key) -> State:
        if energies is None:
            return state
        count = min(exemplars, len(energies))
        noise = jax.random.gumbel(key, (len(energies),))
        weights = jnp.log(jnp.maximum(energies[:, 0], 1e-12)) if seeds == "gradient" else 0.0
        # The greatest of noisy logarithms are a draw without replacement.
        _, chosen = top_k(weights + noise, count)
        classes = jnp.full(num_examples, -1, jnp.int32).at[chosen].set(jnp.arange(count, dtype=jnp.int32))
        return {**state, "seeds": jnp.resize(chosen.astype(jnp.int32), (exemplars,)), "classes": classes}

    choose_seeds = Refresh(
        gradient_energies, draw_seeds, features_once=True, order=lambda state, key: state["seeds"]
    )
    collapse = (CollapseValue("loss", math.log(exemplars), "the seeds cannot be told from what is seen"),)
    limits = Limits(least_images=exemplars, follows_from=f"exemplars={exemplars}")
    return Method(
        views,
        init,
        loss,
        encoder,
        encoder_at("online"),
        refresh=choose_seeds,
        collapse=collapse,
        limits=limits,
        keeps_images=True,
    )
