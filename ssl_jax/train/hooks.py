"""What looks at a run while it goes: online evaluation and health. Hooks read and never write."""

from collections.abc import Mapping

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source, Subset
from ssl_jax.evaluate import spectrum
from ssl_jax.evaluate.features import Features, extract
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.linear import ridge_probe
from ssl_jax.methods.method import Method
from ssl_jax.train.state import TrainState


class OnlineEvaluation:
    """Health of the features, and where there are labels kNN and a linear probe, on images of the training set.

    ``bank + queries`` images are taken at even distances from the source and dealt in turn, so both parts are disjoint and
    fixed. Only training images are used: a recipe tuned on these numbers has not seen the test set. Nothing is kept
    between calls (the linear probe is ridge regression in closed form), so a resumed run shows the same numbers.

    Scalars: ``online/knn``, ``online/linear`` (accuracies in [0, 1]); ``health/feature_std``, ``health/rankme``,
    ``health/alpha``, ``health/uniformity`` of the query features, see :mod:`ssl_jax.evaluate.spectrum`.

    Args:
      method: gives ``encode`` and the size and normalisation of the images.
      source: the training images.
      every: steps between calls.
      bank: labelled images that vote.
      queries: images that are classified; 10 or more.
      k: neighbours.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.

    Raises:
      ValueError: a number below what is needed.
    """

    def __init__(
        self,
        method: Method,
        source: Source,
        *,
        every: int,
        bank: int = 2000,
        queries: int = 1000,
        k: int = 20,
        crop_ratio: float = 1.0,
    ) -> None:
        require(every >= 1, "every", every, "an integer of 1 or more")
        require(queries >= 10, "queries", queries, "an integer of 10 or more")
        require(bank >= k >= 1, "bank", bank, f"an integer of at least k={k}")
        self.every = every
        self.labelled = len(source.classes) > 0
        self._method, self._k, self._crop_ratio, self._classes = method, k, crop_ratio, len(source.classes)
        wanted = bank + queries
        indices = np.unique(np.linspace(0, len(source) - 1, min(wanted, len(source))).round().astype(int))
        is_query = np.floor(np.arange(len(indices)) * queries / wanted) < np.floor(
            np.arange(1, len(indices) + 1) * queries / wanted
        )
        self._queries = Subset(source, indices[is_query])
        self._bank = Subset(source, indices[~is_query])

    def __call__(self, step: int, state: TrainState) -> Mapping[str, float]:
        """Scalars of the features that ``state`` gives."""
        del step
        queries = self._features(self._queries, state)
        scalars = {
            "health/feature_std": spectrum.feature_std(queries.features),
            "health/rankme": spectrum.rankme(queries.features),
            "health/alpha": spectrum.alpha_req(queries.features),
            "health/uniformity": spectrum.uniformity(queries.features),
        }
        if self.labelled:
            bank = self._features(self._bank, state)
            arrays = (bank.features, bank.labels, queries.features, queries.labels)
            k = min(self._k, len(bank.labels))
            scalars["online/knn"] = knn_accuracy(*arrays, classes=self._classes, k=k)  # type: ignore[assignment]
            scalars["online/linear"] = ridge_probe(*arrays, classes=self._classes)
        return {name: float(value) for name, value in scalars.items()}

    def _features(self, source: Source, state: TrainState) -> Features:
        view = self._method.views[0]
        batches = epoch(source, batch_size=250, size=view.size, crop_ratio=self._crop_ratio, max_corrupt=1.0)
        with batches:
            variables = (state.params, state.state)
            return extract(self._method.encode, batches, view=view, variables=variables)
