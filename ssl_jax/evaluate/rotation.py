"""A proxy without labels: how well a linear head tells by how much an image was turned."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.core.types import Array
from ssl_jax.data.sources import take_evenly
from ssl_jax.evaluate.linear import LinearResult, hold_out
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject
from ssl_jax.evaluate.ridge import PENALTIES, ridge_on
from ssl_jax.methods.method import Method
from ssl_jax.ops.tiles import rotate
from ssl_jax.train.features import AnyArray

IMAGES = (4000, 2000)
"""Training and test images at most that are rotated."""


def rotation_proxy(
    train_features: Float[AnyArray, "n 4 d"],
    test_features: Float[AnyArray, "m 4 d"],
    *,
    l2: tuple[float, ...] = PENALTIES,
    holdout: float = 0.1,
    seed: int = 0,
) -> LinearResult:
    """Measure the accuracy of a linear 4-way head that tells by how much an image was turned; needs no label.

    Ridge regression onto the four turns, see :func:`ssl_jax.evaluate.ridge.ridge`. The penalty is chosen on a random
    ``holdout`` share of the training *images*: the four rotations of an image are always in the same part.

    Args:
      train_features: features of the four rotations of each training image, in the order of
        :func:`ssl_jax.ops.tiles.rotate`.
      test_features: features of the rotations of other images.
      l2: grid of penalties > 0 in units of a feature's variance.
      holdout: share in (0, 1) of the training images that chooses.
      seed: seed of the held-out draw.

    Returns:
      ``LinearResult(accuracy, l2, validation)``; chance is 1/4.

    Raises:
      ValueError: an empty grid or an empty part.

    >>> features = np.tile(np.eye(4, dtype=np.float32), (10, 1, 1))
    >>> rotation_proxy(features, features[:2]).accuracy
    1.0

    Reference: Reed et al., SelfAugment (2021): it orders encoders of one method nearly as their supervised
      linear probe does. It says nothing where rotations were training augmentations, or where images have
      no upright. Deviation: ridge regression where the authors train a softmax head by SGD.
    """
    images = len(train_features)
    held_out, _ = hold_out(images, holdout=holdout, seed=seed)
    width = train_features.shape[-1]
    return ridge_on(
        jnp.asarray(train_features).reshape(-1, width),
        np.tile(np.arange(4), images),
        jnp.asarray(test_features).reshape(-1, width),
        np.tile(np.arange(4), len(test_features)),
        classes=4,
        l2=l2,
        held_out=(4 * held_out[:, None] + np.arange(4)).ravel(),
    )


def encode_rotations(method: Method) -> Callable[..., Array]:
    """Make ``(params, state, images [n, s, s, c]) -> [n, 4 d]``: the features of the four rotations of each image, in a row."""

    def encode(params: Any, state: Any, images: Array) -> Array:
        turned = rotate(images)
        features = method.encode(params, state, turned.reshape(-1, *turned.shape[2:]))
        return features.reshape(images.shape[0], -1)

    return encode


def _measure(subject: Subject) -> Row:
    method = subject.encoder.method
    encode, width = encode_rotations(method), method.encoder.features
    train, test = (
        subject.encode(take_evenly(source, count), encode).features.reshape(-1, 4, width)
        for source, count in zip(subject.sources, IMAGES, strict=True)
    )
    return {"rotation": rotation_proxy(train, test).accuracy}


MEASURE = Measure(
    "rotation", frozenset({"encoder"}), (Column("rotation", "rotation", "rotation probe"),), _measure
)
