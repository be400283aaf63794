"""From a source's name, as a config gives it, to the source."""

from collections.abc import Callable
from typing import Any

from ssl_jax.core import check
from ssl_jax.data.fashion_mnist import open_embedded, open_embedded_color, open_fashion_mnist
from ssl_jax.data.files import sample_indices
from ssl_jax.data.folder import open_folder
from ssl_jax.data.frames import open_frames
from ssl_jax.data.parquet import open_parquet
from ssl_jax.data.sources import CorruptImage, Source
from ssl_jax.data.tar import open_tar, open_tar_in_order
from ssl_jax.data.tfds import open_tfds

_PLAIN: dict[str, Callable[..., Source]] = {
    "embedded": open_embedded,
    "embedded_color": open_embedded_color,
    "fashion_mnist": open_fashion_mnist,
}
_WITH_PLACE: dict[str, Callable[..., Source]] = {
    "tfds": open_tfds,
    "folder": open_folder,
    "parquet": open_parquet,
    "frames": open_frames,
    "tar": open_tar,
    "tar_in_order": open_tar_in_order,
}
FORMS = (
    *("embedded", "embedded_color", "fashion_mnist", "tfds:<name>", "folder:<path>"),
    *("parquet:<path or hub name>", "tar:<shards>", "tar_in_order:<shards>"),
    *("frames:<path>", "frames:moving"),
)
"""What a name of a source looks like."""


def open_source(spec: str, split: str = "train", *, min_size: int = 1, **options: Any) -> Source:
    """Open a source by its name.

    | spec | what | options |
    |---|---|---|
    | ``embedded`` | 10,000 train and 2,000 test images of Fashion-MNIST, shipped | |
    | ``embedded_color`` | the same in invented colours | |
    | ``fashion_mnist`` | all of it | path, data_dir |
    | ``tfds:<name>[/config]`` | prepared by TensorFlow Datasets as array_record | image, label, data_dir; of values |
    | ``folder:<path>`` | image files, of any depth | channels, dtype, splits; of values |
    | ``parquet:<path or hub name>`` | Hugging Face sets | image, label, channels, dtype, splits, cache_dir; of values |
    | ``tar:<shards>`` | tar files of WebDataset's convention | image, label, channels, dtype, splits, cache_dir; of values |
    | ``tar_in_order:<shards>`` | the same, read shard after shard | shuffle_buffer; as above without cache_dir |
    | ``frames:<path>`` | a folder a clip, frames in natural order | window, stride, channels, dtype, splits; of values |
    | ``frames:moving`` | clips of the shipped images | window, stride |

    The options of values are max_value, percentiles and max_image_mib, see :class:`ssl_jax.data.values.Values`.
    Arrays in memory are a source by `ssl_jax.data.sources.ArraySource`.

    Args:
      spec: as in the table.
      split: name of a split, or part of one: ``train[:90%]``, ``train[1000:2000]``.
      min_size: shorter side in pixels that at least some images must have.
      **options: options of the kind of source.

    Raises:
      ValueError: a name or option that does not exist (names the nearest), or what the source finds wrong.

    >>> len(open_source("embedded", "test[:10%]"))
    200
    >>> open_source("imbedded")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: source='imbedded': did you mean 'embedded'? allowed: embedded, ...
    """
    kind, colon, place = spec.partition(":")
    if not colon and kind in _PLAIN:
        source = check.call(_PLAIN[kind], split, where=kind, options=options)
    elif place and kind in _WITH_PLACE:
        source = check.call(_WITH_PLACE[kind], place, split, where=kind, options=options)
    else:
        raise ValueError(f"source={spec!r}: {_what_is_allowed(spec)}")
    check_size(source, min_size)
    return source


def check_size(source: Source, minimum: int) -> None:
    """Raise where every image of a sample has a shorter side under ``minimum`` pixels.

    Args:
      source: source to look at.
      minimum: pixels.

    Raises:
      ValueError: all are smaller; names the largest.

    >>> check_size(open_source("embedded", "test"), 32)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: embedded/test: all images looked at are smaller than 32 pixels, the largest is 28 x 28: ...
    """
    if minimum <= 1:
        return
    sizes = []
    if source.shape is not None:
        sizes = [source.shape[:2]]
    else:
        for index in sample_indices(len(source)):
            try:
                height, width = source[index]["image"].shape[:2]
            except CorruptImage:
                continue
            sizes.append((height, width))
            if min(height, width) >= minimum:
                return
    if sizes and max(map(min, sizes)) < minimum:
        height, width = max(sizes, key=min)
        raise ValueError(
            f"{source.name}: all images looked at are smaller than {minimum} pixels, the largest is "
            f"{height} x {width}: choose a smaller view size or patch, or larger images"
        )


def _what_is_allowed(spec: str) -> str:
    kind = spec.partition(":")[0]
    if kind == "array":
        return "arrays are a source only in Python: ssl_jax.data.sources.ArraySource(images, labels)"
    if kind in _PLAIN:
        return f"{kind} takes nothing after a colon; the split and the options are arguments"
    if kind in _WITH_PLACE:
        form = next(form for form in FORMS if form.startswith(f"{kind}:"))
        return f"say which: {form}"
    if "/" in kind or "." in kind or "~" in kind:
        return f"a path needs its kind in front: folder:{spec} or parquet:{spec}"
    hint = check.did_you_mean(kind, [form.partition(":")[0] for form in FORMS])
    return hint.split("allowed:")[0] + f"allowed: {', '.join(sorted(FORMS))}"
