"""Mean Teacher (Tarvainen & Valpola, NeurIPS 2017): predictions agree with those of the average of earlier weights."""

import jax

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.consistency import mean_divergence, mean_squared_difference
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.semi_supervised import classifier_collapse, noisy_classifier, supervised_cost
from ssl_jax.models.network import Network
from ssl_jax.ops.schedules import rampup, rising_decay
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
    weight: float = 100.0,
    rampup_steps: int = 0,
    quiet_steps: int = 0,
    logit_distance: float | None = None,
    own_start: bool = False,
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
      ramp_decay: α rises as above, so that the teacher begins as the plain mean; ``False``: it is ``decay`` throughout.
      consistency: D: ``"mse"`` or ``"kl"``.
      weight: w ≥ 0. May be traced.
      rampup_steps: T; 0: the weight does not rise.
      quiet_steps: steps at the start at which the weight is 0.
      logit_distance: c, .01 in the authors' code; ``None``: one classifier.
      own_start: the teacher starts from weights of its own, as in the authors' PyTorch code, not from the student's.
      noise: deviation of the noise on the pixels. May be traced.
      dropout: of the features, before the classifier. May be traced.
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
    views = presets.consistency() if views is None else views
    require(len(views) in (1, 2), "views", len(views), "one view or two")
    choice("consistency", consistency, KINDS)
    require(not isinstance(decay, int | float) or 0 <= decay <= 1, "decay", decay, "a number in [0, 1]")
    tops = ("classifier",) if logit_distance is None else ("classifier", "consistent")
    network = noisy_classifier(encoder, classes=classes, noise=noise, dropout=dropout, tops=tops)
    rising = rampup(weight, rampup_steps, quiet=quiet_steps)
    average = ema(rising_decay(decay) if ramp_decay else decay)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        key, teacher_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        params, online = network.init(key, images)
        start, own = network.init(teacher_key, images) if own_start else (params, online)
        return params, {"online": online, "teacher": {"variables": average.init(start), "state": own}}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        both, (student_key, teacher_key) = batch["views"][0], jax.random.split(key)
        teacher = state["teacher"]
        (_, *logits), online = network.apply(params, state["online"], both[:, 0], train=True, key=student_key)
        (_, targets, *_), own = network.apply(
            teacher["variables"].average, teacher["state"], both[:, -1], train=True, key=teacher_key
        )
        cost, metrics = supervised_cost(logits[0], batch["label"], normalize_by)
        distance = disagreement(logits[-1], jax.lax.stop_gradient(targets))
        value = cost + rising(step) * distance
        if logit_distance is not None:
            value = value + logit_distance * mean_squared_difference(*logits)
        metrics |= {"consistency": distance, "weight": rising(step)}
        return value, ({"online": online, "teacher": {**teacher, "state": own}}, metrics)

    def disagreement(logits: Array, targets: Array) -> Array:
        if consistency == "kl":
            return mean_divergence(logits, targets)
        return mean_squared_difference(jax.nn.softmax(logits), jax.nn.softmax(targets))

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        _, variables = average.update(params, state["teacher"]["variables"])
        return {**state, "teacher": {**state["teacher"], "variables": variables}}

    def classify(params: Params, state: State, images: Array) -> dict[str, Array]:
        teacher = state["teacher"]
        pairs = {
            "classifier": (teacher["variables"].average, teacher["state"]),
            "student": (params, state["online"]),
        }
        return {name: network.apply(*variables, images)[0][1] for name, variables in pairs.items()}

    def encoder_variables(params: Params, state: State) -> tuple[Params, State]:
        del params
        teacher = state["teacher"]
        return teacher["variables"].average["encoder"], teacher["state"]["encoder"]

    return Method(
        views,
        init,
        loss,
        encoder,
        encoder_variables,
        after_update,
        collapse=classifier_collapse(classes),
        classify=classify,
    )
