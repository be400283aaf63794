"""What the loop does every n steps for methods that look at the whole training set: DeepCluster, bags of words."""

from collections.abc import Callable

import jax
import numpy as np

from ssl_jax.core import trees
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Key, PyTree
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.sources import Source
from ssl_jax.methods.method import Method
from ssl_jax.ops.clustering_scores import normalized_mutual_information
from ssl_jax.train.features import extract_source
from ssl_jax.train.sharding import batch_sharding_of, to_host
from ssl_jax.train.state import TrainState

BATCH = 256
"""Images that are described at a time."""
# A step splits its key into the two that folding in 0 and 1 would give again.
REFRESH, REINIT, ORDER = 2, 3, 4


class Refresher:
    """Calls a method's ``refresh`` when it is due, and says which images come until the next time.

    Due it is before steps 0, n, 2n, ..., or before step 0 alone where n is 0. Everything is a function of the state at that
    step, so a run that is killed during a refresh, or after it and before the next checkpoint, does the same again when it
    goes on.

    Args:
      method: with or without ``refresh``.
      source: the training images.
      init: ``seed -> TrainState``, which draws what is renewed.
      every: n, 1 or more; 0 for methods without ``refresh``, and for those that look at the images once.
      shardings: of the state.
      max_corrupt_fraction: share of unreadable images above which a refresh ends the run.

    Raises:
      ValueError: ``every`` does not suit the method, or ``refresh.reinit`` names none of its parameters.
    """

    def __init__(
        self,
        method: Method,
        source: Source,
        *,
        init: Callable[[int], TrainState],
        every: int,
        shardings: TrainState,
        max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
    ) -> None:
        has = method.refresh is not None
        once = method.refresh is not None and method.refresh.features_once and method.refresh.order is None
        allowed = (
            "an integer of 1 or more: the method has a refresh" if has else "0: the method has no refresh"
        )
        require(every >= (0 if once else 1) if has else every == 0, "refresh_every", every, allowed)
        self._method, self._source, self._every, self._plan = method, source, every, method.refresh
        self._max_corrupt_fraction = max_corrupt_fraction
        if self._plan is None:
            return
        for name in self._plan.reinit:
            choice("refresh.reinit", name, shardings.params)
        self._init, self._update = init, jax.jit(self._plan.update, out_shardings=shardings.state)

    def is_due(self, step: int) -> bool:
        """Return whether a refresh comes before the update that follows ``step`` others."""
        if self._every == 0:
            return self._plan is not None and step == 0
        return step % self._every == 0

    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Return the state after the refresh that is due after ``step`` updates."""
        assert self._plan is not None
        features = None if step > 0 and self._plan.features_once else self._gather_features(state)
        state = state._replace(state=self._update(state.state, features, _key(state, step, REFRESH)))
        if not self._plan.reinit:
            return state
        seed = int(jax.random.randint(_key(state, step, REINIT), (), 0, 2**31 - 1))
        return reinitialize(state, self._init(seed), self._plan.reinit)

    def scalars(self, state: TrainState) -> dict[str, float]:
        """Measure after a refresh how much the clusters tell of those before, as ``refresh/nmi``; nothing the first time."""
        if self._plan is None or self._plan.cluster_labels is None:
            return {}
        pairs = zip(*to_host(self._plan.cluster_labels(state.state)), strict=True)
        shared = [normalized_mutual_information(*pair) for pair in pairs]
        return {} if np.isnan(shared).any() else {"refresh/nmi": float(np.mean(shared))}

    def order(self, step: int, state: TrainState) -> np.ndarray | None:
        """Return the indices of the images between the last refresh before or at ``step`` and the next; ``None``: all of them.

        Args:
          step: updates made.
          state: after that refresh, or any step since.
        """
        if self._plan is None or self._plan.order is None:
            return None
        key = _key(state, step - step % self._every, ORDER)
        return to_host(jax.jit(self._plan.order)(state.state, key))

    def _gather_features(self, state: TrainState) -> np.ndarray:
        """What the method describes of every image, row i of image i; a corrupt one has the row of the next readable one."""
        assert self._plan is not None
        count = len(self._source)
        found = extract_source(
            self._plan.features,
            self._source,
            view=self._method.views[0],
            variables=(state.params, state.state),
            sharding=batch_sharding_of(state),
            batch_size=min(BATCH, count),
            max_corrupt_fraction=self._max_corrupt_fraction,
        )
        if len(found.index) == count:
            return found.features
        return found.features[np.searchsorted(found.index, np.arange(count)) % len(found.index)]


def _key(state: TrainState, step: int, purpose: int) -> Key:
    return jax.random.fold_in(jax.random.fold_in(state.key, step), purpose)


def reinitialize(state: TrainState, fresh: TrainState, names: tuple[str, ...]) -> TrainState:
    """Make a state in which some parameters, with their moments in the optimizer, are those of another.

    Args:
      state: of a run.
      fresh: of the same form.
      names: of the parameters, at the top of ``params``.

    Returns:
      The state with ``params[name]`` of ``fresh`` for each name, and of its ``opt_state`` the arrays whose paths end as the
      path of such a parameter does. Counts are kept: schedules go on.

    >>> import jax, jax.numpy as jnp
    >>> at = lambda x: TrainState(x, {"a": x, "b": x}, {}, {"mu": {"a": x, "b": x}, "count": x}, x, x)
    >>> reinitialize(at(1), at(0), ("b",))[1:4]
    ({'a': 1, 'b': 0}, {}, {'count': 1, 'mu': {'a': 1, 'b': 0}})
    """
    paths = sorted(trees.flatten(state.params), key=len, reverse=True)

    def is_reinitialized(path: str) -> bool:
        own = next((p for p in paths if path == p or path.endswith(f"/{p}")), "")
        return own.split("/")[0] in names

    def pick(old: PyTree, new: PyTree) -> PyTree:
        return trees.map_with_path(
            lambda path, kept, drawn: drawn if is_reinitialized(path) else kept, old, new
        )

    return state._replace(
        params=pick(state.params, fresh.params), opt_state=pick(state.opt_state, fresh.opt_state)
    )
