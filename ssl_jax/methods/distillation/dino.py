"""DINO (Caron et al., ICCV 2021): the student matches an EMA teacher's centred, sharpened prototype distribution."""

import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.distillation import dino_loss, teacher_log_probabilities
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.ema_teacher import cosine_ema, teacher_encoder
from ssl_jax.methods.parts.self_distillation import (
    DinoHead,
    Networks,
    TeacherAverage,
    Temperatures,
    build_head,
    init_student_and_teacher,
    prototype_collapse,
    prototype_metrics,
    student_outputs,
    teacher_outputs,
    teacher_temperature_schedule,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.optim.ema import ema

FOLLOWS = {"teacher.decay_steps": "steps"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    head: DinoHead = DinoHead(),
    head_batch_norm: bool = False,
    temperatures: Temperatures = Temperatures(),
    teacher: TeacherAverage = TeacherAverage(),
    centering: bool = True,
    center_decay: float = 0.9,
    predictor: str = "none",
) -> Method:
    """DINO.

    ``P_t = softmax((g_t − c)/τ_t)`` on the global views, ``P_s = softmax(g_s/τ_s)`` on all views,
    ``L = mean over pairs (q global, v ≠ q) of −Σ_k P_t(q) log P_s(v)``; ``c ← m_c c + (1 − m_c) mean g_t`` after the loss, over
    the global batch; the teacher is the EMA of the student with a decay that rises to 1 on a cosine.

    Views of the first crop size are the global ones, which the teacher sees too; other sizes are local. Views of one size
    pass through the encoder as one batch, the head runs once on the views of all sizes. The teacher takes part without
    stochastic depth. Freezing the last layer in the first epoch is the optimizer's ``freeze`` of
    ``head/prototypes``, since it has to stop weight decay too.

    Args:
      encoder: the network to train, a ViT or a ResNet.
      views: global views, then local ones; ``None``: :func:`ssl_jax.augment.presets.dino`.
      head: from features to prototypes, see :class:`ssl_jax.methods.parts.self_distillation.DinoHead`.
      head_batch_norm: BatchNorm in the head's hidden layers.
      temperatures: τ_s and τ_t, see :class:`ssl_jax.methods.parts.self_distillation.Temperatures`; equal ones are the ablation
        that collapses to the uniform distribution.
      teacher: its decay, see :class:`ssl_jax.methods.parts.self_distillation.TeacherAverage`.
      centering: subtract the centre (off: the ablation that collapses to one prototype).
      center_decay: m_c.
      predictor: ``"none"``, or ``"mlp"``: an MLP of the student alone, as BYOL's, with as many hidden units as the head and
        BatchNorm where that has it (an ablation of the paper).

    Returns:
      The method. ``encode`` gives the teacher encoder's features, which the authors evaluate.

    Raises:
      ValueError: unknown ``predictor``.

    Reference: Emerging Properties in Self-Supervised Vision Transformers, equations 1 to 5 and algorithm 1;
    facebookresearch/dino. Deviation: the released code has no predictor; ours stands between features and head, as the head's
    outputs are too many for a predictor on top.
    """
    choice("predictor", predictor, ("none", "mlp"))
    norm = "batch" if head_batch_norm else "none"
    mlp = heads.mlp((head.hidden_dim, encoder.features), hidden_norm=norm, dtype=compute_dtype(encoder))
    networks = Networks(
        encoder,
        build_head(encoder, head, batch_norm=head_batch_norm),
        predictor=mlp if predictor == "mlp" else None,
    )
    temperature = teacher_temperature_schedule(
        temperatures.teacher, temperatures.teacher_start, temperatures.teacher_steps
    )
    teacher_ema, center_ema = cosine_ema(teacher.decay, teacher.decay_steps), ema(center_decay)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, state = init_student_and_teacher(networks, teacher_ema, key, batch)
        return params, {**state, "center": center_ema.init(jnp.zeros(head.prototypes))}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        teacher_key, student_key, _ = jax.random.split(key, 3)
        crops, center = batch["views"], state["center"]
        t, averaged = teacher_outputs(networks, state["teacher"], crops[0], teacher_key)  # logits [b, g, k]
        s, online = student_outputs(networks, params, state["online"], crops, student_key)  # logits [b, v, k]
        value = dino_loss(
            s.logits,
            t.logits,
            center.average,
            student_temperature=temperatures.student,
            teacher_temperature=temperature(step),
        )
        log_probs = teacher_log_probabilities(t.logits, center.average, temperature(step))
        if centering:
            _, center = center_ema.update(jnp.mean(t.logits, axis=(0, 1)), center)
        state = {"online": online, "teacher": averaged, "center": center}
        return value, (state, prototype_metrics(log_probs, s.logits))

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params)}

    views = presets.dino() if views is None else views
    collapse = prototype_collapse(head.prototypes, math.log(head.prototypes), patches=False)
    return Method(views, init, loss, encoder, teacher_encoder, after_update, collapse=collapse)
