"""Frozen features of patches: maps of images of any size, a few images at a time."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.augment.views import View, normalize_for_evaluation
from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Params, State
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.sources import CorruptImage, Source
from ssl_jax.evaluate.dense.framing import Framed, Framing, frame_image, tile_starts
from ssl_jax.evaluate.measure import Candidate
from ssl_jax.models.network import Network, grid_of, prefix_of

PENDING = 8
"""Batches of images of different sizes that wait at most."""
_LOOK = 256  # side of an image by which the stride of a map is found


def patch_features(network: Network, params: Params, state: State, images: Array) -> Array:
    """Compute the features of the patches of images, float32 ``[n, rows, columns, d]``; may be traced.

    A ViT's patch tokens after its last normalization, without class token and registers; a CNN's last map.

    Args:
      network: an encoder with ``output="tokens"``: tokens of a ViT, or a map.
      params: its params.
      state: its state.
      images: normalised images ``[n, h, w, c]``.

    Raises:
      ValueError: an encoder without any.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models import build
    >>> network, images = build("convnet", widths=(4,), grid=1), jnp.zeros((2, 8, 12, 3))
    >>> patch_features(network, *network.init(jax.random.key(0), images), images).shape
    (2, 4, 6, 4)
    """
    return _as_map(network, _outputs(network, params, state, images, "tokens"), images)


def layer_features(network: Network, params: Params, state: State, images: Array, *, layers: int) -> Array:
    """Compute the features of patches in the last layers together, float32 ``[n, rows, columns, Σ d]``; may be traced.

    Of a ViT the patch tokens after each of the last blocks, of a CNN the maps after its last stages, as they leave the layer,
    not normalized. Coarser maps are resized (bilinear) to the finest.

    Args:
      network: an encoder with ``output="layers"``.
      params: its params.
      state: its state.
      images: normalised images ``[n, h, w, c]``.
      layers: number of layers, 1 or more; at most those that the encoder has are taken.

    Raises:
      ValueError: an encoder without any.

    >>> from ssl_jax.models import build
    >>> network, images = build("convnet", widths=(4, 6), grid=1), jnp.zeros((2, 8, 12, 3))
    >>> layer_features(network, *network.init(jax.random.key(0), images), images, layers=2).shape
    (2, 4, 6, 10)
    """
    outputs = _outputs(network, params, state, images, "layers")
    maps = [_as_map(network, output, images) for output in list(outputs.values())[-layers:]]
    rows, columns = (max(part.shape[axis] for part in maps) for axis in (1, 2))
    shapes = [(len(images), rows, columns, part.shape[-1]) for part in maps]
    resized = [jax.image.resize(part, shape, "linear") for part, shape in zip(maps, shapes, strict=True)]
    return jnp.concatenate(resized, axis=-1)


def _outputs(network: Network, params: Params, state: State, images: Array, output: str) -> Any:
    try:
        return network.apply(params, state, images, train=False, output=output)[0]
    except ValueError as error:
        if f"output='{output}'" not in str(error):
            raise
        raise ValueError(_without(network)) from error


def _without(network: Network) -> str:
    return f"{network.config.get('name')} has no features of patches, as ViTs and CNNs have"


def _as_map(network: Network, outputs: Array, images: Array) -> Array:
    if outputs.ndim == 4:
        return at_least_float32(outputs)
    if "class_token" not in network.config:
        raise ValueError(_without(network))
    tokens = outputs[:, prefix_of(network) :]
    return at_least_float32(tokens.reshape(len(tokens), *grid_of(network, images), -1))


class MapEncoder(NamedTuple):
    """What turns images into maps of features.

    Attributes:
      apply: ``images [n, h, w, c] -> [n, h / stride, w / stride, dims]``, of images as they are stored, uint8, uint16 or float
        in [0, 1], whose sides are multiples of the stride; compiled once for each shape.
      stride: pixels between the centers of neighboring features: the side of a patch.
      dims: features of a patch.
    """

    apply: Callable[[Any], Array]
    stride: int
    dims: int


def candidate_maps(candidate: Candidate, *, channels: int, layers: int = 1) -> MapEncoder:
    """Make the encoder of maps of a candidate: its patch features, or with ``layers`` above 1 :func:`layer_features`.

    Args:
      candidate: encoder with its weights; mean and deviation of its first view normalise the images.
      channels: of the images.
      layers: number of last layers.

    Raises:
      ValueError: an encoder without features of patches, or layers below 1.
    """
    check.require(layers >= 1, "layers", layers, "an integer of 1 or more")
    method = candidate.method
    network, variables = method.encoder, method.encoder_variables(candidate.params, candidate.state)
    view = method.views[0]
    last = make_map_encoder(functools.partial(patch_features, network), variables, view, network, channels)
    if layers == 1:
        return last
    features = functools.partial(layer_features, network, layers=layers)
    return make_map_encoder(features, variables, view, network, channels)


def make_map_encoder(
    features: Callable[..., Array], variables: tuple[Any, ...], view: View, network: Network, channels: int
) -> MapEncoder:
    """Make an encoder of maps of a function ``(*variables, normalised images) -> maps``.

    Args:
      features: gives the maps.
      variables: params and state, as arguments of the compiled program.
      view: mean and deviation.
      network: encoder, of whose config ``patch`` is read where it has tokens.
      channels: of the images.
    """

    @jax.jit
    def compute(variables: tuple[Any, ...], images: Array) -> Array:
        return features(*variables, normalize_for_evaluation(images, view))

    patch = int(network.config.get("patch", 1)) if "class_token" in network.config else 1
    side = -(-_LOOK // patch) * patch
    image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    shape = jax.eval_shape(compute, variables, image).shape
    return MapEncoder(functools.partial(compute, variables), round(side / shape[1]), shape[-1])


def pixel_maps(view: View, *, channels: int, patch: int = 8) -> MapEncoder:
    """Make the baseline: the normalised pixels of each patch, ``patch² · channels`` numbers.

    >>> pixel_maps(View(), channels=3, patch=4).apply(np.zeros((2, 8, 12, 3), np.uint8)).shape
    (2, 2, 3, 48)
    """
    check.require(patch >= 1, "patch", patch, "an integer of 1 or more")

    @jax.jit
    def compute(images: Array) -> Array:
        inputs = normalize_for_evaluation(images, view)
        n, height, width, _ = inputs.shape
        split = inputs.reshape(n, height // patch, patch, width // patch, patch, channels)
        return jnp.moveaxis(split, 3, 2).reshape(n, height // patch, width // patch, -1)

    return MapEncoder(compute, patch, patch * patch * channels)


class ImageMap(NamedTuple):
    """Features of the patches of one image.

    Attributes:
      index: position of the image in its source.
      features: float32 ``[rows, columns, dims]``; row 0 is the top.
      covered: shares of rows and columns that show the image.
      element: what the source has of it, such as its ``target``.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index
    features: np.ndarray
    covered: tuple[float, float]
    element: dict[str, Any]


def map_features(
    encoder: MapEncoder,
    source: Source,
    *,
    framing: Framing = Framing(),  # noqa: B008 (a tuple)
    batch_size: int = 16,
    indices: Iterable[int] | None = None,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> Iterator[ImageMap]:
    """Encode the images of a source, a few at a time: memory does not grow with their number.

    Images of one size are encoded together, so that maps come in another order than the images; ``index`` says which each is.
    At most ``PENDING · batch_size`` images wait at a time. Each size compiles a program of its own.

    Args:
      encoder: gives the maps.
      source: images, perhaps with a target.
      framing: how they become inputs.
      batch_size: images at a time.
      indices: positions of those to encode; ``None``: all.
      max_corrupt_fraction: share of unreadable images above which it ends with an error.

    Yields:
      A map for each readable image.

    Raises:
      ValueError: an argument out of range, or too many images that cannot be read.

    >>> from ssl_jax.data.sources import ArraySource
    >>> source = ArraySource(np.zeros((3, 20, 30, 3), np.uint8))
    >>> [found.features.shape for found in map_features(pixel_maps(View(), channels=3), source)]
    [(2, 4, 192), (2, 4, 192), (2, 4, 192)]
    """
    check.require(batch_size >= 1, "batch_size", batch_size, "an integer of 1 or more")
    framing.require_valid(encoder.stride)
    waiting: dict[tuple[Any, ...], list[tuple[int, Framed, dict[str, Any]]]] = {}
    corrupt: list[CorruptImage] = []
    positions = range(len(source)) if indices is None else list(indices)
    for index in positions:
        try:
            element = dict(source[index])
        except CorruptImage as error:
            corrupt.append(error)
            continue
        framed = frame_image(element.pop("image"), encoder.stride, framing)
        if math.prod(framed.image.shape[:2]) > framing.tile**2:
            features = _in_tiles(encoder, framed.image, framing)
            yield ImageMap(index, features, framed.covered, element)
            continue
        alike = waiting.setdefault((framed.image.shape, framed.image.dtype), [])
        alike.append((index, framed, element))
        full = max(waiting, key=lambda key: len(waiting[key]))
        if len(waiting[full]) == batch_size or sum(map(len, waiting.values())) == PENDING * batch_size:
            yield from _encode(encoder, waiting.pop(full), batch_size)
    for rows in waiting.values():
        yield from _encode(encoder, rows, batch_size)
    if corrupt and len(corrupt) > max_corrupt_fraction * len(positions):
        raise ValueError(
            f"{source.name}: {len(corrupt)} of {len(positions)} images or masks cannot be read, more than "
            f"max_corrupt_fraction={max_corrupt_fraction:g}: {corrupt[0]}"
        )


def _encode(
    encoder: MapEncoder, rows: Sequence[tuple[int, Framed, dict[str, Any]]], batch_size: int
) -> Iterator[ImageMap]:
    """Encode images of one shape, filled up to a power of two, so that few sizes of a batch are compiled."""
    images = [framed.image for _, framed, _ in rows]
    filled = min(1 << (len(images) - 1).bit_length(), batch_size)
    maps = np.asarray(encoder.apply(np.stack([*images, *[images[-1]] * (filled - len(images))])))
    for features, (index, framed, element) in zip(maps[: len(images)], rows, strict=True):
        yield ImageMap(index, features, framed.covered, element)


def _in_tiles(
    encoder: MapEncoder, image: np.ndarray, framing: Framing
) -> Float[np.ndarray, "rows columns d"]:
    """Encode an image tile by tile; features of places that several tiles see are averaged."""
    stride, sides = encoder.stride, image.shape[:2]
    tile = framing.tile // stride
    grid = [side // stride for side in sides]
    sums = np.zeros((*grid, encoder.dims), np.float32)
    counts = np.zeros((*grid, 1), np.float32)
    starts = [tile_starts(length, tile, framing.overlap) for length in grid]
    for top, left in itertools.product(*starts):
        height, width = min(tile, grid[0]), min(tile, grid[1])
        part = image[top * stride : (top + height) * stride, left * stride : (left + width) * stride]
        place = slice(top, top + height), slice(left, left + width)
        sums[place] += np.asarray(encoder.apply(part[None]))[0]
        counts[place] += 1
    return sums / counts


def upsampling_matrix(cells: int, pixels: int, covered: float = 1.0) -> Float[np.ndarray, "{pixels} {cells}"]:
    """Make the matrix that interpolates a line of features at the centers of pixels, linearly, constant beyond the outer cells.

    Pixel i of n lies at ``(i + ½) / n · cells · covered − ½`` in units of cells (half-pixel centers, ``align_corners=False``).

    Args:
      cells: features of the line.
      pixels: pixels of the line.
      covered: share of the cells that show the pixels.

    >>> upsampling_matrix(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    position = np.clip((np.arange(pixels) + 0.5) / pixels * cells * covered - 0.5, 0, cells - 1)
    low = np.minimum(position.astype(int), max(cells - 2, 0))
    matrix = np.zeros((pixels, cells), np.float32)
    matrix[np.arange(pixels), low] = 1 - (position - low)
    if cells > 1:
        matrix[np.arange(pixels), low + 1] = position - low
    return matrix


def upsample(
    values: Float[np.ndarray, "rows columns k"],
    shape: tuple[int, int],
    covered: tuple[float, float] = (1.0, 1.0),
) -> Float[np.ndarray, "h w k"]:
    """Interpolate a map bilinearly at the pixels of an image, see :func:`upsampling_matrix`.

    >>> upsample(np.array([[[0.0], [1.0]]]), (1, 4))[0, :, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    rows, columns, depth = values.shape
    down = upsampling_matrix(rows, shape[0], covered[0])
    across = upsampling_matrix(columns, shape[1], covered[1])
    tall = (down @ values.reshape(rows, -1).astype(np.float32)).reshape(shape[0], columns, depth)
    return across @ tall


def cells_of_pixels(cells: int, pixels: int, covered: float = 1.0) -> Shaped[np.ndarray, " {pixels}"]:
    """Find the cell in which each pixel of a line lies: ``⌊(i + ½) / n · cells · covered⌋``.

    >>> cells_of_pixels(2, 5).tolist()
    [0, 0, 1, 1, 1]
    """
    position = (np.arange(pixels) + 0.5) / pixels * cells * covered
    return np.minimum(position.astype(int), cells - 1)
