"""The form in which every network leaves ``models/``: two pure functions over plain dicts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ssl_jax.core.types import Params, State


class Network(NamedTuple):
    """A network as a pair of pure functions, with what is needed to build it again.

    Attributes:
      init: ``(key, inputs) -> (params, state)``. ``inputs`` is an array of the right shape (its values are not read).
        ``params`` are float32; ``state`` holds batch statistics and other arrays that no gradient reaches, ``{}`` if none.
      apply: ``(params, state, inputs, *, train=False, key=None, **options) -> (outputs, state)``. With ``train=False`` it is
        deterministic and returns ``state`` as it came. ``key`` is needed only where training draws (stochastic depth).
      features: width of the last axis of the outputs.
      config: ``{"name": ..., **options}``: ``models.build(**config)`` builds the same encoder again. ``{}`` for heads.
    """

    init: Callable[..., tuple[Params, State]]
    apply: Callable[..., tuple[Any, State]]
    features: int
    config: Mapping[str, Any]
