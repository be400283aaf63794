"""Planned memory of a ViT-S on images of 1,024 and 4,096 patches, loss and gradient: attention in blocks and the plain form.

What XLA plans for the temporaries of the compiled program, which is not run: also what this machine could not hold. The growth
is the exponent p in memory ∝ tokens^p: 1 is linear, 2 quadratic. The parts of a ViT that are not attention grow linearly, so
the plain form's exponent lies below 2.
"""

import argparse
import math
from collections.abc import Sequence
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks import pairs
from benchmarks.memory import growth
from ssl_jax import models
from ssl_jax.models import attention

GAINS = {
    "": "images of more pixels, or longer sequences, in the memory that there is",
}
"""What the user gains, by a part of a row's name."""

FORMS = {"plain": math.inf, "blockwise": 0}
"""From how many queries and keys on attention is computed in blocks."""


def plan(form: str, side: int, *, depth: int, dtype: str) -> int:
    """Count the bytes of temporaries that a step of ViT-S/16 on one image needs.

    Args:
      form: of :data:`FORMS`.
      side: patches along a side of the image.
      depth: blocks.
      dtype: compute type.
    """
    size = 16 * side
    network = models.build("vit_small", image_size=size, depth=depth, dtype=dtype)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    params, state = jax.eval_shape(network.init, jax.random.key(0), images)

    def loss(params: models.network.Params, images: jax.Array) -> jax.Array:
        tokens, _ = network.apply(params, state, images, train=True, output="tokens")
        return jnp.mean(tokens**2)

    with mock.patch.object(attention, "LONG", FORMS[form]):
        compiled = jax.jit(jax.grad(loss)).lower(params, images).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    sides, depth = ((8, 16), 1) if options.quick else ((32, 64), 12)
    counts = [side**2 for side in sides]
    measured = []
    plans: dict[str, list[float]] = {}
    for form in FORMS:
        plans[form] = [plan(form, side, depth=depth, dtype="float32") / 2**20 for side in sides]
        slope = growth(*zip(counts, plans[form], strict=True))
        measured.append(
            pairs.valued(
                f"ViT-S, attention in the {form} form: growth of planned memory with the patches",
                [slope],
                unit="exponent",
                at_most=1.1 if form == "blockwise" else None,
                raw={"mib": dict(zip(map(str, counts), plans[form], strict=True))},
            )
        )
    for i, count in enumerate(counts):
        name = f"ViT-S, an image of {count:,} patches: planned memory of a step"
        ours, plain = plans["blockwise"][i], plans["plain"][i]
        measured.append(pairs.valued(name, [ours], unit="MiB", against=f"plain form ({plain:,.0f} MiB)"))
    return measured


if __name__ == "__main__":
    pairs.main("attention", pairs.parser("attention", __doc__), run)
