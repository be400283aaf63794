"""BEiT (Bao et al., ICLR 2022): the words of a tokenizer at masked patches."""

import jax
import jax.numpy as jnp
import optax

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Key, Metrics
from ssl_jax.losses.reconstruction import masked_mean
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.frozen_teacher import FrozenTeacher, read_teacher, renormalization, start_teacher
from ssl_jax.methods.parts.mask_token import MASK_KINDS, Grid, draw_mask, hiding_method
from ssl_jax.models.network import Network, grid_of


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

    ``L = −Σ_masked log softmax(W t + b)_y / #masked`` over the whole batch: the token t of a masked patch says which word y
    the tokenizer gives the place, ``y = argmax`` of its scores for the whole image, of which it sees the same crop, scaled to
    one place a patch.

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
    second time; it sees the view's colours; a fixed number of rectangles is drawn, see :func:`ssl_jax.ops.block_masking.block_mask`.
    """
    choice("mask", mask, MASK_KINDS)
    require(0 < mask_ratio < 1, "mask_ratio", mask_ratio, "a number between 0 and 1, both excluded")
    views = presets.mae(area=(0.08, 1.0)) if views is None else views
    fallback = models.build("dvae", vocabulary_size=vocabulary_size, width=32, stride=2, blocks=0)
    teacher = read_teacher(tokenizer, fallback, option="tokenizer")
    name = teacher.network.config.get("name")
    require(name == "dvae", "tokenizer", tokenizer, f"the encoder of a dvae run, not of {name!r}")
    count, stride = int(teacher.network.config["vocabulary_size"]), int(teacher.network.config["stride"])
    scale, shift = renormalization(teacher.metadata, views[0])

    def small(images: Array) -> Array:
        """The images at one place a patch, as the tokenizer is used to them."""
        rows, columns = grid_of(encoder, images)
        shape = (images.shape[0], rows * stride, columns * stride, images.shape[-1])
        return jax.image.resize(images, shape, "lanczos3") * scale + shift

    def start(key: Key, images: Array) -> FrozenTeacher:
        return start_teacher(tokenizer, teacher, key, small(images), option="tokenizer")

    def mask_of(key: Key, grid: Grid) -> Array:
        return draw_mask(key, grid, kind=mask, ratio=mask_ratio, min_area=min_area)

    def loss_of(
        predictions: Array, images: Array, masked: Array, fixed: FrozenTeacher
    ) -> tuple[Array, Metrics]:
        logits, _ = teacher.network.apply(fixed.params, fixed.state, small(images), output="logits")
        target = jax.lax.stop_gradient(jnp.argmax(logits, axis=-1)).reshape(masked.shape)
        errors = optax.softmax_cross_entropy_with_integer_labels(predictions, target)
        right = masked_mean(1.0 * (jnp.argmax(predictions, axis=-1) == target), masked)
        return masked_mean(errors, masked), {"accuracy": right}

    collapse = (CollapseValue("accuracy", 1.0, "every place has the same word, or the masked ones are seen"),)

    return hiding_method(
        encoder, lambda channels: count, loss_of, mask_of=mask_of, views=views, start=start, collapse=collapse
    )
