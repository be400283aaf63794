"""Clean views, crops and maps of methods that predict an image's bag of visual words: BoWNet, OBoW."""

from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Batch, Params, State
from ssl_jax.losses.bag_of_words import crop_border
from ssl_jax.models.network import Network


def require_crops(views: tuple[View, ...]) -> None:
    """Raise a ValueError unless views hold a clean one and crops."""
    require(len(views) >= 2, "views", len(views), "the clean view and one crop or more")


def split_clean(batch: Batch) -> tuple[Array, list[Array]]:
    """Return the clean view ``[b, h, w, c]``, which is the first, and the crops, an array ``[b, v, h, w, c]`` a size."""
    first, *others = batch["views"]
    return first[:, 0], [first[:, 1:], *others] if first.shape[1] > 1 else others


def require_maps(encoder: Network) -> None:
    """Raise a ValueError unless the layers of an encoder are maps, from which local features can be read."""
    name = str(encoder.config.get("name", ""))
    require(
        not name.startswith("vit"), "encoder", name, "a convolutional network: words are read from its maps"
    )


def read_maps(
    network: Network, params: Params, state: State, images: Array, *, levels: int, border: int, train: bool
) -> tuple[list[Array], State]:
    """Compute the last ``levels`` maps of an encoder, the last one first, without their border: float32 ``[b, h, w, c]``.

    Raises:
      ValueError: more levels than the encoder has maps, or a border that leaves nothing of one.
    """
    layers, state = network.apply(params, state, images, train=train, output="layers")
    require(1 <= levels <= len(layers), "levels", levels, f"1 to {len(layers)}, the maps of the encoder")
    maps = list(layers.values())[: -levels - 1 : -1]
    return [crop_border(at_least_float32(x), border) for x in maps], state
