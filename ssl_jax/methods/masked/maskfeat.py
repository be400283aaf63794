"""MaskFeat (Wei et al., CVPR 2022): the oriented gradients of masked patches, or what a frozen encoder makes of them."""

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import masked_mse
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.dense_features import dense_features, resample_grid, token_width
from ssl_jax.methods.parts.frozen_teacher import (
    read_teacher,
    renormalization,
    require_size,
    show_teacher,
    start_teacher,
)
from ssl_jax.methods.parts.mask_token import (
    draw_masks,
    encode_masked,
    require_masking,
    token_metrics,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, grid_of
from ssl_jax.ops.hog import hog
from ssl_jax.ops.masking import KINDS
from ssl_jax.ops.patches import patchify, standardize


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    mask: str = "block",
    mask_ratio: float = 0.4,
    cell: int = 8,
    bins: int = 9,
    window: int | None = 16,
    teacher: str = "",
    teacher_size: int | None = None,
) -> Method:
    """MaskFeat.

    ``L = Σ_masked mean (ĥ − h)² / #masked`` over the whole batch, with h the histograms of oriented gradients of the cells of a
    patch, for each channel by itself and of unit length (:func:`ssl_jax.ops.hog.hog`), and ``ĥ = W t + b`` of its token t. They
    are the same whatever the brightness and contrast.

    With a ``teacher`` the targets h are its features of the patch, each of mean 0 and variance 1 over features, as it sees the
    whole image; where its grid of patches is another, it is resampled, bilinearly.

    Args:
      encoder: a ViT with ``mask_token=True``, whose patch is a multiple of ``cell`` where there is no ``teacher``.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.5 to 1.
      mask: ``"block"``, or ``"random"``, ``"grid"``, ``"uniform"``; see :func:`ssl_jax.ops.masking.mask_of_kind`.
      mask_ratio: share of masked patches, in (0, 1).
      cell: side of a cell in pixels.
      bins: directions.
      window: side in pixels of the squares in which votes are weighted by a Gaussian; ``None``: they are not.
      teacher: ``""``: oriented gradients; or a name that :func:`ssl_jax.interop.load_pretrained` takes, of an encoder that
        stays as it is. Images are brought to the mean and standard deviation that it expects.
      teacher_size: side in pixels to which the view is resized for the teacher; ``None``: that of the view.

    Returns:
      The method. ``encode`` gives the encoder's pooled features.

    Raises:
      ValueError: an encoder without mask token, an unknown ``mask``, a ratio outside (0, 1), a cell that does not divide the
        patch, a teacher that is not found or does not fit the images.

    Reference: Masked Feature Prediction for Self-Supervised Visual Pre-Training, section 3, its appendix for images, and its
    comparison of targets for features of a teacher. Deviations: exactly ``mask_ratio`` of the patches are masked; there blocks
    are drawn until 40 % are reached or exceeded. Features are standardised; the paper scales them to unit length.
    """
    choice("mask", mask, KINDS)
    require_masking(encoder, mask_ratio)
    patch = int(encoder.config["patch"])
    fits = bool(teacher) or (cell >= 1 and patch % cell == 0)
    require(fits, "cell", cell, f"a divisor of the patch of {patch} pixels")
    cells = patch // cell
    views = presets.mae(area=(0.5, 1.0)) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    source = read_teacher(teacher, encoder)
    require_size(source.network, views[0], teacher_size)
    scale, shift = renormalization(source.metadata, views[0])

    def for_teacher(images: Array) -> Array:
        return show_teacher(images, scale, shift, size=teacher_size)

    def head_for(images: Array) -> Network:
        hog_width = cells * cells * images.shape[-1] * bins
        width = token_width(source.network, for_teacher(images)) if teacher else hog_width
        return heads.mlp((width,), dtype=compute_dtype(encoder))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        images = batch["views"][0][:, 0]
        params, state = chain(encoder=encoder, head=head_for(images)).init(key, images)
        if teacher:
            state["teacher"] = start_teacher(teacher, source, key, for_teacher(images))
        return params, state

    def targets_of(images: Array, state: State) -> Array:
        """Compute the targets ``[b, l, d]`` of all patches."""
        if not teacher:
            return patchify(hog(images, cell=cell, bins=bins, window=window), patch=cells)
        frozen = state["teacher"]
        _, patches, _ = dense_features(source.network, frozen.params, frozen.state, for_teacher(images))
        patches = resample_grid(patches, grid_of(encoder, images))
        return jax.lax.stop_gradient(standardize(patches.reshape(len(images), -1, patches.shape[-1])))

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        mask_key, encoder_key = jax.random.split(key)
        masked = draw_masks(mask_key, encoder, images, kind=mask, ratio=mask_ratio).masked  # [b, l]
        tokens, state = encode_masked(encoder, params, state, images, masked, key=encoder_key)  # [b, l, d]
        predictions, _ = head_for(images).apply(params["head"], {}, tokens)
        value = masked_mse(predictions, targets_of(images, state), masked)
        return value, (state, token_metrics(tokens, masked))

    return Method(views, init, loss, encoder)
