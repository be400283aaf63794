"""dBOT (Liu et al., ICLR 2024): MAE whose target is what a teacher makes of masked patches, in stages from a random one."""

from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import compute_std
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import masked_smooth_l1
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.dense_features import dense_features, resample_grid, token_width
from ssl_jax.methods.parts.ema_teacher import EmaTeacher
from ssl_jax.methods.parts.frozen_teacher import (
    FrozenTeacher,
    read_teacher,
    renormalization,
    require_size,
    show_teacher,
    start_teacher,
)
from ssl_jax.methods.parts.mask_token import draw_masks, require_mask_ratio
from ssl_jax.models.decoders import masked_decoder
from ssl_jax.models.network import Network, grid_of, prefix_of
from ssl_jax.ops.masking import KINDS
from ssl_jax.ops.patches import normalize_patches
from ssl_jax.optim.ema import ema


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    mask_ratio: float = 0.75,
    mask: str = "random",
    beta: float = 2.0,
    norm_target: bool = True,
    teacher: str = "",
    teacher_size: int | None = None,
    decay: float = 1.0,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
) -> Method:
    """dBOT: one stage of it.

    ``L = mean over masked patches and the class token, and over features, of smooth_l1_β(ŷ − n(y))``: ŷ is what MAE's decoder
    makes of the tokens of the visible patches, and y the output of the last block of a teacher that sees the whole image,
    before its last normalisation; n standardises each token by itself (unbiased variance, ε = 1e-6).

    The teacher stays as it is. That of the first stage is drawn at random, and that of stage k + 1 is what stage k has learnt;
    the student starts anew in each. The paper's point is that after a few stages it makes no difference where they began::

        python -m experiments.two_stage --first=configs/dbot.py --option=method.teacher --stages=3 --workdir=runs/dbot

    Each stage is a run with a warm-up of its own.

    Args:
      encoder: a ViT of :mod:`ssl_jax.models.vit`.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      mask_ratio: share of masked patches, in (0, 1).
      mask: kind of mask, see :func:`ssl_jax.ops.masking.mask_of_kind`.
      beta: β > 0. May be traced.
      norm_target: standardise the targets.
      teacher: ``""``: the student's own start, random unless the run starts from weights; or a name that
        :func:`ssl_jax.interop.load_pretrained` takes, such as the run of the stage before. Images are brought to the mean and
        standard deviation that it expects; where its patches lie on another grid, targets are resampled, bilinearly; of other
        networks than ViTs the last map is the target.
      teacher_size: side in pixels to which the view is resized for the teacher; ``None``: that of the view.
      decay: decay of the teacher's average, an ablation of the paper: a teacher that follows the student in place of stages.
        1: it stays as it is, as one with a name always does.
      decoder_width: width of the decoder.
      decoder_depth: blocks of the decoder.
      decoder_heads: attention heads of the decoder.

    Returns:
      The method. ``encode`` gives the student encoder's pooled features. Metrics: ``token_std``, the deviation of the visible
      patches' tokens over images; ``target_std``, that of the targets over all patches of the batch, 0 where they are the same.

    Raises:
      ValueError: an encoder that is no ViT, an unknown ``mask``, a ratio outside (0, 1), a decay outside [0, 1], a teacher
        that is not found or does not fit the images.

    Reference: Exploring Target Representations for Masked Autoencoders, section 3; liuxingbin/dbot. Deviations: a stage starts
    with new moments of the optimizer, which there go on; the class token counts only where student and teacher both have one.
    """
    choice("mask", mask, KINDS)
    name = encoder.config.get("name", "")
    require(str(name).startswith("vit"), "encoder", name, "a ViT: dBOT drops patches before the encoder")
    require_mask_ratio(mask_ratio)
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    source, average = read_teacher(teacher, encoder), ema(decay)
    moves = not teacher and decay < 1
    require_size(source.network, views[0], teacher_size)
    scale, shift = renormalization(source.metadata, views[0])
    with_class = bool(encoder.config["class_token"] and source.network.config.get("class_token"))
    prefix = prefix_of(encoder)

    def for_teacher(images: Array) -> Array:
        return show_teacher(images, scale, shift, size=teacher_size) if teacher else images

    def decoder_for(images: Array) -> Network:
        options: dict[str, Any] = {"width": decoder_width, "depth": decoder_depth, "heads": decoder_heads}
        options |= {name: encoder.config[name] for name in ("dtype", "remat", "remat_keeps")}
        options |= {"prefix": prefix, "keep_prefix": with_class, "grid": grid_of(encoder, images)}
        return masked_decoder(outputs=token_width(source.network, for_teacher(images)), **options)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, decoder_key, teacher_key = jax.random.split(key, 3)
        images = batch["views"][0][:, 0]
        params: Params = {}
        state: State = {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        tokens = jnp.zeros((len(images), prefix + 1, encoder.features))
        params["decoder"], state["decoder"] = decoder_for(images).init(decoder_key, tokens)
        own = params["encoder"], state["encoder"]
        if teacher:
            state["teacher"] = start_teacher(teacher, source, teacher_key, for_teacher(images))
        else:
            state["teacher"] = EmaTeacher.init(average, *own) if moves else FrozenTeacher(*own)
        return params, state

    def targets_of(images: Array, state: State) -> Array:
        """Compute y ``[b, l, d]`` of the class token, where it counts, and of all patches."""
        variables = state["teacher"].params, state["teacher"].state
        vectors, patches, _ = dense_features(source.network, *variables, for_teacher(images), raw=True)
        y = resample_grid(patches, grid_of(encoder, images)).reshape(len(images), -1, patches.shape[-1])
        y = jnp.concatenate([vectors[:, None], y], axis=1) if with_class else y
        return jax.lax.stop_gradient(normalize_patches(y) if norm_target else y)

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        mask_key, encoder_key, decoder_key = jax.random.split(key, 3)
        masks = draw_masks(mask_key, encoder, images, kind=mask, ratio=mask_ratio)
        y = targets_of(images, state)

        options: dict[str, Any] = {"keep": masks.keep, "output": "tokens"}
        variables = params["encoder"], state["encoder"]
        tokens, encoder_state = encoder.apply(*variables, images, train=True, key=encoder_key, **options)

        options = {"restore": masks.restore, "train": True, "key": decoder_key}
        variables = params["decoder"], state["decoder"]
        predictions, decoder_state = decoder_for(images).apply(*variables, tokens, **options)

        counted = masks.masked
        if with_class:
            predictions = jnp.concatenate([predictions[:, :1], predictions[:, prefix:]], axis=1)
            counted = jnp.pad(counted, ((0, 0), (1, 0)), constant_values=True)
        value = masked_smooth_l1(predictions, y, counted, beta=beta)
        metrics = {
            "token_std": jnp.mean(compute_std(jax.lax.stop_gradient(tokens))),
            "target_std": jnp.mean(compute_std(y[:, 1:] if with_class else y, (0, 1))),
        }
        return value, ({**state, "encoder": encoder_state, "decoder": decoder_state}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        if not moves:
            return state
        return {**state, "teacher": state["teacher"].update(average, params["encoder"])}

    collapse = (CollapseValue("target_std", 0.0, "the teacher's targets are the same for every patch"),)
    return Method(views, init, loss, encoder, after_update=after_update, collapse=collapse)
