"""What an encoder throws away of an image and what it keeps: how far features move when the image is changed, and whether the
change can be read off them."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.augment.blur import gaussian_blur_planes
from ssl_jax.augment.color import to_float
from ssl_jax.augment.jitter import jitter_planes
from ssl_jax.augment.views import View, normalize_for_evaluation
from ssl_jax.core import check
from ssl_jax.core.types import Array, Key
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source, take_evenly
from ssl_jax.evaluate.linear import hold_out, standardize
from ssl_jax.evaluate.measure import Measure, Row, Subject
from ssl_jax.evaluate.ridge import PENALTIES, ridge_weights

AnyArray = Array | np.ndarray
IMAGES = (2000, 1000)
"""Training and test images at most that are changed."""
BATCH = 100


class Change(NamedTuple):
    """A family of changes of an image, each with a strength.

    Attributes:
      name: name in tables.
      unit: what a strength is.
      strengths: strengths at which it is measured, rising; 0 is no change.
      parameters: names of the numbers that say which change it is.
      draw: function ``(key, low, high) -> [p]`` that draws these numbers at a strength in ``[low, high]``.
      apply: function ``(key, planes [c, h, w], numbers [p]) -> planes``; the key is for noise.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    parameters: tuple[str, ...]
    draw: Callable[[Key, Any, Any], Array]
    apply: Callable[[Key, Array, Array], Array]

    def parameters_of(self, channels: int) -> tuple[str, ...]:
        """List the parameters that change an image of so many channels: without three of them there is no hue.

        >>> CHANGES["color"].parameters_of(1)
        ('brightness', 'contrast')
        """
        if self.name != "color" or channels == 3:
            return self.parameters
        return self.parameters[: 2 if channels == 1 else 3]


def _uniform(key: Key, low: Any, high: Any, count: int) -> Array:
    return low + (high - low) * jax.random.uniform(key, (count,))


def _signed(key: Key, low: Any, high: Any, count: int) -> Array:
    """Draw numbers of either sign with an absolute value in [low, high]."""
    size_key, sign_key = jax.random.split(key)
    return _uniform(size_key, low, high, count) * jax.random.rademacher(sign_key, (count,), jnp.float32)


def _sample(planes: Array, rows: Array, columns: Array, mode: str) -> Array:
    """Read planes [c, h, w] between pixels, bilinearly, at coordinates [h, w] of pixel centers."""
    read = functools.partial(jax.scipy.ndimage.map_coordinates, order=1, mode=mode)
    return jax.vmap(lambda plane: read(plane, [rows, columns]))(planes)


def crop_planes(planes: Float[Array, "c h w"], removed: Any, down: Any, right: Any) -> Float[Array, "c h w"]:
    """Crop a part of an image and enlarge it to the size of the whole, bilinearly.

    Args:
      planes: image.
      removed: share of each side that is cut away, in [0, 1).
      down: how far the middle of the part lies below that of the image, as a share of the height, at most ``removed / 2``.
      right: the same to the right.

    >>> crop_planes(jnp.arange(4.0)[None, None], 0.5, 0.0, -0.25)[0, 0].tolist()
    [0.0, 0.25, 0.75, 1.25]
    """
    _, height, width = planes.shape

    def along(length: int, shift: Any) -> Array:
        start = (removed / 2 + shift) * length
        return start + (jnp.arange(length) + 0.5) * (1 - removed) - 0.5

    rows, columns = jnp.meshgrid(along(height, down), along(width, right), indexing="ij")
    return _sample(planes, rows, columns, "nearest")


def rotate_planes(planes: Float[Array, "c h w"], degrees: Any) -> Float[Array, "c h w"]:
    """Turn an image about its middle, bilinearly; what comes in from outside is its mirror image.

    Args:
      planes: image.
      degrees: angle, counterclockwise as it is seen.

    >>> rotate_planes(jnp.array([[[1.0, 2.0], [3.0, 4.0]]]), 90.0)[0].round(5).tolist()
    [[2.0, 4.0], [1.0, 3.0]]
    """
    _, height, width = planes.shape
    y, x = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    rows = cosine * y + sine * x + (height - 1) / 2
    columns = -sine * y + cosine * x + (width - 1) / 2
    return _sample(planes, rows, columns, "mirror")


def _draw_crop(key: Key, low: Any, high: Any) -> Array:
    size_key, place_key = jax.random.split(key)
    removed = _uniform(size_key, low, high, 1)
    return jnp.concatenate([removed, removed * (jax.random.uniform(place_key, (2,)) - 0.5)])


def _crop(key: Key, planes: Array, numbers: Array) -> Array:
    del key
    return crop_planes(planes, *numbers)


def _color(key: Key, planes: Array, numbers: Array) -> Array:
    del key
    factors = jnp.array([1.0, 1.0, 1.0, 0.0]) + numbers
    return jitter_planes(planes, factors.astype(planes.dtype), jnp.arange(4))


def _blur(key: Key, planes: Array, numbers: Array) -> Array:
    del key
    side = min(planes.shape[1:])
    radius = min(math.ceil(3 * side * CHANGES["blur"].strengths[-1]), side - 1)
    sigma = jnp.maximum(numbers[0] * side, 1e-3)
    return gaussian_blur_planes(planes, sigma, kernel=2 * radius + 1)


def _rotate(key: Key, planes: Array, numbers: Array) -> Array:
    del key
    return rotate_planes(planes, numbers[0])


def _add_noise(key: Key, planes: Array, numbers: Array) -> Array:
    return jnp.clip(planes + numbers[0] * jax.random.normal(key, planes.shape, planes.dtype), 0.0, 1.0)


def _draw_color(key: Key, low: Any, high: Any) -> Array:
    return _signed(key, low, high, 4) * jnp.array([1.0, 1.0, 1.0, 0.25])


CHANGES = {
    change.name: change
    for change in (
        Change(
            "crop",
            "share of each side that is cut away, at a random place",
            (0.1, 0.3, 0.5),
            ("size", "row", "column"),
            _draw_crop,
            _crop,
        ),
        Change(
            "color",
            "brightness, contrast and saturation times 1 ± s, the hue turned by ± s / 4",
            (0.2, 0.4, 0.8),
            ("brightness", "contrast", "saturation", "hue"),
            _draw_color,
            _color,
        ),
        Change(
            "blur",
            "σ of a Gaussian as a share of the side",
            (1 / 64, 1 / 32, 1 / 16),
            ("σ",),
            functools.partial(_uniform, count=1),
            _blur,
        ),
        Change(
            "rotation",
            "degrees to either side",
            (10.0, 30.0, 90.0),
            ("angle",),
            functools.partial(_signed, count=1),
            _rotate,
        ),
        Change(
            "noise",
            "deviation of Gaussian noise on pixels in [0, 1]",
            (0.05, 0.1, 0.2),
            ("σ",),
            functools.partial(_uniform, count=1),
            _add_noise,
        ),
    )
}
"""What is done to images, by name."""


def change_images(
    key: Key, images: Shaped[AnyArray, "n h w c"], change: Change, *, low: Any, high: Any
) -> tuple[Float[Array, "n h w c"], Float[Array, "n p"]]:
    """Change each image by numbers of its own, drawn at a strength between two; may be traced.

    Args:
      key: random key, used once.
      images: uint8, uint16, or floats in [0, 1].
      change: one of :data:`CHANGES`.
      low: least strength.
      high: greatest strength; the same as ``low`` for one strength.

    Returns:
      Changed images in [0, 1], and the numbers that were drawn.

    >>> images = np.zeros((2, 4, 4, 3), np.uint8)
    >>> changed, numbers = change_images(jax.random.key(0), images, CHANGES["color"], low=0.2, high=0.2)
    >>> changed.shape, np.abs(numbers).round(3)[0].tolist()
    ((2, 4, 4, 3), [0.20000000298023224, 0.20000000298023224, 0.20000000298023224, 0.05000000074505806])
    """

    def change_one(key: Key, image: Array) -> tuple[Array, Array]:
        draw_key, noise_key = jax.random.split(key)
        numbers = change.draw(draw_key, low, high)
        planes = change.apply(noise_key, jnp.moveaxis(to_float(image), -1, 0), numbers)
        return jnp.moveaxis(planes, 0, -1), numbers

    return jax.vmap(change_one)(jax.random.split(key, len(images)), jnp.asarray(images))


def feature_movement(original: Float[AnyArray, "n d"], changed: Float[AnyArray, "n d"]) -> float:
    """Measure how far features move when images are changed, in units of the distance between different images.

    ``mean_i ‖u_i − v_i‖² / mean_{i≠j} ‖u_i − u_j‖²``, u and v the features of the original and of the changed images at unit
    length. 0: invariant; 1: as far as another image is. The denominator is that of the originals,
    ``2n/(n−1) · (mean_i ‖u_i‖² − ‖mean_i u_i‖²)``: what all images have in common does not count.

    Args:
      original: features of two images or more.
      changed: features of the same images after a change.

    Raises:
      ValueError: arrays of different shapes, fewer than two images, or originals whose features are all one vector.

    >>> features = np.eye(4)
    >>> feature_movement(features, features), feature_movement(features, np.roll(features, 1, axis=0))
    (0.0, 1.0)

    Reference: Wang & Isola (2020) for the numerator, their alignment; the ratio makes encoders comparable whose features fill
      a narrow cone and such that fill the sphere.
    """
    allowed = f"the shape of original, {original.shape}, of two images or more"
    check.require(changed.shape == original.shape and len(original) >= 2, "changed", changed.shape, allowed)
    u, v = (_unit(np.asarray(x, np.float64)) for x in (original, changed))
    n = len(u)
    between = 2 * n / (n - 1) * (np.mean(np.sum(u**2, axis=1)) - np.sum(u.mean(axis=0) ** 2))
    if between < 1e-10:
        raise ValueError("the features of all images are one vector: there is no distance to compare with")
    return float(np.mean(np.sum((u - v) ** 2, axis=1)) / between)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def readout_r2(
    train_features: Float[AnyArray, "n d"],
    train_targets: Float[AnyArray, "n p"],
    test_features: Float[AnyArray, "m d"],
    test_targets: Float[AnyArray, "m p"],
    *,
    l2: tuple[float, ...] = PENALTIES,
    holdout: float = 0.1,
    seed: int = 0,
) -> Float[np.ndarray, " p"]:
    """Measure how much of the variance of numbers a linear function of the features explains, on other images.

    Ridge regression on standardized features (:func:`ssl_jax.evaluate.ridge.ridge_weights`), its penalty chosen for each
    target on a random ``holdout`` share of the training rows, then fitted to all of them.
    ``R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²`` over the test rows, ȳ their mean: 1 is exact, 0 as good as a constant; below 0 it is
    worse than that.

    Args:
      train_features: features that the readout is fitted to.
      train_targets: numbers to read off, such as an angle.
      test_features: features of other images.
      test_targets: their numbers.
      l2: grid of penalties > 0 in units of a feature's variance.
      holdout: share in (0, 1) of the training rows that chooses.
      seed: seed of the held-out draw.

    Returns:
      R² of each target; NaN where it does not vary on the test rows.

    Raises:
      ValueError: an empty grid, a penalty of 0 or below, or fewer than two training rows.

    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> readout_r2(x, x @ [[1.0], [2.0], [0.0]], x[:9], x[:9] @ [[1.0], [2.0], [0.0]]).round(3).tolist()
    [1.0]

    Reference: Hoerl & Kennard, Ridge regression (1970).
    """
    check.require(bool(l2) and min(l2) > 0, "l2", l2, "one penalty above 0 or more")
    held_out, rest = hold_out(len(train_features), holdout=holdout, seed=seed)
    train, test = standardize(train_features, test_features)
    targets = np.asarray(train_targets, np.float64)
    level, scale = targets.mean(axis=0), np.maximum(targets.std(axis=0), 1e-12)
    unit = jnp.asarray((targets - level) / scale, train.dtype)
    grid = jnp.asarray(sorted(l2, reverse=True), train.dtype)

    def predict(fitted: np.ndarray | slice, judged: Array) -> np.ndarray:
        weights, intercept = ridge_weights(train[fitted], unit[fitted], l2=grid)
        return np.asarray(judged @ weights + intercept[:, None], np.float64)

    errors = np.mean((predict(rest, train[held_out]) - np.asarray(unit)[held_out]) ** 2, axis=1)
    chosen = np.argmin(errors, axis=0)  # [p]
    predicted = predict(slice(None), test)[chosen, :, np.arange(len(chosen))].T * scale + level
    judged = np.asarray(test_targets, np.float64)
    variance = np.sum((judged - judged.mean(axis=0)) ** 2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - np.sum((judged - predicted) ** 2, axis=0) / variance
    return np.where(variance > 0, r2, np.nan)


Encode = Callable[..., tuple[Array, ...]]
"""``(*variables, normalised images) -> features``, one array or more."""


def measure_changes(
    encode: Encode,
    variables: tuple[Any, ...],
    view: View,
    train: Shaped[np.ndarray, "n s s c"],
    test: Shaped[np.ndarray, "m s s c"],
    *,
    changes: Mapping[str, Change] = CHANGES,
    seed: int = 0,
) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Measure invariance and equivariance of features under every change.

    Args:
      encode: function of the variables and normalised images that returns a tuple of feature arrays ``[b, d]``, such as those
        of the backbone and of the projector.
      variables: first arguments of ``encode``.
      view: gives mean and deviation of the normalisation.
      train: images that the readouts are fitted to.
      test: images that everything is measured on.
      changes: what is done to them.
      seed: seed of the draws.

    Returns:
      For each array of features ``(invariance, equivariance)``: :func:`feature_movement` by ``"crop 0.1"``, the change and its
      strength, and :func:`readout_r2` by ``"crop size"``, the change and its parameter. What is read is the parameter of a
      change of any strength up to the greatest, from the features of the original beside those of the changed image.
    """

    def encode_all(images: np.ndarray, change: Change | None, number: int, low: float, high: float) -> Any:
        parts = []
        for start in range(0, len(images), BATCH):
            rows = images[start : start + BATCH]
            padded = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows), axis=0)])
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), start)
            made = _encode_changed(encode, view, change, variables, padded, key, low, high)
            parts.append(jax.tree.map(np.asarray, made))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(images)], *parts)

    original = {
        name: encode_all(images, None, 0, 0.0, 0.0)[0] for name, images in (("train", train), ("test", test))
    }
    results: list[tuple[dict[str, float], dict[str, float]]] = [({}, {}) for _ in original["test"]]
    channels, number = test.shape[-1], 0
    for change in changes.values():
        for strength in change.strengths:
            number += 1
            moved, _ = encode_all(test, change, number, strength, strength)
            for (movement, _), before, after in zip(results, original["test"], moved, strict=True):
                movement[f"{change.name} {strength:g}"] = feature_movement(before, after)
        number += 2
        names = change.parameters_of(channels)
        fitted, judged = (
            encode_all(images, change, number - i, 0.0, change.strengths[-1])
            for i, images in enumerate((train, test))
        )
        for i, (_, readout) in enumerate(results):
            pairs = [
                np.concatenate([original[name][i], part[0][i]], axis=1)
                for name, part in (("train", fitted), ("test", judged))
            ]
            targets = [part[1][:, : len(names)] for part in (fitted, judged)]
            found = readout_r2(pairs[0], targets[0], pairs[1], targets[1])
            readout |= {f"{change.name} {name}": float(r2) for name, r2 in zip(names, found, strict=True)}
    return results


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _encode_changed(
    encode: Encode,
    view: View,
    change: Change | None,
    variables: tuple[Any, ...],
    images: AnyArray,
    key: Key,
    low: Any,
    high: Any,
) -> tuple[tuple[Array, ...], Array]:
    """Features of changed images, and what was drawn; of the images as they are where there is no change."""
    numbers = jnp.zeros((len(images), 0))
    if change is not None:
        images, numbers = change_images(key, images, change, low=low, high=high)
    return encode(*variables, normalize_for_evaluation(images, view)), numbers


def _read(source: Source, view: View, count: int, subject: Subject) -> np.ndarray:
    options = subject.options
    with epoch(
        take_evenly(source, count),
        batch_size=BATCH,
        size=view.size,
        crop_ratio=options.crop_ratio,
        max_corrupt_fraction=options.max_corrupt_fraction,
    ) as batches:
        return np.concatenate([batch["image"][batch["mask"]] for batch in batches])


def _measure(subject: Subject) -> Row:
    candidate = subject.encoder
    method, view = candidate.method, candidate.method.views[0]
    train, test = (
        _read(source, view, count, subject) for source, count in zip(subject.sources, IMAGES, strict=True)
    )
    if min(len(train), len(test)) < 2:
        raise ValueError("one training or test image: how far features move needs two of each")

    def encode(params: Any, state: Any, images: Array) -> tuple[Array, ...]:
        features = method.encode(params, state, images)
        return (features,) if method.project is None else (features, method.project(params, state, images))

    (moved, read), *projector = measure_changes(
        encode, (candidate.params, candidate.state), view, train, test
    )
    row: Row = {"invariance": moved, "equivariance": read}
    for moved, read in projector:
        row |= {"projector_invariance": moved, "projector_equivariance": read}
    return row


MEASURE = Measure("invariance", frozenset({"encoder"}), (), _measure)
