"""Few labels: a balanced draw of the examples that keep theirs, and the source in which the others have none."""

import numpy as np
from jaxtyping import Int

from ssl_jax.core import check
from ssl_jax.core.types import Array
from ssl_jax.data.sources import CorruptImage, Element, Source, Subset


def balanced_draw(
    labels: Int[Array | np.ndarray, " n"], *, classes: int, per_class: int, seed: int | tuple[int, ...]
) -> Int[np.ndarray, "classes per_class"]:
    """Draw the positions of ``per_class`` random examples of each class, without repetition.

    Raises:
      ValueError: a class with fewer examples.

    >>> balanced_draw(np.array([1, 0, 1]), classes=2, per_class=1, seed=0).tolist()
    [[1], [2]]
    """
    rng = np.random.default_rng(seed)
    rows = []
    for label in range(classes):
        members = np.flatnonzero(np.asarray(labels) == label)
        allowed = f"at most {len(members)}, the training examples of class {label}"
        check.require(len(members) >= per_class, "per_class", per_class, allowed)
        rows.append(rng.choice(members, per_class, replace=False))
    return np.stack(rows)


def labels_of(source: Source) -> Int[np.ndarray, " n"]:
    """Return the label of every example, -1 where there is none; images are read only where there is no table of labels.

    >>> from ssl_jax.data.sources import ArraySource
    >>> labels_of(Subset(ArraySource(np.zeros([3, 2, 2], np.uint8), [5, 6, 7]), [2, 0])).tolist()
    [7, 5]
    """
    known = known_labels(source)
    if known is None and hasattr(source, "read_labels"):
        known = source.read_labels()
    return np.array([_label(source, i) for i in range(len(source))]) if known is None else np.array(known)


def known_labels(source: Source) -> Int[np.ndarray, " n"] | None:
    """Return the label of every example, -1 where there is none, or None where only the images could tell.

    >>> from ssl_jax.data.sources import ArraySource
    >>> known_labels(ArraySource(np.zeros([2, 2, 2], np.uint8), [0, -1])).tolist()
    [0, -1]
    """
    if isinstance(source, Subset):
        known = known_labels(source.source)
        return None if known is None else known[source.indices]
    return getattr(source, "labels", None)


def _label(source: Source, index: int) -> int:
    try:
        return source[index]["label"]
    except CorruptImage:
        return -1


class FewLabels:
    """A source in which a balanced draw of examples keeps its labels, as many of each class; all others have -1.

    The draw is draw 0 of :func:`ssl_jax.evaluate.linear.few_labels` with the same seed, so that probes of features and methods
    that train on labels are compared on the same ones.

    Args:
      source: with labels and names of classes.
      count: labels in all; a multiple of the number of classes that have examples.
      seed: seed of the draw.

    Attributes:
      source: the source with all its labels, which evaluation reads.
      labels: int ``[n]``, of every example.

    Raises:
      ValueError: no classes, a count that they do not divide, or a class with fewer examples.

    >>> from ssl_jax.data.sources import ArraySource
    >>> whole = ArraySource(np.zeros([6, 2, 2], np.uint8), [0, 1, 0, 1, 0, 1], classes=("a", "b"))
    >>> few = FewLabels(whole, 2, seed=0)
    >>> [few[i]["label"] for i in range(6)]
    [-1, -1, -1, 1, 0, -1]
    """

    def __init__(self, source: Source, count: int, *, seed: int):
        check.require(
            len(source.classes) > 0, "num_labels", count, f"0 for {source.name}, which has no classes"
        )
        every = labels_of(source)
        sizes = np.bincount(every[every >= 0], minlength=len(source.classes))
        (present,) = np.nonzero(sizes)  # a class that only another split has is none to draw from
        classes = len(present)
        check.require(
            classes > 0, "num_labels", count, f"0 for {source.name}, none of whose images has a label"
        )
        allowed = f"a positive multiple of the {classes} classes of {source.name}"
        check.require(count > 0 and count % classes == 0, "num_labels", count, allowed)
        most, per_class = int(sizes[present].min()), count // classes
        allowed = f"at most {classes * most}, as {source.name} has a class of {most} examples"
        check.require(per_class <= most, "num_labels", count, allowed)
        numbers = np.where(
            every >= 0, np.searchsorted(present, every), -1
        )  # 0, 1, ... of the classes that have examples
        labeled = balanced_draw(numbers, classes=classes, per_class=per_class, seed=(seed, 0)).ravel()
        self.source = source
        self.labels = np.full(len(source), -1, np.int32)
        self.labels[labeled] = every[labeled]
        self.name = source.name
        self.shape = source.shape
        self.channels = source.channels
        self.dtype = source.dtype
        self.classes = source.classes
        self.notes: tuple[str, ...] = getattr(source, "notes", ())

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Element:
        return {**self.source[index], "label": int(self.labels[index])}

    def file_name(self, index: int, /) -> str:
        return self.source.file_name(index)


def with_all_labels(source: Source) -> Source:
    """Return the source whose labels ``FewLabels`` hides; any other source as it is."""
    return source.source if isinstance(source, FewLabels) else source
