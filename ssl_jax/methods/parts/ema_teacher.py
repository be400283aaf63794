"""A teacher that is an average of its student: BYOL, MoCo, DINO, Mean Teacher, data2vec, I-JEPA."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.methods.method import CollapseValue, Method, encoder_at
from ssl_jax.methods.parts.siamese import apply_per_view, pair_metrics
from ssl_jax.models.network import Network, chain
from ssl_jax.ops.schedules import cosine
from ssl_jax.optim.ema import Ema, EmaState, ema


class EmaTeacher(NamedTuple):
    """Teacher in a method's state: an average of the student's parameters, with batch statistics of its own.

    Attributes:
      average: of the parameters, from :func:`ssl_jax.optim.ema.ema`.
      state: the teacher's own batch statistics.

    >>> moving = ema(0.5)
    >>> teacher = EmaTeacher.init(moving, {"w": jnp.zeros(1)}, {})
    >>> teacher.update(moving, {"w": jnp.ones(1)}).params["w"].tolist()
    [0.5]
    """

    average: EmaState
    state: State

    @classmethod
    def init(cls, average: Ema, params: Params, state: State) -> "EmaTeacher":
        """Start from these weights and batch statistics."""
        return cls(average.init(params), state)

    @property
    def params(self) -> Params:
        """Averaged parameters."""
        params: Params = self.average.average
        return params

    def apply(
        self, network: Network, inputs: Array, *, train: bool = True, **options: Any
    ) -> tuple[Any, "EmaTeacher"]:
        """Apply a network with the averaged weights, without gradient; in training with the statistics of the batch.

        Returns:
          ``(outputs, teacher)``, the teacher with the batch statistics moved.
        """
        outputs, state = network.apply(self.params, self.state, inputs, train=train, **options)
        return jax.lax.stop_gradient(outputs), self._replace(state=state)

    def update(self, average: Ema, params: Params) -> "EmaTeacher":
        """Move the average towards the student's parameters."""
        return self._replace(average=average.update(params, self.average)[1])


def teacher_projections(
    network: Network, teacher: EmaTeacher, views: Float[Array, "b v ..."], key: Key
) -> tuple[Float[Array, "b v d"], EmaTeacher]:
    """Compute the teacher's projections of one view after the other, see ``apply_per_view``, without gradient.

    Returns:
      ``(projections, teacher)``, the teacher with the batch statistics moved.
    """
    projections, state = apply_per_view(network, teacher.params, teacher.state, views, key)
    return jax.lax.stop_gradient(projections), teacher._replace(state=state)


def teacher_encoder(params: Params, state: State) -> tuple[Params, State]:
    """Return the teacher's encoder: the ``encoder_variables`` of methods whose average is the one to keep."""
    del params
    teacher: EmaTeacher = state["teacher"]
    return teacher.params["encoder"], teacher.state["encoder"]


def cosine_ema(decay: float | Array | Schedule, steps: int | None) -> Ema:
    """Build the average that makes a teacher: its decay rises from a number to 1 on a cosine over ``steps``, if given.

    ``m(t) = 1 − (1 − m₀)(1 + cos(πt/T))/2`` (BYOL, MoCo v3, DINO). A decay of 0 stays 0: the teacher is the student of the
    step before. A schedule is taken as it is.

    >>> cosine_ema(0.5, None).init({}).weight.tolist()
    1.0
    """
    if steps is None or callable(decay):
        return ema(decay)
    schedule = cosine(decay, 1.0, steps)
    return ema(lambda step: jnp.where(jnp.asarray(decay) == 0, 0.0, schedule(step)))


# What follows leaves with the last method that stands on it.
rising = cosine_ema
BOTH = ((0, 1), (1, 0))
MemoryLoss = Callable[[Sequence[tuple[Array, Array]], State], tuple[Array, State, Metrics]]


def teacher_method(
    encoder: Network,
    projector: Network,
    predictor: Network,
    loss_of: MemoryLoss,
    *,
    average: Ema,
    views: tuple[View, ...],
    collapse: tuple[CollapseValue, ...],
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
      collapse: metric values of collapse, as in :class:`ssl_jax.methods.method.Method`.
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
        kept: State = {"teacher": EmaTeacher.init(average, teacher, teacher_state)}
        projections = jnp.zeros((images.shape[0], projector.features))
        head, head_state = predictor.init(predictor_key, projections)
        kept["memory"] = {} if memory is None else memory(memory_key)
        return {**params, "predictor": head}, {**kept, "online": {**state, "predictor": head_state}}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        online, moved = state["online"], state["teacher"]
        predictions: dict[int, Array] = {}
        targets: dict[int, Array] = {}
        for view, images in enumerate(batch["views"][0].swapaxes(0, 1)):
            student_key, teacher_key = jax.random.split(jax.random.fold_in(key, view))
            if any(view == student for student, _ in directions):
                (_, z), online = branch.apply(params, online, images, train=True, key=student_key)
                p, head_state = predictor.apply(params["predictor"], online["predictor"], z, train=True)
                predictions[view], online = p, {**online, "predictor": head_state}
            if any(view == teacher for _, teacher in directions):
                (_, targets[view]), moved = moved.apply(branch, images, key=teacher_key)
        pairs = [(predictions[student], targets[teacher]) for student, teacher in directions]
        value, kept, metrics = loss_of(pairs, state["memory"])
        metrics = {**pair_metrics(*pairs[0]), **metrics}
        return value, ({"online": online, "teacher": moved, "memory": kept}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        averaged = {"encoder": params["encoder"], "projector": params["projector"]}
        return {**state, "teacher": state["teacher"].update(average, averaged)}

    return Method(views, init, loss, encoder, encoder_at("online"), after_update, collapse=collapse)
