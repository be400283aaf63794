"""Tables of names: how arrays are called in a checkpoint of others, and how in ours."""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]


class Names(NamedTuple):
    """A table between the names of a family of checkpoints and ours, read in both directions.

    A name is that of an array (``cls_token``) or of a module, which stands for all arrays below it
    (``blocks.{i}.norm1`` for ``blocks.{i}.norm1.weight`` and ``.bias``). ``{i}`` and ``{j}`` stand for numbers.

    Attributes:
      pairs: (theirs, ours), each name at most once.
      packed: (theirs, ours): several of their modules are the rows of one of ours, in this order (queries, keys, values). A
        bias that only some of them have is 0 in the others.
      left_out: their names that belong to the family and that an encoder does not have: arrays or modules.
    """

    pairs: tuple[tuple[str, str], ...]
    packed: tuple[tuple[tuple[str, ...], str], ...] = ()
    left_out: tuple[str, ...] = ()


class Translation(NamedTuple):
    """Arrays under other names.

    Attributes:
      arrays: by the new name.
      unknown: names that the table does not have, sorted.
    """

    arrays: dict[str, np.ndarray]
    unknown: tuple[str, ...]


def translate(arrays: Arrays, names: Names) -> Translation:
    """Rename the arrays of a checkpoint to ours, and pack what is one array here.

    Args:
      arrays: by their name.
      names: table of the family.

    Returns:
      The arrays by our names; ``unknown`` are theirs that the table lacks.

    >>> table = Names((("norm", "norm"),), packed=((("q.{i}", "k.{i}"), "blocks.{i}.qk"),))
    >>> given = {"q.0.weight": np.ones((1, 2)), "k.0.weight": np.zeros((1, 2)), "norm.bias": np.ones(2), "x": np.ones(1)}
    >>> ours = translate(given, table)
    >>> sorted(ours.arrays), ours.unknown, ours.arrays["blocks.0.qk.weight"].tolist()
    (['blocks.0.qk.weight', 'norm.bias'], ('x',), [[1.0, 1.0], [0.0, 0.0]])
    """
    found: dict[str, np.ndarray] = {}
    parts: dict[str, dict[int, np.ndarray]] = {}
    counts: dict[str, int] = {}
    unknown = []
    packed = [(part, ours, k, len(theirs)) for theirs, ours in names.packed for k, part in enumerate(theirs)]
    for name, array in arrays.items():
        renamed = next(filter(None, (_rename(name, theirs, ours) for theirs, ours in names.pairs)), None)
        if renamed is not None:
            found[renamed] = array
            continue
        for theirs, ours, position, count in packed:
            renamed = _rename(name, theirs, ours)
            if renamed is not None:
                parts.setdefault(renamed, {})[position] = array
                counts[renamed] = count
                break
        else:
            if not any(_rename(name, theirs, theirs) for theirs in names.left_out):
                unknown.append(name)
    for name, rows in parts.items():
        shape = next(iter(rows.values())).shape
        if len(rows) < counts[name] and len(shape) > 1:
            unknown.append(name)  # a kernel of which a part is missing: reported by our name
            continue
        zeros = np.zeros(shape, np.float32)
        found[name] = np.concatenate([rows.get(k, zeros) for k in range(counts[name])])
    return Translation(found, tuple(sorted(unknown)))


def translate_back(arrays: Arrays, names: Names) -> Translation:
    """Rename our arrays to those of a family, the inverse of :func:`translate`.

    Args:
      arrays: by our name.
      names: table of the family.

    >>> table = Names((("norm", "norm"),), packed=((("q.{i}", "k.{i}"), "blocks.{i}.qk"),))
    >>> sorted(translate_back({"blocks.3.qk.bias": np.zeros(4), "norm.bias": np.zeros(1)}, table).arrays)
    ['k.3.bias', 'norm.bias', 'q.3.bias']
    """
    found: dict[str, np.ndarray] = {}
    unknown = []
    for name, array in arrays.items():
        renamed = next(filter(None, (_rename(name, ours, theirs) for theirs, ours in names.pairs)), None)
        if renamed is not None:
            found[renamed] = array
            continue
        for theirs, ours in names.packed:
            if _rename(name, ours, ours) is not None:
                for part, rows in zip(theirs, np.split(array, len(theirs)), strict=True):
                    found[str(_rename(name, ours, part))] = rows
                break
        else:
            unknown.append(name)
    return Translation(found, tuple(sorted(unknown)))


def _rename(name: str, pattern: str, template: str) -> str | None:
    """The name with the part that a pattern names replaced; ``None`` where it does not fit.

    >>> _rename("layers.4.fc.bias", "layers.{i}.fc", "blocks.{i}.mlp.fc1"), _rename("layers.4.fcx", "layers.{i}.fc", "x")
    ('blocks.4.mlp.fc1.bias', None)
    """
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        return None
    numbers = {key: value for key, value in match.groupdict().items() if key != "rest"}
    return template.format(**numbers) + (match["rest"] or "")


_CACHE: dict[str, re.Pattern[str]] = {}


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern not in _CACHE:
        escaped = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(pattern))
        _CACHE[pattern] = re.compile(escaped + r"(?P<rest>\..+)?")
    return _CACHE[pattern]


def unknown_names(names: Iterable[str], table: Names) -> tuple[str, ...]:
    """List the names of a checkpoint that a table does not have, sorted, without a look at its arrays.

    A kernel of which :attr:`Names.packed` parts are missing counts by the names of the parts that are there.

    >>> table = Names((("norm", "norm"),), packed=((("q.{i}", "k.{i}"), "blocks.{i}.qk"),))
    >>> unknown_names(["norm.bias", "q.0.weight", "k.0.weight", "q.1.weight", "q.1.bias", "norms"], table)
    ('norms', 'q.1.weight')
    """
    known = _union(tuple(theirs for theirs, _ in table.pairs) + table.left_out)
    parts = tuple(part for theirs, _ in table.packed for part in theirs)
    packed = _union(parts) if parts else None
    unknown, kernels = [], []
    for name in names:
        if known.fullmatch(name) is None:
            found = packed is not None and packed.fullmatch(name) is not None
            if not found:
                unknown.append(name)
            elif not name.endswith("bias"):
                kernels.append(name)
    return tuple(sorted(unknown + _incomplete(kernels, table)))


def count_known(names: Iterable[str], table: Names) -> int:
    """Count the names of a checkpoint that stand for arrays of ours.

    >>> count_known(["norm.bias", "q.0.weight", "head.weight"], Names((("norm", "norm"),), left_out=("head",)))
    1
    """
    known = _union(
        tuple(theirs for theirs, _ in table.pairs) + tuple(p for theirs, _ in table.packed for p in theirs)
    )
    return sum(known.fullmatch(name) is not None for name in names)


def _incomplete(kernels: Sequence[str], table: Names) -> list[str]:
    """List kernels that are rows of one of ours, of which other rows are missing."""
    groups: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for name in kernels:
        for theirs, ours in table.packed:
            renamed = next(filter(None, (_rename(name, part, ours) for part in theirs)), None)
            if renamed is not None:
                groups.setdefault(renamed, []).append(name)
                counts[renamed] = len(theirs)
                break
    return [name for ours, group in groups.items() if len(group) < counts[ours] for name in group]


@functools.cache
def _union(patterns: tuple[str, ...]) -> re.Pattern[str]:
    numbers = (re.sub(r"\\\{\w+\\\}", r"\\d+", re.escape(pattern)) for pattern in patterns)
    return re.compile(f"(?:{'|'.join(numbers)})(?:\\..+)?")


def has_name(name: str, pattern: str) -> bool:
    """Tell whether a name is the one that a pattern stands for, or lies below it.

    >>> has_name("blocks.3.norm1.bias", "blocks.{i}.norm1"), has_name("norm", "norms")
    (True, False)
    """
    return _compiled(pattern).fullmatch(name) is not None
