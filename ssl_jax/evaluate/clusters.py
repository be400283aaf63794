"""The clusters in which a method has put its training images: their purity, and how much they still change."""

import numpy as np

from ssl_jax.core import check
from ssl_jax.core.types import State
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject
from ssl_jax.methods.method import Method
from ssl_jax.ops import clustering_scores as scores


def score_clusters(
    method: Method, state: State, source: Source, *, max_corrupt_fraction: float = MAX_CORRUPT_FRACTION
) -> list[Row]:
    """Score the clusters of the last refresh, one row a head.

    Args:
      method: method whose ``refresh`` has ``cluster_labels``.
      state: its state.
      source: images that it was trained on, in the order of training.
      max_corrupt_fraction: see :func:`ssl_jax.data.loader.epoch`; unreadable images are not scored.

    Returns:
      Rows with ``head``, ``used`` (clusters that have an image), ``purity`` and ``nmi_classes`` (against the classes; ``None``
      where images have none), ``nmi_before`` and ``changed`` (against the refresh before; ``None`` where there was none).

    Raises:
      ValueError: more images than have a cluster.
    """
    assert method.refresh is not None and method.refresh.cluster_labels is not None
    current, previous = (np.asarray(labels) for labels in method.refresh.cluster_labels(state))
    images = current.shape[1]
    allowed = f"at most {images} images, so many as the run has clusters of"
    check.require(len(source) <= images, "source", f"{len(source)} images", allowed)
    size = method.views[0].size
    with epoch(source, batch_size=256, size=size, max_corrupt_fraction=max_corrupt_fraction) as batches:
        rows = [(batch["index"][batch["mask"]], batch["label"][batch["mask"]]) for batch in batches]
    index, classes = (np.concatenate(column) for column in zip(*rows, strict=True))
    return [
        {
            "head": head,
            "used": len(np.unique(labels[labels >= 0])),
            "purity": finite(scores.purity(labels, classes)),
            "nmi_classes": finite(scores.normalized_mutual_information(labels, classes)),
            "nmi_before": finite(scores.normalized_mutual_information(labels, before)),
            "changed": finite(scores.changed_share(labels, before)),
        }
        for head, (labels, before) in enumerate(
            zip(current[:, index], previous[:, index], strict=True), start=1
        )
    ]


def finite(value: float) -> float | None:
    """Replace NaN, which JSON does not have, by ``None``.

    >>> finite(float("nan")), finite(0.5)
    (None, 0.5)
    """
    return None if np.isnan(value) else value


def _measure(subject: Subject) -> Row:
    assert subject.training_images is not None
    source = subject.training_images()
    encoder, share = subject.encoder, subject.options.max_corrupt_fraction
    rows = score_clusters(encoder.method, encoder.state, source, max_corrupt_fraction=share)
    return {"clusters": rows}


MEASURE = Measure(
    "clusters",
    frozenset({"clusters", "training images"}),
    (
        Column("head", "head"),
        Column("used", "clusters used"),
        Column("purity", "purity"),
        Column("nmi_classes", "NMI with the classes"),
        Column("nmi_before", "NMI with the clusters before"),
        Column("changed", "images that changed cluster"),
    ),
    _measure,
    own_table=True,
)
