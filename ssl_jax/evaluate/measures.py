"""All measures of frozen features with labels, by name."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_jax.core import check
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.linear import few_labels, linear_probe, ridge
from ssl_jax.evaluate.retrieval import retrieval
from ssl_jax.evaluate.sweep import linear_sweep
from ssl_jax.train.features import Features

MEASURES = ("knn", "linear", "ridge", "logistic", "few", "retrieval")


def measure(
    train: Features,
    test: Features,
    *,
    classes: int,
    measures: Sequence[str] = ("knn", "linear", "few"),
    k: int = 20,
    sweep: Sequence[int] = (1, 5, 10, 20, 50, 100, 200),
    temperature: float = 0.07,
    per_class: Sequence[int] = (1, 5, 10, 100),
    draws: int = 5,
) -> dict[str, Any]:
    """What labelled features are worth, by the measures asked for.

    Args:
      train: labelled features: the bank, and what probes are fitted on and chosen with.
      test: labelled features that are reported.
      classes: number of classes.
      measures: of ``MEASURES``:

        * ``knn``: weighted kNN with ``k`` neighbours, and by ``sweep`` (key ``knn_sweep``: accuracy by number);
        * ``linear``: :func:`ssl_jax.evaluate.sweep.linear_sweep`, and what it chose (key ``linear_chosen``);
        * ``ridge``: :func:`ssl_jax.evaluate.linear.ridge`;
        * ``logistic``: :func:`ssl_jax.evaluate.linear.linear_probe`;
        * ``few``: :func:`ssl_jax.evaluate.linear.few_labels` for each of ``per_class`` (``linear_<n>`` and
          ``linear_<n>_std``, over draws), as far as every class has that many;
        * ``retrieval``: mean average precision within ``test``, each image a query against all others.
      k: neighbours of the headline number; at most the training examples are taken.
      sweep: further numbers of neighbours.
      temperature: of kNN.
      per_class: labels a class.
      draws: of each number of labels.

    Returns:
      By key; accuracies and precisions in [0, 1].

    Raises:
      ValueError: an unknown measure, or what the measures find wrong.

    >>> points = np.tile(np.eye(2, dtype=np.float32), (8, 1))
    >>> both = Features(points, np.tile(np.arange(2, dtype=np.int32), 8), np.arange(16, dtype=np.int32))
    >>> measure(both, both, classes=2, measures=("knn",), k=3, sweep=(1,))
    {'knn': 1.0, 'knn_sweep': {'1': 1.0}}
    """
    for name in measures:
        check.choice("measures", name, MEASURES)
    arrays = (train.features, train.labels, test.features, test.labels)
    found: dict[str, Any] = {}
    if "knn" in measures:
        available = len(train.labels)
        numbers = tuple(dict.fromkeys(min(number, available) for number in (k, *sweep)))
        by_k = knn_accuracy(*arrays, classes=classes, k=numbers, temperature=temperature)
        assert isinstance(by_k, dict)
        found["knn"] = by_k[numbers[0]]
        found["knn_sweep"] = {str(number): by_k[number] for number in sorted(by_k) if number in sweep}
    if "linear" in measures:
        best = linear_sweep(*arrays, classes=classes)
        found["linear"] = best.accuracy
        found["linear_chosen"] = {
            "learning_rate": best.learning_rate,
            "weight_decay": best.weight_decay,
            "validation": best.validation,
            "at_edge": best.at_edge,
        }
    if "ridge" in measures:
        found["ridge"] = ridge(*arrays, classes=classes).accuracy
    if "logistic" in measures:
        found["logistic"] = linear_probe(*arrays, classes=classes).accuracy
    if "few" in measures:
        smallest = int(np.bincount(train.labels, minlength=classes).min())
        for number in per_class:
            if number <= smallest:
                few = few_labels(*arrays, classes=classes, per_class=number, draws=draws)
                found[f"linear_{number}"], found[f"linear_{number}_std"] = few.mean, few.std
    if "retrieval" in measures:
        ranked = retrieval(*arrays[2:], *arrays[2:], k=(1,), exclude_self=True)
        found["retrieval_map"] = ranked.mean_average_precision
    return found
