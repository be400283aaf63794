"""The fused attention of TPUs, in Pallas, for sequences of any length and batches that are divided over devices."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from ssl_jax.core.types import Array

TILE = 128
"""Sequences are padded to a multiple of it."""
BLOCKS = (512, 384, 256, 128)
"""Tokens of a block: the largest that divides the padded length."""


def can_divide(query: Array) -> bool:
    """Tell whether a batch is whole on one device, or the array says over which devices it is divided, and they divide it.

    Args:
      query: ``[b, ...]``; an array of a program that is traced has the mesh of the program's arguments.
    """
    mesh, axes = _mesh_of(query)
    if mesh.empty:
        return jax.device_count() == 1
    return query.shape[0] % _size(mesh, axes) == 0


def flash_attention(query: Array, key: Array, value: Array, present: Array | None = None) -> Array:
    """Compute ``softmax(q kᵀ / √d) v`` by the kernel for TPUs, each device on its part of the batch.

    Args:
      query: ``[b, queries, heads, d]``; :func:`can_divide` holds.
      key: ``[b, keys, heads, d]``.
      value: ``[b, keys, heads, d]``.
      present: bool ``[b or 1, keys]``; keys where it is False get no weight.

    Returns:
      ``[b, queries, heads, d]``.

    Reference: Dao et al. 2022 (FlashAttention); ``jax.experimental.pallas.ops.tpu.flash_attention``.
    """
    present = jnp.ones((1, key.shape[1]), bool) if present is None else present
    arguments = (query, key, value, jnp.broadcast_to(present, key.shape[:2]))
    mesh, axes = _mesh_of(query)
    if mesh.empty or _size(mesh, axes) == 1:
        return attend_padded(*arguments)
    # The compiler cannot divide a kernel over devices by itself.
    spec = PartitionSpec(axes)
    divided: Any = jax.shard_map(
        attend_padded, mesh=mesh, in_specs=(spec,) * 4, out_specs=spec, axis_names=set(axes), check_vma=False
    )
    return divided(*arguments)


def attend_padded(query: Array, key: Array, value: Array, present: Array) -> Array:
    """Call the kernel on sequences padded to whole tiles, of which it ignores the padding; see :func:`flash_attention`."""
    # Pallas is imported where it is used: it takes half a second.
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel

    count = query.shape[1]
    query, key, value = (
        jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, -x.shape[1] % TILE), (0, 0)))
        for x in (query, key, value)
    )
    # Tokens attend to those of their own segment; all queries are in segment 1, the padding and absent keys in segment 0.
    segments = jnp.pad(present.astype(jnp.int32), ((0, 0), (0, key.shape[2] - present.shape[1])))
    ids = kernel.SegmentIds(jnp.ones((query.shape[0], query.shape[2]), jnp.int32), segments)
    rows, columns = (next(block for block in BLOCKS if x.shape[2] % block == 0) for x in (query, key))
    sizes = kernel.BlockSizes(
        block_q=rows,
        block_k_major=columns,
        block_k=columns,
        block_b=1,
        block_q_major_dkv=rows,
        block_k_major_dkv=columns,
        block_k_dkv=columns,
        block_q_dkv=rows,
        block_k_major_dq=columns,
        block_k_dq=columns,
        block_q_dq=rows,
    )
    mixed = kernel.flash_attention(
        query, key, value, segment_ids=ids, sm_scale=query.shape[-1] ** -0.5, block_sizes=sizes
    )
    return jnp.swapaxes(mixed, 1, 2)[:, :count]


def _mesh_of(x: Array) -> tuple[Any, tuple[str, ...]]:
    """The mesh of a traced array, and those of its axes over which the compiler divides arrays."""
    mesh = jax.typeof(x).sharding.mesh
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return mesh, tuple(name for name, kind in kinds if kind == AxisType.Auto)


def _size(mesh: Any, axes: tuple[str, ...]) -> int:
    size = 1
    for axis in axes:
        size *= mesh.shape[axis]
    return size
