"""A teacher that is an average of its student: BYOL, MoCo, DINO, Mean Teacher, data2vec, I-JEPA."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core.types import Array, Key, Params, Schedule, State
from ssl_jax.methods.parts.siamese import apply_per_view
from ssl_jax.models.network import Network
from ssl_jax.ops.schedules import cosine, linear
from ssl_jax.optim.ema import Ema, EmaState, ema


class EmaTeacher(NamedTuple):
    """Teacher in a method's state: an average of the student's parameters, with batch statistics of its own.

    Attributes:
      average: average of the parameters, from :func:`ssl_jax.optim.ema.ema`.
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
        """Move the average towards the student's parameters, those of networks that the teacher has too."""
        shared = {name: params[name] for name in self.params}
        return self._replace(average=average.update(shared, self.average)[1])


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
    return _ema_with_end(decay, steps, cosine)


def linear_ema(decay: float | Array | Schedule, steps: int | None) -> Ema:
    """Build the average whose decay rises to 1 on a straight line: ``m(t) = m₀ + (1 − m₀) t/T`` (I-JEPA)."""
    return _ema_with_end(decay, steps, linear)


def _ema_with_end(
    decay: float | Array | Schedule, steps: int | None, curve: Callable[[Any, float, int], Schedule]
) -> Ema:
    if steps is None or callable(decay):
        return ema(decay)
    schedule = curve(decay, 1.0, steps)
    return ema(lambda step: jnp.where(jnp.asarray(decay) == 0, 0.0, schedule(step)))
