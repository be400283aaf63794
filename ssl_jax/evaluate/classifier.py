"""The classifier that a method has learnt from labels, by itself: no probe."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core.types import Array
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.measure import (
    Column,
    Measure,
    Row,
    Subject,
    encode_source,
    labeled_part,
    require_labels,
)
from ssl_jax.methods.method import Method


def classifier_accuracy(
    source: Source,
    method: Method,
    variables: tuple[Any, Any],
    *,
    crop_ratio: float = 1.0,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> dict[str, float]:
    """Measure the share of the labelled images that each classifier of a method gets right.

    Args:
      source: images; those without a label do not count.
      method: method with or without ``classify``.
      variables: params and state of the method.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.
      max_corrupt_fraction: see there too.

    Returns:
      Accuracy by name of the classifier; nothing for methods without one.

    Raises:
      ValueError: no image has a label.
    """
    classify, view = method.classify, method.views[0]
    if classify is None:
        return {}
    shape = jax.ShapeDtypeStruct((1, view.size, view.size, source.channels), jnp.float32)
    names = sorted(jax.eval_shape(classify, *variables, shape))
    predictions = encode_source(
        source,
        _predict_with(classify, names),
        variables,
        view=view,
        crop_ratio=crop_ratio,
        max_corrupt_fraction=max_corrupt_fraction,
    )
    predictions = labeled_part(predictions)
    require_labels("test", predictions.labels)
    right = np.mean(predictions.features == predictions.labels[:, None], axis=0)
    return {name: float(share) for name, share in zip(names, right, strict=True)}


def _predict_with(classify: Callable[..., dict[str, Array]], names: list[str]) -> Callable[..., Array]:
    """Make a function that predicts a class by each classifier, ``[b, names]``."""

    def predict(params: Any, state: Any, images: Array) -> Array:
        logits = classify(params, state, images)
        return jnp.stack([jnp.argmax(logits[name], axis=-1) for name in names], axis=1)

    return predict


def _measure(subject: Subject) -> Row:
    variables = (subject.encoder.params, subject.encoder.state)
    return dict(
        classifier_accuracy(
            subject.sources[1],
            subject.encoder.method,
            variables,
            crop_ratio=subject.options.crop_ratio,
            max_corrupt_fraction=subject.options.max_corrupt_fraction,
        )
    )


MEASURE = Measure(
    "classifier",
    frozenset({"classifier", "labels"}),
    (Column("classifier", "own classifier"), Column("student", "its student's")),
    _measure,
)
