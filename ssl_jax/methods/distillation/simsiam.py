"""SimSiam (Chen & He, CVPR 2021): a predictor and a stopped gradient are all that keeps a Siamese network from collapse."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.distillation import negative_cosine, softmax_similarity, teacher_entropy
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at, project_at
from ssl_jax.methods.parts.ema_teacher import EmaTeacher, teacher_projections
from ssl_jax.methods.parts.siamese import apply_per_view, pair_metrics, require_pair
from ssl_jax.models.heads import mlp
from ssl_jax.models.network import Network, chain, compute_dtype, identity
from ssl_jax.optim.ema import Ema, EmaState, ema

PREDICTORS = ("mlp", "fixed", "none")
SIMILARITIES = {"cosine": negative_cosine, "softmax": softmax_similarity}
BATCH_NORMS = ("none", "hidden", "projections", "predictions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads:
    """Options of the projector g and the predictor h.

    Attributes:
      projector_layers: depth of g, 1 or more; 3, the paper's CIFAR-10 recipe 2.
      projector_width: width of g's hidden layers; ``None``: ``projection``.
      projection: width of z and p.
      predictor_width: width of h's hidden layer: a bottleneck.
      batch_norm: reach of BatchNorm in both: ``"none"``; ``"hidden"`` layers; also the ``"projections"`` (the method), without
        γ and β; also the ``"predictions"`` (does not train well).
    """

    projector_layers: int = 3
    projector_width: int | None = None
    projection: int = 2048
    predictor_width: int = 512
    batch_norm: str = "projections"


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    predictor: str = "mlp",
    stop_gradient: bool = True,
    symmetric: bool = True,
    samples: int = 1,
    similarity: str = "cosine",
    heads: Heads = Heads(),
    decay: float | Schedule | None = None,
    alternate_steps: int = 1,
    expectation_decay: float | Schedule | None = None,
    num_examples: int | None = None,
) -> Method:
    """SimSiam.

    ``L = ½ D(p₁, sg z₂) + ½ D(p₂, sg z₁)`` with ``z = g(f(v))`` from the encoder f and the projector g, ``p = h(z)`` from the
    predictor h, and ``D(p, z) = −mean cos(p, z)``. Each view passes by itself through the network, so BatchNorm statistics are
    per view. That the predictor keeps its learning rate is the optimizer's ``constant_lr=("predictor",)``.

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.moco_v2`, which are the paper's.
      predictor: ``"mlp"``; ``"fixed"`` (random, never moved: does not converge); ``"none"`` (collapses).
      stop_gradient: sg above; without it the method collapses.
      symmetric: both directions; ``False``: only D(p₁, z₂).
      samples: pairs of views of each image, 1 or more; the loss is their mean. 2 with ``symmetric=False`` compares as many
        pairs as the symmetric loss does.
      similarity: ``"cosine"``, or ``"softmax"``: ``D = −mean softmax(z)·log softmax(p)``.
      heads: projector g and predictor h, see :class:`Heads`.
      decay: targets come from a momentum encoder, the EMA of (f, g) with this decay, 0 to 1, or a schedule of it. ``None``:
        from the network itself. A float may be traced, here and below.
      alternate_steps: k of the paper's alternating optimization: targets come from the weights of (f, g) at the last step that
        k divides, the same targets as if they had been computed then for k steps and stored. 1: from the current weights.
      expectation_decay: the target of image x is an average over its views through the run, ``η_x ← m η_x + (1 − m) n(z)``,
        with m this decay (the paper's 0.8) and n(z) the unit vector: what a predictor would learn, for ``predictor="none"``.
        ``None``: z itself. Each direction moves η_x by z of one view; their mean is stored.
      num_examples: number of training images, for each of which η_x is stored; needed with ``expectation_decay``.

    Returns:
      The method. ``encode`` gives the encoder's features. State: ``online`` and, where asked for, ``teacher`` (momentum encoder
      or snapshot), ``expectation`` ``[num_examples, heads.projection]`` and ``predictor`` (the params of a fixed one).

    Raises:
      ValueError: an unknown choice, a count below 1, or options that exclude each other.

    Reference: Exploring Simple Siamese Representation Learning, equations 1 to 4 (the method), section 4 (predictor, BatchNorm,
    similarity, symmetry) and section 5 (equations 7 to 10, alternation and expectation); facebookresearch/simsiam. Deviation:
    as in that code the last BatchNorm of g has no γ and β, and h's last layer a bias, of which the paper does not speak. The
    code's frozen bias before that BatchNorm, which it cancels, is left out. η starts at 0, to which the cosine is blind.
    """
    choice("predictor", predictor, PREDICTORS)
    choice("similarity", similarity, SIMILARITIES)
    choice("heads.batch_norm", heads.batch_norm, BATCH_NORMS)
    counts = {"samples": samples, "alternate_steps": alternate_steps}
    for name, value in {**counts, "heads.projector_layers": heads.projector_layers}.items():
        require(value >= 1, name, value, "an integer of 1 or more")
    projection = heads.projection
    projector, head = _build_heads(heads, compute_dtype(encoder))
    head, fixed = identity(projection) if predictor == "none" else head, predictor == "fixed"
    network = chain(encoder=encoder, projector=projector)
    teacher_ema = _teacher_ema(decay, alternate_steps)
    expectation = None if expectation_decay is None else ema(expectation_decay)
    _refuse_combinations(
        stop_gradient=stop_gradient,
        softmax=similarity == "softmax",
        momentum=decay is not None,
        alternating=alternate_steps > 1,
        expecting=expectation is not None,
        num_examples=num_examples,
    )
    all_views, first, second = slice(None), slice(0, None, 2), slice(1, None, 2)
    student_views, teacher_views = (all_views, all_views) if symmetric else (first, second)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, head_key = jax.random.split(key)
        params, online = network.init(network_key, batch["views"][0][:, 0])
        head_params, head_state = head.init(head_key, jnp.zeros((1, projection)))
        state: State = {"online": {**online, "predictor": head_state}}
        if teacher_ema is not None:
            state["teacher"] = EmaTeacher.init(teacher_ema, params, online)
        if expectation is not None:
            state["expectation"] = jnp.zeros((num_examples, projection))
        (state if fixed else params)["predictor"] = head_params
        return params, state

    def project(params: Params, state: State, views: Array, key: Key) -> tuple[Array, Array, State]:
        """Compute projections ``[n, v, d]`` that predict, and those that are targets, of the views in order."""
        if teacher_ema is None:
            z, online = apply_per_view(network, params, state["online"], views, key)
            return z[:, student_views], z[:, teacher_views], {**state, "online": online}
        student_key, teacher_key = jax.random.split(key)
        z, online = apply_per_view(network, params, state["online"], views[:, student_views], student_key)
        t, teacher = teacher_projections(network, state["teacher"], views[:, teacher_views], teacher_key)
        return z, t, {**state, "online": online, "teacher": teacher}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        z, t, state = project(params, state, batch["views"][0], key)
        head_params = jax.lax.stop_gradient(state["predictor"]) if fixed else params["predictor"]
        p, state["online"]["predictor"] = apply_per_view(head, head_params, state["online"]["predictor"], z)
        z1, z2 = (t[:, 0], t[:, 1]) if symmetric else (z[:, 0], t[:, 0])
        metrics = pair_metrics(z1, z2)
        t = swap_pairs(t) if symmetric else t  # each beside the prediction from the other view
        if expectation is not None:
            rows, index = state["expectation"], batch["index"]
            t, _ = expectation.update(normalize(t), EmaState(step, rows[index][:, None], jnp.float32(1)))
            state["expectation"] = jax.lax.stop_gradient(rows.at[index].set(jnp.mean(t, axis=1)))
        if stop_gradient:
            t = jax.lax.stop_gradient(t)
        if similarity == "softmax":
            metrics["target_entropy"] = teacher_entropy(jax.nn.log_softmax(t[:, 0]))
        distances = [SIMILARITIES[similarity](p[:, v], t[:, v]) for v in range(p.shape[1])]
        return sum(distances, jnp.float32(0)) / len(distances), (state, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        if teacher_ema is None:
            return state
        return {**state, "teacher": state["teacher"].update(teacher_ema, params)}

    views = presets.moco_v2() if views is None else views
    require_pair(views)
    meaning = "every view is predicted perfectly, as when all are alike"
    # With softmax the loss of a collapsed run is the entropy of whatever it collapsed to.
    collapse = () if similarity == "softmax" else (CollapseValue("loss", -1.0, meaning),)
    limits = Limits(least_batch=2)
    return Method(
        views * samples,
        init,
        loss,
        encoder,
        encoder_at("online"),
        after_update,
        project=project_at(encoder, projector, "online"),
        collapse=collapse,
        limits=limits,
        keeps_images=expectation is not None,
    )


def swap_pairs(views: Float[Array, "n v d"]) -> Float[Array, "n v d"]:
    """Swap the views of each pair: those at 0 and 1, at 2 and 3, ...

    >>> swap_pairs(jnp.arange(4).reshape(1, 4, 1)).ravel().tolist()
    [1, 0, 3, 2]
    """
    n, count, width = views.shape
    return views.reshape(n, count // 2, 2, width)[:, :, ::-1].reshape(views.shape)


def _build_heads(options: Heads, dtype: str) -> tuple[Network, Network]:
    """Build projector and predictor, BatchNorm going as far as asked. A layer has a bias where no BatchNorm follows."""
    width, projection = options.projector_width, options.projection
    hidden = (projection if width is None else width,) * (options.projector_layers - 1)
    reach = BATCH_NORMS.index(options.batch_norm)
    inner: dict[str, Any] = {"hidden_norm": "batch" if reach else "none", "hidden_bias": not reach}
    last: dict[str, Any] = {"last_norm": "batch_no_affine" if reach > 1 else "none", "last_bias": reach <= 1}
    projector = mlp((*hidden, projection), **inner, **last, dtype=dtype)
    last = {"last_norm": "batch" if reach > 2 else "none", "last_bias": reach <= 2}
    return projector, mlp((options.predictor_width, projection), **inner, **last, dtype=dtype)


def _teacher_ema(decay: float | Schedule | None, alternate_steps: int) -> Ema | None:
    """Build the average of the targets' weights; a snapshot is one whose decay is 0 now and then and else 1."""
    if alternate_steps == 1:
        return None if decay is None else ema(decay)
    return ema(lambda count: jnp.where((count + 1) % alternate_steps == 0, 0.0, 1.0))


def _refuse_combinations(
    *,
    stop_gradient: bool,
    softmax: bool,
    momentum: bool,
    alternating: bool,
    expecting: bool,
    num_examples: int | None,
) -> None:
    excluding = {
        "decay and alternate_steps above 1": momentum and alternating,
        "stop_gradient=False and decay": not stop_gradient and momentum,
        "stop_gradient=False and alternate_steps above 1": not stop_gradient and alternating,
        "stop_gradient=False and expectation_decay": not stop_gradient and expecting,
        "similarity='softmax' and expectation_decay": softmax and expecting,
    }
    for pair, both_given in excluding.items():
        if both_given:
            raise ValueError(f"{pair} exclude each other: give one of them")
    allowed = "the number of training images, as expectation_decay is given"
    require(
        not expecting or (num_examples is not None and num_examples >= 1),
        "num_examples",
        num_examples,
        allowed,
    )
