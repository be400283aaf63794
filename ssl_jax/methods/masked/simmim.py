"""SimMIM (Xie et al., CVPR 2022): the pixels of masked squares, by one linear layer."""

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Key, Metrics, State
from ssl_jax.losses.reconstruction import masked_l1, masked_mse
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.mask_token import Grid, hiding_method
from ssl_jax.models.network import Network
from ssl_jax.ops.masking import KINDS, mask_of_kind
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
    b`` of its token t. The encoder sees all places, a mask token in the masked ones.

    Args:
      encoder: a ViT with ``mask_token=True``.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.67 to 1.
      mask: ``"random"`` squares, or ``"block"``, ``"grid"``, ``"uniform"``; see :func:`ssl_jax.ops.masking.mask_of_kind`.
      mask_ratio: share of what is masked, in (0, 1).
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
    require(0 < mask_ratio < 1, "mask_ratio", mask_ratio, "a number between 0 and 1, both excluded")
    require(unit >= 1, "unit", unit, "an integer of 1 or more")
    patch = int(encoder.config.get("patch", 1))

    def mask_of(key: Key, grid: Grid) -> Array:
        return mask_of_kind(
            key, grid, kind=mask, ratio=mask_ratio, unit=unit if mask == "random" else 1
        ).masked

    def loss_of(predictions: Array, images: Array, masked: Array, fixed: State) -> tuple[Array, Metrics]:
        del fixed
        return LOSSES[loss](predictions, patchify(images, patch=patch), masked), {}

    return hiding_method(
        encoder,
        lambda channels: patch * patch * channels,
        loss_of,
        mask_of=mask_of,
        views=presets.mae(area=(0.67, 1.0)) if views is None else views,
        pixels=lambda predictions, images: predictions,
    )
