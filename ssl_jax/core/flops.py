"""Floating-point operations of a function, counted on its jaxpr."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr


def matmul_flops(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    """Count the operations of all matrix products and convolutions of a program: two for each multiplication and addition.

    ``2 m k n`` of a product ``[m, k] x [k, n]``; of a convolution two for each pair of an output and a true input that it
    reads, so that padding and holes are not counted. The body of a scan counts once a turn, what is computed again in the
    backward pass counts again, the body of a ``while`` counts once, and of the branches of a conditional the dearest. All
    else (normalisation, activations, optimizer) is not counted: on accelerators it is bound by memory.

    Args:
      jaxpr: program of ``jax.make_jaxpr(f)(...)`` or ``jax.jit(f).trace(...).jaxpr``; of the whole batch, whatever the devices.

    Returns:
      The number of operations.

    >>> import jax, jax.numpy as jnp
    >>> matmul_flops(jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 5))))
    60
    """
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum(_of_equation(equation) for equation in inner.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_dot(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    inside = [matmul_flops(jaxpr) for jaxpr in _jaxprs(params)]
    if name == "cond":
        return max(inside)
    return sum(inside) * (params["length"] if name == "scan" else 1)


def _jaxprs(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in params.values():
        for found in value if isinstance(value, tuple | list) else (value,):
            if isinstance(found, ClosedJaxpr | Jaxpr):
                yield found


def _of_dot(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _of_convolution(equation: Any) -> int:
    params, numbers = equation.params, equation.params["dimension_numbers"]
    images, kernel, out = (v.aval.shape for v in (*equation.invars[:2], equation.outvars[0]))
    pairs = 1
    for axis, (low, _) in enumerate(params["padding"]):
        pairs *= _pairs(
            images[numbers.lhs_spec[2 + axis]],
            kernel[numbers.rhs_spec[2 + axis]],
            out[numbers.out_spec[2 + axis]],
            low=low,
            stride=params["window_strides"][axis],
            hole=params["lhs_dilation"][axis],
            spread=params["rhs_dilation"][axis],
        )
    rows, channels = (out[axis] for axis in numbers.out_spec[:2])
    return 2 * rows * channels * kernel[numbers.rhs_spec[1]] * pairs


def _pairs(inputs: int, taps: int, outputs: int, *, low: int, stride: int, hole: int, spread: int) -> int:
    """How many pairs of an output and a tap read a true input, along one axis."""
    read = stride * np.arange(outputs)[:, None] + spread * np.arange(taps) - low
    return int(np.sum((read >= 0) & (read <= (inputs - 1) * hole) & (read % hole == 0)))
