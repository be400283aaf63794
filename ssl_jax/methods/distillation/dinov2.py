"""DINOv2 (Oquab et al. 2023): iBOT with balanced assignments and features that are spread over the sphere."""

import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.distillation import teacher_log_probabilities
from ssl_jax.losses.koleo import koleo
from ssl_jax.losses.prototypes import crop_cross_entropy, patch_cross_entropy
from ssl_jax.methods.method import Limits, Method
from ssl_jax.methods.parts.ema_teacher import cosine_ema, teacher_encoder
from ssl_jax.methods.parts.multi_crop import global_count
from ssl_jax.methods.parts.self_distillation import (
    TINY,
    Masking,
    Networks,
    PatchHead,
    TeacherAverage,
    Temperatures,
    build_head,
    check_patches,
    draw_masks,
    init_student_and_teacher,
    masked_mean_logits,
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
from ssl_jax.ops.sinkhorn import Sinkhorn
from ssl_jax.ops.sinkhorn import sinkhorn as assign_evenly
from ssl_jax.optim.ema import ema

FOLLOWS = {"teacher.decay_steps": "steps"}
"""Options whose values follow others of the config."""


CENTERINGS = ("sinkhorn", "center", "none")
EPSILON = 1e-8
"""Of KoLeo."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    head: PatchHead = PatchHead(norm_last_layer=False),
    temperatures: Temperatures = Temperatures(teacher=0.07),
    teacher: TeacherAverage = TeacherAverage(decay=0.992),
    centering: str = "sinkhorn",
    center_decay: float = 0.9,
    sinkhorn: Sinkhorn = Sinkhorn(),
    masking: Masking = Masking(min_area=4),
    class_weight: float = 1.0,
    patch_weight: float = 1.0,
    koleo_weight: float = 0.1,
) -> Method:
    """DINOv2.

    ``L = λ₁ L_class + λ₂ L_patch + λ₃ Σ_g KoLeo(h_g)`` with iBOT's two losses, see
    :func:`ssl_jax.methods.distillation.ibot.build`, and h_g the student encoder's features of the global (masked) crop g.
    ``L_class`` has the weight 1/(2 + 2n) for each of the 2 + 2n pairs of a teacher's crop and another one of the student's, n
    local crops. The teacher's distributions are balanced by Sinkhorn over both global crops of the whole batch, and over all
    masked patches of the whole batch, at the teacher's temperature; or centred as DINO's, the patches by the mean of the
    masked ones.

    The shares of masked patches are spread evenly over the batch: exactly ``masking.crop_fraction`` of the global crops are
    masked, with ratios from all of ``masking.ratio``. Crops without masked patches add 0 to the mean in ``L_patch``.

    Args:
      encoder: a ViT with ``mask_token=True`` and, as in later releases, ``registers``; its ``pool`` says what stands for the
        crop, the class token (the paper) or the mean of the patch tokens.
      views: global views, then local ones; ``None``: :func:`ssl_jax.augment.presets.dino` with DINOv2's areas.
      head: of crops and patches, see :class:`ssl_jax.methods.parts.self_distillation.PatchHead`; ``patches="shared"`` is the
        code's default, ``"separate"`` are the untied heads of the paper and the released models.
      temperatures: τ_s and τ_t of crops and patches, see :class:`ssl_jax.methods.parts.self_distillation.Temperatures`.
      teacher: its decay, see :class:`ssl_jax.methods.parts.self_distillation.TeacherAverage`.
      centering: ``"sinkhorn"`` (the paper), ``"center"`` (the code's default), or ``"none"``.
      center_decay: of the centres.
      sinkhorn: how distributions are balanced, see :class:`ssl_jax.ops.sinkhorn.Sinkhorn`.
      masking: which patches are masked, see :class:`ssl_jax.methods.parts.self_distillation.Masking`.
      class_weight: λ₁.
      patch_weight: λ₂.
      koleo_weight: λ₃.

    Returns:
      The method. ``encode`` gives the teacher encoder's features.

    Raises:
      ValueError: an encoder that cannot hide patches, or an unknown ``centering``, ``masking.kind`` or ``head.patches``.

    Reference: DINOv2: Learning Robust Visual Features without Supervision, section 4; facebookresearch/dinov2. Deviation: KoLeo
    looks for neighbours in the whole batch, theirs in the images on one device; rectangles are drawn a fixed number of times.
    """
    choice("centering", centering, CENTERINGS)
    check_patches(encoder, masking, head)
    network, prototypes = build_head(encoder, head), head.prototypes
    networks = Networks(encoder, network, patch_head=network, patch_head_kind=head.patches)
    temperature = teacher_temperature_schedule(
        temperatures.teacher, temperatures.teacher_start, temperatures.teacher_steps
    )
    teacher_ema, center_ema = cosine_ema(teacher.decay, teacher.decay_steps), ema(center_decay)
    centers = ("center", "patch_center") if centering == "center" else ()

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, state = init_student_and_teacher(networks, teacher_ema, key, batch)
        return params, {**state, **{name: center_ema.init(jnp.zeros(prototypes)) for name in centers}}

    def probabilities(logits: Array, state: State, name: str, step: Array, counted: Array | None) -> Array:
        """Balance or centre the teacher's distributions ``[..., k]``; rows that are not counted take no part."""
        if centering == "sinkhorn":
            balanced = assign_evenly(
                logits.reshape(-1, prototypes),
                temperature=temperature(step),
                iterations=sinkhorn.iterations,
                weights=None if counted is None else counted.reshape(-1),
                log_domain=sinkhorn.log_domain,
            )
            return balanced.reshape(logits.shape)
        center = state[name].average if name in centers else jnp.zeros(prototypes)
        return jnp.exp(teacher_log_probabilities(logits, center, temperature(step)))

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        teacher_key, student_key, mask_key = jax.random.split(key, 3)
        crops = batch["views"]
        mask = draw_masks(mask_key, masking, crops[0], encoder, stratified=True)
        t, averaged = teacher_outputs(networks, state["teacher"], crops[0], teacher_key)  # logits [b, g, k]
        s, online = student_outputs(networks, params, state["online"], crops, student_key, mask)

        targets = probabilities(t.logits, state, "center", step, None)
        class_loss = crop_cross_entropy(s.logits, targets, student_temperature=temperatures.student)

        positions, masked = select_masked_positions(masking, mask, crops[0].shape[1])  # [b, g, m]
        tokens = take_tokens(t.tokens, positions)
        masked_logits = jax.lax.stop_gradient(patch_logits(networks, averaged.params, averaged.state, tokens))
        patch_targets = probabilities(masked_logits, state, "patch_center", step, masked)
        predictions = patch_logits(networks, params, online, take_tokens(s.tokens, positions))
        patch_loss = patch_cross_entropy(
            predictions, patch_targets, masked, student_temperature=temperatures.student
        )

        global_features = [s.features[:, g] for g in range(t.logits.shape[1])]
        spread = sum((koleo(h, epsilon=EPSILON) for h in global_features), jnp.float32(0))

        means = {
            "center": jnp.mean(t.logits, axis=(0, 1)),
            "patch_center": masked_mean_logits(masked_logits, masked),
        }
        moved = {name: center_ema.update(means[name], state[name])[1] for name in centers}
        metrics = {
            "class_loss": class_loss,
            "patch_loss": patch_loss,
            "koleo": spread / len(global_features),
            **prototype_metrics(jnp.log(jnp.maximum(targets, TINY)), s.logits),
            **patch_prototype_metrics(patch_targets, masked),
        }
        value = class_weight * class_loss + patch_weight * patch_loss + koleo_weight * spread
        return value, ({"online": online, "teacher": averaged, **moved}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params)}

    if views is None:
        views = presets.dino(global_area=(0.32, 1.0), local_area=(0.05, 0.32))
    alike = -math.log(EPSILON * (math.sqrt(encoder.features) + 1))
    uniform = math.log(prototypes) * (class_weight + patch_weight * masking.crop_fraction)
    collapse = prototype_collapse(
        prototypes, uniform + koleo_weight * global_count(views) * alike, patches=True
    )
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, teacher_encoder, after_update, collapse=collapse, limits=limits)
