"""What a run carries from one step to the next."""

from typing import NamedTuple

from ssl_jax.core.types import Array, Key, Params, PyTree, State


class TrainState(NamedTuple):
    """Everything that a training step reads and writes; saving it saves the run.

    The data stream and all randomness are functions of ``(key, step)``, so nothing else has to be kept.

    Attributes:
      step: number of updates made, int32 scalar array.
      params: what the optimizer updates.
      state: what the method changes by other means: batch statistics, teacher, queue, centre.
      opt_state: the optimizer's state.
      key: the run's typed key; constant, the step is folded into it.
      finite: bool scalar array; False from the first non-finite loss or gradient on. Where it is False a step
        leaves everything else untouched, so this state is the one *before* the bad step.

    >>> import jax, jax.numpy as jnp
    >>> state = TrainState(jnp.int32(0), {"w": jnp.ones(2)}, {}, (), jax.random.key(0), jnp.bool_(True))
    >>> sorted(state.params), int(state.step)
    (['w'], 0)
    """

    step: Array
    params: Params
    state: State
    opt_state: PyTree
    key: Key
    finite: Array
