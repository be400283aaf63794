"""iBOT (Zhou et al., ICLR 2022): DINO on crops, and the same game on patches that are hidden from the student."""

import math

import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Metrics, Schedule, State
from ssl_jax.losses.distillation import teacher_log_probabilities
from ssl_jax.losses.prototypes import crop_cross_entropy, patch_cross_entropy
from ssl_jax.methods.method import Method, Sign
from ssl_jax.methods.parts.ema_teacher import rising
from ssl_jax.methods.parts.self_distillation import (
    Masking,
    Outputs,
    beliefs_health,
    patch_health,
    prototype_method,
    prototype_signs,
    warmed_up,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.optim.ema import ema


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    prototypes: int = 8192,
    hidden: int = 2048,
    bottleneck: int = 256,
    head_layers: int = 3,
    patch_head: str = "shared",
    norm_last_layer: bool = True,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    teacher_temperature_start: float | None = None,
    patch_temperature: float = 0.04,
    patch_temperature_start: float | None = None,
    teacher_temperature_steps: int = 0,
    decay: float | Schedule = 0.996,
    decay_steps: int | None = None,
    centering: bool = True,
    center_decay: float = 0.9,
    patch_center_decay: float = 0.9,
    mask: str = "block",
    mask_share: float = 0.5,
    mask_ratio: tuple[float, float] = (0.1, 0.5),
    min_area: int | None = None,
    class_weight: float = 1.0,
    patch_weight: float = 1.0,
) -> Method:
    """iBOT.

    ``L = λ₁ L_class + λ₂ L_patch``. ``L_class`` is DINO's loss: the teacher's distribution of a global crop q against the
    student's of every other crop v ≠ q, the student's global crops being masked. ``L_patch = mean over global crops of
    1/max(#hidden, 1) Σ_hidden −Σ_k P_t log P_s``: the teacher, who sees the whole crop, says of every hidden patch of the same
    crop what the student has to find out; ``P_t = softmax((g_t − c)/τ_t)``, ``P_s = softmax(g_s/τ_s)``. Crops and patches
    have a centre each, ``c ← m_c c + (1 − m_c) mean g_t`` after the loss, the patches' over all patches, hidden or not.

    Views of the first crop size are the global ones; local ones are not masked. A crop is masked with probability
    ``mask_share``; its share of hidden patches is uniform in ``mask_ratio``. Crops without hidden patches add 0 to the mean in
    ``L_patch``. Freezing the last layer at the start is the optimizer's ``freeze`` of ``head/prototypes``, which matches
    ``patch_head/prototypes`` too.

    Args:
      encoder: a ViT with ``mask_token=True``; its ``pool`` says what stands for the crop, the class token (the paper) or the
        mean of the patch tokens.
      views: global views, then local ones; ``None``: :func:`ssl_jax.augment.presets.dino` with iBOT's areas and 10 local crops.
      prototypes: K, width of the heads' outputs.
      hidden: width of the heads' hidden layers.
      bottleneck: width of the L2-normalised layer before the prototypes.
      head_layers: layers of the heads' MLP.
      patch_head: ``"shared"``: one head for crops and patches (the released models); ``"prototypes"``: one MLP, prototypes of
        their own for the patches (``shared_head=False`` in the code); ``"separate"``: a head of their own.
      norm_last_layer: prototypes have unit norm; else their norm is trained.
      student_temperature: τ_s, of crops and patches.
      teacher_temperature: τ_t of crops after its warm-up.
      teacher_temperature_start: τ_t of crops at step 0; ``None``: constant.
      patch_temperature: τ_t of patches after its warm-up.
      patch_temperature_start: τ_t of patches at step 0; ``None``: constant.
      teacher_temperature_steps: length of both warm-ups in steps.
      decay: m₀ of the teacher, 0 to 1, or a schedule of it.
      decay_steps: length of the run, over which a float ``decay`` rises to 1; ``None``: it stays constant.
      centering: subtract the centres.
      center_decay: m_c of crops.
      patch_center_decay: m_c of patches.
      mask: ``"block"`` (rectangles) or ``"random"``.
      mask_share: probability that a global crop is masked, 0 to 1.
      mask_ratio: least and largest share of hidden patches in a masked crop.
      min_area: least area of a rectangle in patches; ``None``: ⌊side/3⌋² of the grid, at least 1.
      class_weight: λ₁.
      patch_weight: λ₂.

    Returns:
      The method. ``encode`` gives the teacher encoder's features.

    Raises:
      ValueError: an encoder that cannot hide patches, or an unknown ``mask`` or ``patch_head``.

    Reference: iBOT: Image BERT Pre-Training with Online Tokenizer, equations 1 to 3 and algorithm 1; bytedance/ibot.
    Deviation: rectangles are drawn a fixed number of times, see :func:`ssl_jax.ops.masking.block_mask`.
    """

    def head_of() -> Network:
        return heads.dino_head(
            prototypes,
            hidden=hidden,
            bottleneck=bottleneck,
            layers=head_layers,
            norm_last_layer=norm_last_layer,
            dtype=compute_dtype(encoder),
        )

    warm_up = teacher_temperature_steps
    temperature = warmed_up(teacher_temperature, teacher_temperature_start, warm_up)
    temperature_of_patches = warmed_up(patch_temperature, patch_temperature_start, warm_up)
    averages = {"center": ema(center_decay), "patch_center": ema(patch_center_decay)}

    def loss_of(
        student: Outputs, teacher: Outputs, centers: State, step: Array
    ) -> tuple[Array, State, Metrics]:
        center, patch_center = centers["center"].average, centers["patch_center"].average
        beliefs = teacher_log_probabilities(teacher.logits, center, temperature(step))
        class_loss = crop_cross_entropy(
            student.logits, jnp.exp(beliefs), student_temperature=student_temperature
        )
        targets = jnp.exp(
            teacher_log_probabilities(teacher.patches, patch_center, temperature_of_patches(step))
        )
        patch_loss = patch_cross_entropy(
            student.patches, targets, student.hidden, student_temperature=student_temperature
        )
        if centering:
            means = {"center": jnp.mean(teacher.logits, axis=(0, 1)), "patch_center": teacher.patch_mean}
            centers = {name: averages[name].update(means[name], centers[name])[1] for name in means}
        metrics = {
            "class_loss": class_loss,
            "patch_loss": patch_loss,
            **beliefs_health(beliefs, student.logits),
            **patch_health(targets, student.hidden),
        }
        return class_weight * class_loss + patch_weight * patch_loss, centers, metrics

    def signs(batch_size: int) -> tuple[Sign, ...]:
        del batch_size
        # Crops without hidden patches add nothing: on the average the share of the others counts.
        loss = math.log(prototypes) * (class_weight + patch_weight * mask_share)
        return prototype_signs(prototypes, loss, patches=True)

    return prototype_method(
        encoder,
        head_of(),
        loss_of,
        average=rising(decay, decay_steps),
        views=presets.dino(local_count=10, global_area=(0.25, 1.0), local_area=(0.05, 0.25))
        if views is None
        else views,
        signs=signs,
        centers={name: (average, prototypes) for name, average in averages.items()},
        masking=Masking(mask, mask_share, mask_ratio, False, min_area, head_of(), patch_head, "all"),
    )
