"""What it saves that only visible patches go through the encoder: a quarter of them against all, loss and gradient.

ViT-tiny at 224 pixels in patches of 16. First the encoder alone, then MAE's whole step (with a decoder of two blocks that are
128 wide) against SimMIM's, whose encoder sees all places and has a linear layer for a decoder.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import pairs
from ssl_jax import models
from ssl_jax.methods.masked import mae, simmim
from ssl_jax.methods.method import Method
from ssl_jax.ops.masking import random_mask

GAINS = {
    "encoder": "masked methods train that much faster, as hidden patches cost nothing",
    "MAE": "more epochs for the same time",
}
"""What the user gains, by a part of a row's name."""

VISIBLE = 0.25


def encoder_step(network: models.Network, images: jax.Array, keep: jax.Array | None) -> Callable[[], Any]:
    """Gradient of a sum over the tokens of the patches that go in."""
    params, state = network.init(jax.random.key(0), images)

    def loss(params: Any) -> jax.Array:
        tokens, _ = network.apply(params, state, images, train=True, keep=keep, output="tokens")
        return jnp.mean(tokens**2)

    gradient = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(gradient(params))


def method_step(method: Method, batch: dict[str, Any]) -> Callable[[], Any]:
    """Loss and gradient of a method on a batch of views."""
    params, state = method.init(jax.random.key(0), batch)
    gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    return lambda: jax.block_until_ready(gradient(params, state, batch, jax.random.key(1), jnp.int32(0)))


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    quick = options.quick
    size, batch, count = (32, 2, 2) if quick else (224, 16, 15)
    sizes: dict[str, Any] = {"name": "vit_tiny", "image_size": size, "patch": 8 if quick else 16}
    sizes |= {"depth": 1} if quick else {}
    images = jax.random.normal(jax.random.key(2), (batch, size, size, 3))
    length = (size // sizes["patch"]) ** 2
    keys = jax.random.split(jax.random.key(3), batch)
    keep = jax.vmap(lambda key: random_mask(key, length, ratio=1 - VISIBLE).keep)(keys)
    network = models.build(**sizes)
    whole = models.build(**sizes, mask_token=True)
    decoder = {"decoder_width": 128, "decoder_depth": 2, "decoder_heads": 4}
    views = {"views": (images[:, None],)}
    told = f"ViT-tiny, {batch} images, {keep.shape[1]} of {length} patches"
    times = pairs.alternate(
        encoder_step(network, images, keep), encoder_step(network, images, None), pairs=count, warmup=2
    )
    steps = pairs.alternate(
        method_step(mae.build(network, mask_ratio=1 - VISIBLE, **decoder), views),
        method_step(simmim.build(whole, mask_ratio=1 - VISIBLE, unit=1), views),
        pairs=count,
        warmup=2,
    )
    return [
        # Under 40 % of the cost.
        pairs.paired(
            f"encoder, {told}", times, against="the encoder on all of them", at_least=2.5, items=batch
        ),
        pairs.paired(f"MAE, {told}", steps, against="SimMIM, all places", items=batch),
    ]


if __name__ == "__main__":
    pairs.main("masking", pairs.parser("masking", __doc__), run)
