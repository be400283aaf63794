"""What the studies on CIFAR-10 share: where the images are, how encoders are fine-tuned, and the features behind an encoder."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax import models
from ssl_jax.config import build
from ssl_jax.core.types import Array, Params, State
from ssl_jax.evaluate.finetune import Recipe
from ssl_jax.methods.parts.siamese import expander, simclr_projector
from ssl_jax.models import heads
from ssl_jax.models.network import Network, identity

DATA = "parquet:../shared/data/cifar10"
"""CIFAR-10 with images as JPEG of quality 75; ``--source`` names another copy."""
STEPS, BATCH = 600, 128
"""Length and batch of a run, unless a study says otherwise: those of :data:`ssl_jax.cli.study_runs.COMMON`."""
IMAGES = STEPS * BATCH
RATE = 3e-3
"""Learning rate of the recipes of SimCLR, MoCo and BYOL."""
VIT: dict[str, Any] = {"encoder.width": 64, "encoder.depth": 3, "encoder.heads": 2}
"""The transformer of the studies of masks."""
FINETUNE: dict[str, Any] = {
    "share": 0.02,
    "recipe": Recipe(epochs=20, batch_size=50, learning_rate=1e-3, layer_decay=0.75),
}
FINETUNED = "Fine-tuned: on 1,000 labels, 20 epochs, layer-wise decay 0.75, a crop and a flip."


def projector_of(encoder: Network, options: build.Config) -> Network:
    """Build the projector of a run of SimCLR, BYOL, VICReg or Barlow Twins."""
    layers, width, projection = (options[f"project{name}"] for name in ("or_layers", "or_width", "ion"))
    if layers == 0:
        return identity(encoder.features)
    if options["name"] == "simclr":
        return simclr_projector(encoder, layers=layers, width=width, projection=projection)
    if options["name"] == "byol":
        hidden_dim = options["hidden_dim"] if width is None else width
        return heads.mlp((hidden_dim,) * (layers - 1) + (projection,), last_bias=False)
    return expander(
        encoder, layers=layers, width=width, norm=options["projector_norm"], projection=projection
    )


def projector_output(config: build.Config) -> dict[str, Callable[..., Array]]:
    """Compute ``after``, the output of the projector in inference mode."""
    encoder = models.build(**config["encoder"])
    projector = projector_of(encoder, config["method"])

    def after(params: Params, state: State, images: Array) -> Array:
        variables = state.get("online", state)
        features, _ = encoder.apply(params["encoder"], variables["encoder"], images)
        return projector.apply(params["projector"], variables["projector"], features)[0]

    return {"after": after}


def projector_layers(config: build.Config) -> dict[str, Callable[..., Array]]:
    """Compute ``hidden``, behind BatchNorm and ReLU of the first layer of a projector of two, and ``after``."""
    encoder = models.build(**config["encoder"])

    def hidden(params: Params, state: State, images: Array) -> Array:
        variables = state.get("online", state)
        features, _ = encoder.apply(params["encoder"], variables["encoder"], images)
        return first_layer(params["projector"], variables["projector"], features)

    return {"hidden": hidden, **projector_output(config)}


def first_layer(params: Params, state: State, features: Array) -> Array:
    """Apply the first layer of a perceptron with BatchNorm, in inference mode: ``relu(γ (W x − μ) / √(σ² + ε) + β)``."""
    norm, running = params["norm_0"], state["batch_stats"]["norm_0"]
    x = features @ params["dense_0"]["kernel"] + params["dense_0"].get("bias", 0.0)
    x = (x - running["mean"]) * jax.lax.rsqrt(running["var"] + 1e-5)
    return jax.nn.relu(x * norm["scale"] + jnp.asarray(norm["bias"]))
