"""BEiT (Bao et al., ICLR 2022): the visual tokens of a tokenizer at masked patches."""

import jax
import jax.numpy as jnp
import optax

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import masked_mean
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.frozen_teacher import read_teacher, renormalization, start_teacher
from ssl_jax.methods.parts.mask_token import (
    MASK_KINDS,
    draw_block_masks,
    encode_masked,
    require_masking,
    token_metrics,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype, grid_of


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    tokenizer: str = "",
    vocabulary_size: int = 8192,
    mask: str = "block",
    mask_ratio: float = 0.4,
    min_area: int | None = None,
) -> Method:
    """BEiT.

    ``L = −Σ_masked log softmax(W t + b)_y / #masked`` over the whole batch: the token t of a masked patch says which visual
    token y the tokenizer gives the patch, ``y = argmax`` of its scores for the whole image. It sees the same crop, scaled so
    that its map has one position a patch.

    Args:
      encoder: a ViT with ``mask_token=True``; the paper's has ``position="relative"``, ``layer_scale`` and ``init="beit"``.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.08 to 1.
      tokenizer: an ``encoder.safetensors`` that ``experiments.export`` has written of a :mod:`ssl_jax.methods.masked.dvae`
        run; ``""``: one with random weights, of a width of 32, which is for tests.
      vocabulary_size: K of the random one.
      mask: ``"block"``: rectangles up to ``mask_ratio``, on which images fall short a little, as in the paper; ``"filled"``:
        exactly that share; ``"random"``: scattered patches, an ablation of the paper.
      mask_ratio: share of masked patches, in (0, 1).
      min_area: least area of a rectangle in patches; ``None``: ⌊side/3⌋² of the grid: 16 of 14 x 14.

    Returns:
      The method. ``encode`` gives the encoder's pooled features.

    Raises:
      ValueError: an encoder without mask token, a file that is no tokenizer, an unknown ``mask``, a ratio outside (0, 1).

    Reference: BEiT: BERT Pre-Training of Image Transformers, section 2; microsoft/unilm ``beit``. Deviations: the tokenizer's
    image is the view scaled down by ``jax.image.resize`` (Lanczos), where the code cuts the same box out of the picture a
    second time; it sees the view's colours; a fixed number of rectangles is drawn, see
    :func:`ssl_jax.ops.block_masking.block_mask`.
    """
    choice("mask", mask, MASK_KINDS)
    require_masking(encoder, mask_ratio)
    views = presets.mae(area=(0.08, 1.0)) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    fallback = models.build("dvae", vocabulary_size=vocabulary_size, width=32, stride=2, blocks=0)
    teacher = read_teacher(tokenizer, fallback, option="tokenizer")
    name = teacher.network.config.get("name")
    require(name == "dvae", "tokenizer", tokenizer, f"the encoder of a dvae run, not of {name!r}")
    count, stride = int(teacher.network.config["vocabulary_size"]), int(teacher.network.config["stride"])
    scale, shift = renormalization(teacher.metadata, views[0])
    head = heads.mlp((count,), dtype=compute_dtype(encoder))

    def scale_down(images: Array) -> Array:
        """Resize images so that the tokenizer's map has one position a patch, and normalise them as it is used to."""
        rows, columns = grid_of(encoder, images)
        shape = (images.shape[0], rows * stride, columns * stride, images.shape[-1])
        return jax.image.resize(images, shape, "lanczos3") * scale + shift

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, head_key, tokenizer_key = jax.random.split(key, 3)
        images = batch["views"][0][:, 0]
        params: Params = {}
        state: State = {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        params["head"], _ = head.init(head_key, jnp.zeros((1, 1, encoder.features)))
        state["tokenizer"] = start_teacher(
            tokenizer, teacher, tokenizer_key, scale_down(images), option="tokenizer"
        )
        return params, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        mask_key, encoder_key = jax.random.split(key)
        masked = draw_block_masks(
            mask_key, encoder, images, kind=mask, ratio=mask_ratio, min_area=min_area
        )  # [b, l]
        tokens, state = encode_masked(encoder, params, state, images, masked, key=encoder_key)  # [b, l, d]
        logits, _ = head.apply(params["head"], {}, tokens)  # [b, l, k]
        scores = state["tokenizer"].apply(teacher.network, scale_down(images), output="logits")
        y = jnp.argmax(scores, axis=-1).reshape(masked.shape)  # [b, l]
        value = masked_mean(optax.softmax_cross_entropy_with_integer_labels(logits, y), masked)
        accuracy = masked_mean(1.0 * (jnp.argmax(logits, axis=-1) == y), masked)
        return value, (state, {**token_metrics(tokens, masked), "accuracy": accuracy})

    collapse = (
        CollapseValue("accuracy", 1.0, "every patch has the same visual token, or the masked ones are seen"),
    )
    return Method(views, init, loss, encoder, collapse=collapse)
