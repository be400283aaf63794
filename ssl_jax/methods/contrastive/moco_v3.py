"""MoCo v3 (Chen, Xie & He, ICCV 2021): InfoNCE between a predictor's output and a teacher's; no queue; made for ViTs."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.contrastive import info_nce
from ssl_jax.losses.nce import information_bound
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at, project_at
from ssl_jax.methods.parts.ema_teacher import EmaTeacher, cosine_ema, teacher_projections
from ssl_jax.methods.parts.siamese import apply_per_view, pair_metrics, require_pair
from ssl_jax.models import heads as models_heads
from ssl_jax.models.network import Network, chain, compute_dtype

FOLLOWS = {"decay_steps": "steps"}
"""Options whose values follow others of the config."""


HEADS = ("resnet", "vit")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    temperature: float = 1.0,
    decay: float | Schedule = 0.99,
    decay_steps: int | None = None,
    heads: str | None = None,
    hidden_dim: int = 4096,
    projection: int = 256,
    block_size: int | None = None,
) -> Method:
    """MoCo v3.

    ``L = 2τ [ InfoNCE(p₁, sg z'₂; τ) + InfoNCE(p₂, sg z'₁; τ) ]`` with ``p = q(g(f(v)))`` from the encoder f, projector g and
    predictor q, ``z' = g'(f'(v))`` from the teacher (f', g'), the EMA of (f, g) with ``m(t) = 1 − (1 − m₀)(1 + cos(πt/T))/2``,
    and τ ``temperature``. Candidates are the teacher's N projections of the other view. The factor 2τ keeps the size of the
    gradient the same for all τ.

    A random patch projection that stays as it is makes the training of a ViT stable: an option of the encoder,
    ``freeze_patch``. Its teacher's copy is the same one.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.byol`.
      temperature: τ > 0; 1.0 for ResNets, 0.2 for ViTs. May be traced.
      decay: m₀, 0 to 1, or a schedule of it. A float may be traced.
      decay_steps: T, the length of the run, over which a float ``decay`` rises to 1; ``None``: it stays constant.
      heads: ``"resnet"``: projector of 2 layers, predictor that ends without BatchNorm; ``"vit"``: projector of 3 layers,
        predictor that ends with one; ``None``: ``"vit"`` for encoders that cut images into patches. No layer has a bias, and
        BatchNorm at the end has no parameters.
      hidden_dim: width of the hidden layers of projector and predictor.
      projection: width of their outputs.
      block_size: candidates a block of the loss that never holds the N x N matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the student encoder's features.

    Raises:
      ValueError: unknown ``heads``.

    Reference: An Empirical Study of Training Self-Supervised Vision Transformers, algorithm 1 and section 4;
    facebookresearch/moco-v3. Deviation: the official code moves the teacher between the student's and the teacher's forward
    pass of a step, here it moves after the update, which gives the same sequence; its momentum is that of the epoch's
    fraction, ours that of the step.
    """
    kind = ("vit" if "patch" in encoder.config else "resnet") if heads is None else heads
    check.choice("heads", kind, HEADS)
    options: dict[str, Any] = {"hidden_bias": False, "last_bias": False, "dtype": compute_dtype(encoder)}
    depth = {"resnet": 1, "vit": 2}[kind]
    projector = models_heads.mlp(
        (hidden_dim,) * depth + (projection,), last_norm="batch_no_affine", **options
    )
    predictor_end = {"resnet": "none", "vit": "batch_no_affine"}[kind]
    predictor = models_heads.mlp((hidden_dim, projection), last_norm=predictor_end, **options)

    network = chain(encoder=encoder, projector=projector)
    teacher_ema = cosine_ema(decay, decay_steps)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        online_key, _, predictor_key = jax.random.split(key, 3)
        params, online = network.init(online_key, batch["views"][0][:, 0])
        teacher = EmaTeacher.init(teacher_ema, params, online)
        params["predictor"], head_state = predictor.init(predictor_key, jnp.zeros((1, projection)))
        return params, {"online": {**online, "predictor": head_state}, "teacher": teacher}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        student_key, teacher_key = jax.random.split(key)
        views = batch["views"][0]
        z, online = apply_per_view(network, params, state["online"], views, student_key)  # [n, 2, d]
        p, online["predictor"] = apply_per_view(predictor, params["predictor"], online["predictor"], z)
        t, teacher = teacher_projections(network, state["teacher"], views, teacher_key)
        info = functools.partial(info_nce, temperature=temperature, block_size=block_size)
        both = info(p[:, 0], t[:, 1]) + info(p[:, 1], t[:, 0])
        bound = information_bound(both / 2, len(p))
        metrics = {**pair_metrics(p[:, 0], t[:, 1]), "information_bound": bound}
        return 2 * temperature * both, ({"online": online, "teacher": teacher}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params)}

    views = presets.byol() if views is None else views
    require_pair(views)
    meaning = "predictions or the teacher's projections are all alike"
    collapse = (CollapseValue("loss", lambda n: 4 * float(temperature) * math.log(n), meaning),)
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
