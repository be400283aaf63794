"""data2vec (Baevski et al., ICML 2022) for images: what a teacher's last blocks make of masked patches."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import at_least_float32, compute_std
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.reconstruction import masked_smooth_l1
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.ema_teacher import EmaTeacher
from ssl_jax.methods.parts.mask_token import (
    MASK_KINDS,
    draw_block_masks,
    encode_masked,
    require_masking,
    token_metrics,
)
from ssl_jax.models import heads
from ssl_jax.models.build import without_draws
from ssl_jax.models.network import Network, chain, compute_dtype, prefix_of
from ssl_jax.ops.patches import standardize
from ssl_jax.optim.ema import ema


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    layers: int = 6,
    beta: float = 2.0,
    mask: str = "block",
    mask_ratio: float = 0.6,
    decay: float | Schedule = 0.9998,
) -> Method:
    """data2vec.

    ``L = mean over masked patches and features of smooth_l1_β(W t + b − y)``: t is the student's token of a masked patch, and y
    what the teacher, who sees the whole image, makes of the patch::

        y = n( 1/k Σ_{last k blocks} n(output of the block) )        n(x) = (x − mean x) / √(var x + 1e-5), over features

    The teacher is the EMA of the student's encoder, moved after the update, without stochastic depth.

    Args:
      encoder: a ViT with ``mask_token=True``.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.08 to 1.
      layers: k, 1 to the encoder's depth; an ablation of the paper.
      beta: β > 0, an ablation of the paper. May be traced.
      mask: ``"block"``: rectangles up to ``mask_ratio``, on which images fall short a little, as in the code; ``"filled"``:
        exactly that share; ``"random"``: scattered patches.
      mask_ratio: share of masked patches, in (0, 1).
      decay: decay of the teacher's average, 0 to 1, or a schedule of it; 0.9998 is for 500,000 steps.

    Returns:
      The method. ``encode`` gives the student encoder's pooled features. Metric ``target_std``: the deviation of the targets
      over the batch's patches, averaged over features, which is 0 when they are all the same.

    Raises:
      ValueError: an encoder without mask token, ``layers`` beyond its depth, an unknown ``mask``, a ratio outside (0, 1).

    Reference: data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language, section 3;
    facebookresearch/data2vec_vision.
    """
    require_masking(encoder, mask_ratio)
    choice("mask", mask, MASK_KINDS)
    depth = int(encoder.config["depth"])
    require(1 <= layers <= depth, "layers", layers, f"an integer from 1 to the encoder's {depth} blocks")
    teacher_ema, teacher_network = ema(decay), without_draws(encoder)
    head = heads.mlp((encoder.features,), dtype=compute_dtype(encoder))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, state = chain(encoder=encoder, head=head).init(key, batch["views"][0][:, 0])
        teacher = EmaTeacher.init(teacher_ema, params["encoder"], state["encoder"])
        return params, {"encoder": state["encoder"], "teacher": teacher}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        mask_key, encoder_key = jax.random.split(key)
        masked = draw_block_masks(mask_key, encoder, images, kind=mask, ratio=mask_ratio)  # [b, l]

        outputs, _ = state["teacher"].apply(teacher_network, images, train=False, output="layers")
        last = [outputs[f"blocks_{i}"][:, prefix_of(encoder) :] for i in range(depth - layers, depth)]
        mean = sum(standardize(at_least_float32(x)) for x in last) / layers
        y = standardize(jnp.asarray(mean))  # [b, l, d]

        tokens, state = encode_masked(encoder, params, state, images, masked, key=encoder_key)  # [b, l, d]
        predictions, _ = head.apply(params["head"], {}, tokens)
        value = masked_smooth_l1(predictions, y, masked, beta=beta)
        target_std = jnp.mean(compute_std(y, (0, 1)))
        return value, (state, {**token_metrics(tokens, masked), "target_std": target_std})

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params["encoder"])}

    views = presets.mae(area=(0.08, 1.0)) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    collapse = (CollapseValue("target_std", 0.0, "the teacher's targets are the same for every patch"),)
    return Method(views, init, loss, encoder, after_update=after_update, collapse=collapse)
