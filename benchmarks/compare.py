"""Did a change make it slower? ``python -m benchmarks.compare OLD NEW``: the same measurements of two versions, in turn.

OLD and NEW are commits, or folders that hold the package. Commits are checked out by ``git worktree`` into temporary folders,
which are removed in the end, on Ctrl-C too. Each measurement is a process of its own that sees one version: old, new, old, new.
What is measured is the same code for both (``benchmarks/compare_work.py``, or a script of yours by ``--script``). The ratio of
times new/old of each pair of neighbours counts once. The verdict is that of an exact sign test at 5 %: fewer than six pairs can
never tell, and of benchmarks that did not change one in twenty, or fewer, is called faster or slower.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import pairs

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).with_name("compare_work.py")
BENCHMARKS = ("simclr", "byol", "mae", "loop", "views", "knn", "compile")
LEVEL = 0.05


class Failure(Exception):
    """A process that measures has failed; the text is one line."""


class Comparison(NamedTuple):
    """What came out for a benchmark.

    Attributes:
      name: of the benchmark.
      ratios: seconds of new over those of old, pair by pair.
      seconds: medians of old and new.
    """

    name: str
    ratios: tuple[float, ...]
    seconds: tuple[float, float]


def binomial_p_value(ratios: Sequence[float]) -> float:
    """Probability of so many ratios on one side of 1, or more, where both sides are as likely; ratios of 1 are left out.

    >>> binomial_p_value([1.1, 1.2, 1.3, 1.1, 1.2, 1.3]), binomial_p_value([0.9, 1.1]), binomial_p_value([])
    (0.03125, 1.0, 1.0)
    """
    above, below = sum(r > 1 for r in ratios), sum(r < 1 for r in ratios)
    count = above + below
    tail = sum(math.comb(count, k) for k in range(min(above, below) + 1)) / 2**count
    return min(1.0, 2 * tail)


def verdict(ratios: Sequence[float]) -> str:
    """Say ``slower``, ``faster`` or ``cannot be told``.

    >>> verdict([1.1] * 6), verdict([0.9] * 6), verdict([1.1] * 5), verdict([1.1] * 6 + [0.9])
    ('slower', 'faster', 'cannot be told', 'cannot be told')
    """
    if binomial_p_value(ratios) > LEVEL:
        return "cannot be told"
    return "slower" if sum(r > 1 for r in ratios) > len(ratios) / 2 else "faster"


def git(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)


def commit_of(name: str, repository: Path) -> str | None:
    """Look up the commit that a name stands for; ``None`` if there is none."""
    found = git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", folder=repository
    )
    return found.stdout.strip() if found.returncode == 0 else None


def check_folder(side: str, name: str) -> Path:
    """Check that a folder can be measured: a clean state has a name, another one could not be measured again.

    Raises:
      ValueError: neither commit nor folder, or a folder with changes that are not committed.
    """
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"{side}={name!r}: allowed is a commit of this repository or a folder")
    state = git("status", "--porcelain", "--untracked-files=no", "--", ".", folder=folder)
    if state.returncode == 0 and state.stdout.strip():
        changed = len(state.stdout.splitlines())
        raise ValueError(
            f"{side}={name!r}: {changed} changed files that are not committed; allowed is a clean folder or a commit"
        )
    return folder.absolute()


@contextlib.contextmanager
def checked_out(commit: str, repository: Path) -> Iterator[Path]:
    """Check a commit out into a temporary folder, which is removed in the end.

    Raises:
      ValueError: git could not.
    """
    with tempfile.TemporaryDirectory(prefix="compare_", ignore_cleanup_errors=True) as place:
        folder = Path(place) / "tree"
        try:
            added = git("worktree", "add", "--quiet", "--detach", str(folder), commit, folder=repository)
            if added.returncode:
                last = (added.stderr.strip().splitlines() or ["no message"])[-1]
                raise ValueError(f"git worktree add {commit[:12]}: {last}")
            yield folder
        finally:
            with undisturbed():
                git("worktree", "remove", "--force", str(folder), folder=repository)
                git("worktree", "prune", folder=repository)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C wait while this cleans up."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def opened(stack: contextlib.ExitStack, side: str, name: str, repository: Path) -> tuple[Path, str]:
    """Open a version: its folder, and what to call it.

    Raises:
      ValueError: there is none, or it cannot be measured.
    """
    commit = commit_of(name, repository)
    if commit is None:
        return check_folder(side, name), name
    return stack.enter_context(checked_out(commit, repository)), f"{name} ({commit[:9]})"


def measure(script: Path, name: str, tree: Path, cache: Path, arguments: Sequence[str]) -> float:
    """Measure in a process that sees one version.

    Args:
      script: called with the name; prints ``{"seconds": ...}`` in its last line.
      name: of the benchmark.
      tree: folder of the version, first on the path of modules.
      cache: where the version keeps its compiled programs.
      arguments: further ones of the script.

    Raises:
      Failure: it failed, or printed something else.
    """
    known = {**os.environ, "PYTHONPATH": str(tree), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    known.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    done = subprocess.run(
        [sys.executable, "-P", str(script), name, *arguments],
        capture_output=True,
        text=True,
        env=known,
        cwd=tree,
        stdin=subprocess.DEVNULL,
    )
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    last = lines[-1].strip() if lines else "nothing was printed"
    if done.returncode:
        raise Failure(last[:200])
    try:
        seconds = float(json.loads(last)["seconds"])
    except (ValueError, KeyError, TypeError):
        raise Failure(f"printed {last[:100]!r} in place of its seconds") from None
    if not seconds > 0:
        raise Failure(f"measured {seconds} seconds")
    return seconds


def compare(
    script: Path, name: str, trees: Sequence[Path], cache: Path, count: int, arguments: Sequence[str] = ()
) -> Comparison:
    """Measure a benchmark in so many pairs: old, new, old, new.

    Raises:
      Failure: one of them failed; says which.
    """
    caches = [cache / side for side in ("old", "new")]
    times: list[list[float]] = []
    for _ in range(count):
        pair = []
        for side, tree, own in zip(("old", "new"), trees, caches, strict=True):
            try:
                pair.append(measure(script, name, tree, own, arguments))
            except Failure as error:
                raise Failure(f"{side}: {error}") from None
        times.append(pair)
    old, new = (pairs.summary([pair[i] for pair in times])["median"] for i in range(2))
    return Comparison(name, tuple(pair[1] / pair[0] for pair in times), (old, new))


def line(comparison: Comparison) -> str:
    """Write a comparison in a line.

    >>> line(Comparison("knn", (1.5,) * 6, (1.0, 1.5)))
    'knn      1.500 [1.500, 1.500]  slower          (1 s -> 1.5 s, 6 pairs, p = 0.031)'
    """
    found = pairs.summary(comparison.ratios)
    ratio = f"{found['median']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    old, new = comparison.seconds
    told = f"({old:.3g} s -> {new:.3g} s, {len(comparison.ratios)} pairs, p = {binomial_p_value(comparison.ratios):.3f})"
    return f"{comparison.name:<8} {ratio}  {verdict(comparison.ratios):<15} {told}"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("old", help="commit or folder")
    parser.add_argument("new", help="commit or folder")
    parser.add_argument("--benchmarks", default="", help=f"default: {','.join(BENCHMARKS)}")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of processes each; six or more can tell")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument(
        "--script",
        type=Path,
        help='what measures instead: called with a benchmark\'s name, prints {"seconds": ...}',
    )
    parser.add_argument(
        "--repository", type=Path, default=ROOT, help="where commits are looked up; default: this one"
    )
    return parser


def run(options: argparse.Namespace) -> bool:
    """Compare, print a line for each benchmark and say whether all could be measured.

    Raises:
      ValueError: an option that is not allowed.
    """
    names = [name for name in options.benchmarks.split(",") if name] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown and options.script is None:
        raise ValueError(f"benchmarks={','.join(unknown)!r}: allowed are {', '.join(BENCHMARKS)}")
    if options.pairs < 1:
        raise ValueError(f"pairs={options.pairs}: allowed is an integer of 1 or more")
    if options.script is not None and not options.script.is_file():
        raise ValueError(f"script={str(options.script)!r}: allowed is a file")
    script = (options.script or SCRIPT).absolute()
    complete = True
    with contextlib.ExitStack() as stack:
        versions = [
            opened(stack, side, getattr(options, side), options.repository) for side in ("old", "new")
        ]
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare_cache_")))
        print(
            f"old: {versions[0][1]}, new: {versions[1][1]}; seconds of new over those of old, with quartiles",
            flush=True,
        )
        for name in names:
            try:
                found = compare(
                    script,
                    name,
                    [folder for folder, _ in versions],
                    cache / name,
                    options.pairs,
                    ["--quick"] if options.quick else [],
                )
                print(line(found), flush=True)
            except Failure as error:
                complete = False
                print(f"{name:<8} not measured: {error}", flush=True)
    return complete


def main() -> None:
    options = make_parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(0 if run(options) else 1)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; temporary folders are removed")


if __name__ == "__main__":
    main()
