"""Hooks that measure a run while it goes: online evaluation and health. They read and never write."""

import logging
from collections.abc import Mapping

import jax
import numpy as np

from ssl_jax.core.check import require
from ssl_jax.data.labels import known_labels
from ssl_jax.data.sources import Source, Subset, take_evenly
from ssl_jax.evaluate import health
from ssl_jax.evaluate.knn import NEIGHBORS, knn_accuracy
from ssl_jax.evaluate.measure import labeled_part
from ssl_jax.evaluate.ridge import ridge_probe
from ssl_jax.methods.method import Method
from ssl_jax.train.features import Features, extract_source
from ssl_jax.train.sharding import batch_sharding_of
from ssl_jax.train.state import TrainState

logger = logging.getLogger(__name__)


class Health:
    """Measures of the features of some training images in two views each, see :func:`ssl_jax.evaluate.health.measure_health`.

    The images are taken at even distances from the source, and their views are drawn once, from the method's own views and a
    key of the hook's: the same inputs at every call, so a curve shows the network and not the draw, and a resumed run shows
    the same numbers. A run has two of them: a small one at every log step (``batch/``) and a larger one now and then
    (``health/``). LiDAR wants more images than the features have dimensions; with fewer it is a lower bound. Of fewer than two
    images that can be read there are no scalars, which is said at the start.

    Args:
      method: method that gives ``encode`` and the views, of which the first crop size is used.
      source: training images.
      every: number of steps between calls.
      images: number of images, 2 or more.
      prefix: beginning of the scalars' names, before the slash.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`; the views are drawn from the image after it.

    Raises:
      ValueError: a number below what is needed.
    """

    def __init__(
        self,
        method: Method,
        source: Source,
        *,
        every: int,
        images: int = 64,
        prefix: str = "batch",
        crop_ratio: float = 1.0,
    ) -> None:
        require(every >= 1, "every", every, "an integer of 1 or more")
        require(images >= 2, "images", images, "an integer of 2 or more")
        self.every, self.name, self._prefix = every, f"{prefix}: measuring features", prefix
        self._views = health.draw_two_views(source, method.views[0], images=images, crop_ratio=crop_ratio)
        if (count := self._views.shape[1]) < 2:
            logger.warning(
                "no %s/ scalars of the features: it takes two images that can be read, of %d", prefix, count
            )
        self._measure = jax.jit(
            lambda params, state, views: health.measure_health(
                jax.lax.map(lambda v: method.encode(params, state, v), views).swapaxes(0, 1)
            )
        )

    def __call__(self, step: int, state: TrainState) -> Mapping[str, float]:
        """Measure the features that ``state`` gives."""
        del step
        if self._views.shape[1] < 2:
            return {}
        scalars = jax.device_get(self._measure(state.params, state.state, self._views))
        return {f"{self._prefix}/{name}": float(value) for name, value in scalars.items()}


class OnlineEvaluation:
    """kNN and a linear probe while the run goes, on labelled images of the training set.

    ``bank + queries`` images are taken at even distances from the source and dealt in turn, or, where no class would be in
    both parts, shuffled by a fixed seed: both parts are disjoint and fixed. Only training images are used: a recipe tuned on
    these numbers has not seen the test set. Nothing is kept between calls (the linear probe is ridge regression in closed
    form), so a resumed run shows the same numbers.

    Scalars: ``online/knn``, ``online/linear``, accuracies in [0, 1]. Images with label -1 or that cannot be read take no part:
    with a table of labels, the images are taken from those that have one. Where fewer are left, fewer vote and are classified;
    where none votes or is classified, or all that vote are of one class, there are no scalars, which is said once.

    Args:
      method: method that gives ``encode`` and the size and normalisation of the images.
      source: training images, with labels.
      every: number of steps between calls.
      bank: number of labelled images that vote.
      queries: number of images that are classified; 10 or more.
      k: number of neighbours.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.

    Raises:
      ValueError: a number below what is needed, or a source without classes.
    """

    def __init__(
        self,
        method: Method,
        source: Source,
        *,
        every: int,
        bank: int = 2000,
        queries: int = 1000,
        k: int = NEIGHBORS,
        crop_ratio: float = 1.0,
    ) -> None:
        require(every >= 1, "every", every, "an integer of 1 or more")
        require(queries >= 10, "queries", queries, "an integer of 10 or more")
        require(bank >= k >= 1, "bank", bank, f"an integer of at least k={k}")
        require(len(source.classes) > 0, "source.classes", source.classes, "a source with labels")
        self.every, self.name = every, "online evaluation"
        self._method, self._k, self._crop_ratio, self._classes = method, k, crop_ratio, len(source.classes)
        known, total = known_labels(source), bank + queries
        # Where only the images can tell, each may have a label of its own.
        labels = np.arange(len(source)) if known is None else np.asarray(known)
        labeled = np.flatnonzero(labels >= 0)
        chosen = take_evenly(Subset(source, labeled), total).indices if len(labeled) else labeled
        indices, count = labeled[chosen], len(chosen)
        is_query = np.floor(np.arange(count) * queries / total) < np.floor(
            np.arange(1, count + 1) * queries / total
        )
        if count > 1 and not is_query.any():
            is_query[-1] = True
        if known is not None and not np.isin(labels[indices[is_query]], labels[indices[~is_query]]).any():
            # Labels that repeat as the parts do, such as 0, 1, 2, 0, 1, 2: every image that is classified is of one class.
            is_query = np.random.default_rng(0).permutation(is_query)
        self._bank, self._queries = indices[~is_query], indices[is_query]
        self._source, self._reason = source, ""
        self._tell(why_not_measured(labels[self._bank], labels[self._queries]))

    def __call__(self, step: int, state: TrainState) -> Mapping[str, float]:
        """Measure the features that ``state`` gives."""
        del step
        if self._reason:
            return {}
        bank, queries = (
            labeled_part(self._features(Subset(self._source, part), state))
            for part in (self._bank, self._queries)
        )
        if reason := why_not_measured(bank.labels, queries.labels):
            self._tell(reason)
            return {}
        arrays = (bank.features, bank.labels, queries.features, queries.labels)
        k = min(self._k, len(bank.labels))
        knn = knn_accuracy(*arrays, classes=self._classes, k=k)
        return {"online/knn": knn, "online/linear": float(ridge_probe(*arrays, classes=self._classes))}

    def _tell(self, reason: str) -> None:
        self._reason = reason
        if reason:
            logger.warning("no online kNN and linear probe: %s", reason)

    def _features(self, source: Source, state: TrainState) -> Features:
        return extract_source(
            self._method.encode,
            source,
            view=self._method.views[0],
            variables=(state.params, state.state),
            sharding=batch_sharding_of(state),
            batch_size=250,
            crop_ratio=self._crop_ratio,
            max_corrupt_fraction=1.0,
        )


def why_not_measured(bank_labels: np.ndarray, query_labels: np.ndarray) -> str:
    """Say why images with these labels give no accuracy that means something; empty if they do.

    >>> why_not_measured(np.array([0, 0, 0]), np.array([0]))
    'all 3 labelled images that vote are of one class'
    """
    if not len(bank_labels) or not len(query_labels):
        count = len(bank_labels) + len(query_labels)
        return f"of {count} labelled images none votes or none is classified; it takes two"
    if len(np.unique(bank_labels)) < 2:
        return f"all {len(bank_labels)} labelled images that vote are of one class"
    return ""
