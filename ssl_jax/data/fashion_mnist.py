"""Fashion-MNIST: the part that is shipped with the package, and the whole.

Xiao, Rasul, Vollgraf: "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747. MIT licence.
"""

import functools
import io
import os
from pathlib import Path

import numpy as np
import scipy
from array_record.python import array_record_module
from jaxtyping import Shaped
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from ssl_jax.core import check
from ssl_jax.data import tfds
from ssl_jax.data.idx import has_idx, read_split
from ssl_jax.data.sources import ArraySource, Source, parse_split, take_part

EMBEDDED = Path(__file__).parent / "embedded"
"""The shipped data, made by ``build_embedded.py``."""
SYSTEM = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's and Ubuntu's package dataset-fashion-mnist puts the idx files."""
SPLITS = ("train", "test")
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@functools.cache
def _embedded_arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
    # Straight from the files we made: several times as fast as a tfds builder and the decoder for any file,
    # and every quick run and many tests begin with this.
    images: list[np.ndarray] = []
    labels: list[int] = []
    for path in sorted(EMBEDDED.glob(f"*-{split}.array_record-*")):
        reader = array_record_module.ArrayRecordReader(str(path))
        for record in reader.read_all():
            feature = tf_example_pb2.Example.FromString(record).features.feature
            png = feature["image"].bytes_list.value[0]
            images.append(np.asarray(Image.open(io.BytesIO(png), formats=["PNG"])))
            labels.append(feature["label"].int64_list.value[0])
        reader.close()
    arrays = np.stack(images), np.array(labels)
    for array in arrays:  # shared by all sources of this process
        array.flags.writeable = False
    return arrays


def open_embedded(split: str = "train") -> Source:
    """Open the shipped part of Fashion-MNIST: 1,000 train and 200 test images a class, 28 x 28 gray, in memory.

    Args:
      split: ``train`` or ``test``, or a part such as ``train[:50%]``; the order is shuffled, so a part has
        every class.

    Raises:
      ValueError: another split.

    >>> source = open_embedded("test")
    >>> len(source), source.shape, source[0]["image"].dtype.name, source.classes[1]
    (2000, (28, 28, 1), 'uint8', 'Trouser')
    """
    base = check.choice("split", parse_split(split)[0], SPLITS)
    images, labels = _embedded_arrays(base)
    return take_part(ArraySource(images, labels, classes=CLASSES, name=f"embedded/{base}"), split)


def open_embedded_color(split: str = "train") -> Source:
    """Open the shipped images in colours of our own: 28 x 28 in three channels, see :func:`tint`. For methods that need colour.

    The colours are invented, and follow from the gray pixels alone: nothing about the labels is in them.

    Args:
      split: as in :func:`open_embedded`.

    Raises:
      ValueError: another split.

    >>> source = open_embedded_color("test")
    >>> len(source), source.shape
    (2000, (28, 28, 3))
    """
    base = check.choice("split", parse_split(split)[0], SPLITS)
    images, labels = _tinted_arrays(base)
    return take_part(ArraySource(images, labels, classes=CLASSES, name=f"embedded_color/{base}"), split)


@functools.cache
def _tinted_arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _embedded_arrays(split)
    tinted = tint(images)
    tinted.flags.writeable = False
    return tinted, labels


def tint(images: Shaped[np.ndarray, "n h w"]) -> Shaped[np.ndarray, "n h w 3"]:
    """Color gray images: the hue of a pixel goes once round with the mean of the 7 x 7 pixels about it.

    ``c = g + g/2 · cos(2π (u − k/3))`` for the channels k = 0, 1, 2 with the gray value g and the mean u, in [0, 1] and
    clipped: black stays black, and equal grays have other colours in other surroundings.

    Args:
      images: uint8.

    Returns:
      uint8.

    >>> tint(np.full((1, 1, 1), 255, np.uint8)).tolist()
    [[[[255, 191, 191]]]]
    """
    gray = images.astype(np.float32) / 255
    mean = scipy.ndimage.uniform_filter(gray, size=(1, 7, 7), mode="nearest")
    turns = mean[..., None] - np.arange(3, dtype=np.float32) / 3
    colors = gray[..., None] * (1 + np.cos(2 * np.pi * turns) / 2)
    return np.round(255 * np.clip(colors, 0.0, 1.0)).astype(np.uint8)


def open_fashion_mnist(
    split: str = "train",
    *,
    path: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Source:
    """Open all of Fashion-MNIST: 60,000 train and 10,000 test images, 28 x 28 gray, in memory.

    Args:
      split: ``train`` or ``test``, or a part such as ``train[:50%]``.
      path: folder of the four idx files, gzipped or not; None: the system's, or else TFDS's prepared copy.
      data_dir: folder of TFDS's prepared sets; None: its default.

    Raises:
      ValueError: the files are not there (says how to get them) or damaged; another split.
    """
    base = check.choice("split", parse_split(split)[0], SPLITS)
    if path is not None and not has_idx(Path(path)):
        raise ValueError(
            f"path={str(path)!r} does not have the four idx files of Fashion-MNIST: {_how_to_get_it()}"
        )
    if path is None and not has_idx(SYSTEM):
        if tfds.find_prepared("fashion_mnist", data_dir=data_dir) is not None:
            return tfds.open_tfds("fashion_mnist", split, data_dir=data_dir)
        raise ValueError(f"fashion_mnist is not on this machine: {_how_to_get_it()}")
    images, labels = read_split(SYSTEM if path is None else Path(path), base)
    return take_part(ArraySource(images, labels, classes=CLASSES, name=f"fashion_mnist/{base}"), split)


def _how_to_get_it() -> str:
    return (
        f"'apt-get install dataset-fashion-mnist' puts them into {SYSTEM}; or download them from "
        "https://github.com/zalandoresearch/fashion-mnist and give path=FOLDER; or prepare TFDS's copy: "
        f"{tfds.prepare_command('fashion_mnist')}. The source 'embedded' has 12,000 of its images"
    )
