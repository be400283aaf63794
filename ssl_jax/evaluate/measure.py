"""What a measure is: a name, what it needs, the columns of its table, and a function of the features or encoder measured."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ssl_jax.augment.views import View
from ssl_jax.core.rows import Row
from ssl_jax.core.types import Params, State
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.masks import MaskSource
from ssl_jax.data.sources import Mapped, Source
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.methods.method import Method
from ssl_jax.train.features import AnyArray, Features, extract_source
from ssl_jax.train.sharding import batch_sharding, make_mesh

Need = Literal[
    "features",
    "labels",
    "encoder",
    "classifier",
    "clusters",
    "training images",
    "pixel classes",
    "pixel values",
]
BASELINE = "baseline"
"""Role of what stands beside an encoder to compare it with."""
START = "start"
"""Role of the weights that a run started from."""
LEFT_OUT = "left_out"
"""Key of a row under which the reason stands for each measure that could not be taken."""

WANT_LABELS = (
    "which is needed: put the images into one folder a class, or give --source with labels; the measures health, "
    "rotation and label_free need none"
)


class Column(NamedTuple):
    """One column of a table.

    Attributes:
      key: key of the value in a row; ``{}`` stands for a number, such as that of the labels.
      heading: heading of the column, with ``{}`` for the number.
      label: name of the value in a sentence; ``""``: the heading.
    """

    key: str
    heading: str
    label: str = ""


class Options(NamedTuple):
    """What the measures of a run can be told, as ``config.watch.evaluate`` has it.

    Attributes:
      k: number of neighbours of kNN.
      temperature: temperature of kNN.
      per_class: numbers of labels a class of the probes on few labels.
      draws: draws of each of these numbers.
      crop_ratio: share of each side of an image that the central crop keeps, see :func:`ssl_jax.data.loader.epoch`.
      max_corrupt_fraction: share of unreadable images above which nothing is measured.
    """

    k: int
    temperature: float
    per_class: tuple[int, ...]
    draws: int
    crop_ratio: float
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION


class Candidate(NamedTuple):
    """An encoder with its weights.

    Attributes:
      name: name of the row in a table.
      role: ``baseline``, ``start``, ``encoder`` or ``supervised``.
      method: method that gives the encoder, its views and perhaps a classifier.
      params: parameters of the method.
      state: state of the method.
      preprocess: ``image [h, w, c] -> [size, size, c]``: how its own images were resized and cropped; ``None``: as the options
        say.
    """

    name: str
    role: str
    method: Method
    params: Params
    state: State
    preprocess: Callable[[np.ndarray], np.ndarray] | None = None

    def see(self, source: Source) -> Source:
        """Return the images as the encoder sees them, before mean and deviation, where it has a preprocessing of its own."""
        if self.preprocess is None:
            return source
        return Mapped(source, self.preprocess, self.method.views[0].size)


class PixelTargets(NamedTuple):
    """Images with a target for each pixel, and how they become inputs of an encoder.

    Attributes:
      sources: training and test images with their targets, in the sizes in which they are stored.
      framing: how images of any size become inputs.
      layers: number of last layers whose features a patch has together.
    """

    sources: tuple[MaskSource, MaskSource]
    framing: Framing = Framing()
    layers: int = 1


class Subject(NamedTuple):
    """What a measure is taken of.

    Attributes:
      train: labelled features of the training images: the bank, and what probes are fitted to and chosen with.
      test: labelled features of the test images.
      sources: training and test images.
      options: options of the measures.
      candidate: encoder that gave the features; ``None``: none did, as for raw pixels.
      training_images: function that opens the images that the candidate's method was trained on; ``None``: not at hand.
      pixel_targets: images with a target for each pixel; ``None``: there are none.
    """

    train: Features
    test: Features
    sources: tuple[Source, Source]
    options: Options
    candidate: Candidate | None = None
    training_images: Callable[[], Source] | None = None
    pixel_targets: PixelTargets | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.sources[0].classes)

    @property
    def arrays(self) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
        """Labelled training features and labels, test features and labels: what every probe begins with.

        Raises:
          ValueError: nothing to tell apart, see :func:`probe_arrays`.
        """
        return probe_arrays(self.train, self.test, self.sources[0].classes)

    @property
    def encoder(self) -> Candidate:
        """The candidate, for measures that need one."""
        assert self.candidate is not None
        return self.candidate

    @property
    def targets(self) -> PixelTargets:
        """The images with a target for each pixel, for measures that need them."""
        assert self.pixel_targets is not None
        return self.pixel_targets

    def encode(self, source: Source, encode: Callable[..., Any]) -> Features:
        """Encode every example of a source by ``(params, state, images) -> features`` with the candidate's weights."""
        variables = (self.encoder.params, self.encoder.state)
        view = self.encoder.method.views[0]
        return encode_source(
            source,
            encode,
            variables,
            view=view,
            crop_ratio=self.options.crop_ratio,
            max_corrupt_fraction=self.options.max_corrupt_fraction,
        )


def labeled_part(features: Features) -> Features:
    """Take the examples that have a label; the features themselves where all have one.

    >>> part = labeled_part(Features(np.ones((3, 2)), np.array([4, -1, 7]), np.arange(3)))
    >>> part.labels.tolist(), part.index.tolist()
    ([4, 7], [0, 2])
    """
    known = np.asarray(features.labels) >= 0
    return features if known.all() else Features(*(column[known] for column in features))


def probe_arrays(
    train: Features, test: Features, classes: Sequence[str]
) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
    """Take the labelled training features and labels, test features and labels, of which a probe can be fitted and judged.

    Args:
      train: features of the training images; label -1: none.
      test: features of the test images; likewise.
      classes: names of the classes.

    Raises:
      ValueError: no labelled image on one side, or training images of one class only.

    >>> one = Features(np.ones((2, 3)), np.array([0, 0]), np.arange(2))
    >>> probe_arrays(one, one, ("cat", "dog"))
    Traceback (most recent call last):
    ...
    ValueError: all 2 labelled training images are of one class, 'cat': there is nothing to tell apart
    """
    train, test = labeled_part(train), labeled_part(test)
    require_labels("training", train.labels)
    require_labels("test", test.labels)
    require_two_classes("training", train.labels, classes)
    return train.features, train.labels, test.features, test.labels


def require_labels(which: str, labels: AnyArray) -> None:
    """Refuse to measure where no image has a label.

    Raises:
      ValueError: names the images.
    """
    if not len(labels):
        raise ValueError(f"no {which} image has a label, {WANT_LABELS}")


def require_two_classes(which: str, labels: AnyArray, classes: Sequence[str]) -> None:
    """Refuse to measure where all labels are one.

    Raises:
      ValueError: names the images and their class.
    """
    if len(found := np.unique(np.asarray(labels))) == 1:
        name = class_name(int(found[0]), classes)
        images = f"all {len(labels)} labelled {which} images are of one class"
        images = f"there is one labelled {which} image" if len(labels) == 1 else images
        raise ValueError(f"{images}, {name!r}: there is nothing to tell apart")


def class_name(label: int, classes: Sequence[str]) -> str:
    """Name a class: by its number where it has no name.

    >>> class_name(1, ("cat", "dog")), class_name(7, ())
    ('dog', '7')
    """
    return classes[label] if 0 <= label < len(classes) else str(label)


class Measure(NamedTuple):
    """One probe.

    Attributes:
      name: name on the command line.
      needs: what of a :class:`Subject` is read; a subject that lacks it is passed over.
      columns: columns of its values in tables; values without a column stand in the JSON file only.
      run: function that measures a subject; accuracies and other shares are in [0, 1]. Under :data:`LEFT_OUT` it may say
        what of it could not be measured. A ValueError says why nothing could.
      own_table: whether it gives a table of its own, ``{name: rows}``, of the last encoder only, instead of values in a row.
    """

    name: str
    needs: frozenset[Need]
    columns: tuple[Column, ...]
    run: Callable[[Subject], Row]
    own_table: bool = False


def offers(subject: Subject) -> frozenset[Need]:
    """List what of a subject can be read. The classifier and clusters of an untrained encoder are not worth a number."""
    candidate = subject.candidate
    trained = candidate is not None and candidate.role not in (BASELINE, START)
    refresh = candidate.method.refresh if candidate is not None else None
    pixels = subject.pixel_targets
    regression = pixels is not None and pixels.sources[0].format.regression
    readable: dict[Need, bool] = {
        "features": True,
        "labels": subject.classes > 0,
        "encoder": candidate is not None,
        "classifier": trained and subject.encoder.method.classify is not None,
        "clusters": trained and refresh is not None and refresh.cluster_labels is not None,
        "training images": subject.training_images is not None,
        "pixel classes": pixels is not None and not regression,
        "pixel values": regression,
    }
    return frozenset(need for need, offered in readable.items() if offered)


def encode_source(
    source: Source,
    encode: Callable[..., Any],
    variables: tuple[Any, ...],
    *,
    view: View,
    crop_ratio: float,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> Features:
    """Encode every example of a source by all devices, see :func:`ssl_jax.train.features.extract_source`."""
    return extract_source(
        encode,
        source,
        view=view,
        variables=variables,
        sharding=batch_sharding(make_mesh()),
        crop_ratio=crop_ratio,
        max_corrupt_fraction=max_corrupt_fraction,
    )
