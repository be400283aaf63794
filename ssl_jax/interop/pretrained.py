"""A network from the weights of others: a file, the Hugging Face hub or timm."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ssl_jax.core.types import Params, State
from ssl_jax.interop import big_vision, clip, huggingface_vit, meta_vit, siglip, timm_vit
from ssl_jax.interop.family import Family, recognize
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.interop.weights import read_weights
from ssl_jax.models.network import Network

FAMILIES: tuple[Family, ...] = (
    *meta_vit.FAMILIES,
    *huggingface_vit.FAMILIES,
    *clip.FAMILIES,
    *siglip.FAMILIES,
    *big_vision.FAMILIES,
    *timm_vit.FAMILIES,
)
"""Of several that fit a file the first counts: the plainest names come last."""


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


def load_pretrained(name: str) -> Pretrained:
    """Load an encoder by name.

    Args:
      name: a file (``.safetensors``, ``.npz``, ``.pth``), ``hf:owner/name[@revision]`` or ``timm:name``.

    Raises:
      ValueError: no such file, or one that is not understood; says why.
    """
    weights = read_weights(name)
    family = recognize(weights.arrays, FAMILIES, source=name)
    converted = family.convert(weights)
    provenance = {**weights.provenance, "family": family.name}
    network, params, state, preprocessing, heads = converted
    return Pretrained(network, params, state, preprocessing, provenance, heads)
