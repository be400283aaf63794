"""BYOL (Grill et al., NeurIPS 2020): predict a slowly moving teacher's projection of the other view; no negatives."""

from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.distillation import byol_loss
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at, project_at
from ssl_jax.methods.parts.ema_teacher import EmaTeacher, cosine_ema, teacher_projections
from ssl_jax.methods.parts.siamese import apply_per_view, pair_metrics, require_pair
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, identity

FOLLOWS = {"decay_steps": "steps"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    decay: float | Schedule = 0.996,
    decay_steps: int | None = None,
    independent_init: bool = True,
    predictor: str = "mlp",
    projector_layers: int = 2,
    hidden_dim: int = 4096,
    projector_width: int | None = None,
    predictor_width: int | None = None,
    projection: int = 256,
    hidden_norm: str = "batch",
) -> Method:
    """BYOL.

    ``L = mean [ ‖n(p₁) − n(sg z'₂)‖² + ‖n(p₂) − n(sg z'₁)‖² ]`` with ``p = q(g(f(v)))`` from the online encoder f, projector g
    and predictor q, and ``z' = g'(f'(v))`` from the teacher (f', g'), the EMA of (f, g) with ``m(t) = 1 − (1 − m₀)
    (1 + cos(πt/T))/2``. Each view passes by itself through each network, so BatchNorm statistics are per view; the teacher
    normalises with the statistics of its own batch.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.byol`.
      decay: m₀, 0 (the teacher is the student of the step before) to 1 (a frozen random teacher), or a schedule of it. A
        float may be traced.
      decay_steps: T, the length of the run, over which a float ``decay`` rises to 1; ``None``: it stays constant.
      independent_init: the teacher starts from weights of its own, as in the official code, not the student's. What is left
        of them after t steps weighs ``Π m``, 14 % after 195 steps at .99, so a short run may prefer the student's.
      predictor: ``"mlp"``, or ``"none"`` (the ablation that collapses).
      projector_layers: depth of g, an ablation of the paper (its table 14); 0: none, the features are predicted.
      hidden_dim: width of the hidden layers of projector and predictor.
      projector_width: the projector's, if it differs; ``None``: ``hidden_dim``.
      predictor_width: the predictor's, likewise.
      projection: width of their outputs; without projector the encoder's features take its place.
      hidden_norm: of the hidden layers: ``"batch"``; ``"group"``: GroupNorm and standardised weights, which with an encoder of
        ``norm="group"`` makes BYOL without batch statistics; ``"layer"``; ``"none"``.

    Returns:
      The method. ``encode`` gives the online encoder's features.

    Raises:
      ValueError: unknown ``predictor`` or ``hidden_norm``, a negative depth.

    Reference: Bootstrap Your Own Latent, equations 1 to 3 and algorithm 1; deepmind-research/byol; Richemond et al.,
    BYOL works even without batch statistics (2020). Deviation: the official online linear classifier is not part of the method
    (see ``ssl_jax.evaluate.online``).
    """
    choice("predictor", predictor, ("mlp", "none"))
    require(projector_layers >= 0, "projector_layers", projector_layers, "an integer of 0 or more")
    outputs = projection if projector_layers else encoder.features

    def head(layers: int, width: int | None) -> Network:
        options: dict[str, Any] = {"last_bias": False, "kernel_init": "lecun", "hidden_norm": hidden_norm}
        widths = (hidden_dim if width is None else width,) * (layers - 1) + (outputs,)
        return heads.mlp(widths, dtype=compute_dtype(encoder), **options)

    projector = head(projector_layers, projector_width) if projector_layers else identity(outputs)
    online = chain(encoder=encoder, projector=projector)
    q = identity(outputs) if predictor == "none" else head(2, predictor_width)
    teacher_ema = cosine_ema(decay, decay_steps)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        online_key, teacher_key, predictor_key, _ = jax.random.split(key, 4)
        images = batch["views"][0][:, 0]
        params, state = online.init(online_key, images)
        start = online.init(teacher_key, images) if independent_init else (params, state)
        teacher = EmaTeacher.init(teacher_ema, *start)
        projections = jnp.zeros((images.shape[0], outputs))
        predictor, statistics = q.init(predictor_key, projections)
        online_state = {**state, "predictor": statistics}
        return {**params, "predictor": predictor}, {"online": online_state, "teacher": teacher}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        student_key, teacher_key = jax.random.split(key)
        views = batch["views"][0]
        z, student = apply_per_view(online, params, state["online"], views, student_key)  # [n, 2, d]
        p, student["predictor"] = apply_per_view(q, params["predictor"], student["predictor"], z)
        t, teacher = teacher_projections(online, state["teacher"], views, teacher_key)
        value = byol_loss(p[:, 0], t[:, 1]) + byol_loss(p[:, 1], t[:, 0])
        return value, ({"online": student, "teacher": teacher}, pair_metrics(p[:, 0], t[:, 1]))

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params)}

    views = presets.byol() if views is None else views
    require_pair(views)
    collapse = (CollapseValue("loss", 0.0, "every image is predicted perfectly, as when all are alike"),)
    limits = Limits(least_batch=2)
    return Method(
        views,
        init,
        loss,
        encoder,
        encoder_at("online"),
        after_update,
        project=project_at(encoder, projector, "online"),
        collapse=collapse,
        limits=limits,
    )
