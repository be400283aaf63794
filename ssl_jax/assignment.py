"""What an image is compared with or assigned to: queue, nearest neighbours, balanced prototypes, clusters drawn evenly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, ScalarLike, Shaped

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key


class Queue(NamedTuple):
    """A ring of the last K vectors.

    Attributes:
      items: ``[K, D]`` float32.
      pointer: int32 scalar, the row that the next push overwrites first: the oldest one.
    """

    items: Float[Array, "size dim"]
    pointer: Int[Array, ""]


def queue_init(key: Key, size: int, dim: int) -> Queue:
    """A queue full of random unit vectors, uniform on the sphere.

    Args:
      key: PRNG key.
      size: K, the number of rows, 1 or more.
      dim: D, the length of a row, 1 or more.

    Returns:
      A :class:`Queue` with pointer 0.

    Raises:
      ValueError: a size or dimension below 1.

    Example:
      >>> import jax
      >>> queue = queue_init(jax.random.key(0), 8, 4)
      >>> queue.items.shape, int(queue.pointer)
      ((8, 4), 0)

    Reference: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
    algorithm 1.
    """
    check.require(size >= 1, "size", size, "an integer of 1 or more")
    check.require(dim >= 1, "dim", dim, "an integer of 1 or more")
    items = numerics.normalize(jax.random.normal(key, (size, dim), jnp.float32))
    return Queue(items, jnp.zeros((), jnp.int32))


def queue_push(queue: Queue, items: Float[Array, "n dim"]) -> Queue:
    """Overwrite the n oldest rows, first in first out.

    Row ``(pointer + i) mod K`` becomes ``items[i]``, and the pointer moves on by n, modulo K.

    Args:
      queue: with K rows of length D.
      items: ``[n, D]`` new rows, n ≤ K; K need not be a multiple of n. They are stored as they come (MoCo
        stores unit vectors), in the queue's dtype.

    Returns:
      The new :class:`Queue`.

    Raises:
      ValueError: more rows than the queue holds, or rows of another length.

    Example:
      >>> import jax.numpy as jnp
      >>> queue = Queue(jnp.zeros((3, 1)), jnp.array(2, jnp.int32))
      >>> queue = queue_push(queue, jnp.array([[1.0], [2.0]]))
      >>> queue.items.ravel().tolist(), int(queue.pointer)
      ([2.0, 0.0, 1.0], 1)

    Reference: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
    algorithm 1.
    Deviation: the authors' code asserts that n divides K; here a push runs past the end and goes on at the
    start.
    """
    size, dim = queue.items.shape
    fits = items.ndim == 2 and items.shape[1] == dim and items.shape[0] <= size
    check.require(fits, "items.shape", items.shape, f"[n, {dim}] with n of at most the queue's {size} rows")
    rows = (queue.pointer + jnp.arange(items.shape[0], dtype=jnp.int32)) % size
    stored = queue.items.at[rows].set(items.astype(queue.items.dtype), unique_indices=True)
    return Queue(stored, (queue.pointer + items.shape[0]) % size)


def nearest_neighbors(
    queries: Float[Array, "n dim"],
    bank: Float[Array, "size dim"],
    k: int = 1,
    *,
    block_size: int | None = None,
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The k rows of a bank that point most nearly in the direction of each query: exact, by cosine.

    ``indices_i = argtop-k_j u_i·c_j`` with u and c the unit rows of ``queries`` and ``bank``, in descending order;
    of equal similarities the lower index comes first.

    Args:
      queries: ``[n, D]``, any float dtype, any norm (rows are L2-normalised here).
      bank: ``[K, D]``, the same: a queue's items, or the features of a training set.
      k: neighbours of each query, 1 to K.
      block_size: ``None`` forms all similarities, ``[n, K]``. An integer of 1 or more goes through the bank in
        blocks of that many rows, and holds ``[n, k + block_size]`` at a time.

    Returns:
      ``(similarities, indices)``, each ``[n, k]``: cosines, float32 (float64 for float64 inputs), and int32 rows of
      the bank. A row of zeros has cosine 0 with everything.

    Raises:
      ValueError: arrays that do not fit each other, k out of range, a block size below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> bank = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
      >>> similarities, indices = nearest_neighbors(jnp.array([[0.0, 1.0]]), bank, 2)
      >>> indices.tolist(), (similarities**2).round(2).tolist()
      ([[1, 2]], [[1.0, 0.5]])

    Reference: Dwibedi et al., "With a Little Help from My Friends", ICCV 2021, equation 2 (k = 1); Koohpayegani
    et al., "Mean Shift for Self-Supervised Learning", ICCV 2021, section 3.
    """
    fits = queries.ndim == 2 and bank.ndim == 2 and queries.shape[1] == bank.shape[1]
    check.require(fits, "bank.shape", bank.shape, f"[K, D] for queries [n, D] of {queries.shape}")
    size = bank.shape[0]
    check.require(1 <= k <= size, "k", k, f"an integer from 1 to the bank's {size} rows")
    sized = block_size is None or block_size >= 1
    check.require(sized, "block_size", block_size, "None or an integer of 1 or more")
    queries, bank = numerics.normalize(queries), numerics.normalize(bank)
    if block_size is None:
        return _best(_cosines(queries, bank), k)
    count = -(-size // min(block_size, size))
    block = -(-size // count)
    blocks = jnp.pad(bank, ((0, count * block - size), (0, 0))).reshape(count, block, -1)

    def step(best: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        rows, first = part
        columns = first + jnp.arange(block, dtype=jnp.int32)
        cosines = jnp.where(columns < size, _cosines(queries, rows), -jnp.inf)
        # What was found earlier has lower indices and stands first, so that it wins where similarities are equal.
        among = jnp.concatenate([best[0], cosines], axis=1)
        indices = jnp.concatenate([best[1], jnp.broadcast_to(columns, cosines.shape)], axis=1)
        similarities, places = _best(among, k)
        return (similarities, jnp.take_along_axis(indices, places, axis=1)), None

    n = queries.shape[0]
    start = jnp.full((n, k), -jnp.inf, queries.dtype), jnp.zeros((n, k), jnp.int32)
    best, _ = jax.lax.scan(step, start, (blocks, block * jnp.arange(count, dtype=jnp.int32)))
    return best


def _cosines(x: Array, y: Array) -> Array:
    """``x yᵀ`` of unit rows, in full precision: neighbours are often close to each other."""
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


def _best(x: Float[Array, "n m"], k: int) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The k largest entries of each row and where they stand, the earlier of equals first."""
    if k > 1:
        return numerics.top_k(x, k)
    place = jnp.argmax(x, axis=1).astype(jnp.int32)
    return jnp.max(x, axis=1)[:, None], place[:, None]


def sinkhorn(
    scores: Float[Array, "n k"],
    *,
    temperature: ScalarLike = 0.05,
    iterations: int = 3,
    weights: Shaped[Array, " n"] | None = None,
    log_domain: bool = True,
) -> Float[Array, "n k"]:
    """Soft assignment of n vectors to k prototypes that uses the prototypes about equally (Sinkhorn and Knopp).

    ``Q = diag(u) exp(scores/τ) diag(v)``; ``iterations`` times v is set so that every column of Q has the same
    (weighted) sum, then u so that every row has the sum 1. Rows come last: they are exact, equal use of the
    prototypes is approached as iterations grow. Factors common to all columns cancel and are left out.

    Nothing is detached here: methods pass the result through ``jax.lax.stop_gradient``.

    Args:
      scores: ``[n, k]`` similarities with the prototypes, any float dtype.
      temperature: τ > 0, may be traced. Low is sharp.
      iterations: 1 or more.
      weights: ``[n]`` bool or numbers ≥ 0, how many times each row counts in the sums over columns; ``None``:
        once. Rows of weight 0 take no part and come out as zeros, so that a static number of rows can hold a
        changing number of vectors.
      log_domain: sums as logsumexp, which neither overflows nor underflows. ``False``: products with
        ``exp((scores − max)/τ)``, a few times cheaper, good where ``max − scores`` stays below about 80 τ.

    Returns:
      ``[n, k]`` float32 (float64 for float64 scores), rows of sum 1 (0 where the weight is 0).

    Raises:
      ValueError: fewer than 1 iteration, a temperature that is not positive, weights of another length.

    Example:
      >>> import jax.numpy as jnp
      >>> q = sinkhorn(jnp.array([[1.0, 0.9], [1.0, 0.0]]), iterations=50)  # each alone would take the first
      >>> q.round(1).tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Reference: Cuturi, "Sinkhorn Distances", NeurIPS 2013, algorithm 1; Caron et al., "Unsupervised Learning of Visual
    Features by Contrasting Cluster Assignments" (SwAV), NeurIPS 2020, eqs. 3 to 5.
    """
    check.require(iterations >= 1, "iterations", iterations, "an integer of 1 or more")
    check.positive("temperature", temperature)
    logits = numerics.at_least_float32(scores) / temperature
    if weights is None:
        weights = jnp.ones(scores.shape[0], logits.dtype)
    fits = weights.shape == scores.shape[:1]
    check.require(fits, "weights.shape", weights.shape, f"{scores.shape[:1]}, one a row of scores")
    counted = weights > 0
    # Were no row counted, the column sums would be 0; the rows come out as zeros below anyway.
    weights = jnp.where(jnp.any(counted), weights.astype(logits.dtype), 1.0)
    balanced = (_sinkhorn_logs if log_domain else _sinkhorn_products)(logits, weights, iterations)
    return jnp.where(counted[:, None], balanced, 0.0)


def _sinkhorn_logs(logits: Array, weights: Array, iterations: int) -> Array:
    log_weights = jnp.log(weights)[:, None]
    rows = jnp.zeros_like(logits[:, :1])
    for _ in range(iterations):
        columns = -jax.nn.logsumexp(logits + rows + log_weights, axis=0, keepdims=True)
        rows = -jax.nn.logsumexp(logits + columns, axis=1, keepdims=True)
    return jax.nn.softmax(logits + columns, axis=1)


def _sinkhorn_products(logits: Array, weights: Array, iterations: int) -> Array:
    exact, tiny = jax.lax.Precision.HIGHEST, jnp.finfo(logits.dtype).tiny
    highest = jnp.max(jnp.where(weights[:, None] > 0, logits, -jnp.inf))
    kernel = jnp.exp(jnp.minimum(logits - highest, 0.0))
    rows = jnp.ones_like(weights)
    for _ in range(iterations):
        columns = 1.0 / jnp.maximum(jnp.matmul(weights * rows, kernel, precision=exact), tiny)
        rows = 1.0 / jnp.maximum(jnp.matmul(kernel, columns, precision=exact), tiny)
    return kernel * rows[:, None] * columns


def sample_clusters_evenly(key: Key, labels: Int[Array, " n"], clusters: int) -> Int[Array, " n"]:
    """n examples such that every cluster with members is drawn as often as any other, to within one.

    Of a cluster with more members than its share come different ones, drawn at random; of one with fewer all come, over and
    over, each as often as any other of the cluster to within one.

    Args:
      key: PRNG key.
      labels: ``[n]`` cluster of each example, 0 to ``clusters`` − 1; -1: none, the example is not drawn. One at least has a
        cluster.
      clusters: number of clusters, 1 or more; some may have no members.

    Returns:
      ``[n]`` int32 indices of examples, cluster by cluster.

    Raises:
      ValueError: no clusters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> labels = jnp.array([0, 0, 0, 0, 0, 2])
      >>> chosen = sample_clusters_evenly(jax.random.key(0), labels, 3)
      >>> jnp.bincount(labels[chosen], length=3).tolist()
      [3, 0, 3]

    Reference: Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018, section 3.2
    (trivial parametrisation). Deviations: small clusters go round instead of being drawn with replacement; and the
    authors' sampler indexes a list that is ordered by cluster with the indices of the unordered dataset, which makes its draw
    far from even: here it is as the paper says.
    """
    check.require(clusters >= 1, "clusters", clusters, "an integer of 1 or more")
    count = labels.shape[0]
    member_key, cluster_key = jax.random.split(key)
    labels = jnp.where(labels < 0, clusters, labels)
    by_cluster = jnp.lexsort((jax.random.uniform(member_key, (count,)), labels)).astype(jnp.int32)
    sizes = jnp.bincount(labels, length=clusters)
    starts = jnp.cumsum(sizes) - sizes
    # Those without members come last and are not reached; the others in random order, for some get one more.
    order = jnp.lexsort((jax.random.uniform(cluster_key, (clusters,)), sizes == 0))
    used = jnp.sum(sizes > 0)
    share, extra = count // used, count % used
    places, longer = jnp.arange(count, dtype=jnp.int32), extra * (share + 1)
    rest = places - longer
    rank = jnp.where(rest < 0, places // (share + 1), extra + rest // jnp.maximum(share, 1))
    turn = jnp.where(rest < 0, places % (share + 1), rest % jnp.maximum(share, 1))
    cluster = order[rank]
    return by_cluster[starts[cluster] + turn % sizes[cluster]]
