"""Masks of patches, and an encoder that sees a mask token in place of the masked ones: SimMIM, MaskFeat, BEiT, data2vec."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from ssl_jax.core.check import require
from ssl_jax.core.numerics import compute_std
from ssl_jax.core.types import Array, Key, Metrics, Params, State
from ssl_jax.methods.method import Reconstruction
from ssl_jax.models.network import Network, grid_of, prefix_of
from ssl_jax.ops.block_masking import block_mask
from ssl_jax.ops.masking import Mask, mask_of_kind
from ssl_jax.ops.patches import unpatchify

MASK_KINDS = ("block", "filled", "random")
"""Kinds of :func:`draw_block_masks`."""


def require_masking(encoder: Network, ratio: float) -> None:
    """Raise a ValueError unless an encoder has a mask token, and a share of the patches is masked, and not all."""
    require_mask_token(encoder)
    require_mask_ratio(ratio)


def require_mask_token(encoder: Network) -> None:
    """Raise a ValueError unless an encoder has a mask token to put in place of patches."""
    fits = bool(encoder.config.get("mask_token"))
    require(fits, "encoder", encoder.config.get("name", ""), "a ViT with mask_token=True, to mask patches")


def require_mask_ratio(ratio: float) -> None:
    """Raise a ValueError unless a share of the patches is masked, and not all."""
    require(0 < ratio < 1, "mask_ratio", ratio, "a number between 0 and 1, both excluded")


def draw_masks(
    key: Key, encoder: Network, images: Float[Array, "b h w c"], *, kind: str, ratio: float, unit: int = 1
) -> Mask:
    """Draw the mask of each image, by :func:`ssl_jax.ops.masking.mask_of_kind`.

    Args:
      key: used once.
      encoder: a ViT, whose patches are masked.
      images: ``[b, h, w, c]``, of which only the shape is read.
      kind: one of :data:`ssl_jax.ops.masking.KINDS`.
      ratio: share of masked patches, in (0, 1).
      unit: side of a masked square in patches, for ``"random"``.

    Returns:
      The masks, each field with an axis of images in front.
    """
    grid, keys = grid_of(encoder, images), jax.random.split(key, images.shape[0])
    return jax.vmap(lambda k: mask_of_kind(k, grid, kind=kind, ratio=ratio, unit=unit))(keys)


def draw_block_masks(
    key: Key,
    encoder: Network,
    images: Float[Array, "b h w c"],
    *,
    kind: str,
    ratio: float,
    min_area: int | None = None,
) -> Bool[Array, "b l"]:
    """Draw the masked patches of each image, by the options of BEiT and data2vec.

    Args:
      key: used once.
      encoder: a ViT, whose patches are masked.
      images: ``[b, h, w, c]``, of which only the shape is read.
      kind: one of :data:`MASK_KINDS`: ``"block"``: rectangles up to the share, on which images fall short a little;
        ``"filled"``: rectangles and exactly that share; ``"random"``: scattered patches.
      ratio: share of masked patches, in (0, 1).
      min_area: least area of a rectangle in patches, for ``"block"``.

    Returns:
      ``[b, l]``, True = masked.
    """
    if kind != "block":
        masks = draw_masks(key, encoder, images, kind="block" if kind == "filled" else kind, ratio=ratio)
        return masks.masked
    grid, keys = grid_of(encoder, images), jax.random.split(key, images.shape[0])
    count = jnp.int32(int(grid[0] * grid[1] * ratio))
    return jax.vmap(lambda k: block_mask(k, grid, count, min_area=min_area))(keys)


def encode_masked(
    encoder: Network,
    params: Params,
    state: State,
    images: Float[Array, "b h w c"],
    masked: Bool[Array, "b l"],
    *,
    train: bool = True,
    key: Key | None = None,
) -> tuple[Float[Array, "b l d"], State]:
    """Compute the tokens of all patches, the masked ones embedded as the mask token.

    Args:
      encoder: a ViT with ``mask_token=True``.
      params: the method's parameters, with ``encoder``.
      state: a dict with ``encoder``.
      images: ``[b, h, w, c]``.
      masked: ``[b, l]``, True = masked.
      train: as in ``encoder.apply``.
      key: used once, for what the encoder draws in training.

    Returns:
      ``(tokens, state)``.
    """
    variables = params["encoder"], state["encoder"]
    tokens, encoder_state = encoder.apply(
        *variables, images, train=train, key=key, mask=masked, output="tokens"
    )
    return tokens[:, prefix_of(encoder) :], {**state, "encoder": encoder_state}


def token_metrics(tokens: Float[Array, "b l d"], masked: Bool[Array, "b l"]) -> Metrics:
    """Compute what masked methods log.

    Returns:
      ``token_std``: standard deviation of the tokens over images, averaged over patches and features, without gradient: 0
      when all images are encoded alike. ``masked``: share of masked patches.
    """
    std = jnp.mean(compute_std(jax.lax.stop_gradient(tokens)))
    return {"token_std": std, "masked": jnp.mean(1.0 * masked)}


def reconstruct_patches(
    images: Float[Array, "b h w c"],
    predictions: Float[Array, "b l p"],
    masked: Bool[Array, "b l"],
    *,
    patch: int,
) -> Reconstruction:
    """Join predicted patches to images, for reports.

    Args:
      images: ``[b, h, w, c]`` that were encoded.
      predictions: ``[b, l, patch² c]`` of all patches.
      masked: ``[b, l]``, True where the encoder saw nothing.
      patch: side of a patch in pixels.
    """
    height, width = images.shape[1:3]
    pixels = jnp.broadcast_to(masked[..., None], (*masked.shape, patch * patch))
    join = functools.partial(unpatchify, patch=patch, height=height, width=width)
    return Reconstruction(images, join(predictions), join(pixels))
