"""Weighted k-nearest-neighbour classification, the rule of InstDisc and DINO."""

import functools
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.numerics import normalize, top_k
from ssl_jax.core.types import Array
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject
from ssl_jax.ops.neighbors import largest_by_groups

AnyArray = Array | np.ndarray
NEIGHBORS = 20
"""The k of kNN, here and wherever else neighbours vote; that of DINO's tables."""
TEMPERATURE = 0.07
SWEEP = (1, 5, 10, 20, 50, 100, 200)
"""Numbers of neighbours of :func:`knn_sweep`."""


def knn_scores(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    *,
    classes: int,
    k: tuple[int, ...] = (NEIGHBORS,),
    temperature: ScalarLike = TEMPERATURE,
    block: int = 256,
) -> Float[Array, "k m classes"]:
    """Compute the share of the neighbours' votes that each class gets.

    ``score_c ∝ Σ_{i ∈ top-k, y_i = c} exp(cos(x, x_i) / τ)``, normalised to sum 1 over classes. x is a row of
    ``test_features``, x_i and y_i rows of ``train_features`` and ``train_labels``, τ ``temperature``. The
    largest similarity is subtracted before the exponential; of equal similarities the earlier row counts
    first.

    Args:
      train_features: features of the bank, any float type, not normalised.
      train_labels: labels of the bank, in [0, ``classes``).
      test_features: features of the queries.
      classes: number of classes.
      k: numbers of neighbours, each in [1, n]; one search serves all.
      temperature: τ > 0; may be traced.
      block: queries at a time: memory is ``block × n``, the result does not depend on it.

    Returns:
      Scores in [0, 1], one table for each entry of ``k``.

    Raises:
      ValueError: k or labels out of range.

    >>> train = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    >>> knn_scores(train, np.array([0, 1]), train, classes=2, k=(1,))[0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Reference: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination (2018),
      section 3.4;
    DINO's ``eval_knn.py``. Deviation: scores are normalised, which keeps the ranking and cannot overflow.
    """
    whole = bool(k) and all(isinstance(n, numbers.Integral) and n >= 1 for n in k)
    check.require(whole, "k", k, "integers of 1 or more")
    check.require(max(k) <= len(train_labels), "k", k, f"at most the {len(train_labels)} training examples")
    check.require(block >= 1, "block", block, "an integer of 1 or more")
    check.positive("temperature", temperature)
    check_labels("train_labels", train_labels, classes)
    return _scores(train_features, train_labels, test_features, temperature, classes, tuple(k), block)


def knn_predict(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    *,
    classes: int,
    k: int = NEIGHBORS,
    temperature: ScalarLike = TEMPERATURE,
    block: int = 256,
) -> Int[Array, " m"]:
    """Predict the class with the most weighted votes among the k nearest training features; see ``knn_scores``.

    >>> train = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    >>> knn_predict(train, np.array([5, 7]), train, classes=10, k=1).tolist()
    [5, 7]
    """
    arrays = (train_features, train_labels, test_features)
    scores = knn_scores(*arrays, classes=classes, k=(k,), temperature=temperature, block=block)
    return jnp.argmax(scores[0], axis=-1)


def knn_accuracy(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    k: int = NEIGHBORS,
    temperature: ScalarLike = TEMPERATURE,
    block: int = 256,
) -> float:
    """Compute the share of test examples that weighted kNN classifies right; see ``knn_scores``.

    >>> train, labels = np.eye(3, dtype=np.float32), np.arange(3)
    >>> knn_accuracy(train, labels, train, labels, classes=3, k=1)
    1.0
    """
    arrays = (train_features, train_labels, test_features, test_labels)
    return knn_sweep(*arrays, classes=classes, k=(k,), temperature=temperature, block=block)[k]


def knn_sweep(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    k: tuple[int, ...] = SWEEP,
    temperature: ScalarLike = TEMPERATURE,
    block: int = 256,
) -> dict[int, float]:
    """Compute the accuracy of weighted kNN for several numbers of neighbours by one search; see ``knn_scores``.

    Args:
      train_features: features of the bank.
      train_labels: labels of the bank, in [0, ``classes``).
      test_features: features of the queries.
      test_labels: labels of the queries, in [0, ``classes``).
      classes: number of classes.
      k: numbers of neighbours.
      temperature: τ > 0.
      block: queries at a time.

    Returns:
      Accuracy in [0, 1] by number of neighbours.

    >>> train, labels = np.eye(3, dtype=np.float32), np.arange(3)
    >>> knn_sweep(train, labels, train, labels, classes=3, k=(1, 3))
    {1: 1.0, 3: 1.0}
    """
    check_labels("test_labels", test_labels, classes)
    arrays = (train_features, train_labels, test_features)
    scores = knn_scores(*arrays, classes=classes, k=k, temperature=temperature, block=block)
    right = np.asarray(jnp.argmax(scores, axis=-1)) == np.asarray(test_labels)
    return {number: float(row.mean()) for number, row in zip(k, right, strict=True)}


def check_labels(name: str, labels: AnyArray, classes: int) -> None:
    """Refuse labels outside [0, ``classes``), such as the -1 of an unlabelled example.

    Raises:
      ValueError: names the argument and the labels found.

    >>> check_labels("train_labels", np.array([0, -1]), 10)
    Traceback (most recent call last):
    ...
    ValueError: train_labels=[-1]: allowed is integers in [0, classes=10); -1 means unlabelled
    """
    distinct = np.unique(np.asarray(labels))
    wrong = distinct[(distinct < 0) | (distinct >= classes)].tolist()
    check.require(not wrong, name, wrong, f"integers in [0, classes={classes}); -1 means unlabelled")


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _scores(train, labels, test, temperature, classes: int, numbers: tuple[int, ...], block: int) -> Array:
    bank, queries = normalize(jnp.asarray(train)), normalize(jnp.asarray(test))
    finite = jnp.all(jnp.isfinite(bank))

    def score_block(rows: Array) -> Array:
        similarity, nearest, sure = largest_by_groups(rows @ bank.T, max(numbers))
        again = functools.partial(_search, rows, bank, max(numbers))
        similarity, nearest = jax.lax.cond(sure & finite, lambda: (similarity, nearest), again)
        weight = jnp.exp((similarity - similarity[:, :1]) / temperature)
        votes = [_vote(weight[:, :k], labels[nearest[:, :k]], classes) for k in numbers]
        return jnp.stack([v / jnp.sum(v, axis=-1, keepdims=True) for v in votes], axis=1)

    block = min(block, max(len(queries), 1))
    # Copies of a query: rows of zeros, equally near to all, would have the last block searched twice.
    padded = jnp.pad(queries, ((0, -len(queries) % block), (0, 0)), mode="edge")
    scores = jax.lax.map(score_block, padded.reshape(-1, block, queries.shape[-1]))
    return jnp.moveaxis(scores.reshape(-1, len(numbers), classes)[: len(queries)], 1, 0)


def _search(rows: Array, bank: Array, k: int) -> tuple[Array, Array]:
    return top_k(rows @ bank.T, k)


def _vote(weight: Array, labels: Array, classes: int) -> Array:
    rows = jnp.arange(len(weight))[:, None]
    return jnp.zeros((len(weight), classes), weight.dtype).at[rows, labels].add(weight)


def _measure(subject: Subject) -> Row:
    """The accuracy of k neighbours, and as ``knn_sweep`` of other numbers, each at most the labelled training examples."""
    arrays = subject.arrays
    available = len(arrays[1])
    k, *others = (min(number, available) for number in (subject.options.k, *SWEEP))
    numbers = tuple(dict.fromkeys((k, *others)))
    accuracies = knn_sweep(
        *arrays, classes=subject.classes, k=numbers, temperature=subject.options.temperature
    )
    sweep = {str(number): accuracies[number] for number in sorted(numbers) if number in SWEEP}
    return {"knn": accuracies[k], "knn_sweep": sweep}


MEASURE = Measure("knn", frozenset({"features", "labels"}), (Column("knn", "kNN"),), _measure)
