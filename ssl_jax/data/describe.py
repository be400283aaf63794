"""What a source holds, in a few lines for people: numbers of images and of each class, and what was found at opening."""

import numpy as np

from ssl_jax.data.files import counted
from ssl_jax.data.labels import labels_of
from ssl_jax.data.sources import Source, Subset

_FEW = 8
"""Up to so many classes are all listed."""
_FIRST = 3
"""Of more classes, so many are listed."""


def describe(source: Source) -> list[str]:
    """Describe a source: first how many images and classes it has, then its ``notes``, a line each.

    No image is read: labels are counted where there is a table of them.

    Args:
      source: any source.

    >>> from ssl_jax.data.sources import ArraySource
    >>> images = np.zeros([4, 8, 8, 3], np.uint8)
    >>> describe(ArraySource(images, [0, 0, 1, -1], classes=("cat", "dog")))
    ['4 images of 8 x 8 pixels, 3 channels of uint8, 2 classes: cat 2, dog 1; 1 without a label']
    """
    line = ", ".join((_images(source), _channels(source), _classes(source)))
    return [line, *getattr(source, "notes", ())]


def _images(source: Source) -> str:
    size = " of {} x {} pixels".format(*source.shape[:2]) if source.shape is not None else ""
    lengths = getattr(source, "lengths", None)
    if lengths is None:
        return f"{counted(len(source), 'image')}{size}"
    least, most = int(min(lengths)), int(max(lengths))
    frames = f"{counted(least, 'frame')} each" if least == most else f"{least} to {most} frames"
    return f"{counted(len(lengths), 'clip')} of {frames}, {counted(len(source), 'frame')}{size}"


def _channels(source: Source) -> str:
    return f"{counted(source.channels, 'channel')} of {source.dtype}"


def _classes(source: Source) -> str:
    names, labels = source.classes, _label_table(source)
    if labels is None:
        return f"{counted(len(names), 'class')}: {_names(names)}" if names else "no names of classes"
    labeled = labels[labels >= 0]
    if not len(labeled):
        return "no labels" + (f" here (classes: {_names(names)})" if names else "")
    counts = dict.fromkeys(names, 0)
    for label, count in zip(*np.unique(labeled, return_counts=True), strict=True):
        counts[names[label] if label < len(names) else str(label)] = int(count)
    missing = len(labels) - len(labeled)
    rest = f"; {missing} without a label" if missing else ""
    return f"{counted(len(counts), 'class')}: {_counts(counts)}{rest}"


def _counts(counts: dict[str, int]) -> str:
    each = [f"{name} {count}" for name, count in counts.items()]
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if len(each) <= _FEW:
        return ", ".join(each)
    if counts[least] == counts[most]:
        return f"{', '.join(list(counts)[:_FIRST])}, ..., {counts[least]} each"
    ends = f"smallest {least} {counts[least]}, largest {most} {counts[most]}"
    return f"{', '.join(each[:_FIRST])}, ...; {ends}"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names if len(names) <= _FEW else (*names[:_FIRST], "..."))


def _label_table(source: Source) -> np.ndarray | None:
    """Labels where there is a table, so that no image has to be read."""
    inner = source
    while isinstance(inner, Subset) or hasattr(inner, "frames"):
        inner = inner.source if isinstance(inner, Subset) else inner.frames
    return labels_of(source) if hasattr(inner, "labels") else None
