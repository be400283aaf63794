"""MaskFeat (Wei et al., CVPR 2022): the oriented gradients of masked patches."""

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import masked_mse
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.mask_token import (
    draw_masks,
    encode_masked,
    require_masking,
    token_metrics,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.ops.hog import hog
from ssl_jax.ops.masking import KINDS
from ssl_jax.ops.patches import patchify


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    mask: str = "block",
    mask_ratio: float = 0.4,
    cell: int = 8,
    bins: int = 9,
    window: int | None = 16,
) -> Method:
    """MaskFeat.

    ``L = Σ_masked mean (ĥ − h)² / #masked`` over the whole batch, with h the histograms of oriented gradients of the cells of a
    patch, for each channel by itself and of unit length (:func:`ssl_jax.ops.hog.hog`), and ``ĥ = W t + b`` of its token t. They
    are the same whatever the brightness and contrast.

    Args:
      encoder: a ViT with ``mask_token=True``, whose patch is a multiple of ``cell``.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.5 to 1.
      mask: ``"block"``, or ``"random"``, ``"grid"``, ``"uniform"``; see :func:`ssl_jax.ops.masking.mask_of_kind`.
      mask_ratio: share of masked patches, in (0, 1).
      cell: side of a cell in pixels.
      bins: directions.
      window: side in pixels of the squares in which votes are weighted by a Gaussian; ``None``: they are not.

    Returns:
      The method. ``encode`` gives the encoder's pooled features.

    Raises:
      ValueError: an encoder without mask token, an unknown ``mask``, a ratio outside (0, 1), a cell that does not divide the
        patch.

    Reference: Masked Feature Prediction for Self-Supervised Visual Pre-Training, section 3 and its appendix for images.
    Deviation: exactly ``mask_ratio`` of the patches are masked; there blocks are drawn until 40 % are reached or exceeded.
    """
    choice("mask", mask, KINDS)
    require_masking(encoder, mask_ratio)
    patch = int(encoder.config["patch"])
    require(cell >= 1 and patch % cell == 0, "cell", cell, f"a divisor of the patch of {patch} pixels")
    cells = patch // cell

    def head_for(images: Array) -> Network:
        return heads.mlp((cells * cells * images.shape[-1] * bins,), dtype=compute_dtype(encoder))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        images = batch["views"][0][:, 0]
        return chain(encoder=encoder, head=head_for(images)).init(key, images)

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        mask_key, encoder_key = jax.random.split(key)
        masked = draw_masks(mask_key, encoder, images, kind=mask, ratio=mask_ratio).masked  # [b, l]
        tokens, state = encode_masked(encoder, params, state, images, masked, key=encoder_key)  # [b, l, d]
        predictions, _ = head_for(images).apply(params["head"], {}, tokens)
        targets = patchify(hog(images, cell=cell, bins=bins, window=window), patch=cells)
        return masked_mse(predictions, targets, masked), (state, token_metrics(tokens, masked))

    views = presets.mae(area=(0.5, 1.0)) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    return Method(views, init, loss, encoder)
