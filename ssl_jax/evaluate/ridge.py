"""Ridge regression of frozen features onto one-hot labels, in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, ScalarLike

from ssl_jax.core.types import Array
from ssl_jax.evaluate.knn import AnyArray
from ssl_jax.evaluate.linear import LinearResult, check_probe, choose_penalty, hold_out, standardize
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def ridge(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    l2: tuple[float, ...] = PENALTIES,
    holdout: float = 0.1,
    seed: int = 0,
) -> LinearResult:
    """Measure the accuracy of ridge regression onto one-hot labels, its penalty chosen on held-out training examples.

    ``W = (XᵀX/n + l2·I)⁻¹ Xᵀ(Y − Ȳ)/n``, X the standardised features, centred over the rows fitted;
    prediction ``argmax ((x − x̄)W + Ȳ)``. One eigendecomposition of ``XᵀX/n`` serves the whole grid; with fewer
    rows than dimensions that of ``XXᵀ/n``, so that memory grows with min(n, d)². The penalty is chosen on a random
    ``holdout`` share of the *training* set (of equals the strongest), the probe then fitted to all of the
    training set. No iterations: the cheapest of the probes.

    Args:
      train_features: features that the probe is fitted to, any float type; mean and std come from them alone.
      train_labels: their labels, in [0, ``classes``).
      test_features: features of the final accuracy, for nothing else.
      test_labels: their labels, in [0, ``classes``).
      classes: number of classes.
      l2: grid of penalties > 0 in units of a feature's variance.
      holdout: share in (0, 1) of the training set that chooses.
      seed: seed of the held-out draw.

    Returns:
      ``LinearResult(accuracy, l2, validation)``.

    Raises:
      ValueError: labels out of range, an empty grid or an empty part.

    >>> x, y = np.tile(np.eye(2, dtype=np.float32), (16, 1)), np.array([0, 1] * 16)
    >>> ridge(x, y, x, y, classes=2).accuracy
    1.0

    Reference: Hoerl & Kennard, Ridge regression (1970).
    """
    held_out, _ = hold_out(len(train_labels), holdout=holdout, seed=seed)
    arrays = (train_features, train_labels, test_features, test_labels)
    return ridge_on(*arrays, classes=classes, l2=l2, held_out=held_out)


def ridge_on(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    l2: tuple[float, ...],
    held_out: Int[np.ndarray, " k"],
) -> LinearResult:
    """Measure what :func:`ridge` does, with the training examples that choose the penalty given by position.

    >>> x, y = np.tile(np.eye(2, dtype=np.float32), (4, 1)), np.array([0, 1] * 4)
    >>> ridge_on(x, y, x, y, classes=2, l2=(0.1,), held_out=np.array([0, 1])).validation
    1.0
    """
    check_probe(train_labels, test_labels, classes, l2)
    train, test = standardize(train_features, test_features)
    labels, grid = jnp.asarray(train_labels), jnp.asarray(sorted(l2, reverse=True), train.dtype)
    rest = np.setdiff1d(np.arange(len(train)), held_out)
    fit = functools.partial(_ridge, classes=classes)
    return choose_penalty(fit, train, labels, test, jnp.asarray(test_labels), grid, held_out, rest)


@functools.partial(jax.jit, static_argnames=("classes",))
def ridge_probe(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    l2: ScalarLike = 0.1,
) -> Float[Array, ""]:
    """Measure the accuracy of ridge regression onto one-hot labels in closed form: cheap enough to watch a run with.

    ``W = (XᵀX/n + l2·I)⁻¹ Xᵀ(Y − Ȳ)/n`` on standardised features X, prediction ``argmax (xW + Ȳ)``. The same
    jitted function serves every call with these shapes; nothing is kept between calls.

    Args:
      train_features: features that the probe is fitted to, any float type.
      train_labels: their labels, in [0, ``classes``); a row out of that range counts for no class.
      test_features: features that are classified, any float type.
      test_labels: their labels, in [0, ``classes``).
      classes: number of classes.
      l2: penalty > 0 in units of a feature's variance; may be traced.

    Returns:
      Accuracy in [0, 1].

    >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    >>> float(ridge_probe(x, y, x, y, classes=2))
    1.0
    """
    train, test = standardize(train_features, test_features)
    target = jax.nn.one_hot(train_labels, classes, dtype=train.dtype)
    mean = jnp.mean(target, axis=0)
    gram = train.T @ train / len(train) + l2 * jnp.eye(train.shape[1], dtype=train.dtype)
    weights = jax.scipy.linalg.solve(gram, train.T @ (target - mean) / len(train), assume_a="pos")
    return jnp.mean(jnp.argmax(test @ weights + mean, axis=-1) == jnp.asarray(test_labels))


@jax.jit
def ridge_weights(
    x: Float[Array, "n d"], target: Float[Array, "n c"], *, l2: Float[Array, " g"]
) -> tuple[Float[Array, "g d c"], Float[Array, "g c"]]:
    """Fit ridge regressions onto any targets, one for each penalty, in closed form.

    ``W = (XᵀX/n + l2·I)⁻¹ Xᵀ(Y − ȳ)/n`` with X centered, or ``Xᵀ (XXᵀ/n + l2·I)⁻¹ (Y − ȳ)/n`` with fewer rows than columns,
    from one eigendecomposition; the prediction is ``xW + b``.

    Args:
      x: features, float32 or wider; standardized, if the penalty shall mean the same for each.
      target: targets.
      l2: penalties > 0.

    Returns:
      Weights W and intercepts b of every penalty.

    >>> x = jnp.array([[-1.0], [1.0]])
    >>> weights, intercept = ridge_weights(x, 3 * x + 5, l2=jnp.array([0.5]))
    >>> weights.ravel().tolist(), intercept.ravel().tolist()
    ([2.0], [5.0])
    """
    mean, level = jnp.mean(x, axis=0), jnp.mean(target, axis=0)
    x = x - mean
    if x.shape[0] < x.shape[1]:  # W = Xᵀ (XXᵀ/n + l2·I)⁻¹ (Y − ȳ)/n
        variance, axes = jnp.linalg.eigh(x @ x.T / len(x))
        shrunk = 1.0 / (jnp.maximum(variance, 0.0) + l2[:, None])
        weights = x.T @ (axes @ (shrunk[:, :, None] * (axes.T @ (target - level) / len(x))))
    else:
        variance, axes = jnp.linalg.eigh(x.T @ x / len(x))
        shrunk = 1.0 / (jnp.maximum(variance, 0.0) + l2[:, None])
        weights = axes @ (shrunk[:, :, None] * (axes.T @ (x.T @ (target - level) / len(x))))
    return weights, level - jnp.einsum("d,gdc->gc", mean, weights)


@functools.partial(jax.jit, static_argnames=("classes",))
def _ridge(x: Array, labels: Array, *, l2: Array, classes: int) -> tuple[Array, Array]:
    """Fit weights [g, d, classes] and intercepts [g, classes] of every penalty [g]."""
    return ridge_weights(x, jax.nn.one_hot(labels, classes, dtype=x.dtype), l2=l2)


def _measure(subject: Subject) -> Row:
    return {"ridge": ridge(*subject.arrays, classes=subject.classes).accuracy}


MEASURE = Measure(
    "ridge", frozenset({"features", "labels"}), (Column("ridge", "ridge", "ridge probe"),), _measure
)
