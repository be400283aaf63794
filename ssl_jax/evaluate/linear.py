"""Linear probes on frozen features: logistic regression with many labels or few, and ridge in closed form."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.data.labels import balanced_draw
from ssl_jax.evaluate.knn import AnyArray, check_labels

PENALTIES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
RIDGE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
SOLVERS = ("bound", "lbfgs")


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


@functools.partial(jax.jit, static_argnames=("classes", "iterations", "solver"))
def logistic_regression(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    classes: int,
    l2: Float[Array, " g"],
    iterations: int = 100,
    solver: str = "bound",
) -> tuple[Float[Array, "g d classes"], Float[Array, "g classes"]]:
    """Multinomial logistic regression for every penalty of a grid at once, with a fixed number of iterations.

    Minimises ``mean_i CE(softmax(x_i W + b), y_i) + l2/2 · ‖W‖²``; x_i and y_i are rows of ``features`` and
    ``labels``, b is not penalised. The Hessian is at most ``½ XᵀX/n ⊗ I``; one eigendecomposition of it
    serves the grid, and both solvers work in coordinates where that bound plus l2 is the identity.

    Args:
      features: float32 or wider, best standardised.
      labels: in [0, ``classes``).
      classes: number of classes.
      l2: penalties > 0.
      iterations: fixed. With ``"bound"`` 100 bring the objective within 1e-4 of its optimum for penalties of
        .01 and more on 10 000 standardised features of Fashion-MNIST; smaller penalties need more.
      solver: ``"bound"``: gradient steps of length 1, which never overshoot in these coordinates,
        accelerated with restarts; no line search, and all penalties share one matrix product. ``"lbfgs"``:
        L-BFGS with a line search; fewer iterations for small penalties, each dearer.

    Returns:
      Weights W and intercepts b for each penalty.

    Raises:
      ValueError: an unknown solver.

    >>> x = jnp.array([[-1.0], [1.0]])
    >>> weights, _ = logistic_regression(x, jnp.array([0, 1]), classes=2, l2=jnp.array([0.1]))
    >>> bool(weights[0, 0, 1] > 0)
    True

    Reference: Böhning, Multinomial logistic regression algorithm (1992), theorem 1, the bound; Nesterov
      (1983); O'Donoghue & Candès, Adaptive restart (2015), section 3.2, the gradient scheme; Liu & Nocedal,
      On the limited memory BFGS method (1989).
    """
    check.choice("solver", solver, SOLVERS)
    mean = jnp.mean(features, axis=0)
    basis, z, bound = _principal_axes(features - mean)
    target = jax.nn.one_hot(labels, classes, dtype=z.dtype)
    even = jnp.full((len(z), 1), 1.0 / len(z), z.dtype)
    found = _minimise(z, target, even, bound, l2, iterations, solver)
    weights = jnp.einsum("dr,rcg->gdc", basis, found[:-1])
    return weights, found[-1].T - jnp.einsum("d,gdc->gc", mean, weights)


def _principal_axes(x: Array) -> tuple[Array, Array, Array]:
    """Orthonormal basis [d, r], coordinates [n, r] with r = min(n, d), half the variance along each axis."""
    basis = None
    if x.shape[0] < x.shape[1]:  # The solution lies in the span of the examples.
        basis, _ = jnp.linalg.qr(x.T)
        x = x @ basis
    variance, axes = jnp.linalg.eigh(x.T @ x / len(x))
    return axes if basis is None else basis @ axes, x @ axes, 0.5 * jnp.maximum(variance, 0.0)


def _minimise(
    z: Array, target: Array, share: Array, bound: Array, l2: Array, iterations: int, solver: str
) -> Array:
    """Weights [r + 1, classes, g] of the penalties ``l2`` [g], the intercept last.

    ``share`` [n, g or 1] is what an example counts, of sum 1. Where rows that do not count leave less, the
    bound of all rows holds when divided by the share of those that do, as the matrix of the others is
    positive; centred features make the intercept orthogonal to the rest, with bound 1/2.
    """
    looser = len(z) * jnp.max(share, axis=0)
    precision = looser * jnp.append(bound, 0.5)[:, None]
    precision = precision + jnp.append(jnp.ones_like(bound), 0.0)[:, None] * l2
    minimise = {"bound": _descend, "lbfgs": _lbfgs}[solver]
    return minimise(z, target, jnp.broadcast_to(share, (len(z), len(l2))), precision, l2, iterations)


def _descend(z: Array, target: Array, share: Array, precision: Array, l2: Array, iterations: int) -> Array:
    # The grid comes last: the softmax over classes then runs over whole vectors of penalties.
    (n, classes), rank = target.shape, z.shape[1]
    penalty = jnp.append(jnp.ones(rank, z.dtype), 0.0)[:, None, None] * l2

    def gradient(w: Array) -> Array:
        logits = (z @ w[:-1].reshape(rank, -1)).reshape(n, classes, -1) + w[-1]
        error = (jax.nn.softmax(logits, axis=1) - target[:, :, None]) * share[:, None]
        slope = (z.T @ error.reshape(n, -1)).reshape(w[:-1].shape)
        return jnp.concatenate([slope, jnp.sum(error, axis=0, keepdims=True)]) + penalty * w

    def step(carry: tuple[Array, Array, Array], _: None):
        w, ahead, momentum = carry
        slope = gradient(ahead)
        new = ahead - slope / precision[:, None]
        # Momentum that points uphill is dropped.
        momentum = jnp.where(jnp.sum(slope * (new - w), axis=(0, 1)) > 0, 1.0, momentum)
        following = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2))
        return (new, new + (momentum - 1.0) / following * (new - w), following), None

    zero = jnp.zeros((rank + 1, classes, len(l2)), z.dtype)
    (w, _, _), _ = jax.lax.scan(step, (zero, zero, jnp.ones(len(l2), z.dtype)), length=iterations)
    return w


def _lbfgs(z: Array, target: Array, share: Array, precision: Array, l2: Array, iterations: int) -> Array:
    def one(counts: Array, scale: Array, penalty: Array) -> Array:
        def objective(scaled: Array) -> Array:
            w = scale[:, None] * scaled
            log_p = jax.nn.log_softmax(z @ w[:-1] + w[-1])
            return -jnp.sum(counts[:, None] * target * log_p) + 0.5 * penalty * jnp.sum(w[:-1] ** 2)

        optimizer = optax.lbfgs()
        value_and_grad = optax.value_and_grad_from_state(objective)

        def step(carry: tuple[Array, Any, Array, Array], _: None):
            w, state, best, lowest = carry
            value, slope = value_and_grad(w, state=state)
            # At the optimum rounding makes the line search fail; the best point is kept.
            best, lowest = jnp.where(value < lowest, w, best), jnp.minimum(value, lowest)
            change, state = optimizer.update(slope, state, w, value=value, grad=slope, value_fn=objective)
            return (w + change, state, best, lowest), None

        zero = jnp.zeros((z.shape[1] + 1, target.shape[1]), z.dtype)
        start = (zero, optimizer.init(zero), zero, jnp.asarray(jnp.inf, z.dtype))
        (w, _, best, lowest), _ = jax.lax.scan(step, start, length=iterations)
        return scale[:, None] * jnp.where(objective(w) < lowest, w, best)

    return jax.vmap(one, in_axes=(1, 1, 0), out_axes=2)(share, precision**-0.5, l2)


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
    solver: str = "bound",
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
      solver: see ``logistic_regression``.
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
    chooser, rest = hold_out(len(train_labels), holdout=holdout, seed=seed)
    train, test = standardize(train_features, test_features)
    labels, grid = jnp.asarray(train_labels), jnp.asarray(sorted(l2, reverse=True), train.dtype)
    fit = functools.partial(logistic_regression, classes=classes, iterations=iterations, solver=solver)
    return _chosen(fit, train, labels, test, jnp.asarray(test_labels), grid, chooser, rest)


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
    """Test accuracy of logistic regression on a few labels a class, over several balanced draws of them.

    For every draw the penalty is chosen inside the labels drawn, never by other labels: by cross-validation
    in 5 folds, or ``per_class`` if that is fewer; from 50 labels a class on by one held-out fifth. Of equals
    the strongest is taken; one label a class leaves nothing to validate on, all are equal, and so the rule is
    the strongest of the grid (near the nearest class mean). Features are standardised over the whole training
    set, which reads no label. The draws depend on ``train_labels`` and ``seed`` only, so encoders are
    compared on the same.

    Args:
      train_features: any float type; a draw's examples are taken from them.
      train_labels: in [0, ``classes``).
      test_features: for the accuracy only.
      test_labels: in [0, ``classes``).
      classes: number of classes.
      per_class: labels a class, 1 or more.
      draws: how many draws, 1 or more.
      l2: grid of penalties, see ``logistic_regression``.
      iterations: of each fit.
      solver: see ``logistic_regression``.
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
    check.require(per_class >= 1, "per_class", per_class, "an integer of 1 or more")
    check.require(draws >= 1, "draws", draws, "an integer of 1 or more")
    train, test = standardize(train_features, test_features)
    grid = jnp.asarray(sorted(l2, reverse=True), train.dtype)
    taken = [
        balanced_draw(train_labels, classes=classes, per_class=per_class, seed=(seed, draw))
        for draw in range(draws)
    ]
    rows, labels = np.stack(taken).reshape(draws, -1), jnp.asarray(train_labels)
    fold = jnp.asarray(np.tile(_folds(per_class), classes))
    options = {"classes": classes, "iterations": iterations, "solver": solver}
    model, chosen = _fit_draws(train, labels, rows, fold, grid, folds=int(fold.max()) + 1, **options)
    found = _accuracies(model, test, jnp.asarray(test_labels)).tolist()
    spread = float(np.std(found, ddof=1)) if draws > 1 else 0.0
    return FewLabelResult(float(np.mean(found)), spread, tuple(found), tuple(chosen.tolist()))


def _folds(per_class: int) -> np.ndarray:
    """The fold that holds out each of a class's labels; -1: none does."""
    place = np.arange(per_class) % 5
    if per_class == 1:
        return np.array([-1])
    # Many labels choose well enough by one fold, and cross-validation would cost most where it matters least.
    return np.where(place == 0, 0, -1) if per_class >= 50 else place


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
    """Weights [draws, d, classes] and intercepts of fits to rows ``draws`` [draws, n], and their penalties.

    All folds and penalties of a draw are fitted at once, in the coordinates of the whole draw: a fold is the
    draw with its held-out examples counted 0.
    """

    def of_one_draw(rows: Array) -> tuple[tuple[Array, Array], Array]:
        x, y = train[rows], labels[rows]
        mean = jnp.mean(x, axis=0)
        basis, z, bound = _principal_axes(x - mean)
        target = jax.nn.one_hot(y, classes, dtype=z.dtype)
        best = jnp.asarray(0)
        if folds:
            held = fold[:, None] == jnp.arange(folds)
            share = jnp.repeat(~held / jnp.sum(~held, axis=0), len(l2), axis=1).astype(z.dtype)
            w = _minimise(z, target, share, bound, jnp.tile(l2, folds), iterations, solver)
            logits = jnp.einsum("nr,rcg->ncg", z, w[:-1]) + w[-1]
            right = (jnp.argmax(logits, axis=1) == y[:, None]).reshape(len(z), folds, -1)
            best = jnp.argmax(jnp.sum(right & held[:, :, None], axis=(0, 1)))
        even = jnp.full((len(z), 1), 1.0 / len(z), z.dtype)
        w = _minimise(z, target, even, bound, l2[best][None], iterations, solver)[..., 0]
        weights = basis @ w[:-1]
        return (weights, w[-1] - mean @ weights), l2[best]

    # One draw after the other: batched factorisations are slower on CPU.
    return jax.lax.map(of_one_draw, draws)


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


def ridge(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    l2: tuple[float, ...] = RIDGE_PENALTIES,
    holdout: float = 0.1,
    seed: int = 0,
) -> LinearResult:
    """Accuracy of ridge regression onto one-hot labels, its penalty chosen on held-out training examples.

    ``W = (XᵀX/n + l2·I)⁻¹ Xᵀ(Y − Ȳ)/n``, X the standardised features, centred over the rows fitted;
    prediction ``argmax ((x − x̄)W + Ȳ)``. One eigendecomposition of ``XᵀX/n`` serves the whole grid. The
    penalty is chosen on a random ``holdout`` share of the *training* set (of equals the strongest), the probe
    then fitted to all of the training set. No iterations: the cheapest of the probes.

    Args:
      train_features: any float type; mean and std come from them alone.
      train_labels: in [0, ``classes``).
      test_features: for the final accuracy only.
      test_labels: in [0, ``classes``).
      classes: number of classes.
      l2: grid of penalties > 0 in units of a feature's variance.
      holdout: share in (0, 1) of the training set that chooses.
      seed: of the held-out draw.

    Returns:
      ``LinearResult(accuracy, l2, validation)``.

    Raises:
      ValueError: labels out of range, an empty grid or an empty part.

    >>> x, y = np.tile(np.eye(2, dtype=np.float32), (16, 1)), np.array([0, 1] * 16)
    >>> ridge(x, y, x, y, classes=2).accuracy
    1.0

    Reference: Hoerl & Kennard, Ridge regression (1970).
    """
    held, _ = hold_out(len(train_labels), holdout=holdout, seed=seed)
    sets = (train_features, train_labels, test_features, test_labels)
    return ridge_on(*sets, classes=classes, l2=l2, held_out=held)


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
    """``ridge`` with the training examples that choose the penalty given by position.

    >>> x, y = np.tile(np.eye(2, dtype=np.float32), (4, 1)), np.array([0, 1] * 4)
    >>> ridge_on(x, y, x, y, classes=2, l2=(0.1,), held_out=np.array([0, 1])).validation
    1.0
    """
    _check(train_labels, test_labels, classes, l2)
    train, test = standardize(train_features, test_features)
    labels, grid = jnp.asarray(train_labels), jnp.asarray(sorted(l2, reverse=True), train.dtype)
    rest = np.setdiff1d(np.arange(len(train)), held_out)
    fit = functools.partial(_ridge, classes=classes)
    return _chosen(fit, train, labels, test, jnp.asarray(test_labels), grid, held_out, rest)


def _chosen(
    fit: Callable[..., tuple[Array, Array]],
    train: Array,
    labels: Array,
    test: Array,
    test_labels: Array,
    grid: Array,
    chooser: np.ndarray,
    rest: np.ndarray,
) -> LinearResult:
    """The penalty of ``grid`` that is best on ``chooser`` when fitted to ``rest``, fitted to all and tested once."""
    validation = _accuracies(fit(train[rest], labels[rest], l2=grid), train[chooser], labels[chooser])
    best = int(np.argmax(validation))
    accuracy = _accuracies(fit(train, labels, l2=grid[best : best + 1]), test, test_labels)
    return LinearResult(float(accuracy[0]), float(grid[best]), float(validation[best]))


@functools.partial(jax.jit, static_argnames=("classes",))
def _ridge(x: Array, labels: Array, *, l2: Array, classes: int) -> tuple[Array, Array]:
    """Weights [g, d, classes] and intercepts [g, classes]."""
    target = jax.nn.one_hot(labels, classes, dtype=x.dtype)
    mean, share = jnp.mean(x, axis=0), jnp.mean(target, axis=0)
    x = x - mean
    variance, axes = jnp.linalg.eigh(x.T @ x / len(x))
    shrunk = 1.0 / (jnp.maximum(variance, 0.0) + l2[:, None])
    weights = axes @ (shrunk[:, :, None] * (axes.T @ (x.T @ (target - share) / len(x))))
    return weights, share - jnp.einsum("d,gdc->gc", mean, weights)


def hold_out(examples: int, *, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a random share of the examples, and of the rest.

    Raises:
      ValueError: one of the two would be empty.

    >>> [len(part) for part in hold_out(10, holdout=0.2, seed=0)]
    [2, 8]
    """
    held = round(holdout * examples)
    check.require(0 < held < examples, "holdout", holdout, "a share that leaves both parts an example")
    order = np.random.default_rng(seed).permutation(examples)
    return order[:held], order[held:]


@jax.jit
def _accuracies(model: tuple[Array, Array], features: Array, labels: Array) -> Array:
    weights, intercept = model
    predicted = jnp.argmax(features @ weights + intercept[:, None], axis=-1)
    return jnp.mean(predicted == labels, axis=-1)


def _check(train_labels: AnyArray, test_labels: AnyArray, classes: int, l2: tuple[float, ...]) -> None:
    check_labels("train_labels", train_labels, classes)
    check_labels("test_labels", test_labels, classes)
    check.require(bool(l2) and min(l2) > 0, "l2", l2, "one penalty above 0 or more")
