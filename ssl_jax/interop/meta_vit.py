"""Vision transformers of Meta's own repositories: DINO, iBOT, DINOv2, MAE, MoCo v3, MSN and I-JEPA, with their heads.

They have timm's names but for a few arrays. Files with an encoder alone, such as ``dino_deitsmall16_pretrain.pth`` or
``mae_pretrain_vit_base.pth``, have nothing but timm's names: :mod:`ssl_jax.interop.timm_vit` reads them.

Features are what the authors evaluate: the class token, and the mean of the patch tokens for I-JEPA, which has none. MAE's are
the class token, as in its linear probe; its fine-tuning takes the mean, ``load_pretrained(name, pool="mean")``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax.interop.family import Converted, Family, Weights
from ssl_jax.interop.heads import (
    MAE_DECODER,
    Head,
    dino_heads_from_torch,
    jepa_predictor,
    mae_decoder,
    mlp_from_torch,
)
from ssl_jax.interop.names import Arrays, Names, translate
from ssl_jax.interop.timm_vit import MARKS, PAIRS
from ssl_jax.interop.vit_options import convert_vit, preprocessing_for

Heads = Callable[[Arrays], Mapping[str, Head]]
DINOV2 = Names(
    (
        *PAIRS,
        ("register_tokens", "reg_token"),
        ("mask_token", "mask_token"),
        ("blocks.{i}.mlp.w12", "blocks.{i}.mlp.fc1"),
        ("blocks.{i}.mlp.w3", "blocks.{i}.mlp.fc2"),
    ),
    left_out=("head", "dino_head", "ibot_head"),
)
IBOT = Names(
    (
        *PAIRS,
        ("masked_embed", "mask_token"),
        ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma"),
        ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma"),
    ),
    left_out=("head",),
)
MAE = Names(PAIRS, left_out=("mask_token", *MAE_DECODER))
MOCO_V3 = Names(PAIRS, left_out=("head", "predictor"))
MSN = Names(PAIRS, left_out=("fc", "pred", "prototypes"))
I_JEPA = Names(PAIRS, left_out=("predictor",))
DATA2VEC = Names((), left_out=("modality_encoders", "blocks", "norm", "decoder", "_ema", "alibi_biases"))


def convert(
    weights: Weights, *, names: Names, family: str, heads: Heads, said: Mapping[str, Any]
) -> Converted:
    """Build the ViT of a file of Meta's.

    Args:
      weights: the file.
      names: table of its names.
      family: of its preprocessing.
      heads: function from the file's arrays to its heads.
      said: options that its shapes do not say.
    """
    network, params, state = convert_vit(translate(weights.arrays, names).arrays, weights, said)
    # DINOv2's table is for 518 pixels, but its features are those of 224.
    side = min(network.config["image_size"], 224) if family == "dinov2" else None
    preprocessing = preprocessing_for(weights, network, family=family, side=side)
    return Converted(network, params, state, preprocessing, heads(weights.arrays))


def convert_dinov2(weights: Weights) -> Converted:
    """Build the ViT of DINOv2; with registers its positions are interpolated in another way."""
    registers = "register_tokens" in weights.arrays
    said = {"position_resize": "bicubic_antialias" if registers else "bicubic_offset"}
    return convert(weights, names=DINOV2, family="dinov2", heads=dino_heads_from_torch, said=said)


def convert_dino(weights: Weights) -> Converted:
    """Build the ViT of DINO or iBOT with its heads."""
    said = {"position_resize": "bicubic_offset"}
    return convert(weights, names=IBOT, family="dino", heads=dino_heads_from_torch, said=said)


def convert_mae(weights: Weights) -> Converted:
    """Build the encoder of a whole MAE; its decoder is the head."""
    return convert(weights, names=MAE, family="mae", heads=mae_decoder, said={"position_resize": "bicubic"})


def convert_moco_v3(weights: Weights) -> Converted:
    """Build the ViT of MoCo v3, whose ViT-S has 12 heads, with projector and predictor."""
    small = weights.arrays["patch_embed.proj.weight"].shape[0] == 384
    said = {"position_resize": "bicubic", "heads": 12 if small else None}
    return convert(weights, names=MOCO_V3, family="moco", heads=moco_v3_heads, said=said)


def moco_v3_heads(arrays: Arrays) -> Mapping[str, Head]:
    """Read projector and predictor of MoCo v3's ViT."""
    found = {"projector": mlp_from_torch(arrays, "head"), "predictor": mlp_from_torch(arrays, "predictor")}
    return {name: head for name, head in found.items() if head is not None}


def convert_msn(weights: Weights) -> Converted:
    """Build the ViT of MSN; its projection is left out."""
    return convert(weights, names=MSN, family="dino", heads=lambda _: {}, said={"position_resize": "bicubic"})


def convert_jepa(weights: Weights) -> Converted:
    """Build the encoder of I-JEPA (the target's unless another part is asked for) with its predictor."""
    return convert(
        weights, names=I_JEPA, family="ijepa", heads=jepa_predictor, said={"position_resize": "bicubic"}
    )


def refuse_data2vec(weights: Weights) -> Converted:
    """Refuse data2vec 2.0.

    Raises:
      ValueError: always.
    """
    raise ValueError(
        "data2vec 2.0 is not read: its blocks normalise after each branch, x = LN(x + f(x)), and those of ssl_jax before it"
    )


FAMILIES = (
    Family("Meta DINOv2", DINOV2, (*MARKS, "mask_token", "blocks.{i}.ls1.gamma"), convert_dinov2),
    Family("Meta iBOT", IBOT, (*MARKS, "masked_embed"), convert_dino),
    Family("Meta DINO with its head", IBOT, (*MARKS, "head.mlp", "head.last_layer"), convert_dino),
    Family("Meta MAE with its decoder", MAE, (*MARKS, "decoder_embed", "decoder_pred"), convert_mae),
    Family(
        "Meta MoCo v3 ViT", MOCO_V3, (*MARKS, "head.{i}.weight", "head.{i}.running_mean"), convert_moco_v3
    ),
    Family("Meta MSN", MSN, (*MARKS, "cls_token", "fc"), convert_msn),
    Family(
        "Meta I-JEPA", I_JEPA, (*MARKS, "predictor.predictor_embed"), convert_jepa, unmarked=("cls_token",)
    ),
    Family("Meta data2vec 2.0", DATA2VEC, ("modality_encoders.IMAGE",), refuse_data2vec),
)
