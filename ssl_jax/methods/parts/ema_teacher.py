"""The scaffolding of methods in which a predictor matches a slowly moving teacher: BYOL, MoCo v3, MeanShift."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.methods.method import Method, Sign, encoding
from ssl_jax.methods.parts.siamese import pair_health
from ssl_jax.models.network import Network, chain
from ssl_jax.ops.schedules import cosine
from ssl_jax.optim.ema import Ema, ema

BOTH = ((0, 1), (1, 0))
"""Each view predicts the other."""

MemoryLoss = Callable[[Sequence[tuple[Array, Array]], State], tuple[Array, State, Metrics]]
"""``(pairs, memory) -> (loss, memory, metrics)``, a pair being the predictions and the teacher's projections."""


def rising(decay: float | Array | Schedule, steps: int | None) -> Ema:
    """The average that makes a teacher: its decay rises from a number to 1 on a cosine over ``steps``, if given.

    ``m(t) = 1 − (1 − m₀)(1 + cos(πt/T))/2`` (BYOL, MoCo v3, DINO); a schedule is taken as it is.

    >>> rising(0.5, None).init({}).weight.tolist()
    1.0
    """
    return ema(decay if steps is None or callable(decay) else cosine(decay, 1.0, steps))


def teacher_method(
    encoder: Network,
    projector: Network,
    predictor: Network,
    loss_of: MemoryLoss,
    *,
    average: Ema,
    views: tuple[View, ...],
    signs: Callable[[int], tuple[Sign, ...]],
    directions: Sequence[tuple[int, int]] = BOTH,
    own_start: bool = False,
    memory: Callable[[Key], State] | None = None,
) -> Method:
    """A method that predicts a teacher's projections of the other view.

    ``p_v = predictor(projector(encoder(view v)))`` and ``t_v = sg projector'(encoder'(view v))``, the teacher
    (encoder', projector') being ``average`` of (encoder, projector), moved after the update. Each view passes by itself through
    each network, so BatchNorm statistics are per view; the teacher normalises with the statistics of its own batch.

    Moving the teacher after the update is the same sequence as moving it at the start of the next step, before its forward
    pass, as MoCo and MeanShift write it (their first move is of equal weights).

    Args:
      encoder: the network to train.
      projector: head of student and teacher.
      predictor: head of the student alone.
      loss_of: ``(pairs, memory) -> (loss, memory, metrics)``; ``pairs`` holds ``(p_student, t_teacher)`` for each direction.
      average: of the student's parameters, see :func:`rising`.
      views: two views of one size.
      signs: of collapse, as in :class:`ssl_jax.methods.method.Method`.
      directions: pairs (view that the student sees, view that the teacher sees).
      own_start: the teacher starts from weights of its own (BYOL), instead of the student's.
      memory: ``key -> state`` of a queue or bank, which stands in ``state["memory"]``; ``None``: there is none.

    Returns:
      The method. ``encode`` gives the student encoder's features. Params: ``encoder``, ``projector``, ``predictor``; state:
      ``online``, ``teacher`` (``variables``: the average; ``state``: its batch statistics) and ``memory``.
    """
    branch = chain(encoder=encoder, projector=projector)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        online_key, teacher_key, predictor_key, memory_key = jax.random.split(key, 4)
        images = batch["views"][0][:, 0]
        params, state = branch.init(online_key, images)
        teacher, teacher_state = branch.init(teacher_key, images) if own_start else (params, state)
        kept: State = {"teacher": {"variables": average.init(teacher), "state": teacher_state}}
        projections = jnp.zeros((images.shape[0], projector.features))
        head, head_state = predictor.init(predictor_key, projections)
        kept["memory"] = {} if memory is None else memory(memory_key)
        return {**params, "predictor": head}, {**kept, "online": {**state, "predictor": head_state}}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        online, teacher_state = state["online"], state["teacher"]["state"]
        predictions: dict[int, Array] = {}
        targets: dict[int, Array] = {}
        for view, images in enumerate(batch["views"][0].swapaxes(0, 1)):
            student_key, teacher_key = jax.random.split(jax.random.fold_in(key, view))
            if any(view == student for student, _ in directions):
                (_, z), online = branch.apply(params, online, images, train=True, key=student_key)
                p, head_state = predictor.apply(params["predictor"], online["predictor"], z, train=True)
                predictions[view], online = p, {**online, "predictor": head_state}
            if any(view == teacher for _, teacher in directions):
                variables = state["teacher"]["variables"].average
                (_, t), teacher_state = branch.apply(
                    variables, teacher_state, images, train=True, key=teacher_key
                )
                targets[view] = jax.lax.stop_gradient(t)
        pairs = [(predictions[student], targets[teacher]) for student, teacher in directions]
        value, kept, metrics = loss_of(pairs, state["memory"])
        teacher = {**state["teacher"], "state": teacher_state}
        metrics = {**pair_health(*pairs[0]), **metrics}
        return value, ({"online": online, "teacher": teacher, "memory": kept}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        averaged = {"encoder": params["encoder"], "projector": params["projector"]}
        _, variables = average.update(averaged, state["teacher"]["variables"])
        return {**state, "teacher": {**state["teacher"], "variables": variables}}

    encode, encoder_of = encoding(encoder, "online")
    return Method(views, init, loss, encode, encoder, encoder_of, after_update, signs=signs)
