"""DINO's loss and gradient with the crops of both sizes packed into one sequence, against a pass of the encoder for each size.

ViT-tiny/16, two crops of 224 and eight of 96 pixels. Both do the same matrix products; packed, each linear layer is one product
instead of two, and reads its weights once.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import pairs
from benchmarks.masking import method_step
from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.augment.views import groups
from ssl_jax.core.flops import matmul_flops
from ssl_jax.methods.distillation import dino
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.self_distillation import DinoHead
from ssl_jax.models.packing import pack_crops

GAINS = {
    "": "multi-crop without small batches that leave a device idle",
}
"""What the user gains, by a part of a row's name."""


def count_flops(method: Method, batch: dict[str, Any]) -> int:
    """Count the operations of the matrix products of a method's loss and gradient."""
    key = jax.random.key(0)
    params, state = jax.eval_shape(method.init, key, batch)
    gradient = jax.value_and_grad(method.loss, has_aux=True)
    return matmul_flops(jax.make_jaxpr(gradient)(params, state, batch, key, jnp.int32(0)))


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    quick = options.quick
    batch_size, size, local, count = (2, 32, 16, 2) if quick else (4, 224, 96, 15)
    views = presets.dino(size=size, local_size=local, local_count=8)
    encoder = models.build("vit_tiny", image_size=size, patch=8 if quick else 16, depth=1 if quick else 12)
    head = DinoHead(prototypes=64 if quick else 4096)
    rng = np.random.default_rng(0)
    crops = tuple(
        jnp.asarray(rng.normal(size=(batch_size, len(g), views[g[0]].size, views[g[0]].size, 3)), jnp.float32)
        for g in groups(views)
    )
    packed, separate = (
        dino.build(network, views=views, head=head) for network in (pack_crops(encoder), encoder)
    )
    batch = {"views": crops}
    flops = count_flops(packed, batch), count_flops(separate, batch)
    times = pairs.alternate(method_step(packed, batch), method_step(separate, batch), pairs=count, warmup=2)
    name = f"DINO, ViT-tiny, {batch_size} images, crops of {size} and {local} px packed"
    return [
        pairs.paired(name, times, against="a pass for each size", items=batch_size, flops=flops),
        pairs.valued(f"{name}: operations", [flops[0] / flops[1]], unit="x", against="a pass for each size"),
    ]


if __name__ == "__main__":
    pairs.main("multi_crop", pairs.parser("multi_crop", __doc__), run)
