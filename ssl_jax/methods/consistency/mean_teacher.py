"""Mean Teacher (Tarvainen & Valpola, NeurIPS 2017): predictions agree with those of the average of earlier weights."""

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.consistency import mean_divergence, mean_squared_difference
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.ema_teacher import EmaTeacher, teacher_encoder
from ssl_jax.methods.parts.semi_supervised import (
    RampUp,
    classifier_collapse,
    noisy_classifier,
    supervised_loss,
)
from ssl_jax.models.network import Network
from ssl_jax.ops.schedules import increasing_decay
from ssl_jax.optim.ema import ema

KINDS = ("mse", "kl")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    classes: int = 10,
    decay: float = 0.999,
    ramp_decay: bool = True,
    consistency: str = "mse",
    ramp: RampUp = RampUp(),
    logit_distance: float | None = None,
    independent_init: bool = False,
    noise: float = 0.15,
    dropout: float = 0.5,
    normalize_by: str = "batch",
) -> Method:
    """Mean Teacher.

    With logits l of the student θ and l' of the teacher θ', each under its own view, noise and dropout::

        L = 1/B Σ_labelled −log softmax(l)_y  +  w(t) D(l, l')        w(t) = w exp(−5 (1 − t/T)²)
        D = 1/(B C) Σ ‖softmax(l) − softmax(l')‖²   or   1/B Σ KL(softmax(l') ‖ softmax(l))
        then   θ' ← α θ' + (1 − α) θ,   α = min(1 − 1/(k + 1), decay) at update k = 1, 2, ...

    The teacher gets no gradient. It runs in training mode: its BatchNorm normalises with its own batch and keeps running
    statistics of its own, only parameters are averaged. With ``logit_distance`` the student has a second classifier m::

        L = 1/B Σ_labelled −log softmax(l)_y + w(t) D(m, l') + c · 1/(B C) Σ ‖l − m‖²

    so that being right and agreeing are bound to each other only loosely.

    Args:
      encoder: the network to train.
      views: two views of one size, the student's and the teacher's; or one, which both see. ``None``:
        :func:`ssl_jax.augment.presets.consistency`.
      classes: C.
      decay: largest α, 0 to 1. May be traced.
      ramp_decay: α rises as above, so that the teacher starts as the plain mean; ``False``: it is ``decay`` throughout.
      consistency: D: ``"mse"`` or ``"kl"``.
      ramp: w(t), see :class:`ssl_jax.methods.parts.semi_supervised.RampUp`.
      logit_distance: c, .01 in the authors' code; ``None``: one classifier.
      independent_init: the teacher starts from weights of its own, as in the authors' PyTorch code, not from the student's.
      noise: deviation of the noise on the pixels. May be traced.
      dropout: share of the features, before the classifier. May be traced.
      normalize_by: ``"batch"``: the first sum is divided by B, as by the authors; ``"labeled"``: by the labelled images.

    Returns:
      The method. ``encode`` gives the features of the teacher's encoder; ``classify`` the logits of the teacher
      (``classifier``) and of the student. Metrics: ``cross_entropy`` and ``accuracy`` of the student on the labelled images,
      ``consistency`` (D) and ``weight``.

    Raises:
      ValueError: more than two views, an unknown ``consistency``, or an option outside its range.

    Reference: Mean teachers are better role models, section 2; CuriousAI/mean-teacher ``pytorch/main.py``. Deviations: noise
    on the pixels is the paper's for SVHN and CIFAR-10 in TensorFlow, the PyTorch code has none; dropout stands before the
    classifier only.
    """
    choice("consistency", consistency, KINDS)
    require(not isinstance(decay, int | float) or 0 <= decay <= 1, "decay", decay, "a number in [0, 1]")
    names = ("classifier",) if logit_distance is None else ("classifier", "consistent")
    network = noisy_classifier(encoder, classes=classes, noise=noise, dropout=dropout, classifiers=names)
    weight_at = ramp.schedule()
    teacher_ema = ema(increasing_decay(decay) if ramp_decay else decay)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        student_key, teacher_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        params, online = network.init(student_key, images)
        start = network.init(teacher_key, images) if independent_init else (params, online)
        return params, {"online": online, "teacher": EmaTeacher.init(teacher_ema, *start)}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        views, (student_key, teacher_key) = batch["views"][0], jax.random.split(key)
        (_, *logits), online = network.apply(
            params, state["online"], views[:, 0], train=True, key=student_key
        )  # [b, c] of each classifier
        (_, targets, *_), teacher = state["teacher"].apply(network, views[:, -1], key=teacher_key)  # [b, c]
        cross_entropy, metrics = supervised_loss(logits[0], batch["label"], normalize_by)
        if consistency == "kl":
            distance = mean_divergence(logits[-1], targets)
        else:
            distance = mean_squared_difference(jax.nn.softmax(logits[-1]), jax.nn.softmax(targets))
        value = cross_entropy + weight_at(step) * distance
        if logit_distance is not None:
            value = value + logit_distance * mean_squared_difference(*logits)
        metrics |= {"consistency": distance, "weight": weight_at(step)}
        return value, ({"online": online, "teacher": teacher}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params)}

    def classify(params: Params, state: State, images: Array) -> dict[str, Array]:
        (_, logits, *_), _ = state["teacher"].apply(network, images, train=False)
        (_, student_logits, *_), _ = network.apply(params, state["online"], images)
        return {"classifier": logits, "student": student_logits}

    views = presets.consistency() if views is None else views
    require(len(views) in (1, 2), "views", len(views), "one view or two")
    collapse = classifier_collapse(classes)
    return Method(
        views, init, loss, encoder, teacher_encoder, after_update, classify=classify, collapse=collapse
    )
