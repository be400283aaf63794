"""MeanShift (Koohpayegani et al., ICCV 2021): predict the nearest neighbours of the teacher's projection, itself among them."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.distillation import mean_shift
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at
from ssl_jax.methods.parts.ema_teacher import EmaTeacher, teacher_projections
from ssl_jax.methods.parts.siamese import apply_per_view, pair_metrics, require_pair
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.ops.neighbors import nearest_neighbors
from ssl_jax.ops.queue import Queue, queue_init, queue_push
from ssl_jax.optim.ema import ema


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    neighbors: int = 5,
    queue_size: int = 131072,
    decay: float | Schedule = 0.99,
    symmetric: bool = False,
    hidden_dim: int | None = None,
    projection: int | None = None,
    block_size: int | None = None,
) -> Method:
    """MeanShift (MSF).

    ``L = mean_i 1/k Σ_{j ∈ I_i} ‖n(p_i) − c_j‖²`` with ``p = h(g(f(v₁)))`` from the encoder f, projector g and predictor h,
    c the rows of a bank of past targets, and I_i the k rows nearest to the target ``u_i = n(g'(f'(v₂)))`` of the teacher
    (f', g'), the EMA of (f, g). The targets enter the bank before the search: u_i is its own first neighbour, and k = 1
    is BYOL.

    Args:
      encoder: the network to train.
      views: two views of one size, the student's first; ``None``: :func:`ssl_jax.augment.presets.msf`, strong and weak.
      neighbors: k, 1 to ``queue_size``.
      queue_size: rows of the bank; a small one has no near neighbours early in a run. At least the targets of a step.
      decay: decay of the teacher, 0 to 1, or a schedule of it. A float may be traced.
      symmetric: the mean over both directions; the targets of both views enter the bank before either search.
      hidden_dim: width of the hidden layer of g and h; ``None``: twice the encoder's features, as in the authors' code.
      projection: width of their outputs; ``None``: a quarter of the encoder's features.
      block_size: rows of the bank a block of the search that never holds the N x K similarities; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the student encoder's features. ``distinct_neighbors`` among the metrics is the share of the
      N·k neighbours that are different rows.

    Raises:
      ValueError: ``neighbors`` or ``queue_size`` out of range.

    Reference: Mean Shift for Self-Supervised Learning, section 3 and equation 2; UMBCvision/MSF. Deviation: the code takes
    BatchNorm statistics on each device and shuffles the targets' batch; here they are of the global batch. Its teacher
    moves before the targets' forward pass, here after the update, which is the same sequence.
    """
    require(queue_size >= 1, "queue_size", queue_size, "an integer of 1 or more")
    allowed = f"an integer from 1 to queue_size={queue_size}"
    require(1 <= neighbors <= queue_size, "neighbors", neighbors, allowed)
    hidden_dim = 2 * encoder.features if hidden_dim is None else hidden_dim
    projection = max(encoder.features // 4, 1) if projection is None else projection
    head = heads.mlp((hidden_dim, projection), dtype=compute_dtype(encoder))
    network = chain(encoder=encoder, projector=head)
    teacher_ema = ema(decay)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        online_key, _, predictor_key, bank_key = jax.random.split(key, 4)
        params, online = network.init(online_key, batch["views"][0][:, 0])
        teacher = EmaTeacher.init(teacher_ema, params, online)
        params["predictor"], head_state = head.init(predictor_key, jnp.zeros((1, projection)))
        bank = queue_init(bank_key, queue_size, projection)
        return params, {"online": {**online, "predictor": head_state}, "teacher": teacher, "bank": bank}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        student_key, teacher_key = jax.random.split(key)
        views = batch["views"][0]
        strong, weak = (views, views) if symmetric else (views[:, :1], views[:, 1:])
        z, online = apply_per_view(network, params, state["online"], strong, student_key)  # [n, v, d]
        p, online["predictor"] = apply_per_view(head, params["predictor"], online["predictor"], z)
        u, teacher = teacher_projections(network, state["teacher"], weak, teacher_key)
        u = u[:, ::-1]  # each beside the prediction from the other view
        value, bank, rows = attract_to_neighbors(p, u, state["bank"], k=neighbors, block_size=block_size)
        taken = jnp.zeros(queue_size).at[rows].set(1.0)
        metrics = {**pair_metrics(p[:, 0], u[:, 0]), "distinct_neighbors": jnp.sum(taken) / rows.size}
        return value, ({"online": online, "teacher": teacher, "bank": bank}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params)}

    views = presets.msf() if views is None else views
    require_pair(views)
    collapse = (
        CollapseValue("loss", 0.0, "every image is at the neighbours of its target, as when all are alike"),
    )
    limits = Limits(least_batch=2, most_batch=queue_size)
    return Method(
        views, init, loss, encoder, encoder_at("online"), after_update, collapse=collapse, limits=limits
    )


def attract_to_neighbors(
    predictions: Float[Array, "n v d"],
    targets: Float[Array, "n v d"],
    bank: Queue,
    *,
    k: int,
    block_size: int | None,
) -> tuple[Float[Array, ""], Queue, Int[Array, "v n k"]]:
    """Push the targets, search the bank for each one's k neighbours, and draw the predictions to them.

    Args:
      predictions: ``[n, v, d]``, of v directions.
      targets: ``[n, v, d]``, in the same order.
      bank: the targets of earlier batches.
      k: number of neighbours.
      block_size: rows of the bank a block of the search; ``None``: the plain form.

    Returns:
      ``(loss, bank, rows)``: the mean over directions, the bank with the targets, and the rows ``[v, n, k]`` of the neighbours.
    """
    for u in targets.swapaxes(0, 1):
        bank = queue_push(bank, jax.lax.stop_gradient(normalize(u)))
    items = jax.lax.stop_gradient(bank.items)
    rows = [nearest_neighbors(u, items, k, block_size=block_size)[1] for u in targets.swapaxes(0, 1)]
    losses = [mean_shift(p, items[i]) for p, i in zip(predictions.swapaxes(0, 1), rows, strict=True)]
    return sum(losses, jnp.float32(0)) / len(losses), bank, jnp.stack(rows)
