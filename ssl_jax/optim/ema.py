"""Exponential moving average of a tree, in optax's form."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, PyTree, Schedule


class EmaState(NamedTuple):
    """What an average carries between updates.

    Attributes:
      count: int32 scalar, updates so far: the step at which a scheduled decay is read.
      average: tree like the averaged one; floating leaves in float32 or wider.
      weight: float32 scalar, sum of the weights of everything averaged so far; 1 unless debiasing. In its place may
        stand an array that broadcasts against the leaves: parts that were averaged unequally often have sums of their own.
    """

    count: Array  # type: ignore[assignment]  # the name that optax uses; hides tuple.count
    average: PyTree
    weight: Array


class Ema(NamedTuple):
    """A pair of pure functions, ``init(tree) -> state`` and ``update(tree, state) -> (average, state)``."""

    init: Callable[[PyTree], EmaState]
    update: Callable[[PyTree, EmaState], tuple[PyTree, EmaState]]


def ema(decay: float | Array | Schedule, *, debias: bool = False) -> Ema:
    """Build an exponential moving average of any tree of arrays: ``a ← d·a + (1 − d)·x``.

    ``d = decay(t)`` at update t = 0, 1, ...; a is ``state.average`` and x the tree given to ``update``. One
    transform serves the teacher of BYOL and DINO, MoCo's key encoder, Mean Teacher, DINO's centre (x = mean
    teacher output), the predictions of temporal ensembling and averaged weights for evaluation.

    With ``debias`` the average starts from zeros and the value returned is ``a / w``, ``w ← d·w + (1 − d)``
    being the same average of the constant 1. For a constant decay ``w = 1 − d^t``, the correction of Adam;
    for a scheduled one it is exact too. Until something has entered (decay 1 from the start), zeros are
    returned.

    Args:
      decay: d in [0, 1], or a schedule ``step -> d``; may be traced. 0 copies the tree bit for bit, 1 keeps
        the average.
      debias: start from zeros and correct for it, instead of starting from the tree given to ``init``.

    Returns:
      ``Ema(init, update)``. ``init(tree)`` starts the average at the tree (zeros with ``debias``).
      ``update(tree, state)`` returns the new average, debiased if asked, and the new state. bfloat16 and
      float16 leaves are averaged in float32: with d = 0.999 an average in bfloat16 would never move. Leaves
      that are not floating (counters, keys) are copied.

    Raises:
      ValueError: a decay outside of [0, 1].

    >>> import jax.numpy as jnp
    >>> teacher = ema(0.75)
    >>> state = teacher.init({"w": jnp.zeros(2)})
    >>> average, state = teacher.update({"w": jnp.ones(2)}, state)
    >>> average["w"].tolist(), int(state.count)
    ([0.25, 0.25], 1)
    >>> mean = ema(0.9, debias=True)
    >>> average, _ = mean.update(jnp.array(3.0), mean.init(jnp.array(0.0)))
    >>> round(float(average), 6)
    3.0

    Reference: Grill et al., Bootstrap Your Own Latent (2020), eq. 1; Laine & Aila, Temporal Ensembling
    (2017), algorithm 1 (debiased); Kingma & Ba, Adam (2015), section 3, for the correction.
    """
    if not callable(decay):
        check.share("decay", decay)

    def init(tree: PyTree) -> EmaState:
        start = jnp.zeros_like if debias else jnp.array
        average = jax.tree.map(
            lambda x: start(numerics.at_least_float32(x)) if _averaged(x) else jnp.array(x), tree
        )
        return EmaState(jnp.zeros((), jnp.int32), average, jnp.asarray(0.0 if debias else 1.0, jnp.float32))

    def update(tree: PyTree, state: EmaState) -> tuple[PyTree, EmaState]:
        d = decay(state.count) if callable(decay) else decay
        average = jax.tree.map(lambda a, x: _blend(a, x, d) if _averaged(x) else x, state.average, tree)
        if not debias:
            return average, EmaState(state.count + 1, average, state.weight)
        new = EmaState(state.count + 1, average, _blend(state.weight, jnp.ones_like(state.weight), d))
        return debias_average(new), new

    return Ema(init, update)


def debias_average(state: EmaState) -> PyTree:
    """Return the average that a state holds, corrected for its start at zero: ``a / w``, and 0 where nothing has entered.

    Args:
      state: state of ``ema(..., debias=True)``.

    >>> mean = ema(0.9, debias=True)
    >>> _, state = mean.update(jnp.array(3.0), mean.init(jnp.array(0.0)))
    >>> round(float(state.average), 6), round(float(debias_average(state)), 6)
    (0.3, 3.0)
    """
    entered = state.weight > 0
    scale = jnp.where(entered, 1.0 / jnp.where(entered, state.weight, 1.0), 0.0)
    return jax.tree.map(lambda a: a * scale.astype(a.dtype) if _averaged(a) else a, state.average)


def _averaged(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _blend(average: Array, x: Array, decay: float | Array) -> Array:
    # The average's dtype wins: a float32 schedule must not widen it, nor a bfloat16 input narrow it.
    return (decay * average + (1.0 - decay) * x.astype(average.dtype)).astype(average.dtype)
