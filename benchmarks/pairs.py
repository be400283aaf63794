"""Paired timing: A B A B in one process, a ratio for each pair, and the record of what was measured where.

A machine's speed drifts, and the drift hits both sides of a pair alike. So the number that counts is the
median of the ratios of neighbours, with its quartiles; the seconds themselves are stored with it.
"""

import argparse
import datetime
import importlib.metadata
import operator
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import environment, table
from ssl_jax.core.rows import write_row

Measurement = dict[str, Any]
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "torch",
    "torchvision",
    "kornia",
    "scikit-learn",
    "webdataset",
)


class Times(NamedTuple):
    """Seconds of each call, pair by pair.

    Attributes:
      ours: of the first side.
      other: of the second side, as many.
    """

    ours: tuple[float, ...]
    other: tuple[float, ...]


def alternate(
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    pairs: int,
    seconds: float = float("inf"),
    least: int = 3,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time two functions in turn: A B A B.

    Args:
      ours: the first side; returns when its work is done (``jax.block_until_ready``).
      other: the second side.
      pairs: how many pairs.
      seconds: begin no further pair after this time, counted from the first pair.
      least: pairs that are made however long they take (if ``pairs`` is not fewer).
      warmup: calls of each side that are not timed.
      clock: seconds.

    Returns:
      The times of each call.

    Raises:
      ValueError: no pair.

    >>> alternate(lambda: None, lambda: None, pairs=2, clock=iter(range(100)).__next__)
    Times(ours=(1, 1), other=(1, 1))
    """
    if pairs < 1:
        raise ValueError(f"pairs={pairs}: allowed is an integer of 1 or more")
    for _ in range(warmup):
        ours()
        other()
    times: list[tuple[float, float]] = []
    start = clock()
    while len(times) < pairs and (len(times) < least or clock() - start < seconds):
        times.append((_timed(ours, clock), _timed(other, clock)))
    return Times(tuple(a for a, _ in times), tuple(b for _, b in times))


def _timed(function: Callable[[], object], clock: Callable[[], float]) -> float:
    begin = clock()
    function()
    return clock() - begin


def speedups(times: Times) -> tuple[float, ...]:
    """How many times as fast ours is, for each pair.

    >>> speedups(Times((1.0, 2.0), (2.0, 2.0)))
    (2.0, 1.0)
    """
    return tuple(b / a for a, b in zip(times.ours, times.other, strict=True))


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, extremes and number of values.

    Raises:
      ValueError: no value.

    >>> summary([3.0, 1.0, 2.0])["median"], summary([3.0, 1.0, 2.0])["low"], summary([5.0])["high"]
    (2.0, 1.5, 5.0)
    """
    if not values:
        raise ValueError("values=[]: allowed is one value or more")
    low, middle, high = values[0], values[0], values[0]
    if len(values) > 1:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": middle,
        "low": low,
        "high": high,
        "min": min(values),
        "max": max(values),
        "count": len(values),
    }


def paired(
    name: str,
    times: Times,
    *,
    against: str,
    at_least: float | None = None,
    items: float | None = None,
    **facts: Any,
) -> Measurement:
    """A measurement that is a speed-up.

    Args:
      name: what was measured.
      times: from :func:`alternate`.
      against: what the other side is.
      at_least: the target; ``None``: there is none.
      items: images (or the like) a call; adds how many a second each side does.
      **facts: what makes the work equal, and what else belongs beside the number.
    """
    if items:
        facts["ours_per_second"] = items / statistics.median(times.ours)
        facts["other_per_second"] = items / statistics.median(times.other)
    return valued(
        name,
        speedups(times),
        unit="x",
        against=against,
        at_least=at_least,
        raw={"ours_seconds": times.ours, "other_seconds": times.other},
        **facts,
    )


def valued(
    name: str,
    values: Sequence[float],
    *,
    unit: str,
    against: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    raw: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Measurement:
    """A measurement: the summary of some values, its unit, its target and the raw numbers.

    >>> valued("cold", [2.0], unit="s", at_most=3.0)["target"]
    {'at_most': 3.0}
    """
    bounds = {"at_least": at_least, "at_most": at_most}
    target = {kind: bound for kind, bound in bounds.items() if bound is not None}
    return {
        "name": name,
        "unit": unit,
        "against": against,
        "value": summary(values),
        "target": target or None,
        "raw": dict(raw) if raw is not None else {"values": list(values)},
        "facts": facts,
    }


def cores() -> set[int]:
    """The cores that this thread may use."""
    return os.sched_getaffinity(0)


def machine() -> dict[str, Any]:
    """The class of hardware: no name of the host. An accelerator is named if JAX is loaded."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        model = next((value.strip() for key, _, value in lines if key.strip() == "model name"), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    hardware = {"cpu": model, "cores": len(cores()), "memory_gib": round(memory)}
    jax = sys.modules.get("jax")
    if jax is not None and jax.default_backend() != "cpu":
        hardware["accelerator"] = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return hardware


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=(text or "").partition("\n")[0]
    )
    made.add_argument(
        "--quick", action="store_true", help="seconds: tiny sizes, to see that it runs; numbers mean nothing"
    )
    made.add_argument("--out", type=Path, help="file of rows; default: results/benchmarks.jsonl")
    return made


def describe(name: str, *, quick: bool) -> dict[str, Any]:
    """The head of a row: what is about to be measured, when and where."""
    return {
        "benchmark": name,
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "quick": quick,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "machine": machine(),
        "versions": versions(),
        "environment": environment.describe_environment(),
    }


def record(
    name: str, options: argparse.Namespace, run: Callable[[argparse.Namespace], Sequence[Measurement]]
) -> dict[str, Any]:
    """Run a benchmark, write down what was measured and where; a quick run only where ``--out`` says."""
    head = describe(name, quick=options.quick)
    begin = time.perf_counter()
    measurements = list(run(options))
    result = {**head, "seconds": round(time.perf_counter() - begin, 1), "measurements": measurements}
    out = options.out or (None if options.quick else table.RESULTS)
    if out is not None:
        write_row(out, rounded(result), operator.itemgetter("benchmark"))
    return result


def rounded(value: Any) -> Any:
    """Floats to five significant digits, at every depth.

    >>> rounded({"a": [1.23456789]})
    {'a': [1.2346]}
    """
    if isinstance(value, Mapping):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main(
    name: str,
    options: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], Sequence[Measurement]],
) -> None:
    """Body of ``python -m benchmarks.<name>``: run, write, and print the rows."""
    result = record(name, options.parse_args(), run)
    for cells in table.rows(result):
        print(" | ".join(cell for cell in cells if cell))
    print(table.where(result))
