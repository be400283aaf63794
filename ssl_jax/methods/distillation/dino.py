"""DINO (Caron et al., ICCV 2021): the student matches an EMA teacher's centred, sharpened prototype distribution."""

import math

import jax
import jax.numpy as jnp

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.distillation import (
    dino_loss,
    divergence_from_uniform,
    teacher_entropy,
    teacher_log_probabilities,
    usage,
)
from ssl_jax.methods.common import compute_dtype, encode_with, merge_views, pair_health, split_views
from ssl_jax.methods.method import Method, Sign
from ssl_jax.methods.teacher import rising
from ssl_jax.models import heads
from ssl_jax.models.network import Network
from ssl_jax.optim.ema import ema
from ssl_jax.schedules import as_schedule, linear


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    prototypes: int = 65536,
    hidden: int = 2048,
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
      hidden: width of the head's hidden layers.
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

    Returns:
      The method. ``encode`` gives the teacher encoder's features, which the authors evaluate.

    Reference: Emerging Properties in Self-Supervised Vision Transformers, equations 1 to 5 and algorithm 1;
    facebookresearch/dino.
    """
    head = heads.dino_head(
        prototypes,
        hidden=hidden,
        bottleneck=bottleneck,
        layers=head_layers,
        batch_norm=head_batch_norm,
        norm_last_layer=norm_last_layer,
        dtype=compute_dtype(encoder),
    )
    teacher_encoder = encoder
    if encoder.config.get("drop_path"):
        teacher_encoder = models.build(**{**encoder.config, "drop_path": 0.0})
    average, center_average = rising(decay, decay_steps), ema(center_decay)
    if teacher_temperature_start is None:
        temperature = as_schedule(teacher_temperature)
    else:
        temperature = linear(teacher_temperature_start, teacher_temperature, teacher_temperature_steps)

    def embed(
        network: Network, params: Params, state: State, crops: tuple[Array, ...], key: Key
    ) -> tuple[Array, State]:
        """Head outputs ``[batch, views, prototypes]`` of all crops."""
        state, features = dict(state), []
        for i, group in enumerate(crops):
            output, state["encoder"] = network.apply(
                params["encoder"],
                state["encoder"],
                merge_views(group),
                train=True,
                key=jax.random.fold_in(key, i),
            )
            features.append(split_views(output, group.shape[1]))
        joined = jnp.concatenate(features, axis=1)
        logits, state["head"] = head.apply(params["head"], state["head"], merge_views(joined), train=True)
        return split_views(logits, joined.shape[1]), state

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, head_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        features = jnp.zeros((images.shape[0], encoder.features))
        params["head"], state["head"] = head.init(head_key, features)
        teacher = {"variables": average.init(params), "state": state}
        return params, {
            "online": state,
            "teacher": teacher,
            "center": center_average.init(jnp.zeros(prototypes)),
        }

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        teacher, center = state["teacher"], state["center"]
        teacher_key, student_key = jax.random.split(key)
        targets, teacher_state = embed(
            teacher_encoder, teacher["variables"].average, teacher["state"], batch["views"][:1], teacher_key
        )
        targets = jax.lax.stop_gradient(targets)
        logits, online = embed(encoder, params, state["online"], batch["views"], student_key)
        temperatures = {"student_temperature": student_temperature, "teacher_temperature": temperature(step)}
        value = dino_loss(logits, targets, center.average, **temperatures)
        beliefs = teacher_log_probabilities(targets, center.average, temperature(step))
        metrics = {
            "teacher_entropy": teacher_entropy(beliefs),
            "teacher_kl_uniform": divergence_from_uniform(beliefs),
            "prototype_usage": usage(beliefs),
            **pair_health(logits[:, 0], logits[:, 1]),
        }
        if centering:
            _, center = center_average.update(jnp.mean(targets, axis=(0, 1)), center)
        state = {"online": online, "teacher": {**teacher, "state": teacher_state}, "center": center}
        return value, (state, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        _, variables = average.update(params, state["teacher"]["variables"])
        return {**state, "teacher": {**state["teacher"], "variables": variables}}

    def encoder_of(params: Params, state: State) -> tuple[Params, State]:
        del params
        teacher = state["teacher"]
        return teacher["variables"].average["encoder"], teacher["state"]["encoder"]

    def encode(params: Params, state: State, images: Array) -> Array:
        return encode_with(encoder, *encoder_of(params, state), images)

    def signs(batch_size: int) -> tuple[Sign, ...]:
        del batch_size
        return (
            Sign("loss", math.log(prototypes), "the teacher says nothing: its distribution is uniform"),
            Sign("teacher_entropy", math.log(prototypes), "the teacher gives every prototype the same share"),
            Sign("teacher_kl_uniform", math.log(prototypes), "one prototype takes every image"),
        )

    views = presets.dino() if views is None else views
    return Method(views, init, loss, encode, encoder, encoder_of, after_update, signs=signs)
