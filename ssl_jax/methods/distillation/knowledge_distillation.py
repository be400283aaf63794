"""Distillation from a frozen teacher without labels (Hinton et al. 2015; SEED, Fang et al. 2021; CompRess 2020)."""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, not_negative, require
from ssl_jax.core.numerics import entropy, normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.distillation import byol_loss, feature_mse, softened_kl
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at
from ssl_jax.methods.parts.dense_features import dense_features, resample_grid, token_width
from ssl_jax.methods.parts.frozen_teacher import (
    read_teacher,
    renormalization,
    require_size,
    show_teacher,
    start_teacher,
)
from ssl_jax.methods.parts.siamese import merge_views, pair_metrics, split_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, identity
from ssl_jax.ops.queue import queue_init, queue_push

MODES = ("feature", "similarity", "dense")
DISTANCES = {"cosine": byol_loss, "mse": feature_mse}
PAIRINGS = ("same", "other")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """What the teacher sees, and how much each of its outputs counts.

    Attributes:
      teacher_size: side in pixels to which the view is resized for the teacher, see
        :func:`ssl_jax.methods.parts.frozen_teacher.show_teacher`; ``None``: that of the view.
      class_weight: in the mode ``"dense"``, w_c. May be traced.
      patch_weight: in the mode ``"dense"``, w_p. May be traced.
    """

    teacher_size: int | None = None
    class_weight: float = 1.0
    patch_weight: float = 1.0


TARGETS = Targets()


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    teacher: str = "",
    pairing: str = "same",
    mode: str = "feature",
    distance: str = "cosine",
    head_layers: int = 2,
    hidden_dim: int = 2048,
    student_temperature: float = 0.2,
    teacher_temperature: float = 0.01,
    queue_size: int = 0,
    targets: Targets = TARGETS,
) -> Method:
    """Distillation from a frozen teacher.

    With h = f(v) of the student, p = head(h) of the width of the teacher's features t = F(v'), F fixed:

    * ``mode="feature"``: p is to be t. ``distance="cosine"``: ``mean ‖n(p) − n(t)‖²``, n(x) = x/‖x‖; ``"mse"``: the mean
      squared difference over images and features.
    * ``mode="similarity"``: p is to be as similar to other images as t is. Over candidates c, unit vectors of the teacher,
      ``P_i = softmax_c(n(t_i)·c / τ_t)``, ``Q_i = softmax_c(n(p_i)·c / τ_s)``, ``L = τ_s² mean_i KL(P_i ‖ Q_i)``. There are
      no labels, so similarities take the place of Hinton's logits. Candidates are all features of the teacher in the batch, or,
      with a queue, t_i itself and the ``queue_size`` last ones of earlier batches (SEED).
    * ``mode="dense"``: the class token and all patches (:func:`ssl_jax.methods.parts.dense_features.dense_features`, for any
      encoder), each through a head of its own: with c, q_i of the student and c', t_i of the teacher
      ``L = w_c D(head(c), c') + w_p mean_i D(head_p(q_i), t_i)``, D the distance above. Where the grids of patches differ, the
      teacher's is resampled to the student's, bilinearly.

    The teacher sees the view that the student sees (``pairing="same"``), or the other one of two (``"other"``).

    ``teacher=""`` is a random network of the student's architecture, which stays as it is: with ``mode="feature"`` and
    ``pairing="other"`` the experiment that motivates BYOL (its section 3), in which features learnt from random ones are
    far better than these. It normalises with the statistics of its batch, a teacher from a file with its own.

    Args:
      encoder: the student.
      views: views of one size, two for ``pairing="other"``; ``None``: :func:`ssl_jax.augment.presets.mae` (crop and flip), or
        :func:`ssl_jax.augment.presets.byol` for ``"other"``.
      teacher: name that :func:`ssl_jax.interop.load_pretrained` takes: ``encoder.safetensors`` as ``experiments.export`` writes
        it, a checkpoint of others, ``hf:owner/name``, ``timm:name``; read again whenever the method is built; ``""``: a random
        network. Images are brought to the mean and standard deviation that it expects.
      pairing: ``"same"`` or ``"other"``, which the mode ``"dense"`` does not have: its patches have to lie on each other.
      mode: ``"feature"``, ``"similarity"`` or ``"dense"``.
      distance: in the modes ``"feature"`` and ``"dense"``, ``"cosine"`` or ``"mse"``.
      head_layers: depth of the student's head, an MLP with BatchNorm; 0: none, where the widths agree.
      hidden_dim: width of its hidden layers.
      student_temperature: τ_s in the mode ``"similarity"``.
      teacher_temperature: τ_t in the mode ``"similarity"``; lower is sharper.
      queue_size: length of the queue in the mode ``"similarity"``; 0: none.
      targets: size of what the teacher sees, and weights of the mode ``"dense"``.

    Returns:
      The method. ``encode`` gives the student encoder's features; ``state["teacher"]`` holds the teacher. Metric
      ``teacher_cosine``: how similar predictions are to the teacher's features; in the mode ``"dense"`` the mean of vectors
      and patches by their weights, with ``patch_cosine`` of the patches alone.

    Raises:
      ValueError: a file that is missing, is no encoder or does not fit the images (at ``init``), an unknown option, views or
        widths that do not fit.

    References: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2; Fang et al., "SEED", ICLR 2021,
    section 3; Koohpayegani et al., "CompRess", NeurIPS 2020; Grill et al., "Bootstrap Your Own Latent", 2020, section 3. For
    dense features: Ranzinger et al., "AM-RADIO", CVPR 2024, section 3.3, whose student meets vectors by the cosine too.
    Deviation: SEED takes the cross entropy, which differs by the teacher's entropy, a constant, and by the factor τ_s².
    """
    choice("mode", mode, MODES)
    choice("distance", distance, DISTANCES)
    choice("pairing", pairing, PAIRINGS)
    require(head_layers >= 0, "head_layers", head_layers, "an integer of 0 or more")
    require(queue_size >= 0, "queue_size", queue_size, "an integer of 0 or more")
    for name in ("class_weight", "patch_weight"):
        not_negative(f"targets.{name}", getattr(targets, name))
    require(
        mode != "dense" or pairing == "same", "pairing", pairing, "'same', as mode='dense' compares patches"
    )
    if views is None:
        views = presets.mae() if pairing == "same" else presets.byol()
    fits = len({view.size for view in views}) == 1 and (pairing == "same" or len(views) == 2)
    sizes = tuple(view.size for view in views)
    require(fits, "views", sizes, "views of one size" + (", two of them" if pairing == "other" else ""))
    source = read_teacher(teacher, encoder)
    require_size(source.network, views[0], targets.teacher_size, option="targets.teacher_size")
    scale, shift = renormalization(source.metadata, views[0])
    with_queue = mode == "similarity" and queue_size > 0
    distance_of = DISTANCES[distance]

    def for_teacher(images: Array) -> Array:
        return show_teacher(images, scale, shift, size=targets.teacher_size)

    def student_of(images: Array) -> Network:
        """Build the encoder and a head each for vectors and patches, whose widths only images show."""
        width = token_width(source.network, for_teacher(images))
        return dense_student(encoder, token_width(encoder, images), width, head_layers, hidden_dim)

    if mode != "dense":
        head = build_student_head(encoder, encoder.features, source.network.features, head_layers, hidden_dim)
        student = chain(encoder=encoder, head=head)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        student_key, teacher_key, queue_key = jax.random.split(key, 3)
        images = batch["views"][0][:, 0]
        network = student_of(images) if mode == "dense" else student
        params, online = network.init(student_key, images)
        frozen = start_teacher(teacher, source, teacher_key, for_teacher(images))
        state: State = {"online": online, "teacher": frozen}
        if with_queue:
            state["queue"] = queue_init(queue_key, queue_size, source.network.features)
        return params, state

    def dense_loss(p: tuple[Array, Array], images: Array, state: State) -> tuple[Array, Metrics]:
        """Compare vectors ``[n, d]`` and patches ``[n, r, s, d]`` of the student with the teacher's of ``images``."""
        frozen = state["teacher"]
        # A random teacher has seen no images: its statistics are those of the batch.
        vectors, patches, _ = dense_features(
            source.network, frozen.params, frozen.state, for_teacher(images), train=source.variables is None
        )
        patches = resample_grid(patches, (p[1].shape[1], p[1].shape[2]))
        pairs = [
            (a.reshape(-1, a.shape[-1]), jax.lax.stop_gradient(b.reshape(-1, b.shape[-1])))
            for a, b in zip(p, (vectors, patches), strict=True)
        ]
        weights = targets.class_weight, targets.patch_weight
        value = sum(w * distance_of(a, b) for w, (a, b) in zip(weights, pairs, strict=True))
        cosines = [1.0 - 0.5 * byol_loss(jax.lax.stop_gradient(a), b) for a, b in pairs]
        total = sum(w * cosine for w, cosine in zip(weights, cosines, strict=True))
        mean = total / jnp.maximum(sum(weights), jnp.finfo(jnp.float32).tiny)
        return jnp.asarray(value), {"teacher_cosine": mean, "patch_cosine": cosines[1]}

    def similarity_loss(p: Array, t: Array, state: State) -> tuple[Array, State, Metrics]:
        """Compare ``p`` and ``t`` ``[n, d]`` of all views; the teacher's features enter the queue after the loss."""
        p, t = normalize(p), normalize(t)
        bank = state["queue"].items if with_queue else t
        student_logits, teacher_logits = p @ bank.T, t @ bank.T
        if with_queue:
            to_itself = [jnp.sum(x * t, axis=-1, keepdims=True) for x in (p, t)]
            student_logits = jnp.concatenate([to_itself[0], student_logits], axis=1)
            teacher_logits = jnp.concatenate([to_itself[1], teacher_logits], axis=1)
            state = {**state, "queue": queue_push(state["queue"], t[-queue_size:])}
        value = softened_kl(
            student_logits,
            teacher_logits,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
        )
        sharpened = {
            "student_entropy": jax.lax.stop_gradient(student_logits) / student_temperature,
            "teacher_entropy": teacher_logits / teacher_temperature,
        }
        metrics = {name: jnp.mean(entropy(jax.nn.log_softmax(x))) for name, x in sharpened.items()}
        return value, state, metrics

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        views = batch["views"][0]
        images, seen = merge_views(views), merge_views(views if pairing == "same" else views[:, ::-1])
        network = student_of(images) if mode == "dense" else student
        (h, p), online = network.apply(params, state["online"], images, train=True, key=key)
        state = {**state, "online": online}
        if mode == "dense":
            value, metrics = dense_loss(p, seen, state)
        else:
            # As in dense_loss, a random teacher normalises by the batch.
            t = state["teacher"].apply(
                source.network, for_teacher(seen), train=source.variables is None
            )  # [n v, d], as p
            value, metrics = distance_of(p, t), {}
            if mode == "similarity":
                value, state, metrics = similarity_loss(p, t, state)
            metrics["teacher_cosine"] = 1.0 - 0.5 * byol_loss(jax.lax.stop_gradient(p), t)
        h = split_views(h, views.shape[1])
        return value, (state, {**pair_metrics(h[:, 0], h[:, -1]), **metrics})

    metric, value = ("loss", 2.0) if mode == "feature" and distance == "cosine" else ("teacher_cosine", 0.0)
    meaning = "predictions have nothing in common with the teacher's features"
    collapse = (CollapseValue(metric, value, meaning),)

    limits = Limits(least_batch=2 if mode == "similarity" and not with_queue else 1)
    return Method(views, init, loss, encoder, encoder_at("online"), collapse=collapse, limits=limits)


def build_student_head(
    encoder: Network, student_width: int, width: int, layers: int, hidden_dim: int
) -> Network:
    """Build the MLP from the student's features to the teacher's width."""
    if layers == 0:
        allowed = f"1 or more: the student has {student_width} features, the teacher {width}"
        require(student_width == width, "head_layers", layers, allowed)
        return identity(width)
    return heads.mlp((hidden_dim,) * (layers - 1) + (width,), dtype=compute_dtype(encoder))


def dense_student(encoder: Network, student_width: int, width: int, layers: int, hidden_dim: int) -> Network:
    """Build the encoder and a head each for vector and patches; outputs ``(vectors, (vectors', patches'))``.

    Params and state have the names ``encoder``, ``head`` and ``patch_head``.
    """
    head = build_student_head(encoder, student_width, width, layers, hidden_dim)

    def init(key: Key, images: Array) -> tuple[Params, State]:
        params: Params = {}
        state: State = {}
        keys = jax.random.split(key, 3)
        params["encoder"], state["encoder"] = encoder.init(keys[0], images)
        for name, part_key in zip(("head", "patch_head"), keys[1:], strict=True):
            params[name], state[name] = head.init(part_key, jnp.zeros((len(images), student_width)))
        return params, state

    def apply(
        params: Params, state: State, images: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[tuple[Array, tuple[Array, Array]], State]:
        vectors, patches, encoder_state = dense_features(
            encoder, params["encoder"], state["encoder"], images, train=train, key=key
        )
        p, head_state = head.apply(params["head"], state["head"], vectors, train=train)
        q, patch_state = head.apply(params["patch_head"], state["patch_head"], patches, train=train)
        state = {**state, "encoder": encoder_state, "head": head_state, "patch_head": patch_state}
        return (vectors, (p, q)), state

    return Network(init, apply, width, {})
