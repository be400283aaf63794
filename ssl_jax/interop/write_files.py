"""What the formats of all libraries share on the way out: the encoder, its torch model, the folder of a format."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from ssl_jax.core import trees
from ssl_jax.core.check import require
from ssl_jax.core.files import write_atomically
from ssl_jax.core.types import Params, State
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.models.build import BUILDERS, build, merge_lora
from ssl_jax.models.network import Network
from ssl_jax.models.positions import resize_table, sincos_table

KINDS = ("vit", "resnet", "convnext")
"""Encoders that other libraries have too, by how their names begin."""
TRAINING_ONLY = (
    "name",
    "drop_path",
    "drop_path_kind",
    "drop_path_uniform",
    "dtype",
    "freeze_patch",
    "init",
    "mask_token",
    "remat",
    "remat_keeps",
    "rope_jitter",
    "rope_rescale",
    "rope_shift",
    "zero_init_residual",
)
"""Options without effect on the features of a trained encoder in float32."""
WEIGHTS = "model.safetensors"


class Encoder(NamedTuple):
    """An encoder on its way out.

    Attributes:
      network: from ``models.build``, without LoRA.
      params: its params.
      state: its state.
      preprocessing: what it expects of a picture.
      license: of the weights, as the Hugging Face hub names licences.
    """

    network: Network
    params: Params
    state: State
    preprocessing: Preprocessing
    license: str = "unknown"

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return len(self.preprocessing.mean)


class TorchModel(NamedTuple):
    """A model of a torch library.

    Attributes:
      architecture: name by which the library builds it.
      options: of that architecture; JSON-able.
      arrays: its ``state_dict``, all of it.
    """

    architecture: str
    options: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Target(NamedTuple):
    """A format to export to.

    Attributes:
      check: raises ValueError where the format cannot express an encoder, ImportError where a library is missing.
      write: writes the files of an encoder into a folder, and returns how to use them: lines of Python for the model card.
    """

    check: Callable[[Encoder], object]
    write: Callable[[Encoder, Path], str]


def encoder_of(
    network: Network, params: Params, state: State, preprocessing: Preprocessing, *, license: str = "unknown"
) -> Encoder:
    """Make an encoder ready to leave: LoRA's matrices merged.

    Args:
      network: from ``models.build``.
      params: its params.
      state: its state.
      preprocessing: what it expects of a picture; one number of ``mean`` for each channel.
      license: of the weights.
    """
    return Encoder(*merge_lora(network, params, state), preprocessing, license)


def kind_of(network: Network) -> str:
    """Name the kind of a network, one of :data:`KINDS`; ``""`` for one that other libraries do not have.

    >>> kind_of(build("resnet18")), kind_of(build("convnet"))
    ('resnet', '')
    """
    name = network.config.get("name", "")
    return next((kind for kind in KINDS if name.startswith(kind)), "")


def refuse_options(encoder: Encoder, known: Mapping[str, tuple[Any, ...] | None], *, library: str) -> None:
    """Refuse an encoder with an option that a library cannot express.

    Args:
      encoder: to be written.
      known: options that it can express, with the values that it can; ``None``: any value. All others must have the values
        that ``models.build`` gives them, but for those that matter in training only (:data:`TRAINING_ONLY`).
      library: for the error.

    Raises:
      ValueError: names the first option that does not fit.

    >>> from ssl_jax.interop.preprocessing import Preprocessing
    >>> encoder = Encoder(build("resnet18", sobel=True), {}, {}, Preprocessing((32, 32)))
    >>> refuse_options(encoder, {"width": None}, library="timm")
    Traceback (most recent call last):
    ...
    ValueError: timm has no resnet18 with sobel=True: allowed is False
    """
    config = encoder.network.config
    usual = BUILDERS[config["name"]]().config
    for option, value in config.items():
        if option in TRAINING_ONLY:
            continue
        allowed = known.get(option, ()) if option in known else (usual.get(option),)
        if allowed is not None and value not in allowed:
            values = " or ".join(repr(v) for v in allowed)
            raise ValueError(
                f"{library} has no {config['name']} with {option}={value!r}: allowed is {values}"
            )


def require_kind(encoder: Encoder, kinds: Mapping[str, Any], *, library: str) -> str:
    """Return the kind of an encoder, which is one of those that a library has.

    Raises:
      ValueError: names the encoder, and what it can be exported to.
    """
    kind, name = kind_of(encoder.network), encoder.network.config.get("name")
    if kind not in kinds:
        raise ValueError(f"{library} has no {name}: export it to ssl_jax or stablehlo")
    return kind


def require_three_channels(encoder: Encoder, *, library: str) -> None:
    """Refuse an encoder of other images than those of a library.

    Raises:
      ValueError: not 3 channels.
    """
    require(
        encoder.channels == 3, "channels", encoder.channels, f"3 with {library}, whose models know no other"
    )


def write_arrays(arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write ``model.safetensors``, with the counters that torch's BatchNorm wants (0)."""
    counters = {
        f"{name.removesuffix('running_mean')}num_batches_tracked": np.zeros((), np.int64)
        for name in arrays
        if name.endswith("running_mean")
    }
    packed = {name: np.array(array, order="C") for name, array in {**counters, **arrays}.items()}
    write_atomically(folder / WEIGHTS, safetensors.numpy.save(packed, {"format": "pt"}))


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def settled(encoder: Encoder) -> Encoder:
    """Turn what an encoder computes from its options into arrays, so that libraries without these options have its features.

    A position table of a ViT for another grid than that of ``preprocessing.size`` is interpolated once, as the network does it
    at that size (``position_resize``): other libraries interpolate in other ways. Biases of keys without effect
    (``key_bias=False``) become 0.

    Args:
      encoder: to be written; other encoders than ViTs are returned as they are.

    Raises:
      ValueError: a size that is no square of whole patches, or relative positions for another.
    """
    return _without_key_bias(_at_size(encoder)) if kind_of(encoder.network) == "vit" else encoder


def _at_size(encoder: Encoder) -> Encoder:
    config, size = encoder.network.config, encoder.preprocessing.size
    side, patch = config["image_size"], config["patch"]
    if size == (side, side):
        return encoder
    fits = size[0] == size[1] and size[0] % patch == 0
    require(fits, "preprocessing.size", size, f"a square whose side is a multiple of the patch, {patch}")
    if config["position"] == "relative":
        raise ValueError(
            f"preprocessing.size={size}: allowed is {(side, side)}, that of the relative positions"
        )
    params: Params = dict(encoder.params)
    changes: dict[str, Any] = {"image_size": size[0]}
    if config["position"] in ("learned", "sincos"):
        before, after = ((s // patch, s // patch) for s in (side, size[0]))
        table = params.get("pos_embed")
        if table is None:
            table = jnp.asarray(sincos_table(*before, config["width"]), jnp.float32)[None]
        resize = config["position_resize"]
        params["pos_embed"] = resize_table(table[0], source=before, target=after, resize=resize)[None]
        changes["position"] = "learned"
    return encoder._replace(network=build(**{**config, **changes}), params=params)


def _without_key_bias(encoder: Encoder) -> Encoder:
    config = encoder.network.config
    if config["key_bias"] or config["position"] == "rope":
        return encoder  # rotary models of other libraries have no bias there either

    def clear(path: str, leaf: Any) -> Any:
        rows = np.arange(np.size(leaf)) // config["width"] != 1
        return jnp.where(rows, leaf, 0.0) if path.endswith("qkv/bias") else leaf

    network = build(**{**config, "key_bias": True})
    return encoder._replace(network=network, params=trees.map_with_path(clear, encoder.params))
