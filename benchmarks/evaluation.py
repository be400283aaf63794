"""Evaluation against scikit-learn: kNN of 10k images against 60k, the linear probe and the linear sweep.

Fashion-MNIST with 128 features, the principal components of the pixels. Both sides have all cores. kNN: one
rule, cosine similarity, 20 neighbours weighted by exp(cos / 0.07). Linear probe: logistic regression on
standardised features, the penalty chosen from one grid on the same held-out tenth, then fitted again to all
(scikit-learn runs the grid in one process a core). Linear sweep: ours trains its grid of learning rates and
weight decays by SGD, scikit-learn fits a grid of as many penalties by L-BFGS; the protocol is the same, and a
third of the images keeps scikit-learn within a minute. The accuracies of both sides stand beside each ratio.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from benchmarks import pairs
from ssl_jax.data.open import open_source
from ssl_jax.evaluate.knn import NEIGHBORS, knn_accuracy
from ssl_jax.evaluate.logistic import PENALTIES, logistic_probe
from ssl_jax.evaluate.sweep import LEARNING_RATES, WEIGHT_DECAYS, linear_sweep

GAINS = {
    "kNN": "a checkpoint is judged in seconds, so that it can be done while training",
    "linear probe": "the usual measure of features, by the same optimum as scikit-learn's",
    "linear sweep": "learning rate and weight decay are searched in one run instead of many",
}
"""What the user gains, by a part of a row's name."""

K, TEMPERATURE, HOLDOUT = NEIGHBORS, 0.07, 0.1


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
    return knn_accuracy(*data, classes=10, k=K, temperature=TEMPERATURE)


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


def our_probe(data: Data) -> float:
    return logistic_probe(*data, classes=10, holdout=HOLDOUT).accuracy


def our_sweep(data: Data) -> float:
    return linear_sweep(*data, classes=10, holdout=HOLDOUT).accuracy


def sklearn_grid(data: Data, penalties: Sequence[float], *, jobs: int, iterations: int) -> float:
    """The same protocol: standardise, fit the grid without the held-out part, choose, fit again to all."""
    mean, std = data.train.mean(axis=0), data.train.std(axis=0)
    train, test = (data.train - mean) / std, (data.test - mean) / std
    held = round(HOLDOUT * len(train))
    order = np.random.default_rng(0).permutation(len(train))
    chooser, rest = order[:held], order[held:]
    grid = sorted(penalties, reverse=True)
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
    name: str,
    ours: Callable[[], float],
    other: Callable[[], float],
    *,
    count: int,
    at_least: float = 3.0,
    **facts: Any,
) -> pairs.Measurement:
    """Both in turn, and their accuracies. Ours is called once before, for its compilation."""
    right: dict[str, float] = {}

    def first() -> None:
        right["ours"] = ours()

    def second() -> None:
        right["other"] = other()

    first()
    times = pairs.alternate(first, second, pairs=count, seconds=30, least=2, warmup=0)
    against = f"scikit-learn (accuracy {right['ours']:.2%} against {right['other']:.2%})"
    return pairs.paired(name, times, against=against, at_least=at_least, accuracy=right, **facts)


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    quick, jobs = options.quick, len(pairs.cores())
    data = load("embedded", 1200, 100, 16) if quick else load("fashion_mnist", 60_000, 10_000, 128)
    part = len(data.train) // 3
    third = data._replace(train=data.train[:part], train_labels=data.train_labels[:part])
    cells = len(LEARNING_RATES) * len(WEIGHT_DECAYS)
    spaced = tuple(np.geomspace(min(PENALTIES), max(PENALTIES), cells).tolist())
    by = {"jobs": jobs, "iterations": 20 if quick else 100}
    few = Data(data.train[:500], data.train_labels[:500], data.test, data.test_labels)
    sklearn_grid(few, PENALTIES, jobs=jobs, iterations=1)  # starts the processes of joblib
    return [
        compare(
            f"(f) kNN of {len(data.test):,} against {len(data.train):,}",
            lambda: our_knn(data),
            lambda: sklearn_knn(data),
            count=2 if quick else 5,
        ),
        compare(
            f"(f) linear probe, {len(PENALTIES)} penalties, {len(data.train):,} examples",
            lambda: our_probe(data),
            lambda: sklearn_grid(data, PENALTIES, **by),
            count=2 if quick else 3,
            at_least=1.0,
            **by,
        ),
        compare(
            f"(f) linear sweep, {cells} heads, {part:,} examples",
            lambda: our_sweep(third),
            lambda: sklearn_grid(third, spaced, **by),
            count=2,
            **by,
        ),
    ]


if __name__ == "__main__":
    pairs.main("evaluation", pairs.parser("evaluation", __doc__), run)
