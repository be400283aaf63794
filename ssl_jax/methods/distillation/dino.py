"""DINO (Caron et al., ICCV 2021): the student matches an EMA teacher's centred, sharpened prototype distribution."""

import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.distillation import dino_loss, teacher_log_probabilities
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.ema_teacher import cosine_ema, teacher_encoder
from ssl_jax.methods.parts.self_distillation import (
    Networks,
    init_student_and_teacher,
    prototype_collapse,
    prototype_metrics,
    student_outputs,
    teacher_outputs,
    teacher_temperature_schedule,
    update_teacher,
)
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.optim.ema import ema

FOLLOWS = {"decay_steps": "steps"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    prototypes: int = 65536,
    hidden_dim: int = 2048,
    bottleneck: int = 256,
    head_layers: int = 3,
    head_batch_norm: bool = False,
    norm_last_layer: bool = True,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    teacher_temperature_start: float | None = None,
    teacher_temperature_steps: int = 0,
    decay: float | Schedule = 0.996,
    decay_steps: int | None = None,
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
      prototypes: K, width of the head's output.
      hidden_dim: width of the head's hidden layers.
      bottleneck: width of the L2-normalised layer before the prototypes.
      head_layers: layers of the head's MLP.
      head_batch_norm: BatchNorm in the head's hidden layers.
      norm_last_layer: prototypes have unit norm; else their norm is trained.
      student_temperature: τ_s.
      teacher_temperature: τ_t after its warm-up. Sharpening is τ_t < τ_s; equal temperatures switch it off (the ablation
        that collapses to the uniform distribution).
      teacher_temperature_start: τ_t at step 0, from which it moves linearly; ``None``: constant.
      teacher_temperature_steps: length of that warm-up in steps.
      decay: m₀ of the teacher, 0 to 1, or a schedule of it.
      decay_steps: length of the run, over which a float ``decay`` rises to 1; ``None``: it stays constant.
      centering: subtract the centre (off: the ablation that collapses to one prototype).
      center_decay: m_c.
      predictor: ``"none"``, or ``"mlp"``: an MLP of the student alone, as BYOL's, with ``hidden_dim`` units and BatchNorm where
        the head has it (an ablation of the paper).

    Returns:
      The method. ``encode`` gives the teacher encoder's features, which the authors evaluate.

    Raises:
      ValueError: unknown ``predictor``.

    Reference: Emerging Properties in Self-Supervised Vision Transformers, equations 1 to 5 and algorithm 1;
    facebookresearch/dino. Deviation: the released code has no predictor; ours stands between features and head, as the head's
    outputs are too many for a predictor on top.
    """
    choice("predictor", predictor, ("none", "mlp"))
    head = heads.dino_head(
        prototypes,
        hidden_dim=hidden_dim,
        bottleneck=bottleneck,
        layers=head_layers,
        batch_norm=head_batch_norm,
        norm_last_layer=norm_last_layer,
        dtype=compute_dtype(encoder),
    )
    norm = "batch" if head_batch_norm else "none"
    mlp = heads.mlp((hidden_dim, encoder.features), hidden_norm=norm, dtype=compute_dtype(encoder))
    networks = Networks(encoder, head, predictor=mlp if predictor == "mlp" else None)
    temperature = teacher_temperature_schedule(
        teacher_temperature, teacher_temperature_start, teacher_temperature_steps
    )
    teacher_ema, center_ema = cosine_ema(decay, decay_steps), ema(center_decay)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, state = init_student_and_teacher(networks, teacher_ema, key, batch)
        return params, {**state, "center": center_ema.init(jnp.zeros(prototypes))}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        teacher_key, student_key, _ = jax.random.split(key, 3)
        crops, center = batch["views"], state["center"]
        t, teacher = teacher_outputs(networks, state["teacher"], crops[0], teacher_key)  # logits [b, g, k]
        s, online = student_outputs(networks, params, state["online"], crops, student_key)  # logits [b, v, k]
        value = dino_loss(
            s.logits,
            t.logits,
            center.average,
            student_temperature=student_temperature,
            teacher_temperature=temperature(step),
        )
        log_probs = teacher_log_probabilities(t.logits, center.average, temperature(step))
        if centering:
            _, center = center_ema.update(jnp.mean(t.logits, axis=(0, 1)), center)
        state = {"online": online, "teacher": teacher, "center": center}
        return value, (state, prototype_metrics(log_probs, s.logits))

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": update_teacher(state["teacher"], teacher_ema, params)}

    views = presets.dino() if views is None else views
    collapse = prototype_collapse(prototypes, math.log(prototypes), patches=False)
    return Method(views, init, loss, encoder, teacher_encoder, after_update, collapse=collapse)
