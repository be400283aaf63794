"""BEiT (Bao et al., ICLR 2022): the visual tokens of a tokenizer at masked patches."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.bag_of_words import distances_to_words
from ssl_jax.losses.reconstruction import masked_mean
from ssl_jax.methods.method import CollapseValue, Limits, Method, Refresh
from ssl_jax.methods.parts.dense_features import dense_features, map_shape, resample_grid, token_width
from ssl_jax.methods.parts.frozen_teacher import read_teacher, renormalization, show_teacher, start_teacher
from ssl_jax.methods.parts.mask_token import (
    MASK_KINDS,
    draw_block_masks,
    encode_masked,
    require_masking,
    token_metrics,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype, grid_of
from ssl_jax.ops.kmeans import kmeans

ITERATIONS = 20
"""Of k-means."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    tokenizer: str = "",
    vocabulary_size: int = 8192,
    mask: str = "block",
    mask_ratio: float = 0.4,
    min_area: int | None = None,
    samples: int = 8,
) -> Method:
    """BEiT.

    ``L = −Σ_masked log softmax(W t + b)_y / #masked`` over the whole batch: the token t of a masked patch says which visual
    token y the tokenizer gives the patch, ``y = argmax`` of its scores for the whole image. It sees the same crop, scaled so
    that its map has one position a patch.

    Any other encoder F is made a tokenizer by k-means: before the first step K centroids V are fitted to features of patches
    of all training images, and ``y = argmin_k ‖F(patch) − V_k‖²``.

    Args:
      encoder: a ViT with ``mask_token=True``; the paper's has ``position="relative"``, ``layer_scale`` and ``init="beit"``.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.08 to 1.
      tokenizer: an ``encoder.safetensors`` that ``experiments.export`` has written of a :mod:`ssl_jax.methods.masked.dvae`
        run; or a name that :func:`ssl_jax.interop.load_pretrained` takes, of any encoder; ``""``: a tokenizer with random
        weights, of a width of 32, which is for tests.
      vocabulary_size: K of the random one, and of k-means.
      mask: ``"block"``: rectangles up to ``mask_ratio``, on which images fall short a little, as in the paper; ``"filled"``:
        exactly that share; ``"random"``: scattered patches, an ablation of the paper.
      mask_ratio: share of masked patches, in (0, 1).
      min_area: least area of a rectangle in patches; ``None``: ⌊side/3⌋² of the grid: 16 of 14 x 14.
      samples: patches of each image that k-means is made of: all images' together have to fit into memory.

    Returns:
      The method. ``encode`` gives the encoder's pooled features. With k-means the state holds its ``codebook``.

    Raises:
      ValueError: an encoder without mask token, a tokenizer that is not found, an unknown ``mask``, a ratio outside (0, 1);
        before the first step more centroids than features.

    Reference: BEiT: BERT Pre-Training of Image Transformers, section 2; microsoft/unilm ``beit``. K-means
    over features of a trained encoder: Peng et al., BEiT v2, 2022, which trains its codebook. Deviations: the tokenizer's
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
    is_dvae = teacher.network.config.get("name") == "dvae"
    require(samples >= 1, "samples", samples, "an integer of 1 or more")
    count = int(teacher.network.config["vocabulary_size"]) if is_dvae else vocabulary_size
    scale, shift = renormalization(teacher.metadata, views[0])
    head = heads.mlp((count,), dtype=compute_dtype(encoder))

    def scale_down(images: Array) -> Array:
        """Resize images so that the tokenizer's map has one position a patch, and normalise them as it is used to."""
        (rows, columns), stride = grid_of(encoder, images), stride_of(teacher.network, images)
        shape = (images.shape[0], rows * stride, columns * stride, images.shape[-1])
        return show_teacher(jax.image.resize(images, shape, "lanczos3"), scale, shift)

    def patch_features(images: Array, state: State) -> Array:
        """Compute an encoder's features of the patches ``[b, l, d]``."""
        frozen = state["tokenizer"]
        _, patches, _ = dense_features(teacher.network, frozen.params, frozen.state, scale_down(images))
        patches = resample_grid(patches, grid_of(encoder, images))
        return jax.lax.stop_gradient(patches.reshape(len(images), -1, patches.shape[-1]))

    def visual_tokens(images: Array, state: State) -> Array:
        """Compute y ``[b, l]`` of all patches."""
        if not is_dvae:
            distances = distances_to_words(patch_features(images, state), state["codebook"])
            return jnp.argmin(distances, axis=-1)
        scores = state["tokenizer"].apply(teacher.network, scale_down(images), output="logits")
        return jnp.argmax(scores, axis=-1).reshape(len(images), -1)

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
        if not is_dvae:
            width = token_width(teacher.network, scale_down(images))
            # Until the refresh before the first step puts the centroids in their place.
            state["codebook"] = jax.random.normal(tokenizer_key, (count, width))
        return params, state

    def sample_features(params: Params, state: State, images: Array) -> Array:
        """Take features ``[b, samples, d]`` of random patches."""
        del params
        local = patch_features(images, state)
        places = jax.random.randint(jax.random.key(0), (len(images), samples, 1), 0, local.shape[1])
        return jnp.take_along_axis(local, places, axis=1)

    def make_codebook(state: State, features: Any, key: Key) -> State:
        if features is None:
            return state
        points = features.reshape(-1, features.shape[-1])
        allowed = f"at most the {len(points)} features that were gathered"
        require(count <= len(points), "vocabulary_size", count, allowed)
        return {**state, "codebook": kmeans(key, points, count, iterations=ITERATIONS).centroids}

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
        y = visual_tokens(images, state)  # [b, l]
        value = masked_mean(optax.softmax_cross_entropy_with_integer_labels(logits, y), masked)
        accuracy = masked_mean(1.0 * (jnp.argmax(logits, axis=-1) == y), masked)
        return value, (state, {**token_metrics(tokens, masked), "accuracy": accuracy})

    collapse = (
        CollapseValue("accuracy", 1.0, "every patch has the same visual token, or the masked ones are seen"),
    )
    if is_dvae:
        return Method(views, init, loss, encoder, collapse=collapse)
    limits = Limits(
        least_images=-(-count // samples),
        follows_from=f"vocabulary_size={vocabulary_size} of samples={samples} an image",
    )
    refresh = Refresh(sample_features, make_codebook, features_once=True)
    return Method(views, init, loss, encoder, refresh=refresh, collapse=collapse, limits=limits)


def stride_of(network: Network, images: Array) -> int:
    """Return how many pixels of a side make one position of a network's map of patches."""
    config = network.config
    if config.get("name") == "dvae":
        return int(config["stride"])
    if "class_token" in config:
        return int(config["patch"])
    return max(images.shape[1] // map_shape(network, images)[0], 1)
