"""Vision transformers of transformers: ViT, ViTMSN, ViTMAE, IJepa, Dinov2, Dinov2WithRegisters; in and out.

Files of the hub have the names of transformers 4, and transformers 5 writes them so too; its own names in memory are others.
Both are read. ``config.json`` says heads, ε and the activation; a file without one has the defaults of its class.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.core.check import require
from ssl_jax.core.types import Params, State
from ssl_jax.interop.family import Converted, Family, Weights
from ssl_jax.interop.heads import Head, mae_decoder
from ssl_jax.interop.names import Arrays, Names, translate, translate_back
from ssl_jax.interop.vit_options import ACTIVATIONS, activation, convert_vit, preprocessing_for, square_side
from ssl_jax.models.network import Network
from ssl_jax.models.torch_names_vit import vit_to_torch

TOP = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("layernorm", "norm"),
)
LEFT_OUT = ("pooler", "classifier", "decoder")
OLD_ATTENTION = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
NEW_ATTENTION = tuple(f"attention.{part}_proj" for part in "qkv")
OLD_VIT = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
NEW_VIT = {
    "layernorm_before": "norm1",
    "attention.o_proj": "attn.proj",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
DINOV2 = {
    "norm1": "norm1",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "layer_scale2.lambda1": "ls2.gamma",
}
OLD_DINOV2 = DINOV2 | {
    "attention.output.dense": "attn.proj",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
}
NEW_DINOV2 = DINOV2 | {"attention.o_proj": "attn.proj", "mlp.down_proj": "mlp.fc2"}


def _table(
    layer: str,
    block: Mapping[str, str],
    attention: tuple[str, ...],
    *,
    ours: str = "blocks.{i}.",
    top: tuple[tuple[str, str], ...] = TOP,
    left_out: tuple[str, ...] = LEFT_OUT,
) -> Names:
    gated = tuple(f"{layer}mlp.{part}_proj" for part in ("gate", "up"))
    return Names(
        (*top, *((layer + theirs, ours + name) for theirs, name in block.items())),
        packed=(
            (tuple(layer + part for part in attention), f"{ours}attn.qkv"),
            (gated, f"{ours}mlp.fc1"),
        ),
        left_out=left_out,
    )


OLD_LAYER, NEW_LAYER = "encoder.layer.{i}.", "layers.{i}."
OLD_VIT_NAMES = _table(OLD_LAYER, OLD_VIT, OLD_ATTENTION)
NEW_VIT_NAMES = _table(NEW_LAYER, NEW_VIT, NEW_ATTENTION)
OLD_MAE_NAMES = _table(OLD_LAYER, OLD_VIT, OLD_ATTENTION, left_out=("decoder",))
NEW_MAE_NAMES = _table(NEW_LAYER, NEW_VIT, NEW_ATTENTION, left_out=("decoder",))
OLD_DINOV2_NAMES = _table(OLD_LAYER, OLD_DINOV2, OLD_ATTENTION)
NEW_DINOV2_NAMES = _table(OLD_LAYER, NEW_DINOV2, NEW_ATTENTION)
DECODER_TOP = tuple(
    (f"decoder.{name}", name)
    for name in ("decoder_embed", "mask_token", "decoder_norm", "decoder_pred", "decoder_pos_embed")
)
DECODERS = tuple(
    _table(layer, block, attention, ours="decoder_blocks.{i}.", top=DECODER_TOP, left_out=())
    for layer, block, attention in (
        ("decoder.decoder_layers.{i}.", OLD_VIT, OLD_ATTENTION),
        ("decoder.decoder_layers.{i}.", NEW_VIT, NEW_ATTENTION),
        # transformers 5 writes the decoder so, by the same rule as the encoder.
        ("decoder.decoder_encoder.layer.{i}.", OLD_VIT, OLD_ATTENTION),
    )
)
"""Tables from the decoder of a ViTMAE to MAE's names."""


def convert(weights: Weights, *, names: Names, epsilon: float, family: str, **said: Any) -> Converted:
    """Build the ViT of a model of transformers.

    Features are the class token after the last normalisation, and the mean of the patch tokens where there is none. ``pooler``,
    a layer with tanh, is left out.

    Args:
      weights: the file.
      names: table of its names.
      epsilon: ε of the class where no config says it.
      family: of its preprocessing.
      **said: other options that its shapes do not say.

    Raises:
      ValueError: an activation that our ViT does not have.
    """
    config = weights.metadata.get("config", {})
    said |= {
        "heads": config.get("num_attention_heads"),
        "norm_epsilon": config.get("layer_norm_eps", epsilon),
        "mlp": activation(config.get("hidden_act")),
    }
    arrays = translate(weights.arrays, names).arrays
    network, params, state = convert_vit(
        arrays, weights, said, image_size=square_side(config.get("image_size"))
    )
    preprocessing = preprocessing_for(weights, network, family=family)
    return Converted(network, params, state, preprocessing, decoder_of(weights.arrays))


def decoder_of(arrays: Arrays) -> Mapping[str, Head]:
    """Read the decoder of a ViTMAE; nothing where there is none."""
    below = {name: array for name, array in arrays.items() if name.startswith("decoder.")}
    if not below:
        return {}
    fitting = [found for found in (translate(below, names) for names in DECODERS) if not found.unknown]
    return mae_decoder(fitting[0].arrays) if fitting else {}


def to_transformers(
    network: Network, params: Params, state: State
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Write a ViT as a model of transformers: arrays in the names of the hub, and ``config.json``.

    A ViT with a class token becomes a ``Dinov2Model`` (with registers a ``Dinov2WithRegistersModel``), whose
    ``pooler_output`` is the class token; LayerScale that ours does not have is 1 there. One without becomes an ``IJepaModel``.
    ``last_hidden_state`` are the tokens.

    Args:
      network: a ViT.
      params: its params.
      state: its state.

    Returns:
      ``(arrays, config)``.

    Raises:
      ValueError: an option that the model of transformers does not have; names it.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models.vit import vit
    >>> network = vit("vit_micro", width=8, depth=1, heads=2, patch=4, image_size=8)
    >>> arrays, config = to_transformers(network, *network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    >>> config["architectures"], arrays["encoder.layer.0.attention.attention.key.weight"].shape
    (['Dinov2Model'], (8, 8))
    """
    options = network.config
    kind = "IJepaModel"
    if options["class_token"]:
        kind = "Dinov2WithRegistersModel" if options["registers"] else "Dinov2Model"
    _require_expressible(options, kind)
    arrays = vit_to_torch(params, state, network)
    config = _config_of(options, arrays)
    if kind == "IJepaModel":
        arrays.pop("mask_token", None)
        config |= {
            "architectures": [kind],
            "model_type": "ijepa",
            "intermediate_size": arrays["blocks.0.mlp.fc1.weight"].shape[0],
        }
        return translate_back(arrays, OLD_VIT_NAMES).arrays, config
    width = options["width"]
    for index in range(options["depth"]):
        for scale in ("ls1", "ls2"):
            arrays.setdefault(f"blocks.{index}.{scale}.gamma", np.ones(width, np.float32))
    mask_token = arrays.pop("mask_token", np.zeros((1, 1, width), np.float32))
    arrays["mask_token"] = mask_token.reshape(1, width)
    arrays["cls_token"], arrays["pos_embed"] = _class_row_apart(arrays, options["registers"])
    swiglu = options["mlp"] == "swiglu"
    config |= {
        "architectures": [kind],
        "model_type": "dinov2_with_registers" if options["registers"] else "dinov2",
        "mlp_ratio": _whole_ratio(arrays, width, swiglu=swiglu),
        "use_swiglu_ffn": swiglu,
        "layerscale_value": 1.0,
    }
    config |= {"num_register_tokens": options["registers"]} if options["registers"] else {}
    block = {
        theirs: name
        for theirs, name in OLD_DINOV2.items()
        if ("weights_" in theirs) == swiglu or "fc" not in name
    }
    return translate_back(arrays, _table(OLD_LAYER, block, OLD_ATTENTION)).arrays, config


def _class_row_apart(arrays: Arrays, registers: int) -> tuple[np.ndarray, np.ndarray]:
    """Class token, and the position table with its row of zeros but without those of the registers."""
    positions = arrays["pos_embed"]
    return arrays["cls_token"], np.concatenate([positions[:, :1], positions[:, 1 + registers :]], axis=1)


def _require_expressible(options: Mapping[str, Any], kind: str) -> None:
    activations: tuple[Any, ...] = ("gelu", "gelu_tanh", "quick_gelu")
    dinov2 = kind != "IJepaModel"
    allowed: dict[str, tuple[Any, ...]] = {
        **({} if dinov2 else {"registers": (0,), "layer_scale": (None,)}),
        "pool": ("cls", "mean"),
        "position": ("learned", "sincos"),
        "position_resize": ("bicubic_antialias" if options["registers"] else "bicubic",),
        "mlp": (*activations, "swiglu") if dinov2 else activations,
        "qk_norm": (False,),
        "pre_norm": (False,),
        "fc_norm": (False,),
        "patch_bias": (None, True),
    }
    for name, values in allowed.items():
        choices = " or ".join(map(repr, values))
        require(options[name] in values, name, options[name], f"{choices}, for transformers' {kind}")


def _config_of(options: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items()) if theirs != "gelu_tanh"}
    return {
        "hidden_size": options["width"],
        "num_hidden_layers": options["depth"],
        "num_attention_heads": options["heads"],
        "hidden_act": "gelu" if options["mlp"] == "swiglu" else names[options["mlp"]],
        "layer_norm_eps": options["norm_epsilon"],
        "image_size": options["image_size"],
        "patch_size": options["patch"],
        "num_channels": arrays["patch_embed.proj.weight"].shape[1],
        "qkv_bias": options["qkv_bias"],
    }


def _whole_ratio(arrays: Arrays, width: int, *, swiglu: bool) -> int:
    """The whole number that transformers' Dinov2 computes the hidden units from."""
    hidden = arrays["blocks.0.mlp.fc2.weight"].shape[1]
    for ratio in range(1, 65):
        units = (int(width * ratio * 2 / 3) + 7) // 8 * 8 if swiglu else width * ratio
        if units == hidden:
            return ratio
    allowed = "hidden units that transformers' Dinov2 has for a whole number"
    raise ValueError(f"mlp_ratio={hidden / width:g}: allowed is {allowed}")


def _families() -> tuple[Family, ...]:
    """Each class in both sets of names."""

    def family(
        name: str, names: Names, layer: str, marks: tuple[str, ...], unmarked: tuple[str, ...], **said: Any
    ) -> Family:
        def converted(weights: Weights) -> Converted:
            return convert(weights, names=names, **said)

        marks = (
            "embeddings.patch_embeddings.projection",
            "embeddings.position_embeddings",
            layer.rstrip("."),
            *marks,
        )
        return Family(f"transformers {name}", names, marks, converted, unmarked)

    vit: dict[str, Any] = {"epsilon": 1e-12, "position_resize": "bicubic"}
    dinov2: dict[str, Any] = {"epsilon": 1e-6, "family": "dinov2"}
    cls, registers, decoder = "embeddings.cls_token", "embeddings.register_tokens", "decoder.decoder_embed"
    found: list[Family] = []
    for layer, names, mae_names in (
        (OLD_LAYER, OLD_VIT_NAMES, OLD_MAE_NAMES),
        (NEW_LAYER, NEW_VIT_NAMES, NEW_MAE_NAMES),
    ):
        mark = layer + "layernorm_before"
        found.append(family("ViTMAE", mae_names, mark, (cls, decoder), (), **vit, family="mae"))
        found.append(family("ViT", names, mark, (cls,), (registers,), **vit, family="huggingface_vit"))
        found.append(family("IJepa", names, mark, (), (cls, registers), **vit, family="ijepa"))
    for names in (OLD_DINOV2_NAMES, NEW_DINOV2_NAMES):
        mark = OLD_LAYER + "layer_scale1"
        plain, antialias = {"position_resize": "bicubic"}, {"position_resize": "bicubic_antialias"}
        found.append(family("Dinov2", names, mark, (cls,), (registers,), **dinov2, **plain))
        found.append(family("Dinov2WithRegisters", names, mark, (cls, registers), (), **dinov2, **antialias))
    return tuple(found)


FAMILIES = _families()
