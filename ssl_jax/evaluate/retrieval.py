"""Retrieval by cosine similarity: nearest examples, mean average precision, precision and recall at k."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.numerics import normalize, top_k
from ssl_jax.core.types import Array
from ssl_jax.evaluate.measure import (
    Column,
    Measure,
    Row,
    Subject,
    labeled_part,
    require_labels,
    require_two_classes,
)
from ssl_jax.train.features import AnyArray


class Nearest(NamedTuple):
    """Most similar rows of a bank for each query, the most similar first.

    Attributes:
      indices: rows of the bank, int32 ``[m, k]``.
      similarities: cosines in [-1, 1], float32 ``[m, k]``.
    """

    indices: Array
    similarities: Array


class RetrievalResult(NamedTuple):
    """How well similarity finds examples of the same class, each number a mean over ``queries`` queries.

    Attributes:
      mean_average_precision: mean average precision, in [0, 1].
      precision: share of the k nearest that are of the query's class, by k.
      recall: share of the examples of the query's class that are among the k nearest, by k.
      hit: share by k of queries with at least one of its class among the k nearest; papers on metric
        learning call this "recall at k".
      queries: number of queries counted: those of which the bank has an example of the same class.
    """

    mean_average_precision: float
    precision: dict[int, float]
    recall: dict[int, float]
    hit: dict[int, float]
    queries: int


def nearest(
    queries: Float[AnyArray, "m d"],
    bank: Float[AnyArray, "n d"],
    k: int = 10,
    *,
    exclude_self: bool = False,
    block: int = 256,
) -> Nearest:
    """Find the k rows of ``bank`` with the largest cosine to each query.

    ``cos(x, b) = xᵀb / (‖x‖ ‖b‖)``; 0 where either is 0. Of equal similarities the earlier row comes first.

    Args:
      queries: features x, any float type, not normalised.
      bank: features b.
      k: number of neighbours, in [1, n], with ``exclude_self`` in [1, n − 1].
      exclude_self: whether queries and bank are the same examples in the same order, of which none finds itself.
      block: queries at a time: memory is ``block × n``, the result does not depend on it.

    Returns:
      ``Nearest(indices, similarities)``.

    Raises:
      ValueError: k out of range, or ``exclude_self`` with another number of queries than rows in the bank.

    >>> points = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], np.float32)
    >>> nearest(points, points, k=1, exclude_self=True).indices.ravel().tolist()
    [2, 2, 0]
    """
    _check_sizes(queries, bank, exclude_self, block)
    available = len(bank) - exclude_self
    check.require(1 <= k <= available, "k", k, f"an integer in [1, {available}], the examples of the bank")
    return _nearest(queries, bank, k, exclude_self, block)


def retrieval(
    query_features: Float[AnyArray, "m d"],
    query_labels: Int[AnyArray, " m"],
    bank_features: Float[AnyArray, "n d"],
    bank_labels: Int[AnyArray, " n"],
    *,
    k: tuple[int, ...] = (1, 5, 10),
    exclude_self: bool = False,
    block: int = 256,
) -> RetrievalResult:
    """Measure mean average precision, precision and recall of examples of the query's class among its neighbours.

    ``AP = Σ_k P(k) rel(k) / R`` over the bank in falling order of cosine similarity: P(k) is the share of the
    first k that are of the query's class, rel(k) whether the k-th is, R how many the bank has. Equal
    similarities count as one step, at its end, as in scikit-learn's ``average_precision_score``: the result
    does not depend on the order of the bank, and features that collapsed to a point score the share of the
    class. In the lists of k nearest, of equals the earlier row comes first.

    Args:
      query_features: features of the queries, any float type, not normalised.
      query_labels: their labels; a query whose label the bank does not have, such as -1, is left out.
      bank_features: features that are searched.
      bank_labels: their labels; -1 (unlabelled) is of no class.
      k: lengths of the lists for precision, recall and hit, each in [1, n].
      exclude_self: whether to leave one out: queries and bank are the same examples in the same order, and none finds
        itself; k is then at most n − 1.
      block: queries at a time: memory is ``block × n``, the result does not depend on it.

    Returns:
      ``RetrievalResult(mean_average_precision, precision, recall, hit, queries)``.

    Raises:
      ValueError: k out of range, no query with an example of its class, or ``exclude_self`` with another
        number of queries than rows in the bank.

    >>> x, y = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], np.float32), np.array([0, 0, 1, 1])
    >>> result = retrieval(x, y, x, y, k=(1, 3), exclude_self=True)
    >>> result.mean_average_precision, result.precision[1], result.recall[3], result.queries
    (1.0, 1.0, 1.0, 4)

    Reference: Manning et al., Introduction to Information Retrieval (2008), section 8.4.
    """
    _check_sizes(query_features, bank_features, exclude_self, block)
    available = len(bank_features) - exclude_self
    good = bool(k) and min(k) >= 1 and max(k) <= available
    check.require(good, "k", k, f"integers in [1, {available}], the examples of the bank")
    wanted, labels = np.asarray(query_labels), np.asarray(bank_labels)
    relevant = np.array([np.sum(labels == label) - exclude_self if label >= 0 else 0 for label in wanted])
    counted = relevant > 0
    allowed = "queries of which one or more have an example of their class in the bank"
    check.require(bool(counted.any()), "query_labels", f"{len(wanted)} queries without one", allowed)

    lists = _nearest(query_features, bank_features, max(k), exclude_self, block)
    right = (labels[np.asarray(lists.indices)] == wanted[:, None])[counted].cumsum(axis=1)
    hits = {number: right[:, number - 1] for number in k}
    precisions = [
        _average_precision(row, labels == wanted[i])
        for start in range(0, len(wanted), block)
        for i, row in enumerate(
            _similarities(query_features, bank_features, start, exclude_self, block), start
        )
        if counted[i]
    ]
    return RetrievalResult(
        float(np.mean(precisions)),
        {number: float(np.mean(count / number)) for number, count in hits.items()},
        {number: float(np.mean(count / relevant[counted])) for number, count in hits.items()},
        {number: float(np.mean(count > 0)) for number, count in hits.items()},
        int(counted.sum()),
    )


def _average_precision(similarity: np.ndarray, relevant: np.ndarray) -> float:
    """Average precision of one query; what is excluded has similarity -inf. On CPU numpy sorts 10 times as fast as XLA."""
    everything, right = np.sort(similarity), np.sort(similarity[relevant])
    right = right[np.searchsorted(right, -2.0) :]  # a leave-one-out query is no answer to itself
    above = len(everything) - np.searchsorted(everything, right)
    right_above = len(right) - np.searchsorted(right, right)
    return float(np.mean(right_above / above))


def _similarities(
    queries: AnyArray, bank: AnyArray, start: int, exclude_self: bool, block: int
) -> np.ndarray:
    # Always a whole block, so that one compilation serves all.
    first = max(0, min(start, len(queries) - block))
    rows = jnp.asarray(queries)[first : first + block]
    return np.asarray(_block(rows, jnp.asarray(bank), first, exclude_self))[start - first :]


@functools.partial(jax.jit, static_argnums=(3,))
def _block(rows: Array, bank: Array, first: Array | int, exclude_self: bool) -> Array:
    return _mask(normalize(rows) @ normalize(bank).T, first, exclude_self)


def _mask(similarity: Array, first: Array | int, exclude_self: bool) -> Array:
    if not exclude_self:
        return similarity
    itself = (first + jnp.arange(len(similarity)))[:, None] == jnp.arange(similarity.shape[1])
    return jnp.where(itself, -jnp.inf, similarity)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _nearest(queries: AnyArray, bank: AnyArray, k: int, exclude_self: bool, block: int) -> Nearest:
    x, candidates = normalize(jnp.asarray(queries)), normalize(jnp.asarray(bank))
    block = max(1, min(block, len(x)))
    rows = jnp.pad(x, ((0, -len(x) % block), (0, 0))).reshape(-1, block, x.shape[-1])

    def search_block(chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        part, first = chunk
        return top_k(_mask(part @ candidates.T, first, exclude_self), k)

    similarities, indices = jax.lax.map(search_block, (rows, jnp.arange(len(rows)) * block))
    return Nearest(indices.reshape(-1, k)[: len(x)], similarities.reshape(-1, k)[: len(x)])


def _check_sizes(queries: AnyArray, bank: AnyArray, exclude_self: bool, block: int) -> None:
    check.require(block >= 1, "block", block, "an integer of 1 or more")
    same = not exclude_self or len(queries) == len(bank)
    check.require(same, "exclude_self", exclude_self, "False, unless queries and bank are the same examples")


def _measure(subject: Subject) -> Row:
    """Each labelled test image is a query against all others that have a label."""
    features, labels, _ = labeled_part(subject.test)
    require_labels("test", labels)
    require_two_classes("test", labels, subject.sources[1].classes)
    if len(np.unique(labels)) == len(labels):
        raise ValueError(f"no two of the {len(labels)} labelled test images are of one class")
    result = retrieval(features, labels, features, labels, k=(1,), exclude_self=True)
    return {"retrieval_map": result.mean_average_precision}


MEASURE = Measure(
    "retrieval", frozenset({"features", "labels"}), (Column("retrieval_map", "retrieval mAP"),), _measure
)
