"""MoCo v2 (He et al., CVPR 2020; Chen et al. 2020): InfoNCE against a queue of keys from a slowly moving encoder."""

import functools
import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.contrastive import info_nce
from ssl_jax.losses.distillation import usage
from ssl_jax.losses.nce import information_bound
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at, project_at
from ssl_jax.methods.parts.ema_teacher import EmaTeacher
from ssl_jax.methods.parts.siamese import pair_metrics, require_pair
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, grouped_apply
from ssl_jax.ops.queue import queue_init, queue_push
from ssl_jax.optim.ema import ema

USAGE_QUERIES = 32


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    temperature: float = 0.2,
    queue_size: int = 65536,
    decay: float | Schedule = 0.999,
    projector_layers: int = 2,
    projector_width: int | None = None,
    projection: int = 128,
    symmetric: bool = False,
    bn_groups: int = 1,
    block_size: int | None = None,
) -> Method:
    """MoCo v2.

    ``L = −mean log( exp(q·k⁺/τ) / (exp(q·k⁺/τ) + Σ_j exp(q·queue_j/τ)) )`` with ``q = n(g(f(v₁)))``,
    ``k⁺ = sg n(g'(f'(v₂)))``, τ ``temperature`` and (f', g') the key encoder, the EMA of (f, g). The queue is read as it was
    before this batch and the keys are pushed afterwards, so no key is its own negative.

    The official code moves the key encoder before the key forward pass, with the weights from before the step; moving it
    after the previous optimizer update, as ``after_update`` does, is the same sequence (the first move is of equal weights).

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.moco_v2`.
      temperature: τ > 0; v1 0.07, v2 0.2. May be traced.
      queue_size: number of negatives K.
      decay: momentum m of the key encoder, 0 to 1 (0: the key encoder is the query encoder; 1: it stays as initialised).
      projector_layers: depth of g: 2 (v2), 1 (v1: linear).
      projector_width: width of g's hidden layers; ``None``: the encoder's features.
      projection: width of g's output.
      symmetric: average over both directions (each view queries the other; both keys enter the queue).
      bn_groups: BatchNorm statistics are taken within so many groups of the batch, the keys' groups being a fresh random
        permutation: MoCo's shuffled per-device BatchNorm for any number of devices. 1: statistics of the global batch.
      block_size: queue entries a block of the loss that never holds the N x K matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the query encoder's features.

    Raises:
      ValueError: ``queue_size``, ``projector_layers`` or ``bn_groups`` below 1.

    Reference: Improved Baselines with Momentum Contrastive Learning; Momentum Contrast, algorithm 1 and section 3.3;
    facebookresearch/moco.
    """
    check.require(queue_size >= 1, "queue_size", queue_size, "an integer of 1 or more")
    check.require(bn_groups >= 1, "bn_groups", bn_groups, "an integer of 1 or more")
    check.require(projector_layers >= 1, "projector_layers", projector_layers, "an integer of 1 or more")
    width = encoder.features if projector_width is None else projector_width
    widths = (width,) * (projector_layers - 1) + (projection,)
    projector = heads.mlp(widths, hidden_norm="none", dtype=compute_dtype(encoder))
    network = chain(encoder=encoder, projector=projector)
    if bn_groups > 1:
        network = network._replace(apply=functools.partial(grouped_apply, network, groups=bn_groups))
    key_ema = ema(decay)

    def embed_keys(key_encoder: EmaTeacher, images: Array, key: Key) -> tuple[Array, EmaTeacher]:
        if bn_groups == 1:
            (_, k), key_encoder = key_encoder.apply(network, images, key=key)
            return k, key_encoder
        shuffle_key, key = jax.random.split(key)
        order = jax.random.permutation(shuffle_key, images.shape[0])
        (_, k), key_encoder = key_encoder.apply(network, images[order], key=key)
        return k[order.argsort()], key_encoder

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, queue_key = jax.random.split(key)
        params, online = network.init(network_key, batch["views"][0][:, 0])
        queue = queue_init(queue_key, queue_size, projection)
        key_encoder = EmaTeacher.init(key_ema, params, online)
        return params, {"online": online, "key_encoder": key_encoder, "queue": queue}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        views, online, key_encoder = batch["views"][0], state["online"], state["key_encoder"]
        negatives, queue = jax.lax.stop_gradient(state["queue"].items), state["queue"]  # [K, d]
        losses = []
        for q_view, k_view in ((0, 1), (1, 0)) if symmetric else ((0, 1),):
            key, q_key, k_key = jax.random.split(key, 3)
            (_, q), online = network.apply(params, online, views[:, q_view], train=True, key=q_key)  # [n, d]
            k, key_encoder = embed_keys(key_encoder, views[:, k_view], k_key)
            k = normalize(k)
            losses.append(info_nce(q, k, negatives, temperature=temperature, block_size=block_size))
            queue = queue_push(queue, k)
        value = sum(losses, jnp.float32(0)) / len(losses)
        # A few queries tell how much of the queue repels.
        some = normalize(jax.lax.stop_gradient(q[:USAGE_QUERIES]))
        attention = jax.nn.log_softmax(some @ negatives.T / temperature, axis=-1)
        metrics = {
            **pair_metrics(q, k),
            "queue_usage": usage(attention),
            "information_bound": information_bound(value, queue_size + 1),
        }
        return value, ({"online": online, "key_encoder": key_encoder, "queue": queue}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "key_encoder": state["key_encoder"].update(key_ema, params)}

    views = presets.moco_v2() if views is None else views
    require_pair(views)
    collapse = (CollapseValue("loss", math.log(queue_size + 1), "queries and keys are all alike"),)
    limits = Limits(most_batch=queue_size)
    return Method(
        views,
        init,
        loss,
        encoder,
        encoder_at("online"),
        after_update,
        project=project_at(encoder, projector, "online"),
        collapse=collapse,
        limits=limits,
    )
