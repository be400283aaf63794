"""The network inside a training checkpoint: containers, wrappers and parts are taken off the names of the arrays.

What is left are the encoder's own names. Heads keep theirs beside them, whether they lay inside or beside the part that was
taken:

| checkpoint | part | names of the heads |
|---|---|---|
| MoCo v1, v2 | ``encoder_q`` | ``fc``, ``queue``, ``queue_ptr`` |
| MoCo v3 | ``base_encoder`` | ``fc`` or ``head``; ``predictor`` |
| SimSiam | ``encoder`` | ``fc``, ``predictor`` |
| SwAV, DeepCluster-v2 | | ``projection_head``, ``prototypes`` |
| Barlow Twins, VICReg | | ``projector``, ``bn``, ``lambd`` |
| DINO; DINOv2, iBOT | ``teacher`` | ``head``; ``dino_head``, ``ibot_head`` |
| I-JEPA, MSN | ``target_encoder`` | ``predictor``; ``fc`` |
| MAE; ViTMAE of transformers | | ``decoder_*``, ``mask_token``; ``decoder`` |

The part that is taken unless another is asked for is the one that its authors evaluate.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_jax.core.check import did_you_mean

CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")
PARTS = (
    *("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema", "_ema"),
    *(
        "teacher",
        "teacher_backbone",
        "target_encoder",
        "online_network",
        "backbone",
        "encoder_q",
        "base_encoder",
    ),
    *("vision_model", "visual", "img"),
    *("encoder", "student", "student_backbone"),
    *("momentum_encoder", "momentum_backbone", "backbone_momentum", "target_network", "encoder_k"),
)
"""Networks that lie beside each other in a file: the first that is there is the one that its authors evaluate."""
NAMED = tuple(name for name in PARTS if name != "backbone")
"""Parts that are said even where there is no other."""
WRAPPERS = (
    *(
        "state_dict",
        "model_state_dict",
        "model_state",
        "model",
        "module",
        "net",
        "network",
        "weights",
        "trunk",
    ),
    *("params", "target", "opt", "_orig_mod"),
    *(
        "vit",
        "vit_mae",
        "vit_msn",
        "deit",
        "beit",
        "data2vec_vision",
        "ijepa",
        "resnet",
        "convnext",
        "convnextv2",
    ),
    *("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext"),
)
"""Names that say nothing about which network lies below them."""
HEADS = (
    *("fc", "head", "heads", "head_dist", "classifier", "linear", "lm_head", "pooler", "neck", "bn", "lambd"),
    *("projector", "projection_head", "visual_projection", "predictor", "prediction_head", "prototypes"),
    *("dino_head", "ibot_head", "decoder", "mask_token", "queue", "queue_ptr"),
)
"""What belongs to a network and lies beside it; so does every name that begins with ``decoder_``."""
TEXT = (
    *(
        "txt",
        "text",
        "text_model",
        "text_projection",
        "transformer",
        "token_embedding",
        "positional_embedding",
    ),
    *("ln_final", "logit_scale", "logit_bias", "attn_mask", "t", "b"),
)
"""What lies beside the images' half of a model of images and texts."""
TRAINING = (
    *("optimizer", "optimizer_states", "optimizer_state_dict", "opt", "state", "step", "epoch", "metrics"),
    *("iteration", "iter", "global_step"),
    *(
        "scheduler",
        "lr_scheduler",
        "lr_schedulers",
        "scaler",
        "amp",
        "amp_scaler",
        "fp16_scaler",
        "grad_scaler",
    ),
    *("loss", "criterion", "dino_loss", "ibot_loss", "ibot_patch_loss", "dino_center"),
    *("momentum_projector", "momentum_predictor", "momentum_classifier", "projection_head_momentum"),
    *("projector_k", "head_k", "neck_k", "value_transform", "teacher_head", "student_head"),
)
"""What else lies beside networks, and is dropped."""
INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Wrappers of PyTorch that stand anywhere in a name."""


class Unwrapped(NamedTuple):
    """Arrays of one network and of the heads beside it.

    Attributes:
      arrays: by name.
      part: name of the part that was taken, ``""`` where there was nothing to choose.
      parts: names of the parts that the file has.
    """

    arrays: dict[str, Any]
    part: str
    parts: tuple[str, ...]


def unwrap(arrays: Mapping[str, Any], *, part: str | None = None, source: str = "checkpoint") -> Unwrapped:
    """Take containers, wrappers and parts off the names of the arrays of a checkpoint.

    A prefix goes where all that does not lie below it is another part, a head or a by-product of training.

    Args:
      arrays: by dotted name; names of containers belong to it, as in ``state_dict.module.encoder_q.conv1.weight``.
      part: name of the part to take, such as ``student``; ``None`` for the one that its authors evaluate.
      source: name of the file, for errors.

    Raises:
      ValueError: a part that the file does not have; lists those it has.

    >>> given = {"teacher.backbone.cls_token": 1, "teacher.head.mlp.0.bias": 2, "student.module.backbone.cls_token": 3}
    >>> unwrap(given)
    Unwrapped(arrays={'head.mlp.0.bias': 2, 'cls_token': 1}, part='teacher', parts=('teacher', 'student'))
    >>> unwrap(given, part="student").arrays
    {'cls_token': 3}
    """
    names = {_tidy(name): value for name, value in arrays.items()}
    heads: dict[str, Any] = {}
    taken: list[str] = []
    parts: dict[str, None] = {}
    while prefixes := _prefixes(names):
        parts |= dict.fromkeys(name for name in prefixes if len(prefixes) > 1 or name in NAMED)
        prefix = _choose(prefixes, part, names)
        taken.append(prefix)
        names = _separate_student(names)
        below = {name: value for name, value in names.items() if name.startswith(f"{prefix}.")}
        beside = {_head_name(name): names[name] for name in names if name not in below and _is_head(name)}
        heads = {**heads, **beside}
        names = {name.removeprefix(f"{prefix}."): value for name, value in below.items()}
    if part is not None and part not in taken:
        allowed = did_you_mean(part, parts) if parts else "the file has one network and no parts"
        raise ValueError(f"{source} has no part {part!r}: {allowed}")
    chosen = part or next((name for name in taken if name in NAMED), "")
    return Unwrapped({**heads, **_join_chunks(names)}, chosen, tuple(parts))


def _prefixes(names: Iterable[str]) -> list[str]:
    """List the prefixes of which one can be taken off, the best first.

    >>> _prefixes(["encoder.layer.0.weight", "embeddings.cls_token"]), _prefixes(["student.x", "teacher.x", "epoch"])
    ([], ['teacher', 'student'])
    """
    names = _separate_student(dict.fromkeys(names))
    tops = {name.split(".")[0] for name in names}
    dotted = {name.split(".")[0] for name in names if "." in name}
    found = [name for name in (*PARTS, *WRAPPERS) if name in dotted]
    if len(found) > 1:
        found = [name for name in found if name not in TRAINING]
    text = set(TEXT) if {"vision_model", "visual", "img"} & {*found} else set()
    beside = tops - {*found} - {*TRAINING} - text
    return found if all(_is_head(name) for name in beside) else []


def _choose(prefixes: Sequence[str], part: str | None, names: Iterable[str]) -> str:
    """Choose among prefixes: the part that is asked for, else one that has it below, else the first."""
    if part in prefixes:
        return str(part)
    above = (
        prefix
        for prefix in prefixes
        if any(part in name.split(".")[1:4] for name in names if name.startswith(f"{prefix}."))
    )
    return next(above, prefixes[0])


def _separate_student(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Write a network that holds its own average below ``_ema`` as two parts beside each other.

    >>> _separate_student({"norm.bias": 0, "_ema.norm.bias": 1})
    {'student.norm.bias': 0, '_ema.norm.bias': 1}
    """
    if not any(name.startswith("_ema.") for name in arrays):
        return dict(arrays)
    return {name if name.startswith("_ema.") else f"student.{name}": array for name, array in arrays.items()}


def _is_head(name: str) -> bool:
    top = name.split(".")[0]
    return top in HEADS or top.startswith("decoder_")


def _head_name(name: str) -> str:
    """Take wrappers off the name of a head.

    >>> _head_name("predictor.module.blocks.0.bias")
    'predictor.blocks.0.bias'
    """
    top, *rest = name.split(".")
    while rest[1:] and rest[0] in ("module", "backbone"):
        rest = rest[1:]
    return ".".join([top, *rest])


def _tidy(name: str) -> str:
    """Write a name without the wrappers of PyTorch inside it, and weights of a norm and a direction as they were called before.

    >>> _tidy("blocks.0._orig_mod.norm1.bias"), _tidy("head.parametrizations.weight.original0")
    ('blocks.0.norm1.bias', 'head.weight_g')
    """
    name = ".".join(part for part in name.split(".") if part not in INNER)
    for old, new in (("original0", "weight_g"), ("original1", "weight_v")):
        name = name.replace(f"parametrizations.weight.{old}", new)
    return name


def _join_chunks(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Number blocks through that were stored in chunks.

    >>> _join_chunks({"blocks.1.13.norm1.bias": 0, "norm.bias": 1})
    {'blocks.13.norm1.bias': 0, 'norm.bias': 1}
    """
    blocks = [name for name in arrays if name.startswith("blocks.")]
    if not blocks or not all(CHUNKED.match(name) for name in blocks):
        return dict(arrays)
    return {CHUNKED.sub(r"blocks.\1.", name): array for name, array in arrays.items()}
