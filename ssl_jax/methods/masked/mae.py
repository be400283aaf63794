"""MAE (He et al., CVPR 2022): encode the visible quarter of the patches, decode the pixels of the masked ones."""

from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import compute_std
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import masked_mse
from ssl_jax.methods.method import Method, Reconstruction
from ssl_jax.methods.parts.mask_token import (
    draw_masks,
    reconstruct_patches,
    require_mask_ratio,
    require_mask_token,
)
from ssl_jax.models.decoders import mae_decoder
from ssl_jax.models.network import Network, grid_of, prefix_of
from ssl_jax.ops.block_masking import scattered_mask
from ssl_jax.ops.masking import KINDS
from ssl_jax.ops.patches import normalize_patches, patchify, unnormalize_patches


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    mask_ratio: float = 0.75,
    mask: str = "random",
    unit: int = 1,
    secondary: float = 0.0,
    norm_pix: bool = True,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
) -> Method:
    """MAE.

    ``L = Σ_masked mean_pixels (x̂ − x)² / #masked`` over the whole batch, x̂ the decoder's output, x the patches of the view,
    each by itself standardised where ``norm_pix`` (unbiased variance, ε = 1e-6). The encoder runs on the class token and
    the ``int(L (1 − mask_ratio))`` visible patches only; the decoder on all of them, with a shared token for the masked ones.

    Args:
      encoder: a ViT of :mod:`ssl_jax.models.vit`.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      mask_ratio: share of masked patches, in (0, 1).
      mask: ``"random"``; ``"block"`` or ``"grid"``, ablations of the paper; ``"uniform"``: one visible patch in every window of
        2 x 2, so that the visible ones make a grid (UM-MAE). See :func:`ssl_jax.ops.masking.mask_of_kind`.
      unit: side in patches of the squares that are masked at random.
      secondary: share of the visible patches that the encoder sees as its mask token, UM-MAE's 0.25; they are not in the loss.
      norm_pix: standardise each target patch.
      decoder_width: width of the decoder.
      decoder_depth: blocks of the decoder.
      decoder_heads: attention heads of the decoder.

    Returns:
      The method. ``encode`` gives the encoder's pooled features of all patches; where ``norm_pix``, ``reconstruct`` gives
      predictions the mean and variance of the true patches, which the decoder does not know.

    Raises:
      ValueError: an encoder that is no ViT, a share outside its range, an unknown ``mask``, a ``secondary`` without mask token.

    References: Masked Autoencoders Are Scalable Vision Learners, section 3 and figure 6; facebookresearch/mae; Li et al.,
    Uniform Masking, 2022 (``uniform``, ``secondary``), in which masked tokens stay masked and all visible ones are compacted.
    """
    choice("mask", mask, KINDS)
    name = encoder.config.get("name", "")
    require(str(name).startswith("vit"), "encoder", name, "a ViT: MAE drops patches before the encoder")
    require_mask_ratio(mask_ratio)
    require(0 <= secondary < 1, "secondary", secondary, "a number in [0, 1)")
    if secondary:
        require_mask_token(encoder)
    patch = int(encoder.config["patch"])

    def decoder_for(images: Array) -> Network:
        options: dict[str, Any] = {
            "width": decoder_width,
            "depth": decoder_depth,
            "heads": decoder_heads,
            "prefix": prefix_of(encoder),
        }
        options |= {name: encoder.config[name] for name in ("dtype", "remat", "remat_keeps")}
        return mae_decoder(patch=patch, channels=images.shape[-1], grid=grid_of(encoder, images), **options)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, decoder_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        tokens = jax.eval_shape(
            lambda p, s, x: encoder.apply(p, s, x, output="tokens")[0],
            params["encoder"],
            state["encoder"],
            images,
        )
        params["decoder"], state["decoder"] = decoder_for(images).init(decoder_key, jnp.zeros(tokens.shape))
        return params, state

    def predict(
        params: Params, state: State, images: Array, key: Key, *, train: bool
    ) -> tuple[Array, Array, Array, State]:
        """Predict all patches ``[b, l, p² c]`` from the tokens ``[b, v, d]`` of the visible ones; ``[b, l]`` are masked."""
        mask_key, encoder_key, decoder_key = jax.random.split(key, 3)
        masks = draw_masks(mask_key, encoder, images, kind=mask, ratio=mask_ratio, unit=unit)
        replaced = draw_secondary_masks(mask_key, masks.keep, secondary) if secondary else None  # [b, v]

        variables = params["encoder"], state["encoder"]
        options: dict[str, Any] = {"keep": masks.keep, "mask": replaced, "output": "tokens"}
        tokens, encoder_state = encoder.apply(*variables, images, train=train, key=encoder_key, **options)

        variables = params["decoder"], state["decoder"]
        options = {"restore": masks.restore, "train": train, "key": decoder_key}
        predictions, decoder_state = decoder_for(images).apply(*variables, tokens, **options)
        return predictions, tokens, masks.masked, {"encoder": encoder_state, "decoder": decoder_state}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        x = patchify(images, patch=patch)  # [b, l, p² c]
        x = normalize_patches(x) if norm_pix else x
        predictions, tokens, masked, state = predict(params, state, images, key, train=True)
        metrics = {"token_std": jnp.mean(compute_std(jax.lax.stop_gradient(tokens)))}
        return masked_mse(predictions, x, masked), (state, metrics)

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        predictions, _, masked, _ = predict(params, state, images, key, train=False)
        if norm_pix:
            predictions = unnormalize_patches(predictions, patchify(images, patch=patch))
        return reconstruct_patches(images, predictions, masked, patch=patch)

    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    return Method(views, init, loss, encoder, reconstruct=reconstruct)


def draw_secondary_masks(key: Key, keep: Array, share: float) -> Array:
    """Draw which of the visible patches ``[b, v]`` the encoder sees as its mask token: a share of them, True = replaced."""
    visible, keys = keep.shape[1], jax.random.split(key, len(keep))
    count = jnp.int32(int(visible * share))
    return jax.vmap(lambda k: scattered_mask(jax.random.fold_in(k, 1), visible, count))(keys)
