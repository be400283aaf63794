"""What a compiled program moves between devices and to and from their memory, read from its text (HLO)."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
BITS = {"pred": 8, "token": 0, "opaque": 0}
"""Bits of an element where the digits in the name of its type do not say."""
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)$", re.MULTILINE)
_CALL = re.compile(r"\b(\w+)=(\{[^}]*\}|%?[\w.-]+)")
_CALLED = ("calls", "to_apply", "body", "condition", "branch_computations", "called_computations")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_RUNNING = ("body", "condition", "branch_computations")
_MOVES_NOTHING = (
    *("parameter", "constant", "iota", "tuple", "get-tuple-element", "bitcast", "partition-id", "replica-id"),
    *("while", "conditional", "call", "after-all", "add-dependency", "opt-barrier"),
)
_READS_A_PART = ("dynamic-slice", "slice", "gather")
_WRITES_A_PART = ("dynamic-update-slice", "scatter")


class Collective(NamedTuple):
    """A communication of a compiled program.

    Attributes:
      kind: one of ``KINDS``.
      size: bytes of the whole array before it is split or after it is put together, within one group of devices; of several
        arrays together.
      group: devices that take part, of each group.
      times: number of times in a run of the program.
    """

    kind: str
    size: int
    group: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that each device must send at least, all times together.

        A gather or a scatter of n devices passes on ``(n − 1) / n`` of the array, a reduction is both of them, an exchange
        keeps its n-th at home.
        """
        share = (self.group - 1) / self.group
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.times * factor * self.size


def collectives(text: str) -> list[Collective]:
    """List the communications of a compiled program, in the order of its text.

    What stands in the body of a loop counts as often as the loop turns, or once where the text does not tell. Of the two halves
    of an asynchronous communication one is counted. Communication of a device with itself is left out.

    Args:
      text: text of ``jax.jit(f).lower(...).compile().as_text()``, of one device.

    Returns:
      Each communication.

    >>> text = '''HloModule m, num_partitions=4
    ... ENTRY %main (x: f32[8]) -> f32[8] {
    ...   %x = f32[8]{0} parameter(0)
    ...   ROOT %r = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
    ... }'''
    >>> found = collectives(text)
    >>> found, found[0].sent
    ([Collective(kind='all-reduce', size=32, group=2, times=1)], 32.0)
    """
    devices = math.prod(
        int(n) for n in re.findall(r"(?:replica_count|num_partitions)=(\d+)", text.partition("\n")[0])
    )
    bodies = _computations(text)
    times = _times(text, bodies, _CALLED)
    operations = []
    for name, body in bodies.items():
        for kind, shapes, rest in _communications(body):
            scattered = kind == "all-reduce" and "all-reduce-scatter" in name
            group = _group(rest, devices)
            size = sum(shapes) * (group if kind == "reduce-scatter" else 1)
            if group > 1 and times.get(name, 0):
                operations.append(
                    Collective("reduce-scatter" if scattered else kind, size, group, times[name])
                )
    return operations


def traffic(text: str) -> int:
    """Count the bytes that a compiled program reads from and writes to a device's memory, in one run.

    What each instruction takes and gives, a fusion counting as one. Arrays that the compiler keeps in a faster memory (``S(1)``
    in their layout) do not count; loops count as in :func:`collectives`. Caches may spare some of it.

    Args:
      text: text of ``jax.jit(f).lower(...).compile().as_text()``, of one device.

    >>> text = '''HloModule m
    ... ENTRY %main (x: f32[8]) -> f32[8] {
    ...   %x = f32[8]{0} parameter(0)
    ...   %y = f32[8]{0:S(1)} negate(%x)
    ...   ROOT %z = f32[8]{0} add(%x, %y)
    ... }'''
    >>> traffic(text)
    96
    """
    bodies = _computations(text)
    times = _times(text, bodies, _RUNNING)
    return sum(count * _moved(bodies[name]) for name, count in times.items())


def _moved(body: str) -> int:
    """Bytes that the instructions of one computation read and write."""
    held: dict[str, int] = {}
    moved = 0
    for name, types, operation, rest in _INSTRUCTION.findall(body):
        held[name] = sum(_bytes(*shape) for *shape, layout in _SHAPE.findall(types) if "S(" not in layout)
        operands = [held.get(operand, 0) for operand in re.findall(r"%([\w.-]+)", rest.partition(")")[0])]
        if operation in _MOVES_NOTHING or operation.endswith("-done"):
            continue
        if operation.endswith("-start"):
            # What it gives carries what it takes along.
            held[name] = max(held[name] - sum(operands), 0)
        if operation in _READS_A_PART:
            moved += 2 * held[name]
        elif operation in _WRITES_A_PART:
            moved += 2 * sum(operands[1:])
        else:
            moved += held[name] + sum(operands)
    return moved


def _computations(text: str) -> dict[str, str]:
    """Name to body of every computation."""
    heads = list(_COMPUTATION.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return {head[2]: text[head.end() : end] for head, end in zip(heads, ends, strict=True)}


def _times(text: str, bodies: Mapping[str, str], edges: tuple[str, ...]) -> dict[str, int]:
    """How often each computation runs that is reached by these kinds of calls."""
    entry = next((head[2] for head in _COMPUTATION.finditer(text) if head[1]), "")
    times: dict[str, int] = {}

    def visit(name: str, count: int) -> None:
        if name not in bodies:
            return
        times[name] = times.get(name, 0) + count
        for line in bodies[name].splitlines():
            for kind, called in _CALL.findall(line):
                if kind not in edges:
                    continue
                for inner in re.findall(r"[\w.-]+", called):
                    visit(inner, count * (_turns(line, bodies) if kind == "body" else 1))

    visit(entry, 1)
    return times


def _turns(line: str, bodies: Mapping[str, str]) -> int:
    """How often a loop turns: what the compiler says, or the constant that a counter from 0 stays below."""
    known = re.search(r'known_trip_count[\\"]*:\{[\\"]*n[\\"]*:[\\"]*(\d+)', line)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.-]+)", line)
    body = bodies.get(condition[1], "") if condition else ""
    limit = re.search(r"compare\(.*?,\s*(?:\S+ )?%?([\w.-]+)\), direction=LT", body)
    constant = re.search(rf"%?{re.escape(limit[1])} = s32\[\]\S* constant\((\d+)\)", body) if limit else None
    return int(constant[1]) if constant else 1


def _communications(body: str) -> Iterator[tuple[str, list[int], str]]:
    """Kind, bytes of each array and the rest of the line, of every communication in a computation."""
    for _, types, operation, rest in _INSTRUCTION.findall(body):
        kind = operation.removesuffix("-start")
        if kind not in KINDS:
            continue
        sizes = [_bytes(*shape) for *shape, _ in _SHAPE.findall(types)]
        # The first half of an asynchronous communication carries its operands, its results, then counters.
        if operation == "all-gather-start":
            sizes = sizes[len(sizes) // 2 :]
        elif operation == "collective-permute-start":
            sizes = sizes[:1]
        yield kind, sizes, rest


def _bytes(kind: str, shape: str) -> int:
    digits = re.search(r"\d+", kind)
    bits = BITS[kind] if kind in BITS else int(digits[0]) if digits else 0
    return math.prod(int(n) for n in shape.split(",") if n) * bits // 8


def _group(rest: str, devices: int) -> int:
    """Devices in a group, from the rest of an instruction's line."""
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", rest)
    if pairs:
        ends = re.findall(r"\{(\d+),(\d+)", pairs[1] + "}")
        return 2 if any(a != b for a, b in ends) else 1
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:
        return len(listed[1].split(","))
    tiled = re.search(r"replica_groups=\[([\d,]+)\]<=", rest)
    if tiled:
        return int(tiled[1].split(",")[-1])
    named = re.search(r"replica_groups=\w*mesh\[(.*?)\]\s*\{(.*?)\}", rest)
    if named:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return devices
