"""Evaluation against scikit-learn: kNN of 10k images against 60k, and the linear probe over a grid of penalties.

Fashion-MNIST with 128 features, the principal components of the pixels. Both sides have all cores and classify by the
same rule: cosine similarity, 20 neighbours weighted by exp(cos / 0.07); logistic regression on standardised features,
the penalty chosen from one grid on the same held-out tenth and fitted again to all (scikit-learn runs the grid in one
process a core). Accuracies stand beside the times; the faster side has to be as accurate, to within 0.2 points.
"""

import argparse
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import joblib
import jax
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from benchmarks import pairs
from ssl_jax.data.open import open_source
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.linear import PENALTIES, linear_probe

K, TEMPERATURE, HOLDOUT = 20, 0.07, 0.1


class Data(NamedTuple):
    """Features and labels of both parts."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load(source: str, train: int, test: int, features: int) -> Data:
    """Principal components of the pixels, fitted on the training images."""
    parts = []
    for split, count in (("train", train), ("test", test)):
        opened = open_source(source, split)
        examples = [opened[i] for i in range(min(count, len(opened)))]
        pixels = np.stack([e["image"] for e in examples]).reshape(len(examples), -1).astype(np.float32) / 255
        parts.append((pixels, np.array([e["label"] for e in examples], np.int32)))
    (x, labels), (y, test_labels) = parts
    mean = x.mean(axis=0)
    _, vectors = np.linalg.eigh((x - mean).T @ (x - mean))
    basis = vectors[:, -features:].astype(np.float32)
    return Data((x - mean) @ basis, labels, (y - mean) @ basis, test_labels)


def our_knn(data: Data) -> float:
    return float(knn_accuracy(*data, classes=10, k=K, temperature=TEMPERATURE))


def sklearn_knn(data: Data) -> float:
    model = KNeighborsClassifier(
        K,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp(-distance / TEMPERATURE),
        n_jobs=-1,
    )
    model.fit(data.train, data.train_labels)
    return float(np.mean(model.predict(data.test) == data.test_labels))


def our_sweep(data: Data) -> float:
    return linear_probe(*data, classes=10, holdout=HOLDOUT).accuracy


def sklearn_sweep(data: Data, *, jobs: int, iterations: int) -> float:
    """The same protocol: standardise, fit the grid without the held-out part, choose, fit again to all."""
    mean, std = data.train.mean(axis=0), data.train.std(axis=0)
    train, test = (data.train - mean) / std, (data.test - mean) / std
    held = round(HOLDOUT * len(train))
    order = np.random.default_rng(0).permutation(len(train))
    chooser, rest = order[:held], order[held:]
    grid = sorted(PENALTIES, reverse=True)
    fit = joblib.delayed(_fit)
    models = joblib.Parallel(n_jobs=jobs)(
        fit(train[rest], data.train_labels[rest], penalty, iterations) for penalty in grid
    )
    scores = [np.mean(m.predict(train[chooser]) == data.train_labels[chooser]) for m in models]
    best = _fit(train, data.train_labels, grid[int(np.argmax(scores))], iterations)
    return float(np.mean(best.predict(test) == data.test_labels))


def _fit(x: np.ndarray, labels: np.ndarray, penalty: float, iterations: int) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=1 / (len(x) * penalty), max_iter=iterations).fit(x, labels)


def compare(
    name: str, ours: Callable[[], float], other: Callable[[], float], *, count: int, **facts: Any
) -> pairs.Measurement:
    """Both in turn, and their accuracies.

    Raises:
      AssertionError: ours is less accurate.
    """
    accuracy: dict[str, float] = {}

    def first() -> None:
        accuracy["ours"] = ours()

    def second() -> None:
        accuracy["scikit_learn"] = other()

    times = pairs.alternate(first, second, pairs=count, seconds=60, least=2)
    if accuracy["ours"] < accuracy["scikit_learn"] - 0.002 or not math.isfinite(accuracy["ours"]):
        raise AssertionError(f"{name}: not as accurate: {accuracy}")
    return pairs.paired(name, times, against="scikit-learn", at_least=3.0, accuracy=accuracy, **facts)


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    if options.quick:
        data = load("embedded", 400, 100, 16)
    else:
        data = load("fashion_mnist", 60_000, 10_000, 128)
    jobs, iterations, count = len(pairs.cores()), 20 if options.quick else 100, 2 if options.quick else 5
    shapes = {"train": data.train.shape, "test": data.test.shape}
    jax.block_until_ready(jax.numpy.zeros(1))
    return [
        compare(
            f"(f) kNN of {len(data.test):,} against {len(data.train):,}",
            lambda: our_knn(data),
            lambda: sklearn_knn(data),
            count=count,
            **shapes,
        ),
        compare(
            f"(f) linear probe, {len(PENALTIES)} penalties, {len(data.train):,} examples",
            lambda: our_sweep(data),
            lambda: sklearn_sweep(data, jobs=jobs, iterations=iterations),
            count=count,
            grid=PENALTIES,
            iterations=iterations,
            jobs=jobs,
            **shapes,
        ),
    ]


if __name__ == "__main__":
    pairs.main("evaluation", pairs.parser("evaluation", __doc__), run)
