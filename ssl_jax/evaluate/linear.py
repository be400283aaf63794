"""What linear probes share: standardized features, a held-out part that chooses the penalty, accuracies."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.evaluate.knn import AnyArray, check_labels


class LinearResult(NamedTuple):
    """Outcome of a linear probe.

    Attributes:
      accuracy: share of test examples classified right.
      l2: penalty that the held-out training examples chose.
      validation: accuracy on those held-out examples.
    """

    accuracy: float
    l2: float
    validation: float


def standardize(
    train: Float[AnyArray, "n d"], *others: Float[AnyArray, "_ d"]
) -> tuple[Float[Array, "_ d"], ...]:
    """Shift and scale features to mean 0 and variance 1 over the training set; constant dimensions become 0.

    Args:
      train: features that give mean and standard deviation (divided by n); no label is read.
      *others: further features for the same transform.

    Returns:
      All of them, ``train`` first.

    >>> standardize(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32))[0].tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    x = at_least_float32(jnp.asarray(train))
    mean, std = jnp.mean(x, axis=0), jnp.std(x, axis=0)
    # A spread within rounding of the mean is noise: scaled up to variance 1 it would pass for a feature.
    constant = std <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
    scale = jnp.where(constant, 0.0, 1.0 / jnp.where(constant, 1.0, std))
    return tuple((at_least_float32(jnp.asarray(part)) - mean) * scale for part in (x, *others))


def hold_out(examples: int, *, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the positions of a random share of the examples, and of the rest; both parts get one example or more.

    Args:
      examples: number of examples, 2 or more.
      holdout: share in (0, 1); rounded to whole examples.
      seed: seed of the draw.

    Raises:
      ValueError: another share, or fewer than two examples.

    >>> [len(part) for part in hold_out(10, holdout=0.2, seed=0)], [len(part) for part in hold_out(3, holdout=0.1, seed=0)]
    ([2, 8], [1, 2])
    """
    check.require(0 < holdout < 1, "holdout", holdout, "a share that leaves both parts an example")
    if examples < 2:
        raise ValueError(f"training images={examples}: allowed is two or more, of which one is held out")
    size = min(max(round(holdout * examples), 1), examples - 1)
    order = np.random.default_rng(seed).permutation(examples)
    return order[:size], order[size:]


def choose_penalty(
    fit: Callable[..., tuple[Array, Array]],
    train: Array,
    labels: Array,
    test: Array,
    test_labels: Array,
    grid: Array,
    held_out: np.ndarray,
    rest: np.ndarray,
) -> LinearResult:
    """Fit with the penalty of ``grid`` that is best on the held-out examples, and test once.

    Args:
      fit: ``(features, labels, l2=[g]) -> (weights [g, d, classes], intercepts [g, classes])``.
      train: features ``[n, d]``.
      labels: their labels.
      test: features ``[m, d]``.
      test_labels: their labels.
      grid: penalties ``[g]``; of equals the first is taken.
      held_out: positions in ``train`` of the examples that choose.
      rest: positions of those that each penalty is fitted to before; the one chosen is fitted to all.
    """
    validation = accuracies(fit(train[rest], labels[rest], l2=grid), train[held_out], labels[held_out])
    best = int(np.argmax(validation))
    accuracy = accuracies(fit(train, labels, l2=grid[best : best + 1]), test, test_labels)
    return LinearResult(float(accuracy[0]), float(grid[best]), float(validation[best]))


@jax.jit
def accuracies(model: tuple[Array, Array], features: Array, labels: Array) -> Array:
    """Compute the share of examples that each of g models (weights ``[g, d, classes]``, intercepts) gets right."""
    weights, intercept = model
    predicted = jnp.argmax(features @ weights + intercept[:, None], axis=-1)
    return jnp.mean(predicted == labels, axis=-1)


def check_probe(train_labels: AnyArray, test_labels: AnyArray, classes: int, l2: tuple[float, ...]) -> None:
    """Refuse labels out of range and penalties that are not above 0."""
    check_labels("train_labels", train_labels, classes)
    check_labels("test_labels", test_labels, classes)
    check.require(bool(l2) and min(l2) > 0, "l2", l2, "one penalty above 0 or more")
