"""DirectCLR (Jing et al., ICLR 2022): InfoNCE on a part of the encoder's own features, without a projector."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.types import Array, Batch, Key, Metrics
from ssl_jax.losses.contrastive import info_nce
from ssl_jax.losses.nce import information_bound
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.siamese import pair_method
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype, identity

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

    def parts(z: Array, key: Key) -> Array:
        """``[terms, n, d]``: what enters each term of the loss."""
        if mode == "group":
            order = jax.random.permutation(key, features)
            return z[:, order].reshape(z.shape[0], groups, -1).swapaxes(0, 1)
        return (z[:, :subvector] if mode == "subvector" else z)[None]

    def both_ways(x: Array, y: Array) -> Array:
        one_way = functools.partial(info_nce, temperature=temperature, block_size=block_size)
        return (one_way(x, y) + one_way(y, x)) / 2

    def loss_of(z1: Array, z2: Array, batch: Batch, key: Key, step: Array) -> tuple[Array, Metrics]:
        del batch, step
        losses = jax.vmap(both_ways)(parts(z1, key), parts(z2, key))
        return jnp.sum(losses), {"information_bound": information_bound(jnp.mean(losses), z1.shape[0])}

    meaning = "what enters the loss is alike for all images"
    collapse = (CollapseValue("loss", lambda n: terms * math.log(n), meaning),)

    views = presets.byol() if views is None else views
    return pair_method(encoder, projector, loss_of, views=views, collapse=collapse)
