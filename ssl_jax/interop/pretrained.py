"""A network from the weights of others: a file, the Hugging Face hub or timm."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_jax.core.bucket import is_bucket, to_path
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Params, State
from ssl_jax.interop import (
    beit,
    big_vision,
    clip,
    convnext,
    dinov3,
    google_resnet,
    huggingface_vit,
    meta_vit,
    resnet,
    siglip,
    timm_vit,
)
from ssl_jax.interop.family import Family, convert, recognize
from ssl_jax.interop.hub import read_from_hub, read_from_timm
from ssl_jax.interop.preprocessing import Preprocessing, preprocessing_from_fields
from ssl_jax.interop.weights import POOL_KEY, file_hash, read_header, read_weights
from ssl_jax.models.network import Network
from ssl_jax.models.serialize import FORMAT, load_encoder

FAMILIES: tuple[Family, ...] = (
    *dinov3.FAMILIES,
    *beit.FAMILIES,
    *meta_vit.FAMILIES,
    *huggingface_vit.FAMILIES,
    *clip.FAMILIES,
    *siglip.FAMILIES,
    *big_vision.FAMILIES,
    *convnext.FAMILIES,
    *resnet.FAMILIES,
    *google_resnet.FAMILIES,
    *timm_vit.FAMILIES,
)
"""Of several that fit a file the first counts: the plainest names come last."""


OWN = "encoder.safetensors"
"""File that ``experiments.export`` writes."""


class Pretrained(NamedTuple):
    """An encoder with the weights that somebody trained.

    Attributes:
      network: from ``models.build``; ``network.config`` says how to build it again.
      params: its params, float32.
      state: its state.
      preprocessing: what it expects of a picture.
      provenance: where it comes from: ``name``, ``family``, and what :class:`ssl_jax.interop.family.Weights` says.
      heads: ``(params, state)`` of what else the file holds, by our methods' names.
    """

    network: Network
    params: Params
    state: State
    preprocessing: Preprocessing
    provenance: Mapping[str, Any]
    heads: Mapping[str, tuple[Params, State]] = {}


def load_pretrained(name: str, **architecture: Any) -> Pretrained:
    """Load an encoder by name.

    Nothing in a file is executed, and nothing but the caches of the hub is written.

    Args:
      name: a file of weights (``.safetensors``, ``.npz``, or what PyTorch saves, with PyTorch) or a folder as the Hugging Face
        hub has them; ``hf:owner/name``, with ``@revision`` for a branch, tag or commit and ``/file`` for one file of several;
        ``timm:model``; the folder of a run of ssl_jax, or what ``experiments.export`` wrote. ``#part`` at the end takes another
        network of a training checkpoint than the one that its authors evaluate, as in ``checkpoint.pth#student``.
      **architecture: options of the encoder that neither shapes nor facts beside the file say, such as ``heads=2`` of a ViT or
        ``pool="mean"``; they count more than what the file's family assumes.

    Raises:
      ValueError: no such file, or one that is not understood; an option that the encoder does not have; says why.
      ImportError: a format or hub that needs a package which is missing; names the extra.

    >>> import tempfile, jax, jax.numpy as jnp, numpy as np
    >>> import safetensors.numpy
    >>> from ssl_jax import models
    >>> from ssl_jax.models.torch_names_vit import vit_to_torch
    >>> network = models.build("vit_micro", width=16, depth=1, heads=2, patch=4, image_size=8)
    >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     safetensors.numpy.save_file(vit_to_torch(*variables, network), f"{folder}/vit.safetensors")
    ...     loaded = load_pretrained(f"{folder}/vit.safetensors", heads=2)
    >>> loaded.network.features, loaded.provenance["family"]
    (16, 'timm ViT')
    >>> picture = loaded.preprocessing.apply(np.zeros((20, 30, 3), np.uint8))
    >>> loaded.network.apply(loaded.params, loaded.state, picture[None])[0].shape
    (1, 16)
    """
    file, part = split_part(name)
    loaded = None if file.startswith(("hf:", "timm:")) else _load_own(to_path(file), name)
    if loaded is not None:
        require(part is None, "name", name, f"{file!r}: it has one network and no parts")
        require(not architecture, "architecture", architecture, "nothing: files of ssl_jax say what they are")
        return loaded
    if file.startswith("hf:"):
        weights = read_from_hub(file, part=part)
    elif file.startswith("timm:"):
        weights = read_from_timm(file, part=part)
    else:
        weights = read_weights(file, part=part)
    said = weights.metadata.get("config") or {}
    if said.get(POOL_KEY):
        architecture = {"pool": said[POOL_KEY], **architecture}
    weights = weights._replace(metadata={**weights.metadata, "architecture": architecture})
    family = recognize(weights.arrays, FAMILIES, source=name)
    converted = convert(weights, family, source=name)
    config = converted.network.config
    for option, value in architecture.items():
        choice("option", option, [key for key in config if key != "name"])
        require(config[option] == value, option, value, f"{config[option]!r} in {name} ({family.name})")
    provenance = {**weights.provenance, "name": name, "family": family.name}
    return Pretrained(*converted[:4], provenance, converted.heads)


def split_part(name: str) -> tuple[str, str | None]:
    """Split ``name#part``; a file whose own name has a ``#`` is that file.

    >>> split_part("checkpoint.pth#student"), split_part("hf:owner/name")
    (('checkpoint.pth', 'student'), ('hf:owner/name', None))
    """
    file, mark, part = name.rpartition("#")
    if not mark or is_bucket(name) or Path(name).exists():
        return name, None
    require(bool(file and part), "name", name, "NAME#PART, such as checkpoint.pth#student")
    return file, part


def _load_own(path: Path, name: str) -> Pretrained | None:
    """Load what ssl_jax wrote: the folder of a run, an exported encoder; ``None`` for all else."""
    if (path / "checkpoints").is_dir():
        return _load_run(path, name)
    require(not is_bucket(path), "name", name, "a run, or a path of this file system: there is no run in it")
    file = path / OWN if (path / OWN).is_file() else path
    if not file.is_file() or read_header(file).get("format") != FORMAT:
        return None
    network, params, state, facts = load_encoder(file)
    height, width, channels = facts.get("image_shape", (224, 224, 3))
    mean, std = (tuple(facts.get(key, ())) or (neutral,) for key, neutral in (("mean", 0.0), ("std", 1.0)))
    if isinstance(facts.get("preprocessing"), Mapping):
        preprocessing = preprocessing_from_fields(facts["preprocessing"])
    else:
        preprocessing = _as_evaluated((height, width), mean, std, channels, facts.get("crop_ratio", 1.0))
    hashed = {"file": str(file), "sha256": file_hash([file])}
    return Pretrained(
        network, params, state, preprocessing, {**facts, "name": name, "family": "ssl_jax", **hashed}
    )


def _load_run(workdir: Path, name: str) -> Pretrained:
    """Restore the encoder of a run, that which its method evaluates."""
    # The layer of configs lies above this one: it is found by name, as methods are.
    restore = importlib.import_module("ssl_jax.config.build").restore
    config, method, model = restore(workdir, "latest")
    view, channels = method.views[0], config["data"]["channels"]
    crop_ratio = config["watch"]["evaluate"]["crop_ratio"]
    preprocessing = _as_evaluated(
        (view.size, view.size), view.mean or (0.0,), view.std or (1.0,), channels, crop_ratio
    )
    params, state = method.encoder_variables(model.params, model.state)
    facts = {"method": config["method"]["name"], "step": model.step}
    return Pretrained(
        method.encoder, params, state, preprocessing, {"name": name, "family": "ssl_jax", **facts}
    )


def _as_evaluated(
    size: tuple[int, int], mean: Sequence[float], std: Sequence[float], channels: int, crop_ratio: float
) -> Preprocessing:
    """Return the preprocessing of our own evaluation; a single number of mean and std is that of every channel."""
    mean, std = (tuple(v) * channels if len(v) == 1 else tuple(v) for v in (mean, std))
    ratio = size[0] / round(size[0] / crop_ratio)
    return Preprocessing(size, "short", ratio, "bicubic", mean, std)
