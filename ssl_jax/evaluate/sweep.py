"""Linear heads by SGD for a whole grid of learning rates and weight decays in one program."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Key
from ssl_jax.evaluate.knn import check_labels
from ssl_jax.evaluate.linear import hold_out, standardize
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject
from ssl_jax.train.features import AnyArray

LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
NORMALIZATIONS = ("standardize", "batch", "none")
BATCH_SIZE = 256
HOLDOUT = 0.1
MOMENTUM = 0.9
EPSILON = 1e-6


class SweepResult(NamedTuple):
    """Outcome of a sweep of linear heads.

    Attributes:
      accuracy: test accuracy of the best cell, fitted to the whole training set; no other is tested.
      learning_rate: learning rate of the best cell, for 256 examples a step.
      weight_decay: weight decay of the best cell.
      validation: accuracy of the best cell on the held-out training examples.
      grid: validation accuracies ``[learning rates, weight decays]``, 0 where a head diverged.
      learning_rates: learning rates of the rows of ``grid``, rising.
      weight_decays: weight decays of its columns, rising.
      at_edge: those of ``"learning_rate"`` and ``"weight_decay"`` that have their best value at an end of the grid,
        so that a better one may lie beyond; nothing lies beyond a weight decay of 0.
    """

    accuracy: float
    learning_rate: float
    weight_decay: float
    validation: float
    grid: Float[np.ndarray, "lr wd"]
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    at_edge: tuple[str, ...]


def linear_sweep(
    train_features: Float[AnyArray, "n d"],
    train_labels: Int[AnyArray, " n"],
    test_features: Float[AnyArray, "m d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    learning_rates: tuple[float, ...] = LEARNING_RATES,
    weight_decays: tuple[float, ...] = WEIGHT_DECAYS,
    epochs: int = 10,
    batch_size: int = BATCH_SIZE,
    holdout: float = HOLDOUT,
    seed: int = 0,
    normalization: str = "standardize",
) -> SweepResult:
    """Measure the accuracy of a softmax linear head trained by SGD, its learning rate and weight decay from a grid.

    ``M ← .9 M + ∇_W + λW;  W ← W − η_t M`` with ``∇_W`` the gradient of the mean cross entropy of a minibatch
    of B = ``batch_size`` examples, λ the weight decay (not of the intercept), and
    ``η_t = lr · B/256 · (1 + cos(π t/T))/2`` at step t of T: learning rates are given for 256 examples, as
    papers print them. W starts at 0.

    All cells of the grid are trained at once: one matrix product for all heads, one program for all steps;
    every cell sees the same minibatches. The best cell is chosen on a random ``holdout`` share of the
    *training* set (of equals the smallest learning rate, then the largest decay) and fitted again to all of
    it. The test set is used once.

    Args:
      train_features: features that the heads are fitted to, any float type; what normalises them comes from them alone.
      train_labels: their labels, in [0, ``classes``).
      test_features: features of the final accuracy, for nothing else.
      test_labels: their labels, in [0, ``classes``).
      classes: number of classes.
      learning_rates: learning rates of the grid, each above 0.
      weight_decays: weight decays of the grid, each 0 or more.
      epochs: passes over the examples, 1 or more; an epoch's last incomplete minibatch is left out.
      batch_size: examples a step, 1 to the number that is left to fit.
      holdout: share in (0, 1) of the training set that chooses.
      seed: seed of the held-out draw and of the order of the examples.
      normalization: ``"standardize"``: mean 0 and variance 1 over the training set; ``"batch"``: then also
        over each minibatch while training, the training set's at the test (MAE's BatchNorm without scale
        and shift, ε 1e-6, its running statistics at their limit); ``"none"``: features as they are.

    Returns:
      ``SweepResult``; the same arguments give the same numbers.

    Raises:
      ValueError: labels, a rate, a decay, a size or a normalisation out of range, an empty grid or part.

    >>> x, y = np.tile(np.eye(2, dtype=np.float32), (16, 1)), np.array([0, 1] * 16)
    >>> result = linear_sweep(x, y, x, y, classes=2, learning_rates=(0.1, 1.0), weight_decays=(0.0,),
    ...                       epochs=2, batch_size=8)
    >>> result.accuracy, result.grid.shape, result.at_edge
    (1.0, (2, 1), ('learning_rate',))

    Reference: Oquab et al., DINOv2 (2023), the grid of heads trained together; Goyal et al.,
      Accurate, Large Minibatch SGD (2017), section 2.1, the scaling; He et al., MAE (2022), appendix A.1, the
      normalisation.
    """
    check_labels("train_labels", train_labels, classes)
    check_labels("test_labels", test_labels, classes)
    check.require(
        bool(learning_rates) and min(learning_rates) > 0, "learning_rates", learning_rates, "numbers above 0"
    )
    check.require(
        bool(weight_decays) and min(weight_decays) >= 0,
        "weight_decays",
        weight_decays,
        "numbers of 0 or more",
    )
    check.require(epochs >= 1, "epochs", epochs, "an integer of 1 or more")
    check.choice("normalization", normalization, NORMALIZATIONS)
    held_out, rest = hold_out(len(train_labels), holdout=holdout, seed=seed)
    allowed = f"an integer in [1, {len(rest)}], the training examples that are not held out"
    check.require(1 <= batch_size <= len(rest), "batch_size", batch_size, allowed)

    if normalization == "none":
        train, test = (at_least_float32(jnp.asarray(part)) for part in (train_features, test_features))
    else:
        train, test = standardize(train_features, test_features)
    labels, rates, decays = jnp.asarray(train_labels), sorted(learning_rates), sorted(weight_decays)
    cells = np.array([(rate, decay) for rate in rates for decay in reversed(decays)])
    fit = functools.partial(
        _train,
        jax.random.key(seed),
        classes=classes,
        epochs=epochs,
        batch_size=batch_size,
        batch_norm=normalization == "batch",
    )
    scale = jnp.asarray([batch_size / 256.0, 1.0], train.dtype)
    heads = fit(train[rest], labels[rest], scale * cells)
    validation = np.asarray(_accuracies(heads, train[held_out], labels[held_out]))
    best = int(np.argmax(validation))
    head = fit(train, labels, scale * cells[best : best + 1])
    accuracy = float(_accuracies(head, test, jnp.asarray(test_labels))[0])
    rate, decay = cells[best].tolist()
    return SweepResult(
        accuracy,
        rate,
        decay,
        float(validation[best]),
        validation.reshape(len(rates), len(decays))[:, ::-1],
        tuple(rates),
        tuple(decays),
        edges_of_grid(rate, decay, rates, decays),
    )


@functools.partial(jax.jit, static_argnames=("classes", "epochs", "batch_size", "batch_norm"))
def _train(
    key: Key,
    x: Array,
    labels: Array,
    cells: Array,
    *,
    classes: int,
    epochs: int,
    batch_size: int,
    batch_norm: bool,
) -> tuple[Array, Array]:
    """Train weights [d, classes, g] and intercepts [classes, g] of heads with ``cells`` [g, (rate, decay)].

    The grid comes last: the softmax over classes then runs over whole vectors of cells.
    """
    (rates, decays), (examples, width), grid = cells.T.astype(x.dtype), x.shape, len(cells)
    steps = examples // batch_size

    def gradient(weights: Array, intercept: Array, rows: Array) -> tuple[Array, Array]:
        batch = x[rows]
        if batch_norm:
            variance = jnp.var(batch, axis=0)
            batch = (batch - jnp.mean(batch, axis=0)) * jax.lax.rsqrt(variance + EPSILON)
        logits = (batch @ weights.reshape(width, -1)).reshape(batch_size, classes, grid) + intercept
        target = jax.nn.one_hot(labels[rows], classes, dtype=x.dtype)
        error = (jax.nn.softmax(logits, axis=1) - target[:, :, None]) / batch_size
        slope = (batch.T @ error.reshape(batch_size, -1)).reshape(weights.shape)
        return slope + decays * weights, jnp.sum(error, axis=0)

    def step(carry: tuple[tuple[Array, Array], tuple[Array, Array]], now: tuple[Array, Array]):
        head, momentum = carry
        time, rows = now
        rate = rates * 0.5 * (1.0 + jnp.cos(jnp.pi * time / (epochs * steps)))
        momentum = jax.tree.map(lambda m, g: MOMENTUM * m + g, momentum, gradient(*head, rows))
        return (jax.tree.map(lambda w, m: w - rate * m, head, momentum), momentum), None

    def epoch(carry: tuple[tuple[Array, Array], tuple[Array, Array]], number: Array):
        order = jax.random.permutation(jax.random.fold_in(key, number), examples)[: steps * batch_size]
        times = (number * steps + jnp.arange(steps)).astype(x.dtype)
        return jax.lax.scan(step, carry, (times, order.reshape(steps, batch_size)))

    zero = (jnp.zeros((width, classes, grid), x.dtype), jnp.zeros((classes, grid), x.dtype))
    return jax.lax.scan(epoch, (zero, zero), jnp.arange(epochs))[0][0]


@jax.jit
def _accuracies(heads: tuple[Array, Array], features: Array, labels: Array) -> Array:
    """Compute the share that each cell [g] gets right; what is not finite is not right."""
    weights, intercept = heads
    logits = (features @ weights.reshape(len(weights), -1)).reshape(
        len(features), *intercept.shape
    ) + intercept
    right = jnp.argmax(logits, axis=1) == labels[:, None]
    return jnp.mean(right & jnp.isfinite(logits).all(axis=1), axis=0)


def edges_of_grid(rate: float, decay: float, rates: list[float], decays: list[float]) -> tuple[str, ...]:
    """List what of a chosen cell lies at an end of its grid, so that a better one may lie beyond, see :class:`SweepResult`.

    >>> edges_of_grid(0.1, 0.0, [0.1, 1.0], [0.0, 0.5])
    ('learning_rate',)
    """
    rate_ends = len(rates) > 1 and rate in (rates[0], rates[-1])
    decay_ends = len(decays) > 1 and decay in (decays[0], decays[-1]) and decay > 0
    return ("learning_rate",) * rate_ends + ("weight_decay",) * decay_ends


def _measure(subject: Subject) -> Row:
    """The default sweep; with fewer training images than its batch, all that are fitted are the batch."""
    arrays = subject.arrays
    _, rest = hold_out(len(arrays[1]), holdout=HOLDOUT, seed=0)
    batch_size = min(BATCH_SIZE, len(rest))
    best = linear_sweep(*arrays, classes=subject.classes, batch_size=batch_size)
    chosen = {
        name: getattr(best, name) for name in ("learning_rate", "weight_decay", "validation", "at_edge")
    }
    if batch_size < BATCH_SIZE:
        chosen["batch_size"] = batch_size
    return {"linear": best.accuracy, "linear_chosen": chosen}


MEASURE = Measure(
    "linear", frozenset({"features", "labels"}), (Column("linear", "linear", "linear probe"),), _measure
)
