"""SimMIM (Xie et al., CVPR 2022): the pixels of masked squares, by one linear layer."""

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import masked_l1, masked_mse
from ssl_jax.methods.method import Method, Reconstruction
from ssl_jax.methods.parts.mask_token import (
    draw_masks,
    encode_masked,
    reconstruct_patches,
    require_masking,
    token_metrics,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.ops.masking import KINDS
from ssl_jax.ops.patches import patchify

LOSSES = {"l1": masked_l1, "l2": masked_mse}


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    mask: str = "random",
    mask_ratio: float = 0.6,
    unit: int = 2,
    loss: str = "l1",
) -> Method:
    """SimMIM.

    ``L = Σ_masked mean_pixels |x̂ − x| / #masked`` over the whole batch, with x the normalised pixels of a patch and ``x̂ = W t +
    b`` of its token t. The encoder sees all patches, the masked ones as the mask token.

    Args:
      encoder: a ViT with ``mask_token=True``.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.67 to 1.
      mask: ``"random"`` squares, or ``"block"``, ``"grid"``, ``"uniform"``; see :func:`ssl_jax.ops.masking.mask_of_kind`.
      mask_ratio: share of masked patches, in (0, 1).
      unit: side of a random square in patches; 32 pixels in the paper, 2 patches of 16.
      loss: ``"l1"``, or ``"l2"``, an ablation of the paper.

    Returns:
      The method. ``encode`` gives the encoder's pooled features.

    Raises:
      ValueError: an encoder without mask token, an unknown ``mask`` or ``loss``, or a ratio outside (0, 1).

    Reference: SimMIM: a Simple Framework for Masked Image Modeling, section 3; microsoft/SimMIM. Deviations: the outputs of the
    linear layer lie in the order (row, column, channel); the code's channel comes first. Its ViT has relative positions in
    every block, ours (``position="relative"``) one table for all.
    """
    choice("mask", mask, KINDS)
    choice("loss", loss, LOSSES)
    require_masking(encoder, mask_ratio)
    require(unit >= 1, "unit", unit, "an integer of 1 or more")
    patch, side = int(encoder.config["patch"]), unit if mask == "random" else 1

    def head_for(images: Array) -> Network:
        return heads.mlp((patch * patch * images.shape[-1],), dtype=compute_dtype(encoder))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        images = batch["views"][0][:, 0]
        return chain(encoder=encoder, head=head_for(images)).init(key, images)

    def compute_loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        mask_key, encoder_key = jax.random.split(key)
        masked = draw_masks(
            mask_key, encoder, images, kind=mask, ratio=mask_ratio, unit=side
        ).masked  # [b, l]
        tokens, state = encode_masked(encoder, params, state, images, masked, key=encoder_key)  # [b, l, d]
        predictions, _ = head_for(images).apply(params["head"], {}, tokens)  # [b, l, p² c]
        value = LOSSES[loss](predictions, patchify(images, patch=patch), masked)
        return value, (state, token_metrics(tokens, masked))

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        mask_key, _ = jax.random.split(key)
        masked = draw_masks(mask_key, encoder, images, kind=mask, ratio=mask_ratio, unit=side).masked
        tokens, _ = encode_masked(encoder, params, state, images, masked, train=False)
        predictions, _ = head_for(images).apply(params["head"], {}, tokens)
        return reconstruct_patches(images, predictions, masked, patch=patch)

    views = presets.mae(area=(0.67, 1.0)) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    return Method(views, init, compute_loss, encoder, reconstruct=reconstruct)
