"""MaskFeat (Wei et al., CVPR 2022): the oriented gradients of masked patches."""

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Key, Metrics, State
from ssl_jax.losses.reconstruction import masked_mse
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.mask_token import Grid, hiding_method
from ssl_jax.models.network import Network
from ssl_jax.ops.hog import hog
from ssl_jax.ops.masking import KINDS, mask_of_kind
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
    require(0 < mask_ratio < 1, "mask_ratio", mask_ratio, "a number between 0 and 1, both excluded")
    patch = int(encoder.config.get("patch", cell))
    require(cell >= 1 and patch % cell == 0, "cell", cell, f"a divisor of the patch of {patch} pixels")
    cells = patch // cell

    def mask_of(key: Key, grid: Grid) -> Array:
        return mask_of_kind(key, grid, kind=mask, ratio=mask_ratio).masked

    def loss_of(predictions: Array, images: Array, masked: Array, fixed: State) -> tuple[Array, Metrics]:
        del fixed
        targets = patchify(hog(images, cell=cell, bins=bins, window=window), patch=cells)
        return masked_mse(predictions, targets, masked), {}

    return hiding_method(
        encoder,
        lambda channels: cells * cells * channels * bins,
        loss_of,
        mask_of=mask_of,
        views=presets.mae(area=(0.5, 1.0)) if views is None else views,
    )
