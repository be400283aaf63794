"""Distillation from a frozen teacher without labels (Hinton et al. 2015; SEED, Fang et al. 2021; CompRess 2020)."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import entropy, normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.distillation import byol_loss, feature_mse, softened_kl
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at
from ssl_jax.methods.parts.frozen_teacher import read_teacher, renormalization, start_teacher
from ssl_jax.methods.parts.siamese import merge_views, pair_metrics, split_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype, identity
from ssl_jax.ops.queue import queue_init, queue_push

MODES = ("feature", "similarity")
DISTANCES = ("cosine", "mse")
PAIRINGS = ("same", "other")


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
) -> Method:
    """Distillation from a frozen teacher.

    With h = f(v) of the student, p = head(h) of the width of the teacher's features t = F(v'), F fixed:

    * ``mode="feature"``: p is to be t. ``distance="cosine"``: ``mean ‖n(p) − n(t)‖²``, n(x) = x/‖x‖; ``"mse"``: the mean
      squared difference over images and features.
    * ``mode="similarity"``: p is to be as similar to other images as t is. Over candidates c, unit vectors of the teacher,
      ``P_i = softmax_c(n(t_i)·c / τ_t)``, ``Q_i = softmax_c(n(p_i)·c / τ_s)``, ``L = τ_s² mean_i KL(P_i ‖ Q_i)``. There are
      no labels, so similarities take the place of Hinton's logits. Candidates are all features of the teacher in the batch, or,
      with a queue, t_i itself and the ``queue_size`` last ones of earlier batches (SEED).

    The teacher sees the view that the student sees (``pairing="same"``), or the other one of two (``"other"``).

    ``teacher=""`` is a random network of the student's architecture, which stays as it is: with ``mode="feature"`` and
    ``pairing="other"`` the experiment that motivates BYOL (its section 3), in which features learnt from random ones are
    far better than these. It normalises with the statistics of its batch, a teacher from a file with its own.

    Args:
      encoder: the student.
      views: views of one size, two for ``pairing="other"``; ``None``: :func:`ssl_jax.augment.presets.mae` (crop and flip), or
        :func:`ssl_jax.augment.presets.byol` for ``"other"``.
      teacher: ``encoder.safetensors`` as ``experiments.export`` writes it, read again whenever the method is built; ``""``: a
        random network. Images are brought to the mean and standard deviation that the file names.
      pairing: ``"same"`` or ``"other"``.
      mode: ``"feature"`` or ``"similarity"``.
      distance: in the mode ``"feature"``, ``"cosine"`` or ``"mse"``.
      head_layers: depth of the student's head, an MLP with BatchNorm; 0: none, where the widths agree.
      hidden_dim: width of its hidden layers.
      student_temperature: τ_s in the mode ``"similarity"``.
      teacher_temperature: τ_t in the mode ``"similarity"``; lower is sharper.
      queue_size: length of the queue in the mode ``"similarity"``; 0: none.

    Returns:
      The method. ``encode`` gives the student encoder's features; ``state["teacher"]`` holds the teacher.

    Raises:
      ValueError: a file that is missing, is no encoder or does not fit the images (at ``init``), an unknown option, views or
        widths that do not fit.

    References: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2; Fang et al., "SEED", ICLR 2021,
    section 3; Koohpayegani et al., "CompRess", NeurIPS 2020; Grill et al., "Bootstrap Your Own Latent", 2020, section 3.
    Deviation: SEED takes the cross entropy, which differs by the teacher's entropy, a constant, and by the factor τ_s².
    """
    choice("mode", mode, MODES)
    choice("distance", distance, DISTANCES)
    choice("pairing", pairing, PAIRINGS)
    require(head_layers >= 0, "head_layers", head_layers, "an integer of 0 or more")
    require(queue_size >= 0, "queue_size", queue_size, "an integer of 0 or more")
    if views is None:
        views = presets.mae() if pairing == "same" else presets.byol()
    fits = len({view.size for view in views}) == 1 and (pairing == "same" or len(views) == 2)
    sizes = tuple(view.size for view in views)
    require(fits, "views", sizes, "views of one size" + (", two of them" if pairing == "other" else ""))
    source = read_teacher(teacher, encoder)
    network = chain(
        encoder=encoder, head=build_student_head(encoder, source.network.features, head_layers, hidden_dim)
    )
    scale, shift = renormalization(source.metadata, views[0])
    with_queue = mode == "similarity" and queue_size > 0

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        student_key, teacher_key, queue_key = jax.random.split(key, 3)
        images = batch["views"][0][:, 0]
        params, online = network.init(student_key, images)
        state: State = {"online": online, "teacher": start_teacher(teacher, source, teacher_key, images)}
        if with_queue:
            state["queue"] = queue_init(queue_key, queue_size, source.network.features)
        return params, state

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
        (h, p), online = network.apply(params, state["online"], merge_views(views), train=True, key=key)
        targets = merge_views(views if pairing == "same" else views[:, ::-1]) * scale + shift
        # A random teacher has seen no images: its statistics are those of the batch.
        t = state["teacher"].apply(source.network, targets, train=source.variables is None)  # [n v, d], as p
        state = {**state, "online": online}
        if mode == "similarity":
            value, state, metrics = similarity_loss(p, t, state)
        else:
            value = (byol_loss if distance == "cosine" else feature_mse)(p, t)
            metrics = {}
        metrics["teacher_cosine"] = 1.0 - 0.5 * byol_loss(jax.lax.stop_gradient(p), t)
        h = split_views(h, views.shape[1])
        return value, (state, {**pair_metrics(h[:, 0], h[:, -1]), **metrics})

    metric, value = ("loss", 2.0) if mode == "feature" and distance == "cosine" else ("teacher_cosine", 0.0)
    meaning = "predictions have nothing in common with the teacher's features"
    collapse = (CollapseValue(metric, value, meaning),)

    limits = Limits(least_batch=2 if mode == "similarity" and not with_queue else 1)
    return Method(views, init, loss, encoder, encoder_at("online"), collapse=collapse, limits=limits)


def build_student_head(encoder: Network, width: int, layers: int, hidden_dim: int) -> Network:
    """Build the MLP from the student's features to the teacher's width."""
    if layers == 0:
        allowed = f"1 or more: the student has {encoder.features} features, the teacher {width}"
        require(encoder.features == width, "head_layers", layers, allowed)
        return identity(width)
    return heads.mlp((hidden_dim,) * (layers - 1) + (width,), dtype=compute_dtype(encoder))
