"""MeanShift (Koohpayegani et al., ICCV 2021): predict the nearest neighbours of the teacher's projection, itself among them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Metrics, Schedule, State
from ssl_jax.losses.distillation import mean_shift
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.ema_teacher import BOTH, rising, teacher_method
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.ops.neighbors import nearest_neighbors
from ssl_jax.ops.queue import Queue, queue_init, queue_push


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
      decay: of the teacher, 0 to 1, or a schedule of it. A float may be traced.
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

    def loss_of(pairs: Sequence[tuple[Array, Array]], memory: State) -> tuple[Array, State, Metrics]:
        value, bank, rows = toward_neighbors(pairs, memory["bank"], k=neighbors, block_size=block_size)
        found = jnp.zeros(queue_size).at[rows].set(1.0)
        return value, {"bank": bank}, {"distinct_neighbors": jnp.sum(found) / rows.size}

    collapse = (
        CollapseValue("loss", 0.0, "every image is at the neighbours of its target, as when all are alike"),
    )

    return teacher_method(
        encoder,
        head,
        head,
        loss_of,
        average=rising(decay, None),
        views=presets.msf() if views is None else views,
        collapse=collapse,
        directions=BOTH if symmetric else BOTH[:1],
        memory=lambda key: {"bank": queue_init(key, queue_size, projection)},
    )


def toward_neighbors(
    pairs: Sequence[tuple[Array, Array]], bank: Queue, *, k: int, block_size: int | None
) -> tuple[Array, Queue, Array]:
    """Push the targets, search the bank for each one's k neighbours, and draw the predictions there.

    Args:
      pairs: predictions and targets ``[n, d]`` of each direction.
      bank: as it was before this batch.
      k: neighbours.
      block_size: of the search.

    Returns:
      ``(loss, bank, rows)``: the mean over directions, the bank with the targets, and the rows ``[directions, n, k]`` found.
    """
    for _, targets in pairs:
        bank = queue_push(bank, jax.lax.stop_gradient(normalize(targets)))
    items = jax.lax.stop_gradient(bank.items)
    rows = [nearest_neighbors(targets, items, k, block_size=block_size)[1] for _, targets in pairs]
    losses = [mean_shift(p, items[found]) for (p, _), found in zip(pairs, rows, strict=True)]
    return sum(losses, jnp.float32(0)) / len(losses), bank, jnp.stack(rows)
