"""Which transformation was applied to an image: how well a linear classifier reads it off frozen features."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.augment.blur import gaussian_blur
from ssl_jax.augment.color import grayscale, normalize, unnormalize
from ssl_jax.augment.jitter import adjust_brightness, adjust_hue
from ssl_jax.augment.views import View
from ssl_jax.core.rows import Row
from ssl_jax.core.types import Array
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.sources import Source, take_evenly
from ssl_jax.evaluate.linear import LinearResult, hold_out
from ssl_jax.evaluate.measure import Candidate, encode_source
from ssl_jax.evaluate.ridge import PENALTIES, ridge_on
from ssl_jax.ops.tiles import rotate
from ssl_jax.train.features import AnyArray

IMAGES = (1000, 500)
"""Training and test images at most that are transformed."""
CORNER = 0.6
"""Share of each side of the image that a crop in a corner shows."""
SIZES = (0.9, 0.7, 0.5)
"""Shares of each side that central crops show."""
FACTORS = (0.6, 1.0, 1.4)
"""Factors of the brightness."""
TURNS = (-0.2, 0.0, 0.2)
"""Turns of the hue, in circles."""
NOISE = 0.1
"""Standard deviation of noise on pixels in [0, 1]."""


class Transformation(NamedTuple):
    """A parameter of an augmentation, and its values.

    Attributes:
      name: of the parameter.
      values: what they are called.
      apply: ``images [b, s, s, c] in [0, 1] -> [b, values, s, s, c]``: each image with each value.
      channels: of images of which it means something; ``None``: any.
    """

    name: str
    values: tuple[str, ...]
    apply: Callable[[Array], Array]
    channels: int | None = None


def _each(function: Callable[[Array, Any], Array], values: tuple[Any, ...]) -> Callable[[Array], Array]:
    """Apply a function of one image and a value to all images with all values."""

    def apply(images: Array) -> Array:
        made = [jax.vmap(lambda image, value=value: function(image, value))(images) for value in values]
        return jnp.stack(made, axis=1)

    return apply


def _crop(image: Array, box: tuple[float, float, float]) -> Array:
    """Show the part whose top, left and side are shares of the image, at the size of the image."""
    size, (top, left, share) = image.shape[0], box
    side = max(round(share * size), 1)
    row, column = (round(start * (size - side)) for start in (top, left))
    part = image[row : row + side, column : column + side]
    return jnp.clip(jax.image.resize(part, image.shape, "linear"), 0.0, 1.0)


def _blur(image: Array, blurred: bool) -> Array:
    if not blurred:
        return image
    # A deviation of 1 in 32 pixels.
    deviation, size = image.shape[0] / 32, image.shape[0]
    taps = min(2 * int(np.ceil(2 * deviation)) + 1, 2 * ((size - 1) // 2) + 1)
    return gaussian_blur(image, deviation, kernel=taps)


def _noise(image: Array, noisy: bool) -> Array:
    if not noisy:
        return image
    # The image is its own seed: the noise of every one is another, whatever batch it is in.
    seed = jax.lax.bitcast_convert_type(jnp.sum(image.astype(jnp.float32)), jnp.uint32)
    noise = NOISE * jax.random.normal(jax.random.key(seed), image.shape, image.dtype)
    return jnp.clip(image + noise, 0.0, 1.0)


TRANSFORMATIONS = {
    transformation.name: transformation
    for transformation in (
        Transformation("rotation", ("0°", "90°", "180°", "270°"), rotate),
        Transformation(
            "flip", ("as it is", "mirrored"), _each(lambda x, flip: x[:, ::-1] if flip else x, (False, True))
        ),
        Transformation(
            "crop's corner",
            ("top left", "top right", "bottom left", "bottom right"),
            _each(_crop, tuple((top, left, CORNER) for top in (0.0, 1.0) for left in (0.0, 1.0))),
        ),
        Transformation(
            "crop's size", tuple(map(str, SIZES)), _each(_crop, tuple((0.5, 0.5, share) for share in SIZES))
        ),
        Transformation("brightness", tuple(map(str, FACTORS)), _each(adjust_brightness, FACTORS)),
        Transformation("hue", tuple(map(str, TURNS)), _each(adjust_hue, TURNS), 3),
        Transformation(
            "color", ("color", "gray"), _each(lambda x, gray: grayscale(x) if gray else x, (False, True)), 3
        ),
        Transformation("blur", ("sharp", "blurred"), _each(_blur, (False, True))),
        Transformation("noise", ("clean", "noisy"), _each(_noise, (False, True))),
    )
}
"""All parameters by name. Flips, crops and colors are drawn in the training of most methods, rotations and noise in none."""


def transformation_probe(
    train_features: Float[AnyArray, "n k d"],
    test_features: Float[AnyArray, "m k d"],
    *,
    l2: tuple[float, ...] = PENALTIES,
    holdout: float = 0.1,
    seed: int = 0,
) -> LinearResult:
    """Measure how well a linear classifier predicts which of k values of a parameter an image was given; needs no label.

    Ridge regression onto the k values (:func:`ssl_jax.evaluate.ridge.ridge`). The penalty is chosen on a random ``holdout``
    share of the training *images*: all versions of an image are in the same part.

    Args:
      train_features: features of the k versions of each training image.
      test_features: features of the versions of other images.
      l2: grid of penalties > 0 in units of a feature's variance.
      holdout: share in (0, 1) of the training images that chooses.
      seed: seed of the held-out draw.

    Returns:
      ``LinearResult(accuracy, l2, validation)``; chance is 1/k.

    Raises:
      ValueError: an empty grid or an empty part.

    >>> features = np.tile(np.eye(3, dtype=np.float32), (10, 1, 1))
    >>> transformation_probe(features, features[:2]).accuracy
    1.0

    Reference: Chen et al., A Simple Framework for Contrastive Learning (2020), section 4.2 and table 3. Deviation: ridge
    regression where they train an MLP.
    """
    images, values, width = train_features.shape
    held_out, _ = hold_out(images, holdout=holdout, seed=seed)
    return ridge_on(
        jnp.asarray(train_features).reshape(-1, width),
        np.tile(np.arange(values), images),
        jnp.asarray(test_features).reshape(-1, width),
        np.tile(np.arange(values), len(test_features)),
        classes=values,
        l2=l2,
        held_out=(values * held_out[:, None] + np.arange(values)).ravel(),
    )


def transformed(transformation: Transformation, images: Array, view: View) -> Array:
    """Give normalised images ``[b, s, s, c]`` each value of a parameter: normalised ``[b, values, s, s, c]``.

    Args:
      transformation: one of :data:`TRANSFORMATIONS`.
      images: as an encoder gets them.
      view: their normalisation.
    """
    pixels = jnp.clip(unnormalize(images, mean=view.mean, std=view.std), 0.0, 1.0)
    return normalize(transformation.apply(pixels), mean=view.mean, std=view.std)


def transformation_accuracies(
    candidate: Candidate,
    sources: tuple[Source, Source],
    reads: Mapping[str, Callable[..., Array]],
    *,
    crop_ratio: float = 1.0,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
    images: tuple[int, int] = IMAGES,
) -> list[Row]:
    """Measure :func:`transformation_probe` of every parameter and of everything that is read of an encoder.

    Args:
      candidate: encoder.
      sources: training and test images.
      reads: ``(params, state, images) -> features [b, ...]`` by name, such as
        :func:`ssl_jax.evaluate.inversion.readings`.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.
      max_corrupt_fraction: likewise.
      images: training and test images at most, at even distances.

    Returns:
      A row a parameter that images of this number of channels have: ``transformation``, ``chance``, and the accuracy of each
      reading by its name.
    """
    view, channels = candidate.method.views[0], sources[0].channels
    parts = [candidate.see(take_evenly(source, count)) for source, count in zip(sources, images, strict=True)]
    image = jax.ShapeDtypeStruct((1, view.size, view.size, channels), jnp.float32)
    variables = (candidate.params, candidate.state)
    widths = {
        name: int(np.prod(jax.eval_shape(read, *variables, image).shape[1:])) for name, read in reads.items()
    }
    rows: list[Row] = []
    for transformation in TRANSFORMATIONS.values():
        if transformation.channels not in (None, channels):
            continue
        values = len(transformation.values)

        def encode(params: Any, state: Any, given: Array, chosen: Transformation = transformation) -> Array:
            versions = transformed(chosen, given, view)
            flat = versions.reshape(-1, *versions.shape[2:])
            read = [function(params, state, flat).reshape(len(flat), -1) for function in reads.values()]
            return jnp.concatenate(read, axis=1).reshape(len(given), -1)

        given = {"crop_ratio": crop_ratio, "max_corrupt_fraction": max_corrupt_fraction}
        train, test = (
            encode_source(part, encode, variables, view=view, **given).features.reshape(
                -1, values, sum(widths.values())
            )
            for part in parts
        )
        row: Row = {"transformation": transformation.name, "chance": 1 / values}
        start = 0
        for name, width in widths.items():
            own = slice(start, start + width)
            row[name] = transformation_probe(train[..., own], test[..., own]).accuracy
            start += width
        rows.append(row)
    return rows
