"""Logistic regression on frozen features."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.types import Array
from ssl_jax.evaluate.knn import AnyArray
from ssl_jax.evaluate.linear import LinearResult, check_probe, choose_penalty, hold_out, standardize
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject

PENALTIES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
SOLVERS = ("bound", "lbfgs")
CONVERGED = 1e-10
"""Squared gradient, in the coordinates of the solver, at which ``"bound"`` ends."""
BLOCK = 2048
"""Most examples whose gradient is computed at a time."""
State = tuple[Array, Array, Array, Array, Array]
"""Of ``"bound"``: weights, where the next gradient is taken, momentum, last squared gradient, iterations."""


def logistic_probe(
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
    """Measure the accuracy of logistic regression on standardised frozen features.

    The penalty is chosen on a random ``holdout`` share of the *training* set (of equals the strongest); the
    probe is then fitted to all of the training set. The test set is used once, for the accuracy.

    Args:
      train_features: features that the probe is fitted to, any float type; mean and std come from them alone.
      train_labels: their labels, in [0, ``classes``).
      test_features: features of the final accuracy, for nothing else.
      test_labels: their labels, in [0, ``classes``).
      classes: number of classes.
      l2: grid of penalties on the squared norm, see ``logistic_regression``.
      holdout: share in (0, 1) of the training set that chooses.
      iterations: most iterations of each fit.
      solver: see ``logistic_regression``.
      seed: seed of the held-out draw.

    Returns:
      ``LinearResult(accuracy, l2, validation)``.

    Raises:
      ValueError: labels out of range, an empty grid or an empty part.

    >>> x, y = jnp.tile(jnp.eye(2), (16, 1)), jnp.array([0, 1] * 16)
    >>> logistic_probe(x, y, x, y, classes=2, iterations=20).accuracy
    1.0
    """
    check_probe(train_labels, test_labels, classes, l2)
    held_out, rest = hold_out(len(train_labels), holdout=holdout, seed=seed)
    train, test = standardize(train_features, test_features)
    labels, grid = jnp.asarray(train_labels), jnp.asarray(sorted(l2, reverse=True), train.dtype)
    fit = functools.partial(logistic_regression, classes=classes, iterations=iterations, solver=solver)
    return choose_penalty(fit, train, labels, test, jnp.asarray(test_labels), grid, held_out, rest)


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
    """Fit multinomial logistic regression for every penalty of a grid.

    Minimises ``mean_i CE(softmax(x_i W + b), y_i) + l2/2 · ‖W‖²``; x_i and y_i are rows of ``features`` and
    ``labels``, b is not penalised. The Hessian is at most ``½ XᵀX/n ⊗ I``; one eigendecomposition of it
    serves the grid, and both solvers work in coordinates where that bound plus l2 is the identity.

    Args:
      features: features, float32 or wider, best standardised.
      labels: their labels, in [0, ``classes``).
      classes: number of classes.
      l2: penalties > 0.
      iterations: most iterations. ``"bound"`` ends sooner for a penalty once its squared gradient in these coordinates is at
        most 1e-10, about the distance of the objective from its optimum. 100 of them bring the objective within 1e-4 of
        its optimum for penalties of .001 and more on 10 000 standardised features of Fashion-MNIST; smaller penalties
        need more.
      solver: ``"bound"``: gradient steps of length 1, which never overshoot in these coordinates,
        accelerated with restarts; no line search. ``"lbfgs"``:
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
    basis, z, bound = principal_axes(features - mean)
    target = jax.nn.one_hot(labels, classes, dtype=z.dtype)
    if solver == "bound":
        solution = _descend_each(z, target.T, bound, l2, iterations)
    else:
        even = jnp.full((len(z), 1), 1.0 / len(z), z.dtype)
        solution = minimize(z, target, even, bound, l2, iterations, solver)
    weights = jnp.einsum("dr,rcg->gdc", basis, solution[:-1])
    return weights, solution[-1].T - jnp.einsum("d,gdc->gc", mean, weights)


def principal_axes(x: Array) -> tuple[Array, Array, Array]:
    """Compute an orthonormal basis [d, r], coordinates [n, r] with r = min(n, d), half the variance along each axis."""
    basis = None
    if x.shape[0] < x.shape[1]:  # The solution lies in the span of the examples.
        basis, _ = jnp.linalg.qr(x.T)
        x = x @ basis
    variance, axes = jnp.linalg.eigh(x.T @ x / len(x))
    return axes if basis is None else basis @ axes, x @ axes, 0.5 * jnp.maximum(variance, 0.0)


def minimize(
    z: Array, target: Array, share: Array, bound: Array, l2: Array, iterations: int, solver: str
) -> Array:
    """Find the weights [r + 1, classes, g] of the penalties ``l2`` [g], the intercept last.

    ``share`` [n, g or 1] is what an example counts, of sum 1. Where rows that do not count leave less, the
    bound of all rows holds when divided by the share of those that do, as the matrix of the others is
    positive; centred features make the intercept orthogonal to the rest, with bound 1/2.
    """
    looser = len(z) * jnp.max(share, axis=0)
    precision = looser * jnp.append(bound, 0.5)[:, None]
    precision = precision + jnp.append(jnp.ones_like(bound), 0.0)[:, None] * l2
    solve = {"bound": _descend, "lbfgs": _lbfgs}[solver]
    return solve(z, target, jnp.broadcast_to(share, (len(z), len(l2))), precision, l2, iterations)


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
        return (new, *_go_ahead(w, new, slope, momentum)), None

    zero = jnp.zeros((rank + 1, classes, len(l2)), z.dtype)
    (w, _, _), _ = jax.lax.scan(step, (zero, zero, jnp.ones(len(l2), z.dtype)), length=iterations)
    return w


def _go_ahead(w: Array, new: Array, slope: Array, momentum: Array) -> tuple[Array, Array]:
    """Where the next gradient is taken after a step from ``w`` to ``new``, and the momentum then; a problem is two axes."""
    # Momentum that points uphill is dropped.
    momentum = jnp.where(jnp.sum(slope * (new - w), axis=(0, 1)) > 0, 1.0, momentum)
    following = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2))
    return new + (momentum - 1.0) / following * (new - w), following


def _descend_each(z: Array, target: Array, bound: Array, l2: Array, iterations: int) -> Array:
    """:func:`_descend` one penalty after the other, each until it has converged; ``target`` is ``[classes, n]``."""
    counted = jnp.append(jnp.ones_like(bound), 0.0)
    curvature = jnp.append(bound, 0.5)
    # Both products of a block find it in the cache. The axis that may be spread over devices stays in front.
    examples = len(z)
    blocks = -(-examples // BLOCK)
    size = -(-examples // blocks)
    padding = blocks * size - examples
    z = jnp.pad(z, ((0, padding), (0, 0))).reshape(size, blocks, -1).swapaxes(0, 1)
    target = jnp.pad(target, ((0, 0), (0, padding))).reshape(-1, size, blocks).transpose(2, 0, 1)
    share = jnp.pad(jnp.full(examples, 1.0 / examples, z.dtype), (0, padding)).reshape(size, blocks).T

    def gradient(w: Array) -> Array:
        def add(total: Array, part: tuple[Array, Array, Array]) -> tuple[Array, None]:
            rows, labels, weight = part
            # Examples come last: the softmax over classes then runs over whole vectors of examples.
            error = (jax.nn.softmax(w[:, :-1] @ rows.T + w[:, -1:], axis=0) - labels) * weight
            slope = jnp.concatenate([error @ rows, jnp.sum(error, axis=1, keepdims=True)], axis=1)
            return total + slope, None

        return jax.lax.scan(add, jnp.zeros_like(w), (z, target, share))[0]

    def one(penalty: Array) -> Array:
        precision = curvature + penalty * counted

        def unfinished(carry: State) -> Array:
            *_, decrement, count = carry
            return (count < iterations) & ~(decrement <= CONVERGED)

        def step(carry: State) -> State:
            w, ahead, momentum, _, count = carry
            slope = gradient(ahead) + penalty * counted * ahead
            new = ahead - slope / precision
            further = _go_ahead(w, new, slope, momentum)
            return new, *further, jnp.sum(slope * slope / precision), count + 1

        zero = jnp.zeros((target.shape[1], z.shape[2] + 1), z.dtype)
        start = (zero, zero, jnp.ones((), z.dtype), jnp.asarray(jnp.inf, z.dtype), jnp.asarray(0))
        return jax.lax.while_loop(unfinished, step, start)[0]

    return jnp.transpose(jax.lax.map(one, l2), (2, 1, 0))


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


def _measure(subject: Subject) -> Row:
    return {"logistic": logistic_probe(*subject.arrays, classes=subject.classes).accuracy}


MEASURE = Measure(
    "logistic",
    frozenset({"features", "labels"}),
    (Column("logistic", "logistic", "logistic probe"),),
    _measure,
)
