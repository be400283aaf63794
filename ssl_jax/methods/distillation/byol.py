"""BYOL (Grill et al., NeurIPS 2020): predict a slowly moving teacher's projection of the other view; no negatives."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Metrics, Schedule, State
from ssl_jax.losses.distillation import byol_loss
from ssl_jax.methods.method import Method, Sign
from ssl_jax.methods.parts.ema_teacher import rising, teacher_method
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype, identity


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    decay: float | Schedule = 0.996,
    decay_steps: int | None = None,
    predictor: str = "mlp",
    projector_layers: int = 2,
    hidden: int = 4096,
    projector_width: int | None = None,
    predictor_width: int | None = None,
    projection: int = 256,
    hidden_norm: str = "batch",
) -> Method:
    """BYOL.

    ``L = mean [ ‖n(p₁) − n(sg z'₂)‖² + ‖n(p₂) − n(sg z'₁)‖² ]`` with ``p = q(g(f(v)))`` from the online encoder f, projector g
    and predictor q, and ``z' = g'(f'(v))`` from the teacher (f', g'), the EMA of (f, g) with ``m(t) = 1 − (1 − m₀)
    (1 + cos(πt/T))/2``. Each view passes by itself through each network, so BatchNorm statistics are per view; the teacher
    normalises with the statistics of its own batch. As in the official code the teacher starts from weights of its own.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.byol`.
      decay: m₀, 0 (the teacher is the student of the step before) to 1 (a frozen random teacher), or a schedule of it. A
        float may be traced.
      decay_steps: T, the length of the run, over which a float ``decay`` rises to 1; ``None``: it stays constant.
      predictor: ``"mlp"``, or ``"none"`` (the ablation that collapses).
      projector_layers: depth of g, an ablation of the paper (its table 14); 0: none, the features are predicted.
      hidden: width of the hidden layers of projector and predictor.
      projector_width: the projector's, if it differs; ``None``: ``hidden``.
      predictor_width: the predictor's, likewise.
      projection: width of their outputs; without projector the encoder's features take its place.
      hidden_norm: of the hidden layers: ``"batch"``; ``"group"``: GroupNorm and standardised weights, which with an encoder of
        ``norm="group"`` makes BYOL without batch statistics; ``"none"``.

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
        widths = (hidden if width is None else width,) * (layers - 1) + (outputs,)
        return heads.mlp(widths, dtype=compute_dtype(encoder), **options)

    def loss_of(pairs: Sequence[tuple[Array, Array]], memory: State) -> tuple[Array, State, Metrics]:
        return sum((byol_loss(p, t) for p, t in pairs), jnp.float32(0)), memory, {}

    def signs(batch_size: int) -> tuple[Sign, ...]:
        del batch_size
        return (Sign("loss", 0.0, "every image is predicted perfectly, as when all are alike"),)

    return teacher_method(
        encoder,
        head(projector_layers, projector_width) if projector_layers else identity(outputs),
        identity(outputs) if predictor == "none" else head(2, predictor_width),
        loss_of,
        average=rising(decay, decay_steps),
        views=presets.byol() if views is None else views,
        signs=signs,
        own_start=True,
    )
