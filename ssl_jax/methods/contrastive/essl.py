"""E-SSL (Dangovski et al., ICLR 2022): two views attract as in SimCLR or SimSiam, and a third crop tells how it was turned."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment import presets
from ssl_jax.augment.operations import Flip, Operation, Rotate
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, not_negative, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.contrastive import info_nce
from ssl_jax.losses.distillation import negative_cosine
from ssl_jax.methods.method import CollapseValue, Limits, Method, project_at
from ssl_jax.methods.parts.siamese import apply_per_view, merge_views, pair_metrics
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, identity
from ssl_jax.ops.transformations import TRANSFORMATIONS

BASES = ("simclr", "simsiam")
COPIES = ("all", "one")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    base: str = "simclr",
    transformation: str = "rotation",
    transformation_weight: float = 0.4,
    copies: str = "all",
    temperature: float = 0.5,
    projector_layers: int = 2,
    projector_width: int = 2048,
    projection: int = 2048,
    predictor_width: int = 512,
    head_widths: tuple[int, ...] = (2048, 2048),
) -> Method:
    """E-SSL: E-SimCLR and E-SimSiam.

    ``L = L_base(z₁, z₂) + λ mean_r −log softmax(q(f(T_r(v₃))))_r`` with ``z = g(f(v))`` of two views, and T_r all rotations of
    a third, smaller one. The encoder f is one, projector g and head q are two, so that z may forget the angle that f keeps.
    The base, with the predictor h and sg a stopped gradient, is one of

        simclr   ½ [ InfoNCE(z₁, z₂; τ) + InfoNCE(z₂, z₁; τ) ], the candidates the n views of the other side
        simsiam  −½ [ cos(h(z₁), sg z₂) + cos(h(z₂), sg z₁) ]

    The views pass through the networks one after the other, the rotations as a batch of their own, so BatchNorm statistics are
    per view. For h to keep its learning rate is the optimizer's ``constant_lr=("predictor",)``.

    The paper's question, which transformations should be forgotten and which known, is asked by options: rotation is forgotten
    with ``views.rotate_prob`` above 0 and λ = 0, known with 0 and λ > 0, neither with 0 and λ = 0. What would hide the answer
    (``Rotate``; of horizontal flips ``Flip``) is taken out of the third view.

    Args:
      encoder: the network to train.
      views: two views of one size, which the base sees, then the one to be transformed; ``None``:
        :func:`ssl_jax.augment.presets.dino` with one local crop, which are the authors' for ImageNet.
      base: ``"simclr"`` or ``"simsiam"``.
      transformation: what is to be told: ``"rotation"`` by 0, 90, 180 or 270 degrees, ``"vertical_flip"``,
        ``"horizontal_flip"``, ``"half_swap"`` or ``"jigsaw"`` of the four quarters, see :mod:`ssl_jax.ops.transformations`.
      transformation_weight: λ, 0 or more; the authors' is 0.4, on ImageNet with SimSiam 0.08. May be traced. The number 0: the
        base alone, of two views.
      copies: ``"all"`` versions of the third view, or ``"one"`` at random.
      temperature: τ of the base SimCLR. May be traced.
      projector_layers: depth of g, BatchNorm and ReLU between, a BatchNorm without γ and β at the end; 0: none.
      projector_width: width of g's hidden layers.
      projection: width of g's output.
      predictor_width: width of h's hidden layer, of the base SimSiam.
      head_widths: widths of q's hidden layers, each with LayerNorm and ReLU; ``()``: q is linear.

    Returns:
      The method. ``encode`` gives the encoder's features. Metrics hold the two terms, ``base`` and ``prediction``, and the
      ``accuracy`` of the prediction.

    Raises:
      ValueError: an unknown choice, a negative λ or depth, other than three views, a pair of two sizes.

    Reference: Equivariant Contrastive Learning, arXiv:2111.00899; rdangovs/essl, ``cifar10`` and ``imagenet``. Deviations: the
    code's heads lack the last ReLU but for SimCLR on CIFAR-10, and its projector of SimCLR on ImageNet ends in a BatchNorm with
    γ and β. Of the paper's transformations those that change colors or blur are left out.
    """
    choice("base", base, BASES)
    choice("transformation", transformation, TRANSFORMATIONS)
    choice("copies", copies, COPIES)
    not_negative("transformation_weight", transformation_weight)
    require(projector_layers >= 0, "projector_layers", projector_layers, "an integer of 0 or more")
    views = default_views() if views is None else views
    require(len(views) == 3, "views", len(views), "three: a pair, and the one to be transformed")
    sizes = [view.size for view in views[:2]]
    require(sizes[0] == sizes[1], "views", sizes, "a pair of one size")
    transform, versions = TRANSFORMATIONS[transformation]
    predicting = not (isinstance(transformation_weight, int | float) and transformation_weight == 0)

    dtype = compute_dtype(encoder)
    projector = identity(encoder.features)
    if projector_layers:
        widths = (projector_width,) * (projector_layers - 1) + (projection,)
        projector = heads.mlp(
            widths, hidden_bias=False, last_bias=False, last_norm="batch_no_affine", dtype=dtype
        )
    predictor = heads.mlp((predictor_width, projector.features), hidden_bias=False, dtype=dtype)
    head = heads.mlp((*head_widths, versions), hidden_norm="layer", dtype=dtype)
    network = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, head_key, predictor_key = jax.random.split(key, 3)
        params, state = network.init(network_key, batch["views"][0][:, 0])
        if predicting:
            params["head"], state["head"] = head.init(head_key, jnp.zeros((1, encoder.features)))
        if base == "simsiam":
            inputs = jnp.zeros((1, projector.features))
            params["predictor"], state["predictor"] = predictor.init(predictor_key, inputs)
        return params, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        pair_key, copy_key, encoder_key = jax.random.split(key, 3)
        z, state = apply_per_view(network, params, state, batch["views"][0][:, :2], pair_key)  # [n, 2, d]
        value, state = base_loss(params, state, z)
        metrics = {**pair_metrics(z[:, 0], z[:, 1]), "base": value}
        if not predicting:
            return value, (state, metrics)
        images, labels = transformed(third_view(batch), copy_key)  # [m, h, w, c], [m]
        h, encoder_state = encoder.apply(
            params["encoder"], state["encoder"], images, train=True, key=encoder_key
        )
        logits, head_state = head.apply(params["head"], state["head"], h, train=True)
        prediction = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        state = {**state, "encoder": encoder_state, "head": head_state}
        metrics |= {"prediction": prediction, "accuracy": jnp.mean(jnp.argmax(logits, axis=1) == labels)}
        return value + transformation_weight * prediction, (state, metrics)

    def base_loss(params: Params, state: State, z: Array) -> tuple[Array, State]:
        """Compute the loss of the pair ``[n, 2, d]``."""
        if base == "simclr":
            z1, z2 = z[:, 0], z[:, 1]
            both = info_nce(z1, z2, temperature=temperature), info_nce(z2, z1, temperature=temperature)
        else:
            p, predictor_state = apply_per_view(predictor, params["predictor"], state["predictor"], z)
            state, t = {**state, "predictor": predictor_state}, jax.lax.stop_gradient(z)
            both = negative_cosine(p[:, 0], t[:, 1]), negative_cosine(p[:, 1], t[:, 0])
        return (both[0] + both[1]) / 2, state

    def transformed(images: Array, key: Key) -> tuple[Array, Array]:
        """Make all versions of every image, or one at random, as one batch, and say which is which."""
        made = transform(images)
        labels = jnp.broadcast_to(jnp.arange(versions), made.shape[:2])
        if copies == "one":
            labels = jax.random.randint(key, (len(made), 1), 0, versions)
            made = jnp.take_along_axis(made, labels[..., None, None, None], axis=1)
        return merge_views(made), labels.reshape(-1)

    def base_collapse(batch_size: int) -> float:
        return math.log(batch_size) if base == "simclr" else -1.0

    views = (*views[:2], without_answer(views[2], transformation)) if predicting else views[:2]
    alike, unseen = "all projections are alike", f"the {transformation} cannot be told from what is seen"
    collapse: tuple[CollapseValue, ...] = (CollapseValue("loss", base_collapse, alike),)
    if predicting:
        weighted = transformation_weight * math.log(versions)
        collapse = (
            CollapseValue("loss", lambda n: base_collapse(n) + weighted, f"{alike}, and {unseen}"),
            CollapseValue("base", base_collapse, alike),
            CollapseValue("prediction", math.log(versions), unseen),
        )
    project = project_at(encoder, projector)
    limits = Limits(least_batch=2)
    return Method(views, init, loss, encoder, project=project, collapse=collapse, limits=limits)


def default_views() -> tuple[View, ...]:
    """Build the views of E-SimCLR on ImageNet: BYOL's pair and a small crop of 96 pixels."""
    return presets.dino(global_area=(0.08, 1.0), local_area=(0.05, 0.14), local_count=1, local_blur_prob=0.1)


def third_view(batch: Batch) -> Array:
    """Take the third view ``[n, h, w, c]``, which has an array of its own where its size is another one than the pair's."""
    pair, *rest = batch["views"]
    return rest[0][:, 0] if rest else pair[:, 2]


def without_answer(view: View, transformation: str) -> View:
    """Take out of a view what would hide which version of it is the original.

    >>> without_answer(View(ops=(Flip(), Rotate())), "rotation").ops
    (Flip(prob=0.5),)
    """
    hiding: tuple[type[Operation], ...] = (Rotate, Flip) if transformation == "horizontal_flip" else (Rotate,)
    return dataclasses.replace(view, ops=tuple(op for op in view.ops if not isinstance(op, hiding)))
