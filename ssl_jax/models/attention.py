"""Attention by the kernel that fits the platform and the shape: what it costs in memory is linear in the number of tokens."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.core.check import choice
from ssl_jax.core.types import Array
from ssl_jax.models.flash_tpu import can_divide, flash_attention

PLATFORMS = ("cpu", "cuda", "tpu")
LONG = 1024
"""From LONG² pairs of a query and a key on, the scores of all of them are not held at a time."""
BLOCK_ROWS = (32, 256)
"""Least and most queries of a block."""
BLOCK_SCORES = 2**24
"""Scores that a block holds at most, where it has more than the least number of queries: 64 MiB in float32."""
WIDEST_HEAD = 128
"""Of cuDNN before Hopper; the kernel for TPUs takes it too."""


class Kernel(NamedTuple):
    """How attention is computed.

    Attributes:
      name: ``"plain"``: all scores at a time; ``"blockwise"``: those of a block of queries at a time; ``"cudnn"``, ``"flash"``:
        the fused kernels of cuDNN and, in Pallas, of TPUs.
      reason: why.
    """

    name: str
    reason: str


def choose_kernel(
    platform: str,
    *,
    queries: int,
    keys: int,
    width: int,
    dtype: Any,
    bias: bool = False,
    present: bool = False,
) -> Kernel:
    """Choose how attention is computed on a platform.

    Short sequences are computed plainly on CPUs and TPUs: their scores take little memory. Long ones are computed in blocks,
    or by the kernel of the platform where it takes them.

    Args:
      platform: one of :data:`PLATFORMS`; what is none of them counts as ``"cpu"``.
      queries: tokens that attend.
      keys: tokens attended to.
      width: of a head.
      dtype: of queries, keys and values.
      bias: whether something is added to the scores.
      present: whether some keys are absent.

    >>> choose_kernel("cuda", queries=197, keys=197, width=64, dtype="bfloat16").name
    'cudnn'
    >>> choose_kernel("tpu", queries=1370, keys=1370, width=64, dtype="bfloat16", bias=True)
    Kernel(name='blockwise', reason='a bias of every pair of tokens')
    """
    choice("platform", platform, PLATFORMS)
    long = queries * keys >= LONG**2
    fallback = "blockwise" if long else "plain"
    dtype, half = jnp.dtype(dtype), (jnp.bfloat16, jnp.float16)
    if platform == "cpu":
        return Kernel(fallback, f"{'' if long else 'fewer than '}{LONG}² pairs of tokens")
    if platform == "tpu" and not long:
        return Kernel("plain", f"fewer than {LONG}² pairs of tokens")
    if dtype not in (half if platform == "cuda" else half[:1]):
        return Kernel(fallback, f"{dtype.name}: the kernel is for bfloat16")
    if bias:
        return Kernel(fallback, "a bias of every pair of tokens")
    if width > WIDEST_HEAD or width % 8:
        return Kernel(
            fallback, f"a head of {width} features: the kernel takes multiples of 8 up to {WIDEST_HEAD}"
        )
    if platform == "tpu":
        return Kernel("flash", f"{LONG}² pairs of tokens")
    if present:
        return Kernel(fallback, "absent tokens, which cuDNN takes as a bias of every pair only")
    return Kernel("cudnn", "fused")


def attention_weights(
    query: Array, key: Array, bias: Array | None = None, present: Array | None = None
) -> Array:
    """Compute ``softmax(q kᵀ / √d + bias)``, ``[b, heads, queries, keys]``, of ``[b, length, heads, d]``, at least in float32.

    ``jax.nn.dot_product_attention`` takes its softmax in float32 always, which loses float64.

    Args:
      query: ``[b, queries, heads, d]``.
      key: ``[b, keys, heads, d]``.
      bias: added to the scores, ``[b or 1, heads or 1, queries or 1, keys]``.
      present: bool ``[b or 1, keys]``; those that are False get no weight. ``None``: all of them get some.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide)
    scores = scores * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias.astype(wide)
    if present is not None:
        scores = scores + jnp.where(present, 0.0, -jnp.inf).astype(wide)[:, None, None, :]
    return jax.nn.softmax(scores, axis=-1)


def attend(
    query: Array, key: Array, value: Array, bias: Array | None = None, present: Array | None = None
) -> Array:
    """Compute ``softmax(q kᵀ / √d + bias) v`` of ``[b, length, heads, d]`` by the kernel of the platform.

    Which one that is follows from :func:`choose_kernel`, when the program is compiled: a program for another platform
    (``experiments.plan``) gets that platform's. Whichever it is, value and gradients are those of :func:`attend_plainly` to
    rounding.

    Args:
      query: ``[b, queries, heads, d]``.
      key: ``[b, keys, heads, d]``.
      value: ``[b, keys, heads, d]``.
      bias: see :func:`attention_weights`.
      present: see there.

    Returns:
      ``[b, queries, heads, d]``.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 3, 2, 4))
    >>> bool((attend(x, x, x) == x).all())
    True

    References: Vaswani et al. 2017, section 3.2.1; Dao et al. 2022 (FlashAttention) for the kernels.
    """
    kernels = {
        platform: choose_kernel(
            platform,
            queries=query.shape[1],
            keys=key.shape[1],
            width=query.shape[-1],
            dtype=query.dtype,
            bias=bias is not None,
            present=present is not None,
        ).name
        for platform in PLATFORMS
    }
    default = KERNELS[kernels["cpu"]]
    # cuDNN's kernel can only be traced where there is a GPU.
    usable = {"flash": can_divide(query), "cudnn": jax.default_backend() == "gpu"}
    fused = {platform: KERNELS[name] for platform, name in kernels.items() if usable.get(name)}
    if not fused:
        return default(query, key, value, bias, present)
    return jax.lax.platform_dependent(query, key, value, bias, present, default=default, **fused)


def attend_plainly(
    query: Array, key: Array, value: Array, bias: Array | None = None, present: Array | None = None
) -> Array:
    """Compute ``softmax(q kᵀ / √d + bias) v`` with all scores held at a time; see :func:`attend`."""
    weights = attention_weights(query, key, bias, present)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)


def attend_blockwise(
    query: Array, key: Array, value: Array, bias: Array | None = None, present: Array | None = None
) -> Array:
    """Compute the same block of queries by block, the scores of a block again in the backward pass; see :func:`attend`.

    A block of r queries holds ``b · heads · r · keys`` scores, with r from :func:`block_rows`, so that both passes need memory
    linear in the number of tokens. The backward pass computes ``q kᵀ`` once more: five products to the forward pass's two.
    """
    count = query.shape[1]
    rows = block_rows(query.shape[0] * query.shape[2], count, key.shape[1])
    blocks = -(-count // rows)
    pad = blocks * rows - count

    def split(x: Array, axis: int) -> Array:
        """Divide an axis of queries into blocks, ``[blocks, ...]``."""
        padded = jnp.pad(x, [(0, pad if a == axis else 0) for a in range(x.ndim)])
        return jnp.moveaxis(padded.reshape(*x.shape[:axis], blocks, rows, *x.shape[axis + 1 :]), axis, 0)

    divided = bias is not None and bias.shape[2] > 1

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def attend_block(own: tuple[Array, Array | None]) -> Array:
        block, block_bias = own
        return attend_plainly(block, key, value, block_bias if divided else bias, present)

    own_bias = split(bias, 2) if bias is not None and divided else None
    out = jnp.moveaxis(jax.lax.map(attend_block, (split(query, 1), own_bias)), 0, 1)
    return out.reshape(query.shape[0], blocks * rows, *query.shape[2:])[:, :count]


def block_rows(matrices: int, queries: int, keys: int) -> int:
    """Count the queries of a block: as many as hold :data:`BLOCK_SCORES` scores, within :data:`BLOCK_ROWS`, in equal blocks.

    Args:
      matrices: of scores, batch times heads.
      queries: tokens that attend.
      keys: tokens attended to.

    >>> block_rows(6, 1025, 1025), block_rows(48, 4097, 4097), block_rows(4096, 4097, 4097)
    (205, 84, 32)
    """
    least, most = BLOCK_ROWS
    rows = min(max(BLOCK_SCORES // (matrices * keys), least), most)
    return -(-queries // -(-queries // rows))


def _attend_flash(query: Array, key: Array, value: Array, bias: Array | None, present: Array | None) -> Array:
    assert bias is None
    return flash_attention(query, key, value, present)


def _attend_cudnn(query: Array, key: Array, value: Array, bias: Array | None, present: Array | None) -> Array:
    assert bias is None and present is None
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


KERNELS = {
    "plain": attend_plainly,
    "blockwise": attend_blockwise,
    "flash": _attend_flash,
    "cudnn": _attend_cudnn,
}
"""Functions of queries, keys, values, bias and present keys, by :class:`Kernel`'s name."""
