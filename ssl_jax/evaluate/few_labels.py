"""Logistic regression on a few labels of each class, over several draws of them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.types import Array
from ssl_jax.data.labels import balanced_draw
from ssl_jax.evaluate.knn import AnyArray
from ssl_jax.evaluate.linear import accuracies, check_probe, standardize
from ssl_jax.evaluate.logistic import PENALTIES, minimize, principal_axes
from ssl_jax.evaluate.measure import LEFT_OUT, Column, Measure, Row, Subject, class_name


class FewLabelResult(NamedTuple):
    """Outcome of linear probes on several draws of a few labels.

    Attributes:
      mean: mean over draws of the test accuracy.
      std: standard deviation over draws (n − 1); 0 for one draw.
      accuracies: test accuracy of each draw.
      l2: penalty that each draw chose.
    """

    mean: float
    std: float
    accuracies: tuple[float, ...]
    l2: tuple[float, ...]


def few_labels(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    per_class: int = 10,
    draws: int = 5,
    l2: tuple[float, ...] = PENALTIES,
    iterations: int = 100,
    solver: str = "bound",
    seed: int = 0,
) -> FewLabelResult:
    """Measure the test accuracy of logistic regression on a few labels a class, over several balanced draws of them.

    For every draw the penalty is chosen inside the labels drawn, never by other labels: by cross-validation
    in 5 folds, or ``per_class`` if that is fewer; from 50 labels a class on by one held-out fifth. Of equals
    the strongest is taken; one label a class leaves nothing to validate on, all are equal, and so the rule is
    the strongest of the grid (near the nearest class mean). Features are standardised over the whole training
    set, which reads no label. The draws depend on ``train_labels`` and ``seed`` only, so encoders are
    compared on the same. Draws are balanced over the classes that have a training example; a test example of
    another class counts as wrong.

    Args:
      train_features: features that a draw's examples are taken from, any float type.
      train_labels: their labels, in [0, ``classes``).
      test_features: features of the final accuracy, for nothing else.
      test_labels: their labels, in [0, ``classes``).
      classes: number of classes.
      per_class: labels a class, 1 or more.
      draws: number of draws, 1 or more.
      l2: grid of penalties, see ``logistic_regression``.
      iterations: number of iterations of each fit.
      solver: see ``logistic_regression``.
      seed: seed of the draws.

    Returns:
      ``FewLabelResult(mean, std, accuracies, l2)``.

    Raises:
      ValueError: labels out of range, or a class with examples, but fewer than ``per_class``.

    >>> x, y = np.tile(np.eye(2, dtype=np.float32), (4, 1)), np.array([0, 1] * 4)
    >>> few_labels(x, y, x, y, classes=2, per_class=2, draws=2, iterations=20).mean
    1.0
    """
    check_probe(train_labels, test_labels, classes, l2)
    check.require(per_class >= 1, "per_class", per_class, "an integer of 1 or more")
    check.require(draws >= 1, "draws", draws, "an integer of 1 or more")
    train, test = standardize(train_features, test_features)
    grid = jnp.asarray(sorted(l2, reverse=True), train.dtype)
    present = np.unique(np.asarray(train_labels))
    numbers = np.full(classes, -1)  # of the classes with an example, without gaps
    numbers[present] = np.arange(classes := len(present))
    train_labels, test_labels = numbers[np.asarray(train_labels)], numbers[np.asarray(test_labels)]
    drawn = [
        balanced_draw(train_labels, classes=classes, per_class=per_class, seed=(seed, draw))
        for draw in range(draws)
    ]
    rows, labels = np.stack(drawn).reshape(draws, -1), jnp.asarray(train_labels)
    fold = jnp.asarray(np.tile(_folds(per_class), classes))
    options = {"classes": classes, "iterations": iterations, "solver": solver}
    model, penalties = _fit_draws(train, labels, rows, fold, grid, folds=int(fold.max()) + 1, **options)
    shares = accuracies(model, test, jnp.asarray(test_labels)).tolist()
    std = float(np.std(shares, ddof=1)) if draws > 1 else 0.0
    return FewLabelResult(float(np.mean(shares)), std, tuple(shares), tuple(penalties.tolist()))


def _folds(per_class: int) -> np.ndarray:
    """Assign each of a class's labels to the fold that holds it out; -1: none does."""
    fold = np.arange(per_class) % 5
    if per_class == 1:
        return np.array([-1])
    # Many labels choose well enough by one fold, and cross-validation would cost most where it matters least.
    return np.where(fold == 0, 0, -1) if per_class >= 50 else fold


@functools.partial(jax.jit, static_argnames=("folds", "classes", "iterations", "solver"))
def _fit_draws(
    train: Array,
    labels: Array,
    draws: Array,
    fold: Array,
    l2: Array,
    *,
    folds: int,
    classes: int,
    iterations: int,
    solver: str,
) -> tuple[tuple[Array, Array], Array]:
    """Fit weights [draws, d, classes] and intercepts to rows ``draws`` [draws, n], and choose their penalties.

    All folds and penalties of a draw are fitted at once, in the coordinates of the whole draw: a fold is the
    draw with its held-out examples counted 0.
    """

    def fit_draw(rows: Array) -> tuple[tuple[Array, Array], Array]:
        x, y = train[rows], labels[rows]
        mean = jnp.mean(x, axis=0)
        basis, z, bound = principal_axes(x - mean)
        target = jax.nn.one_hot(y, classes, dtype=z.dtype)
        best = jnp.asarray(0)
        if folds:
            held = fold[:, None] == jnp.arange(folds)
            share = jnp.repeat(~held / jnp.sum(~held, axis=0), len(l2), axis=1).astype(z.dtype)
            w = minimize(z, target, share, bound, jnp.tile(l2, folds), iterations, solver)
            logits = jnp.einsum("nr,rcg->ncg", z, w[:-1]) + w[-1]
            right = (jnp.argmax(logits, axis=1) == y[:, None]).reshape(len(z), folds, -1)
            best = jnp.argmax(jnp.sum(right & held[:, :, None], axis=(0, 1)))
        even = jnp.full((len(z), 1), 1.0 / len(z), z.dtype)
        w = minimize(z, target, even, bound, l2[best][None], iterations, solver)[..., 0]
        weights = basis @ w[:-1]
        return (weights, w[-1] - mean @ weights), l2[best]

    # One draw after the other: batched factorisations are slower on CPU.
    return jax.lax.map(fit_draw, draws)


def _measure(subject: Subject) -> Row:
    """Mean and deviation for each number of labels that every class with a training image has."""
    arrays = subject.arrays
    present, counts = np.unique(arrays[1], return_counts=True)
    smallest = int(counts.min())
    row: Row = {}
    for number in subject.options.per_class:
        if number <= smallest:
            probe = few_labels(
                *arrays, classes=subject.classes, per_class=number, draws=subject.options.draws
            )
            row[f"linear_{number}"], row[f"linear_{number}_std"] = probe.mean, probe.std
    too_many = [str(number) for number in subject.options.per_class if number > smallest]
    if too_many:
        name = class_name(int(present[counts.argmin()]), subject.sources[0].classes)
        images = f"{smallest} labelled training image{'s' if smallest > 1 else ''}"
        reason = f"{', '.join(too_many)} labels a class: the class {name!r} has {images}"
        row[LEFT_OUT] = {"few": reason}
    return row


MEASURE = Measure(
    "few",
    frozenset({"features", "labels"}),
    (Column("linear_{}", "linear, {} a class", "linear probe on {} a class"),),
    _measure,
)
