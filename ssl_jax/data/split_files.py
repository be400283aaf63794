"""Which split each of several files belongs to, by the words of its path."""

import re
from collections.abc import Collection, Sequence

from ssl_jax.data.files import printable

SPLITS = frozenset({"train", "test", "val", "valid", "validation", "dev", "unlabeled", "unsupervised"})
"""A word of the path of a file that is one of these says which split the file belongs to."""


def files_by_split(
    names: Sequence[str], split: str, further: Collection[str], *, kind: str, where: str
) -> tuple[dict[str, list[int]], list[str]]:
    """Sort files by their splits: the last word of a path that is the name of one says which.

    Args:
      names: paths of the files, relative to what holds them.
      split: split that is asked for, or several joined by ``+``.
      further: names of splits beside the usual ones, in lower case.
      kind: kind of the files, for messages, such as ``parquet``.
      where: what holds the files, for messages.

    Returns:
      Positions in ``names`` by split, all under ``train`` where no path names a split; and what to say of files that
      belong to none.

    Raises:
      ValueError: no such split; says which there are.

    >>> files_by_split(["train-0.tar", "test-0.tar"], "test", (), kind="tar", where="data")
    ({'train': [0], 'test': [1]}, [])
    """
    wanted = [name.lower() for name in split.split("+")]
    by_split: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        words = re.split(r"[^a-z0-9]+", name.lower())
        found = [word for word in words if word in SPLITS or word in further or word in wanted]
        by_split.setdefault(found[-1] if found else "", []).append(place)
    if set(by_split) == {""} and wanted == ["train"]:
        return {"train": by_split[""]}, []
    if all(name in by_split for name in wanted):
        without = [printable(names[place]) for place in by_split.pop("", [])]
        if not without:
            return by_split, []
        files_left = f"{len(without)} {kind} file{'s' * (len(without) > 1)}"
        return by_split, [f"left out {files_left} whose path names no split, such as {without[0]}"]
    have = ", ".join(sorted(name for name in by_split if name)) or "no splits in its file names"
    raise ValueError(
        f"split={split!r}: {kind}:{where} has {have}. Name the files of a split {split}-0.{kind}, or "
        "take parts, such as train[:90%] and train[90%:]"
    )
