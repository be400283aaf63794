"""SwAV (Caron et al., NeurIPS 2020): each crop predicts the balanced cluster assignment of another one."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import positive, require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.clustering import balanced_codes, swapped_prediction
from ssl_jax.losses.distillation import teacher_entropy, usage
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at
from ssl_jax.methods.parts.multi_crop import (
    VIEWS,
    cosines,
    global_count,
    require_global_views,
    swav_projector,
    unit_projections,
)
from ssl_jax.methods.parts.siamese import pair_metrics
from ssl_jax.models.network import Network, chain
from ssl_jax.ops.queue import Queue, queue_push
from ssl_jax.ops.sinkhorn import Sinkhorn

TINY = 1e-30
"""Below it a share counts as 0 in an entropy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codes(Sinkhorn):
    """Options of codes: those of :class:`ssl_jax.ops.sinkhorn.Sinkhorn`, and how sharp codes are.

    Attributes:
      epsilon: ε > 0, low makes codes sharp; 0.03 where training collapses. May be traced.
      hard: codes are rounded to one prototype.
    """

    epsilon: float = 0.05
    hard: bool = False


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    prototypes: int = 3000,
    temperature: float = 0.1,
    sinkhorn: Codes = Codes(),
    queue_size: int = 0,
    queue_start: int = 0,
    projector_width: int = 2048,
    projection: int = 128,
    head_batch_norm: bool = True,
) -> Method:
    """SwAV.

    With ``z = n(g(f(crop)))``, C the ``prototypes`` (rows of norm 1), τ ``temperature``, a the global crops, v all V crops::

        q_a = Sinkhorn(sg z_a Cᵀ / ε),   L = mean over a of 1/(V−1) Σ_{v≠a}  mean −Σ_k q_a[k] log softmax(z_v Cᵀ / τ)[k]

    Order in a step: all crops pass; the queue is scored with the C of this step and joins the batch in Sinkhorn if it is full;
    then the global crops' z of this batch enter it, and the oldest leave.

    The optimizer has two more parts of the method. ``normalize_rows=("prototypes",)`` normalises C in place after each update,
    that is before the next forward pass: the gradient is that of a plain matrix, momentum and decay act on it, and there is no
    weight normalisation in between. (Without it the loss normalises what it is given, with the same gradient, and the step on
    the sphere shrinks as C grows.) ``freeze=(("prototypes", n),)`` holds C still for the first n steps, decay and momentum
    included, which keeps it from collapsing before the features mean anything.

    Args:
      encoder: the network to train.
      views: global crops, which make codes, then local ones; ``None``: 2 x 224 and 6 x 96 pixels, colours of SimCLR.
      prototypes: K; batch and queue together should be no fewer.
      temperature: τ > 0. May be traced.
      sinkhorn: how codes are made, see :class:`Codes`.
      queue_size: images whose z are kept for Sinkhorn, 0 or at least the batch; for batches smaller than K (3840 at 256).
      queue_start: step from which the queue is filled (15 epochs in the paper): earlier features change too fast.
      projector_width: width of g's hidden layer.
      projection: width of z.
      head_batch_norm: BatchNorm in g's hidden layer; without is one of the authors' remedies against collapse.

    Returns:
      The method. ``encode`` gives the encoder's features. ``params["prototypes"]`` is C, ``[K, projection]``.
      Metrics: ``code_entropy``, mean of the codes' entropies; ``prototypes_used``, how many are the first choice of a global
      crop of the batch; ``prototype_usage``, :func:`ssl_jax.losses.distillation.usage` of the codes.

    Raises:
      ValueError: a count out of range, a temperature or ε that is not positive, fewer than two global views.

    Reference: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, equations 1 to 6, section 3 and
    algorithm 1; facebookresearch/swav. Deviation: the queue is of the global batch, not of each device.
    """
    require(prototypes >= 1, "prototypes", prototypes, "an integer of 1 or more")
    require(queue_size >= 0, "queue_size", queue_size, "an integer of 0 or more")
    require(sinkhorn.iterations >= 1, "sinkhorn.iterations", sinkhorn.iterations, "an integer of 1 or more")
    positive("temperature", temperature)
    positive("sinkhorn.epsilon", sinkhorn.epsilon)
    views = presets.dino(**VIEWS) if views is None else views
    require_global_views(views)
    crops = global_count(views)
    projector = swav_projector(
        encoder, width=projector_width, projection=projection, batch_norm=head_batch_norm
    )
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, prototype_key = jax.random.split(key)
        params, online = network.init(network_key, batch["views"][0][:, 0])
        rows = jax.random.normal(prototype_key, (prototypes, projection), jnp.float32)
        state: State = {"online": online}
        if queue_size:
            # Rows of zeros were never filled. One row an image: the z of its global crops, side by side.
            state["queue"] = Queue(jnp.zeros((queue_size, crops * projection), jnp.float32), jnp.int32(0))
        return {**params, "prototypes": normalize(rows)}, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        z, online = unit_projections(encoder, projector, params, state["online"], batch, key)  # [b, v, d]
        state = {**state, "online": online}
        rows = params["prototypes"]
        # The value is normalised, the gradient is that of the rows as if they were the value.
        rows = rows + jax.lax.stop_gradient(normalize(rows) - rows)
        scores = cosines(z, rows)  # [b, v, k]
        queue_scores, full = None, jnp.bool_(False)
        if queue_size:
            queue: Queue = jax.lax.stop_gradient(state["queue"])
            queue_scores = cosines(queue.items.reshape(queue_size, crops, projection), rows)
            full = jnp.any(queue.items[queue.pointer] != 0)
            pushed = queue_push(queue, jax.lax.stop_gradient(z[:, :crops]).reshape(len(z), -1))
            state["queue"] = jax.tree.map(
                lambda new, old: jnp.where(step >= queue_start, new, old), pushed, queue
            )
        codes = balanced_codes(
            scores[:, :crops],
            queue_scores,
            use_queue=full,
            epsilon=sinkhorn.epsilon,
            iterations=sinkhorn.iterations,
            hard=sinkhorn.hard,
            log_domain=sinkhorn.log_domain,
        )
        value = swapped_prediction(scores, codes, temperature=temperature)
        log_codes = jnp.log(jnp.maximum(codes, TINY))
        first_choices = jnp.zeros(prototypes).at[jnp.argmax(codes, axis=-1).ravel()].set(1.0)
        metrics = {
            **pair_metrics(z[:, 0], z[:, 1]),
            "code_entropy": teacher_entropy(log_codes),
            "prototypes_used": jnp.sum(first_choices),
            "prototype_usage": usage(log_codes),
        }
        return value, (state, metrics)

    most = math.log(prototypes)
    collapse = (
        CollapseValue("loss", most, "all projections are alike, and so are their codes"),
        CollapseValue("code_entropy", most, "codes give every prototype the same share"),
    )
    limits = Limits(least_batch=2, most_batch=queue_size or None)
    return Method(views, init, loss, encoder, encoder_at("online"), collapse=collapse, limits=limits)
