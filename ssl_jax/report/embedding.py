"""Features on a plane, and who lies beside whom."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array
from ssl_jax.evaluate import baselines
from ssl_jax.evaluate.retrieval import Nearest

MAPS = ("auto", "pca", "tsne")
"""How a map can be made."""
MOST = 2500
"""Points up to which t-SNE is computed exactly: time and memory grow with their square."""


class Map(NamedTuple):
    """Points on a plane.

    Attributes:
      points: coordinates, float32 ``[n, 2]``.
      name: ``PCA`` or ``t-SNE``.
      note: meaning of the distances on it.
    """

    points: np.ndarray
    name: str
    note: str


def project(features: Float[np.ndarray, "n d"], *, method: str = "auto") -> Map:
    """Map features to a plane, deterministically.

    Args:
      features: features of three examples or more; L2-normalised here, since neighbours are found by the cosine.
      method: one of ``MAPS``; ``auto`` is t-SNE up to ``MOST`` points, else PCA.

    Returns:
      The map; says which one it is.

    Raises:
      ValueError: an unknown method, fewer than three rows, or t-SNE of too many.

    >>> project(np.eye(4, dtype=np.float32), method="pca").points.shape
    (4, 2)
    """
    check.choice("method", method, MAPS)
    n = len(features)
    if n < 3:
        raise ValueError(f"a map needs three images or more, and there {'are 2' if n == 2 else 'is 1'}")
    check.require(method != "tsne" or n <= MOST, "features", f"{n} rows", f"at most {MOST} for t-SNE")
    unit = np.asarray(normalize(jnp.asarray(features, jnp.float32)))
    if method == "pca" or (method == "auto" and n > MOST):
        points, share = pca(unit)
        return Map(
            points, "PCA", f"a linear map: these two directions hold {share.sum():.0%} of the variance"
        )
    perplexity = min(30.0, (n - 1) / 3)
    note = (
        f"neighbours (perplexity {perplexity:.0f}) stay neighbours; distances between groups, their sizes and the axes mean "
        "nothing"
    )
    return Map(np.asarray(tsne(unit, perplexity=perplexity)), "t-SNE", note)


def pca(features: Float[np.ndarray, "n d"], *, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Project features on the directions of greatest variance, and compute the share of the variance that each holds.

    Args:
      features: features ``[n, d]``; the mean is subtracted.
      count: number of directions; those beyond the rank are 0.

    Returns:
      ``([n, count], [count])`` float32; see :func:`ssl_jax.evaluate.baselines.pca`.

    >>> points, share = pca(np.array([[0.0, 1.0], [0.0, 3.0]]))
    >>> points[:, 0].tolist(), share.tolist()
    ([-1.0, 1.0], [1.0, 0.0])
    """
    (points,) = baselines.pca(features, dims=min(count, features.shape[1]))
    points = np.pad(points, ((0, 0), (0, count - points.shape[1])))
    return points, points.var(axis=0) / max(float(features.var(axis=0).sum()), 1e-30)


def tsne(
    features: Float[np.ndarray, "n d"], *, perplexity: float = 30.0, steps: int = 500
) -> Float[Array, "n 2"]:
    """Compute exact t-SNE from the first two principal components: the same points every time.

    Minimises ``KL(P ‖ Q)``, ``p_ij = (p_{j|i} + p_{i|j}) / 2n`` with Gaussian ``p_{j|i}`` of entropy ``ln perplexity``, and
    ``q_ij ∝ 1 / (1 + ‖y_i − y_j‖²)``, by gradient descent with momentum and gains; for the first quarter of the steps P is
    12 times as large.

    Args:
      features: float32 ``[n, d]``; the 50 first principal components are used.
      perplexity: effective number of neighbours, below n.
      steps: steps of gradient descent.

    Returns:
      ``[n, 2]``.

    Reference: van der Maaten & Hinton, Visualizing Data using t-SNE (2008), eq. 4 and 5, section 3.4; the learning rate
    ``n / 48`` (at least 50) of Belkina et al. (2019).
    """
    n, width = features.shape
    reduced, _ = pca(features, count=min(50, width, n))
    x = jnp.asarray(reduced)
    start = x[:, :2] / jnp.maximum(jnp.std(x[:, 0]), 1e-12) * 1e-4
    return _descend(affinities(x, perplexity), start, max(n / 48.0, 50.0), steps)


@jax.jit
def affinities(x: Float[Array, "n d"], perplexity: float | Array) -> Float[Array, "n n"]:
    """Compute P of t-SNE: symmetric, 0 on the diagonal, sum 1; each row's width found by bisection."""
    n = x.shape[0]
    squares = jnp.sum(x * x, axis=1)
    distances = jnp.maximum(squares[:, None] + squares[None] - 2.0 * x @ x.T, 0.0)
    itself = jnp.eye(n, dtype=bool)
    distances = distances / jnp.maximum(jnp.mean(distances), 1e-30)

    def conditional(log_beta: Array) -> Array:
        scores = jnp.where(itself, -jnp.inf, -jnp.exp(log_beta)[:, None] * distances)
        return jax.nn.softmax(scores, axis=1)

    def halve(bounds: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = bounds
        middle = (low + high) / 2
        p = conditional(middle)
        wide = -jnp.sum(jnp.where(p > 0, p * jnp.log(p), 0.0), axis=1) > jnp.log(perplexity)
        return (jnp.where(wide, middle, low), jnp.where(wide, high, middle)), None

    (low, high), _ = jax.lax.scan(halve, (jnp.full(n, -10.0), jnp.full(n, 15.0)), None, length=40)
    p = conditional((low + high) / 2)
    return (p + p.T) / (2 * n)


@functools.partial(jax.jit, static_argnums=3)
def _descend(p: Array, start: Array, rate: float, steps: int) -> Array:
    def step(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        y, velocity, gains = carry
        early = i < steps // 4
        squares = jnp.sum(y * y, axis=1)
        kernel = 1.0 / (1.0 + jnp.maximum(squares[:, None] + squares[None] - 2.0 * y @ y.T, 0.0))
        kernel = jnp.where(jnp.eye(len(y), dtype=bool), 0.0, kernel)
        pull = (jnp.where(early, 12.0, 1.0) * p - kernel / jnp.sum(kernel)) * kernel
        gradient = 4.0 * (jnp.sum(pull, axis=1)[:, None] * y - pull @ y)
        agrees = jnp.sign(gradient) == jnp.sign(velocity)
        gains = jnp.maximum(jnp.where(agrees, gains * 0.8, gains + 0.2), 0.01)
        velocity = jnp.where(early, 0.5, 0.8) * velocity - rate * gains * gradient
        y = y + velocity
        return y - jnp.mean(y, axis=0), velocity, gains

    return jax.lax.fori_loop(0, steps, step, (start, jnp.zeros_like(start), jnp.ones_like(start)))[0]


class Extremes(NamedTuple):
    """Queries to look at, and how typical they are.

    Attributes:
      best: queries whose neighbours agree with them most, of different classes where possible.
      worst: queries whose neighbours agree least.
      agreement: mean over all queries of the share of neighbours with the query's label; without labels NaN.
    """

    best: list[int]
    worst: list[int]
    agreement: float


def extremes(neighbors: Nearest, labels: Int[np.ndarray, " n"], *, count: int = 5) -> Extremes:
    """Choose queries with good and with bad neighbours; without labels those with the nearest and the farthest.

    Args:
      neighbors: neighbours of every example.
      labels: labels; -1: none.
      count: number of queries of each kind.

    >>> neighbors = Nearest(jnp.array([[1], [0], [0]]), jnp.array([[0.9], [0.9], [0.2]]))
    >>> extremes(neighbors, np.array([0, 0, 1]), count=1)
    Extremes(best=[0], worst=[2], agreement=0.6666666666666666)
    """
    known = labels >= 0
    similarity = np.asarray(neighbors.similarities).mean(axis=1)
    if not known.any():
        order = np.argsort(-similarity, kind="stable")
        return Extremes(order[:count].tolist(), order[::-1][:count].tolist(), float("nan"))
    share = (labels[np.asarray(neighbors.indices)] == labels[:, None]).mean(axis=1)
    queries = np.flatnonzero(known)
    # Of equals those whose neighbours are nearest: the clear successes and the confident mistakes.
    best = queries[np.lexsort((-similarity[queries], -share[queries]))]
    worst = queries[np.lexsort((-similarity[queries], share[queries]))]
    return Extremes(_varied(best, labels, count), _varied(worst, labels, count), float(share[queries].mean()))


def _varied(order: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Take the first of each class in turn, then the rest."""
    _, first = np.unique(labels[order], return_index=True)
    lead = sorted(first.tolist())
    rest = sorted(set(range(len(order))) - set(lead))
    return [int(order[i]) for i in (lead + rest)[:count]]
