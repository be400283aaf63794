"""DirectCLR (Jing et al., ICLR 2022): InfoNCE on a part of the encoder's own features, without a projector."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.contrastive import info_nce
from ssl_jax.losses.nce import information_bound
from ssl_jax.methods.method import CollapseValue, Limits, Method
from ssl_jax.methods.parts.siamese import embed_views, pair_metrics, project_views, require_pair
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, identity

MODES = ("subvector", "none", "linear", "mlp", "group")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    temperature: float = 0.1,
    mode: str = "subvector",
    subvector: int = 360,
    groups: int = 8,
    projector_width: int = 2048,
    projection: int = 128,
    block_size: int | None = None,
) -> Method:
    """DirectCLR.

    ``L = ½ [ InfoNCE(z₁, z₂; τ) + InfoNCE(z₂, z₁; τ) ]`` with ``z = f(v)[:d₀]``, the first d₀ features of the encoder f, cut
    out before they are normalised, τ ``temperature`` and the N views of the other side as candidates. The other features
    get their gradient through the residual connections only; evaluation takes all of them.

    Args:
      encoder: the network to train, one with residual connections.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.byol`.
      temperature: τ > 0. May be traced.
      mode: what enters the loss: ``"subvector"`` d₀ features (DirectCLR); the paper's comparisons ``"none"`` all features,
        ``"linear"`` or ``"mlp"`` a projector, ``"group"`` all features in random groups, drawn anew in each step, whose
        losses are added.
      subvector: d₀, in the mode ``"subvector"``.
      groups: number of equal groups in the mode ``"group"``.
      projector_width: width of the hidden layers of the mode ``"mlp"``: three dense layers without bias, each with BatchNorm.
      projection: width of the output of the modes ``"linear"`` and ``"mlp"``.
      block_size: candidates a block of the loss that never holds the N x N matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives all features of the encoder.

    Raises:
      ValueError: unknown ``mode``, more features in the sub-vector than the encoder has, or groups that do not divide them.

    Reference: Understanding Dimensional Collapse in Contrastive Self-supervised Learning, section 6;
    facebookresearch/directclr. Deviations: both views pass through the network as one batch (there: one by one);
    the online linear classifier is not part of the method (see ``ssl_jax.evaluate.online``).
    """
    check.choice("mode", mode, MODES)
    features = encoder.features
    fits = mode != "subvector" or 1 <= subvector <= features
    check.require(fits, "subvector", subvector, f"an integer from 1 to the encoder's {features} features")
    fits = mode != "group" or (groups >= 1 and features % groups == 0)
    check.require(fits, "groups", groups, f"a divisor of the encoder's {features} features")
    widths = {"linear": (projection,), "mlp": (projector_width, projector_width, projection)}.get(mode)
    norm = "batch" if mode == "mlp" else "none"
    options: dict[str, Any] = {"hidden_bias": False, "last_bias": False, "dtype": compute_dtype(encoder)}
    projector = identity(features) if widths is None else heads.mlp(widths, last_norm=norm, **options)
    terms = groups if mode == "group" else 1
    network = chain(encoder=encoder, projector=projector)

    def select_features(z: Array, key: Key) -> Array:
        """Select what enters each term of the loss: ``[terms, n, d₀]``."""
        if mode == "group":
            order = jax.random.permutation(key, features)
            return z[:, order].reshape(z.shape[0], groups, -1).swapaxes(0, 1)
        return (z[:, :subvector] if mode == "subvector" else z)[None]

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        embed_key, group_key = jax.random.split(key)
        h, state = embed_views(encoder, params, state, batch, embed_key)  # [n, 2, f]
        z, state = project_views(projector, params, state, h)  # [n, 2, d]
        z1, z2 = (select_features(z[:, view], group_key) for view in (0, 1))  # [terms, n, d₀]
        info = functools.partial(info_nce, temperature=temperature, block_size=block_size)
        losses = jax.vmap(lambda x, y: (info(x, y) + info(y, x)) / 2)(z1, z2)
        bound = information_bound(jnp.mean(losses), len(z))
        return jnp.sum(losses), (state, {**pair_metrics(z[:, 0], z[:, 1]), "information_bound": bound})

    views = presets.byol() if views is None else views
    require_pair(views)
    meaning = "what enters the loss is alike for all images"
    collapse = (CollapseValue("loss", lambda n: terms * math.log(n), meaning),)
    return Method(views, init, loss, encoder, collapse=collapse, limits=Limits(least_batch=2))
