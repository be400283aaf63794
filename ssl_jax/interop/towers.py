"""What the image towers of CLIP and SigLIP share: their projection, and their form in transformers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_jax.core.check import require
from ssl_jax.core.types import Params, State
from ssl_jax.interop.names import Arrays
from ssl_jax.interop.vit_options import ACTIVATIONS
from ssl_jax.models.network import Network


def linear_projector(kernel: np.ndarray) -> tuple[Params, State]:
    """Return variables of ``heads.mlp((e,), last_bias=False)`` with this kernel ``[width, e]``.

    >>> params, state = linear_projector(np.zeros((8, 4)))
    >>> params["dense_0"]["kernel"].shape, state
    ((8, 4), {})
    """
    return {"dense_0": {"kernel": jnp.asarray(kernel, jnp.float32)}}, {}


def require_tower(network: Network, target: str, **needed: Any) -> None:
    """Raise a ValueError unless a ViT is of the form that another library's class has.

    Args:
      network: the ViT.
      target: name of that class, for the error.
      **needed: option of ``models.vit`` to its value, or to a tuple of values.
    """
    config = network.config
    for name, value in needed.items():
        values = value if isinstance(value, tuple) else (value,)
        allowed = " or ".join(repr(value) for value in values)
        require(
            config.get(name) in values, name, config.get(name), f"{allowed}, which is what a {target} has"
        )


def vision_config(network: Network, arrays: Arrays, *, model_type: str, architecture: str) -> dict[str, Any]:
    """Write the ``config.json`` of a transformers image tower; arrays are in our names and torch's layout."""
    config = network.config
    theirs = {
        ours: name
        for name, ours in ACTIVATIONS.items()
        if name in ("gelu", "gelu_pytorch_tanh", "quick_gelu")
    }
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": config["width"],
        "intermediate_size": arrays["blocks.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": config["depth"],
        "num_attention_heads": config["heads"],
        "num_channels": arrays["patch_embed.proj.weight"].shape[1],
        "image_size": config["image_size"],
        "patch_size": config["patch"],
        "hidden_act": theirs[config["mlp"]],
        "layer_norm_eps": config["norm_epsilon"],
    }
