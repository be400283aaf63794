"""iBOT (Zhou et al., ICLR 2022): DINO on crops, and the same game on patches that are masked from the student."""

import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.distillation import teacher_log_probabilities
from ssl_jax.losses.prototypes import crop_cross_entropy, patch_cross_entropy
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.ema_teacher import cosine_ema, teacher_encoder
from ssl_jax.methods.parts.self_distillation import (
    Masking,
    Networks,
    PatchHead,
    PatchTemperatures,
    TeacherAverage,
    build_head,
    check_patches,
    draw_masks,
    init_student_and_teacher,
    patch_logits,
    patch_prototype_metrics,
    prototype_collapse,
    prototype_metrics,
    select_masked_positions,
    student_outputs,
    take_tokens,
    teacher_outputs,
    teacher_temperature_schedule,
)
from ssl_jax.models.network import Network
from ssl_jax.optim.ema import ema

FOLLOWS = {"teacher.decay_steps": "steps"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    head: PatchHead = PatchHead(prototypes=8192),
    temperatures: PatchTemperatures = PatchTemperatures(),
    teacher: TeacherAverage = TeacherAverage(),
    centering: bool = True,
    center_decay: float = 0.9,
    patch_center_decay: float = 0.9,
    masking: Masking = Masking(),
    class_weight: float = 1.0,
    patch_weight: float = 1.0,
) -> Method:
    """iBOT.

    ``L = λ₁ L_class + λ₂ L_patch``. ``L_class`` is DINO's loss: the teacher's distribution of a global crop q against the
    student's of every other crop v ≠ q, the student's global crops being masked. ``L_patch = mean over global crops of
    1/max(#masked, 1) Σ_masked −Σ_k P_t log P_s``: the teacher, who sees the whole crop, says of every masked patch of the same
    crop what the student has to find out; ``P_t = softmax((g_t − c)/τ_t)``, ``P_s = softmax(g_s/τ_s)``. Crops and patches
    have a centre each, ``c ← m_c c + (1 − m_c) mean g_t`` after the loss, the patches' over all patches, masked or not.

    Views of the first crop size are the global ones; local ones are not masked. A crop is masked with probability
    ``masking.crop_fraction``; its share of masked patches is uniform in ``masking.ratio``. Crops without masked patches add 0
    to the mean in ``L_patch``. Freezing the last layer at the start is the optimizer's ``freeze`` of ``head/prototypes``, which
    matches ``patch_head/prototypes`` too.

    Args:
      encoder: a ViT with ``mask_token=True``; its ``pool`` says what stands for the crop, the class token (the paper) or the
        mean of the patch tokens.
      views: global views, then local ones; ``None``: :func:`ssl_jax.augment.presets.dino` with iBOT's areas and 10 local crops.
      head: of crops and patches, see :class:`ssl_jax.methods.parts.self_distillation.PatchHead`; the released models share one,
        ``patches="prototypes"`` is ``shared_head=False`` in the code.
      temperatures: τ_s and τ_t, see :class:`ssl_jax.methods.parts.self_distillation.PatchTemperatures`.
      teacher: its decay, see :class:`ssl_jax.methods.parts.self_distillation.TeacherAverage`.
      centering: subtract the centres.
      center_decay: m_c of crops.
      patch_center_decay: m_c of patches.
      masking: which patches are masked, see :class:`ssl_jax.methods.parts.self_distillation.Masking`.
      class_weight: λ₁.
      patch_weight: λ₂.

    Returns:
      The method. ``encode`` gives the teacher encoder's features.

    Raises:
      ValueError: an encoder that cannot hide patches, or an unknown ``masking.kind`` or ``head.patches``.

    Reference: iBOT: Image BERT Pre-Training with Online Tokenizer, equations 1 to 3 and algorithm 1; bytedance/ibot.
    Deviation: rectangles are drawn a fixed number of times, see :func:`ssl_jax.ops.block_masking.block_mask`.
    """
    check_patches(encoder, masking, head)
    network = build_head(encoder, head)
    networks = Networks(encoder, network, patch_head=network, patch_head_kind=head.patches)
    tau, warm_up = temperatures, temperatures.teacher_steps
    temperature = teacher_temperature_schedule(tau.teacher, tau.teacher_start, warm_up)
    patch_temperature = teacher_temperature_schedule(tau.patch, tau.patch_start, warm_up)
    teacher_ema = cosine_ema(teacher.decay, teacher.decay_steps)
    center_ema, patch_center_ema = ema(center_decay), ema(patch_center_decay)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, state = init_student_and_teacher(networks, teacher_ema, key, batch)
        zeros = jnp.zeros(head.prototypes)
        return params, {
            **state,
            "center": center_ema.init(zeros),
            "patch_center": patch_center_ema.init(zeros),
        }

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        teacher_key, student_key, mask_key = jax.random.split(key, 3)
        crops, center, patch_center = batch["views"], state["center"], state["patch_center"]
        mask = draw_masks(mask_key, masking, crops[0], encoder, stratified=False)
        t, averaged = teacher_outputs(networks, state["teacher"], crops[0], teacher_key)  # logits [b, g, k]
        s, online = student_outputs(networks, params, state["online"], crops, student_key, mask)

        log_probs = teacher_log_probabilities(t.logits, center.average, temperature(step))
        class_loss = crop_cross_entropy(s.logits, jnp.exp(log_probs), student_temperature=tau.student)

        positions, masked = select_masked_positions(masking, mask, crops[0].shape[1])  # [b, g, m]
        every = jax.lax.stop_gradient(patch_logits(networks, averaged.params, averaged.state, t.tokens))
        targets = teacher_log_probabilities(
            take_tokens(every, positions), patch_center.average, patch_temperature(step)
        )
        targets = jnp.exp(targets)
        predictions = patch_logits(networks, params, online, take_tokens(s.tokens, positions))
        patch_loss = patch_cross_entropy(predictions, targets, masked, student_temperature=tau.student)

        if centering:
            _, center = center_ema.update(jnp.mean(t.logits, axis=(0, 1)), center)
            _, patch_center = patch_center_ema.update(jnp.mean(every, axis=(0, 1, 2)), patch_center)
        metrics = {
            "class_loss": class_loss,
            "patch_loss": patch_loss,
            **prototype_metrics(log_probs, s.logits),
            **patch_prototype_metrics(targets, masked),
        }
        state = {"online": online, "teacher": averaged, "center": center, "patch_center": patch_center}
        return class_weight * class_loss + patch_weight * patch_loss, (state, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params)}

    if views is None:
        views = presets.dino(local_count=10, global_area=(0.25, 1.0), local_area=(0.05, 0.25))
    # Crops without masked patches add nothing: on the average the share of the others counts.
    uniform = math.log(head.prototypes) * (class_weight + patch_weight * masking.crop_fraction)
    collapse = prototype_collapse(head.prototypes, uniform, patches=True)
    return Method(views, init, loss, encoder, teacher_encoder, after_update, collapse=collapse)
