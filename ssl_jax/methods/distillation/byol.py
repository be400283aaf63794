"""BYOL (Grill et al., NeurIPS 2020): predict a slowly moving teacher's projection of the other view; no negatives."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.distillation import byol_loss
from ssl_jax.methods.common import chain, compute_dtype, encode_with, identity, pair_health
from ssl_jax.methods.method import Method, Sign
from ssl_jax.models import heads
from ssl_jax.models.network import Network
from ssl_jax.optim.ema import ema
from ssl_jax.schedules import cosine


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    decay: float | Schedule = 0.996,
    decay_steps: int | None = None,
    predictor: str = "mlp",
    hidden: int = 4096,
    projection: int = 256,
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
      hidden: width of the hidden layer of projector and predictor.
      projection: width of their outputs.

    Returns:
      The method. ``encode`` gives the online encoder's features.

    Raises:
      ValueError: unknown ``predictor``.

    Reference: Bootstrap Your Own Latent, equations 1 to 3 and algorithm 1; deepmind-research/byol. Deviation: the official
    online linear classifier is not part of the method (see ``ssl_jax.train.hooks``).
    """
    choice("predictor", predictor, ("mlp", "none"))
    projector_net = heads.mlp(
        (hidden, projection), last_bias=False, kernel_init="lecun", dtype=compute_dtype(encoder)
    )
    branch = chain(encoder=encoder, projector=projector_net)
    predictor_net = identity(projection) if predictor == "none" else projector_net
    if decay_steps is not None and not callable(decay):
        decay = cosine(decay, 1.0, decay_steps)
    average = ema(decay)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        online_key, teacher_key, predictor_key = jax.random.split(key, 3)
        images = batch["views"][0][:, 0]
        params, state = branch.init(online_key, images)
        teacher, teacher_state = branch.init(teacher_key, images)
        projections = jnp.zeros((images.shape[0], projection))
        params["predictor"], state["predictor"] = predictor_net.init(predictor_key, projections)
        return params, {
            "online": state,
            "teacher": {"variables": average.init(teacher), "state": teacher_state},
        }

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        online, teacher_state = state["online"], state["teacher"]["state"]
        predictions, targets = [], []
        for view in batch["views"][0].swapaxes(0, 1):
            key, online_key, teacher_key = jax.random.split(key, 3)
            (_, z), online = branch.apply(params, online, view, train=True, key=online_key)
            p, predictor_state = predictor_net.apply(params["predictor"], online["predictor"], z, train=True)
            online = {**online, "predictor": predictor_state}
            (_, target), teacher_state = branch.apply(
                state["teacher"]["variables"].average, teacher_state, view, train=True, key=teacher_key
            )
            predictions.append(p)
            targets.append(jax.lax.stop_gradient(target))
        value = byol_loss(predictions[0], targets[1]) + byol_loss(predictions[1], targets[0])
        state = {"online": online, "teacher": {**state["teacher"], "state": teacher_state}}
        return value, (state, pair_health(*predictions))

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        averaged = {"encoder": params["encoder"], "projector": params["projector"]}
        _, variables = average.update(averaged, state["teacher"]["variables"])
        return {**state, "teacher": {**state["teacher"], "variables": variables}}

    def encoder_of(params: Params, state: State) -> tuple[Params, State]:
        return params["encoder"], state["online"]["encoder"]

    def encode(params: Params, state: State, images: Array) -> Array:
        return encode_with(encoder, *encoder_of(params, state), images)

    def signs(batch_size: int) -> tuple[Sign, ...]:
        del batch_size
        return (Sign("loss", 0.0, "every image is predicted perfectly, as when all are alike"),)

    views = presets.byol() if views is None else views
    return Method(views, init, loss, encode, encoder, encoder_of, after_update, signs=signs)
