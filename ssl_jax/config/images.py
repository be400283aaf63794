"""The images of a config."""

import logging
from collections.abc import Mapping
from typing import Any

from ssl_jax.data.describe import describe
from ssl_jax.data.frames import MOVING
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import Source, parse_split

VALUES = ("max_value", "percentiles", "max_image_mib")
"""Options of ``data`` that say how values are read, and how large an image may be; see :class:`ssl_jax.data.values.Values`."""
TAR = ("tar:", "tar_in_order:")
CONVERTING = ("folder:", "frames:", "parquet:", *TAR)
"""Kinds of sources that convert gray images and those in color to each other."""
_log = logging.getLogger(__name__)
_said: set[tuple[str, str]] = set()


def open_images(config: Mapping[str, Any], source: str, split: str) -> Source:
    """Open images for a config: of its number of channels, where the kind of source can convert.

    What was found is logged, once for each source and split of a process (:func:`log_description`).

    Args:
      config: config of a run.
      source: name of the source, for :func:`ssl_jax.data.open.open_source`.
      split: name of the split.

    Raises:
      ValueError: what the source finds wrong, or another number of channels.
    """
    data = config["data"]
    channels = data["channels"]
    converts = channels is not None and source.startswith(CONVERTING)
    options = {"channels": channels} if converts else {}
    if source.startswith("frames:"):
        options |= {name: data[name] for name in ("window", "stride") if name in data}
    if source.startswith(CONVERTING):
        options["splits"] = split_names(config, split)
    options |= _columns(data, source) | _values(data, source)
    try:
        opened = open_source(source, split, **options)
    except ValueError as error:
        raise ValueError(f"{error}{_where_set(config, split, str(error))}") from error
    if channels not in (None, opened.channels):
        raise ValueError(
            f"config.data.channels={channels}, but the images of {source} have {opened.channels}"
        )
    log_description(opened, source, split)
    return opened


def _where_set(config: Mapping[str, Any], split: str, message: str) -> str:
    """Say which option of the config names a split of evaluation that is not there."""
    evaluation = config.get("watch", {}).get("evaluate", {})
    names = [name for name in ("train_split", "test_split") if evaluation.get(name) == split]
    if not message.startswith("split=") or split == config["data"].get("split") or not names:
        return ""
    return f"; it is config.watch.evaluate.{names[0]}, of experiments.evaluate --{names[0]}"


def _columns(data: Mapping[str, Any], source: str) -> dict[str, str]:
    """The columns of a table that a config names; those of its training images say nothing of images of another kind."""
    names = {column: data.get(f"{column}_column") for column in ("image", "label")}
    given = {column: name for column, name in names.items() if name is not None}
    if source.startswith(("parquet:", "tfds:", *TAR)):
        return given
    for column, name in given.items() if source == data.get("source") else ():
        raise ValueError(
            f"config.data.{column}_column={name!r}: allowed is None for {source}; only parquet:, tfds: and tar: have columns"
        )
    return {}


def _values(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """How values are read, where a config says so; images that the package makes have values of their own."""
    given = {name: data[name] for name in VALUES if data.get(name) is not None}
    if source.startswith((*CONVERTING, "tfds:")) and source != f"frames:{MOVING}":
        return given
    for name in ("max_value", "percentiles") if source == data.get("source") else ():
        if name in given:
            raise ValueError(
                f"config.data.{name}={given[name]!r}: allowed is None for {source}, whose values are known"
            )
    return {}


def split_names(config: Mapping[str, Any], split: str) -> tuple[str, ...]:
    """Collect the names of all splits that a config speaks of, so that a folder is read in the same way for each of them.

    Args:
      config: config of a run, or its part ``data`` alone.
      split: a further split.

    >>> split_names({"data": {"split": "fit[:90%]"}, "watch": {"evaluate": {"test_split": "held_out"}}}, "fit")
    ('fit', 'held_out')
    """
    evaluation = config.get("watch", {}).get("evaluate", {})
    splits = (config["data"].get("split"), *(evaluation.get(f"{part}_split") for part in ("train", "test")))
    return tuple(sorted({parse_split(name)[0] for name in (*splits, split) if isinstance(name, str)}))


def log_description(opened: Source, source: str, split: str) -> None:
    """Log how many images and classes were found and what is odd about them; what was logged of a source is not logged again.

    Args:
      opened: the source.
      source: its name in the config.
      split: the split that was opened.
    """
    first, *notes = describe(opened)
    lines = [f"{source} ({split}): {first}", *(f"  {note}" for note in notes)]
    new = [line for line in lines if (source, line) not in _said]
    _said.update((source, line) for line in new)
    for line in new:
        _log.info("%s", line)


def forget_descriptions() -> None:
    """Log descriptions again that were logged before, as a launcher does at its start."""
    _said.clear()
