"""Encoders by name, to be measured and used: runs, files, hubs."""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import interop
from ssl_jax.augment.host import prepare_for_evaluation
from ssl_jax.augment.views import View
from ssl_jax.cli.launch import parse_folders
from ssl_jax.config import weights
from ssl_jax.config.build import Config
from ssl_jax.config.make import DATA_DEFAULTS, EVALUATION, find_test_split, probe_splits
from ssl_jax.core.check import require
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import Source
from ssl_jax.data.statistics import channel_statistics
from ssl_jax.evaluate.encoder import encoder_method
from ssl_jax.evaluate.measure import BASELINE, Candidate
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.models.build import merge_lora
from ssl_jax.models.channels import change_channels


class NamedEncoder(NamedTuple):
    """An encoder that was loaded by its name, ready for images of some number of channels.

    Attributes:
      candidate: with a method that only encodes, in whose view size and normalisation stand.
      preprocessing: what becomes of an image: what its file says, at the size and for the channels that were asked for.
      provenance: where it comes from.
      file_size: height and width of images that its file asks for.
    """

    candidate: Candidate
    preprocessing: Preprocessing
    provenance: dict[str, Any]
    file_size: tuple[int, int]

    @property
    def crop_ratio(self) -> float:
        """Share of each side that the central crop keeps, for baselines that see the images in the loader's own resize."""
        return self.preprocessing.as_view()[1]


def parse_encoders(name: str, values: Sequence[str] | None) -> list[str]:
    """Return the names of a flag that takes folders of runs and names of encoders, and is repeated for several.

    >>> parse_encoders("beside", ["runs/a=1,b=2", "timm:vit_small_patch14_dinov2", ""])
    ['runs/a=1,b=2', 'timm:vit_small_patch14_dinov2']
    """
    return [
        value if value.startswith(("hf:", "timm:")) else str(parse_folders(name, [value])[0])
        for value in values or []
        if value
    ]


def load_encoder(name: str, images: Source, *, size: int | None = None) -> NamedEncoder:
    """Load an encoder by name, for images of this number of channels.

    Args:
      name: see :func:`ssl_jax.interop.load_pretrained`.
      images: some of those that it will see; the mean and deviation of their pixels are measured where the file cannot know
        them, see :func:`ssl_jax.config.weights.normalization`.
      size: side of the images in pixels; ``None``: that of the file.

    Raises:
      ValueError: no such encoder, or a size that it cannot take.
    """
    loaded = interop.load_pretrained(name)
    network, params, state = merge_lora(loaded.network, loaded.params, loaded.state)
    preprocessing, config = loaded.preprocessing, network.config
    if size is None:
        size = max(preprocessing.size)
        size = size if len(set(preprocessing.size)) == 1 else weights.whole_patches(size, config)
    whole = weights.whole_patches(size, config)
    require(size == whole, "size", size, f"a multiple of the patch of {name}, {config.get('patch')}")
    known = preprocessing.mean, preprocessing.std
    mean, std = weights.normalization(known, images.channels, lambda: channel_statistics(images))
    params, state = change_channels(network, params, state, channels=images.channels)
    image = jax.ShapeDtypeStruct((1, size, size, images.channels), jnp.float32)
    jax.eval_shape(network.apply, params, state, image)
    method = encoder_method(network, View(size=size, mean=mean, std=std))
    seen = preprocessing.with_size((size, size))._replace(mean=mean, std=std)
    trained_here = loaded.provenance.get("family") == "ssl_jax" and loaded.provenance.get("step") != 0
    as_evaluated = functools.partial(prepare_for_evaluation, size=size, ratio=seen.as_view()[1])
    preprocess = as_evaluated if trained_here else seen.crop
    candidate = Candidate(name, "encoder", method, params, state, preprocess)
    return NamedEncoder(candidate, seen, dict(loaded.provenance), preprocessing.size)


def random_encoder(encoder: Candidate, images: Source) -> Candidate:
    """Make the encoder with random weights in place of those of a file.

    Args:
      encoder: that of the file.
      images: of the same number of channels as it sees.
    """
    size, network = encoder.method.views[0].size, encoder.method.encoder
    image = jax.ShapeDtypeStruct((1, size, size, images.channels), jnp.float32)
    variables = jax.jit(lambda key: network.init(key, image))(jax.random.key(0))
    params, state = jax.tree.map(np.asarray, variables)
    return encoder._replace(name="random encoder", role=BASELINE, params=params, state=state)


def describe_encoder(encoder: NamedEncoder) -> str:
    """Say what becomes of an image before an encoder sees it, and in what this differs from the file's own words."""
    candidate, seen = encoder.candidate, encoder.preprocessing
    size = seen.size[0]
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (seen.mean, seen.std))
    family = encoder.provenance.get("family", "encoder")
    said = (
        f"{candidate.name} ({family}): images to {size} pixels ({seen.resize}, the central {100 * seen.crop_ratio:.3g} %, "
        f"{seen.interpolation}); mean {mean}, std {std}"
    )
    own = "x".join(map(str, encoder.file_size))
    return said if encoder.file_size == (size, size) else f"{said}; the file asks for {own} pixels"


def config_without_run(source: str, splits: tuple[str | None, str | None], channels: int | None) -> Config:
    """Make the parts of a config that images and measures need, where there is no run that has one.

    Args:
      source: images, as :func:`ssl_jax.data.open.open_source` takes them.
      splits: splits of the training and the test images; ``None``: as a new run would choose them.
      channels: of the images, where the kind of source can convert; ``None``: as they are.

    Raises:
      ValueError: images that cannot be opened.
    """
    train, test = splits[0] or "train", splits[1]
    if test is None:
        opened = open_source(source, train)
        train, test = probe_splits(train, find_test_split(getattr(opened, "splits", ())))
    data = {**DATA_DEFAULTS, "source": source, "split": train, "channels": channels}
    evaluate = {**EVALUATION, "train_split": train, "test_split": test, "crop_ratio": 1.0}
    return {"data": data, "watch": {"evaluate": evaluate}}


def file_stem(name: str) -> str:
    """Turn the name of an encoder into a part of a file's name.

    >>> file_stem("hf:facebook/dinov2-small@main"), file_stem("weights/vit.safetensors")
    ('dinov2-small-main', 'vit')
    """
    last = name.rstrip("/").split("/")[-1].split(":")[-1]
    return (
        re.sub(r"[^\w.-]+", "-", re.sub(r"\.(safetensors|npz|pth|pt|bin|tar)$", "", last)).strip("-")
        or "encoder"
    )
