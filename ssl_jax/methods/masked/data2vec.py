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
from ssl_jax.methods.parts.dense_features import resample_grid
from ssl_jax.methods.parts.ema_teacher import EmaTeacher
from ssl_jax.methods.parts.frozen_teacher import (
    read_teacher,
    renormalization,
    require_size,
    show_teacher,
    start_teacher,
)
from ssl_jax.methods.parts.mask_token import (
    MASK_KINDS,
    draw_block_masks,
    encode_masked,
    require_masking,
    token_metrics,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, grid_of, prefix_of
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
    teacher: str = "",
    teacher_size: int | None = None,
) -> Method:
    """data2vec.

    ``L = mean over masked patches and features of smooth_l1_β(W t + b − y)``: t is the student's token of a masked patch, and y
    what the teacher, who sees the whole image, makes of the patch::

        y = n( 1/k Σ_{last k blocks} n(output of the block) )        n(x) = (x − mean x) / √(var x + 1e-5), over features

    The teacher is the EMA of the student's encoder, moved after the update, without stochastic depth; or, with a name, an
    encoder that stays as it is. Where its grid of patches is another, the mean over its blocks is resampled, bilinearly.

    Args:
      encoder: a ViT with ``mask_token=True``.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.08 to 1.
      layers: k, 1 to the teacher's depth; an ablation of the paper.
      beta: β > 0, an ablation of the paper. May be traced.
      mask: ``"block"``: rectangles up to ``mask_ratio``, on which images fall short a little, as in the code; ``"filled"``:
        exactly that share; ``"random"``: scattered patches.
      mask_ratio: share of masked patches, in (0, 1).
      decay: decay of the teacher's average, 0 to 1, or a schedule of it; 0.9998 is for 500,000 steps. Without
        effect where the teacher stays as it is.
      teacher: ``""``: the average of the student; or a name that :func:`ssl_jax.interop.load_pretrained` takes, of a ViT.
        Images are brought to the mean and standard deviation that it expects.
      teacher_size: side in pixels to which the view is resized for the teacher; ``None``: that of the view.

    Returns:
      The method. ``encode`` gives the student encoder's pooled features. Metric ``target_std``: the deviation of the targets
      over the batch's patches, averaged over features, which is 0 when they are all the same.

    Raises:
      ValueError: an encoder without mask token, ``layers`` beyond the teacher's depth, an unknown ``mask``, a ratio outside
        (0, 1), a teacher that is not found, is no ViT or does not fit the images.

    Reference: data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language, section 3;
    facebookresearch/data2vec_vision.
    """
    require_masking(encoder, mask_ratio)
    choice("mask", mask, MASK_KINDS)
    views = presets.mae(area=(0.08, 1.0)) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    source = read_teacher(teacher, encoder)
    is_vit = "class_token" in source.network.config
    require(
        is_vit, "teacher", teacher, f"a ViT, whose blocks are read, not {source.network.config.get('name')!r}"
    )
    require_size(source.network, views[0], teacher_size)
    scale, shift = renormalization(source.metadata, views[0])
    depth = int(source.network.config["depth"])
    require(
        1 <= layers <= depth,
        "layers",
        layers,
        f"an integer from 1 to the {'teacher' if teacher else 'encoder'}'s {depth} blocks",
    )
    teacher_ema = ema(decay)
    head = heads.mlp((source.network.features,), dtype=compute_dtype(encoder))

    def for_teacher(images: Array) -> Array:
        return show_teacher(images, scale, shift, size=teacher_size) if teacher else images

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        images = batch["views"][0][:, 0]
        params, state = chain(encoder=encoder, head=head).init(key, images)
        if teacher:
            frozen = start_teacher(teacher, source, key, for_teacher(images))
            return params, {"encoder": state["encoder"], "teacher": frozen}
        average = EmaTeacher.init(teacher_ema, params["encoder"], state["encoder"])
        return params, {"encoder": state["encoder"], "teacher": average}

    def targets_of(images: Array, state: State) -> Array:
        """Compute y ``[b, l, d]`` of all patches."""
        seen = for_teacher(images)
        outputs = state["teacher"].apply(source.network, seen, train=False, output="layers")
        outputs = outputs if teacher else outputs[0]
        last = [outputs[f"blocks_{i}"][:, prefix_of(source.network) :] for i in range(depth - layers, depth)]
        mean = jnp.asarray(sum(standardize(at_least_float32(x)) for x in last) / layers)
        if teacher:
            grid = mean.reshape(len(images), *grid_of(source.network, seen), -1)
            mean = resample_grid(grid, grid_of(encoder, images)).reshape(len(images), -1, mean.shape[-1])
        return standardize(mean)

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        mask_key, encoder_key = jax.random.split(key)
        masked = draw_block_masks(mask_key, encoder, images, kind=mask, ratio=mask_ratio)  # [b, l]

        y = targets_of(images, state)  # [b, l, d]

        tokens, state = encode_masked(encoder, params, state, images, masked, key=encoder_key)  # [b, l, d]
        predictions, _ = head.apply(params["head"], {}, tokens)
        value = masked_smooth_l1(predictions, y, masked, beta=beta)
        target_std = jnp.mean(compute_std(y, (0, 1)))
        return value, (state, {**token_metrics(tokens, masked), "target_std": target_std})

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return (
            state
            if teacher
            else {**state, "teacher": state["teacher"].update(teacher_ema, params["encoder"])}
        )

    collapse = (CollapseValue("target_std", 0.0, "the teacher's targets are the same for every patch"),)
    return Method(views, init, loss, encoder, after_update=after_update, collapse=collapse)
