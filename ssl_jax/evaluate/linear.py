"""Linear probes on frozen features: logistic regression with many labels or few, and ridge in closed form."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.evaluate.knn import AnyArray, check_labels

PENALTIES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)


class LinearResult(NamedTuple):
    """A linear probe's outcome.

    Attributes:
      accuracy: share of test examples classified right.
      l2: the penalty that the held-out training examples chose.
      validation: accuracy on those held-out examples.
    """

    accuracy: float
    l2: float
    validation: float


class FewLabelResult(NamedTuple):
    """Linear probes on several draws of a few labels.

    Attributes:
      mean: test accuracy, mean over draws.
      std: its standard deviation over draws (n − 1); 0 for one draw.
      accuracies: of each draw.
      l2: the penalty that each draw chose.
    """

    mean: float
    std: float
    accuracies: tuple[float, ...]
    l2: tuple[float, ...]


def standardize(
    train: Float[AnyArray, "n d"], *others: Float[AnyArray, "_ d"]
) -> tuple[Float[Array, "_ d"], ...]:
    """Shift and scale features to mean 0 and variance 1 over the training set; constant dimensions become 0.

    Args:
      train: gives mean and standard deviation (divided by n); no label is read.
      *others: features that get the same transform.

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


@functools.partial(jax.jit, static_argnames=("classes", "iterations"))
def logistic_regression(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    classes: int,
    l2: Float[Array, " g"],
    iterations: int = 100,
) -> tuple[Float[Array, "g d classes"], Float[Array, "g classes"]]:
    """Multinomial logistic regression for every penalty of a grid at once, with a fixed number of iterations.

    Minimises ``mean_i CE(softmax(x_i W + b), y_i) + l2/2 · ‖W‖²``; x_i and y_i are rows of ``features`` and
    ``labels``, b is not penalised. The Hessian is at most ``½ XᵀX/n ⊗ I``, so in coordinates where that bound
    plus l2 is the identity (one eigendecomposition serves the grid) gradient steps of length 1 never
    overshoot; they are accelerated with restarts. No line search, no data-dependent loop: the same bits every
    time, and ``vmap`` costs nothing extra.

    Args:
      features: float32 or wider, best standardised.
      labels: in [0, ``classes``).
      classes: number of classes.
      l2: penalties > 0.
      iterations: 100 bring the objective within 1e-4 of its optimum for penalties of .01 and more on 10 000
        standardised features of Fashion-MNIST; smaller penalties need more.

    Returns:
      Weights W and intercepts b for each penalty.

    >>> x = jnp.array([[-1.0], [1.0]])
    >>> weights, _ = logistic_regression(x, jnp.array([0, 1]), classes=2, l2=jnp.array([0.1]))
    >>> bool(weights[0, 0, 1] > 0)
    True

    Reference: Böhning, Multinomial logistic regression algorithm (1992), theorem 1, the bound; Nesterov
      (1983);
    O'Donoghue & Candès, Adaptive restart (2015), section 3.2, the gradient scheme.
    """
    mean = jnp.mean(features, axis=0)
    basis, z, bound = _principal_axes(features - mean)
    target = jax.nn.one_hot(labels, classes, dtype=z.dtype)
    weights, intercept = jax.vmap(lambda penalty: _descend(z, target, bound, penalty, iterations))(l2)
    weights = basis @ weights
    return weights, intercept - mean @ weights


def _principal_axes(x: Array) -> tuple[Array, Array, Array]:
    """Orthonormal basis [d, r], coordinates [n, r] with r = min(n, d), half the variance along each axis."""
    basis = None
    if x.shape[0] < x.shape[1]:  # The solution lies in the span of the examples.
        basis, _ = jnp.linalg.qr(x.T)
        x = x @ basis
    variance, axes = jnp.linalg.eigh(x.T @ x / len(x))
    return axes if basis is None else basis @ axes, x @ axes, 0.5 * jnp.maximum(variance, 0.0)


def _descend(z: Array, target: Array, bound: Array, l2: Array, iterations: int) -> tuple[Array, Array]:
    # The intercept is the last row; centred features make it orthogonal to the rest, with bound 1/2.
    precision = jnp.append(bound + l2, jnp.asarray(0.5, z.dtype))[:, None]

    def gradient(w: Array) -> Array:
        error = (jax.nn.softmax(z @ w[:-1] + w[-1]) - target) / len(z)
        return jnp.concatenate([z.T @ error + l2 * w[:-1], jnp.sum(error, axis=0, keepdims=True)])

    def step(carry: tuple[Array, Array, Array], _: None):
        w, ahead, momentum = carry
        slope = gradient(ahead)
        new = ahead - slope / precision
        # Momentum that points uphill is dropped.
        momentum = jnp.where(jnp.sum(slope * (new - w)) > 0, 1.0, momentum)
        following = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2))
        return (new, new + (momentum - 1.0) / following * (new - w), following), None

    zero = jnp.zeros((z.shape[1] + 1, target.shape[1]), z.dtype)
    (w, _, _), _ = jax.lax.scan(step, (zero, zero, jnp.ones((), z.dtype)), length=iterations)
    return w[:-1], w[-1]


def linear_probe(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    l2: tuple[float, ...] = PENALTIES,
    holdout: float = 0.1,
    iterations: int = 100,
    seed: int = 0,
) -> LinearResult:
    """Accuracy of logistic regression on standardised frozen features.

    The penalty is chosen on a random ``holdout`` share of the *training* set (of equals the strongest); the
    probe is then fitted to all of the training set. The test set is used once, for the accuracy.

    Args:
      train_features: any float type; mean and std come from them alone.
      train_labels: in [0, ``classes``).
      test_features: for the final accuracy only.
      test_labels: in [0, ``classes``).
      classes: number of classes.
      l2: grid of penalties on the squared norm, see ``logistic_regression``.
      holdout: share in (0, 1) of the training set that chooses.
      iterations: of each fit.
      seed: of the held-out draw.

    Returns:
      ``LinearResult(accuracy, l2, validation)``.

    Raises:
      ValueError: labels out of range, an empty grid or an empty part.

    >>> x = np.concatenate([np.eye(2), np.eye(2)] * 8).astype(np.float32)
    >>> y = np.array([0, 1] * 16)
    >>> linear_probe(x, y, x, y, classes=2, iterations=20).accuracy
    1.0
    """
    _check(train_labels, test_labels, classes, l2)
    held = round(holdout * len(train_labels))
    check.require(
        0 < held < len(train_labels), "holdout", holdout, "a share that leaves both parts an example"
    )
    order = np.random.default_rng(seed).permutation(len(train_labels))
    train, test = standardize(train_features, test_features)
    labels, grid = jnp.asarray(train_labels), jnp.asarray(sorted(l2, reverse=True), train.dtype)
    fit = functools.partial(logistic_regression, classes=classes, iterations=iterations)
    chooser, rest = order[:held], order[held:]
    validation = _accuracies(fit(train[rest], labels[rest], l2=grid), train[chooser], labels[chooser])
    best = int(np.argmax(validation))
    accuracy = _accuracies(fit(train, labels, l2=grid[best : best + 1]), test, jnp.asarray(test_labels))
    return LinearResult(float(accuracy[0]), float(grid[best]), float(validation[best]))


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
    seed: int = 0,
) -> FewLabelResult:
    """Test accuracy of logistic regression on a few labels a class, over several balanced draws of them.

    For every draw the penalty is chosen inside the labels drawn, never by other labels: by cross-validation
    in 5 folds, or ``per_class`` if that is fewer; from 50 labels a class on by one held-out fifth. Of equals
    the strongest is taken. Features are standardised over the whole training set, which reads no label. The
    draws depend on ``train_labels`` and ``seed`` only, so encoders are compared on the same.

    Args:
      train_features: any float type; a draw's examples are taken from them.
      train_labels: in [0, ``classes``).
      test_features: for the accuracy only.
      test_labels: in [0, ``classes``).
      classes: number of classes.
      per_class: labels a class, 2 or more.
      draws: how many draws, 1 or more.
      l2: grid of penalties, see ``logistic_regression``.
      iterations: of each fit.
      seed: of the draws.

    Returns:
      ``FewLabelResult(mean, std, accuracies, l2)``.

    Raises:
      ValueError: labels out of range, or a class with fewer examples than ``per_class``.

    >>> x, y = np.tile(np.eye(2, dtype=np.float32), (4, 1)), np.array([0, 1] * 4)
    >>> few_labels(x, y, x, y, classes=2, per_class=2, draws=2, iterations=20).mean
    1.0
    """
    _check(train_labels, test_labels, classes, l2)
    check.require(per_class >= 2, "per_class", per_class, "an integer of 2 or more")
    check.require(draws >= 1, "draws", draws, "an integer of 1 or more")
    train, test = standardize(train_features, test_features)
    labels, grid = jnp.asarray(train_labels), jnp.asarray(sorted(l2, reverse=True), train.dtype)
    fit = functools.partial(logistic_regression, classes=classes, iterations=iterations)
    chosen, found = [], []
    for draw in range(draws):
        taken = balanced_draw(train_labels, classes=classes, per_class=per_class, seed=(seed, draw))
        folds = _folds(taken)
        scores = [_accuracies(fit(train[a], labels[a], l2=grid), train[b], labels[b]) for a, b in folds]
        best = int(np.argmax(np.sum([s * b.size for s, (_, b) in zip(scores, folds, strict=True)], axis=0)))
        everything = taken.ravel()
        model = fit(train[everything], labels[everything], l2=grid[best : best + 1])
        chosen.append(float(grid[best]))
        found.append(float(_accuracies(model, test, jnp.asarray(test_labels))[0]))
    spread = float(np.std(found, ddof=1)) if draws > 1 else 0.0
    return FewLabelResult(float(np.mean(found)), spread, tuple(found), tuple(chosen))


def balanced_draw(
    labels: Int[AnyArray, " n"], *, classes: int, per_class: int, seed: int | tuple[int, ...]
) -> Int[np.ndarray, "classes per_class"]:
    """Positions of ``per_class`` random examples of each class, without repetition.

    Raises:
      ValueError: a class with fewer examples.

    >>> balanced_draw(np.array([1, 0, 1]), classes=2, per_class=1, seed=0).tolist()
    [[1], [2]]
    """
    rng = np.random.default_rng(seed)
    rows = []
    for label in range(classes):
        members = np.flatnonzero(np.asarray(labels) == label)
        allowed = f"at most {len(members)}, the training examples of class {label}"
        check.require(len(members) >= per_class, "per_class", per_class, allowed)
        rows.append(rng.choice(members, per_class, replace=False))
    return np.stack(rows)


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
    """Accuracy of ridge regression onto one-hot labels, in closed form: cheap enough to watch a run with.

    ``W = (XᵀX/n + l2·I)⁻¹ Xᵀ(Y − Ȳ)/n`` on standardised features X, prediction ``argmax (xW + Ȳ)``. The same
    jitted function serves every call with these shapes; nothing is kept between calls.

    Args:
      train_features: any float type.
      train_labels: in [0, ``classes``); a row out of that range counts for no class.
      test_features: any float type.
      test_labels: in [0, ``classes``).
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
def _accuracies(model: tuple[Array, Array], features: Array, labels: Array) -> Array:
    weights, intercept = model
    predicted = jnp.argmax(features @ weights + intercept[:, None], axis=-1)
    return jnp.mean(predicted == labels, axis=-1)


def _folds(taken: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (examples to fit, held-out examples), balanced like the draw ``[classes, per_class]``."""
    per_class = taken.shape[1]
    count = min(5, per_class)
    place = np.arange(per_class) % count
    # Many labels choose well enough by one fold, and cross-validation would cost most where it matters least.
    folds = range(count if per_class < 50 else 1)
    return [(taken[:, place != fold].ravel(), taken[:, place == fold].ravel()) for fold in folds]


def _check(train_labels: AnyArray, test_labels: AnyArray, classes: int, l2: tuple[float, ...]) -> None:
    check_labels("train_labels", train_labels, classes)
    check_labels("test_labels", test_labels, classes)
    check.require(bool(l2) and min(l2) > 0, "l2", l2, "one penalty above 0 or more")
