import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import compare

ROOT = Path(__file__).parent.parent.parent
STUB = """
import json, sys
import toy
if sys.argv[1] == "broken":
    raise ValueError("no such thing")
print("something else")
print(json.dumps({"seconds": toy.SECONDS}))
"""


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repository(tmp_path):
    """A repository with two versions of a module: the second takes twice as long."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for number, tag in enumerate(("first", "second"), 1):
        (folder / "toy.py").write_text(f"SECONDS = {float(number)}\n")
        git(folder, "add", "toy.py")
        git(folder, "commit", "--quiet", "-m", tag)
        git(folder, "tag", tag)
    (tmp_path / "stub.py").write_text(STUB)
    return folder


def options(repository, *arguments):
    script = repository.parent / "stub.py"
    return compare.make_parser().parse_args([*arguments, f"--repository={repository}", f"--script={script}"])


def worktrees(repository):
    listed = subprocess.run(
        ["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True
    )
    return len(listed.stdout.splitlines())


def test_each_commit_is_measured_by_itself_and_the_worktrees_are_removed(repository, capsys):
    assert compare.run(options(repository, "first", "second", "--benchmarks=a", "--pairs=6"))
    text = capsys.readouterr().out
    assert "a        2.000 [2.000, 2.000]  slower" in text
    assert "6 pairs, p = 0.031" in text
    assert compare.run(options(repository, "second", "first", "--benchmarks=a", "--pairs=2"))
    assert "0.500 [0.500, 0.500]  cannot be told" in capsys.readouterr().out
    assert worktrees(repository) == 1


def test_versions_are_measured_in_turn(monkeypatch):
    calls = []

    def measured(script, name, tree, cache, arguments):
        calls.append(tree)
        return float(len(calls))

    monkeypatch.setattr(compare, "measure", measured)
    found = compare.compare(Path("s"), "x", [Path("A"), Path("B")], Path("c"), 3)
    assert [str(tree) for tree in calls] == ["A", "B"] * 3
    assert found.ratios == (2 / 1, 4 / 3, 6 / 5)
    assert found.seconds == (3.0, 4.0)


def test_what_fails_is_one_line_that_names_the_side_and_the_rest_goes_on(repository, capsys):
    (repository / "toy.py").write_text("x = (\n")
    git(repository, "commit", "--quiet", "-am", "third")
    assert not compare.run(options(repository, "first", "HEAD", "--benchmarks=a", "--pairs=1"))
    assert "a        not measured: new: SyntaxError" in capsys.readouterr().out
    assert not compare.run(options(repository, "first", "first", "--benchmarks=broken,a", "--pairs=1"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "broken   not measured: old: ValueError: no such thing"
    assert lines[2].startswith("a        1.000")


def test_a_folder_is_a_version_too_and_must_be_clean(repository, capsys):
    plain = repository.parent / "plain"
    plain.mkdir()
    (plain / "toy.py").write_text("SECONDS = 0.5\n")
    assert compare.run(options(repository, "first", str(plain), "--benchmarks=a", "--pairs=1"))
    assert "0.500" in capsys.readouterr().out
    assert compare.run(options(repository, "first", str(repository), "--benchmarks=a", "--pairs=1"))
    (repository / "toy.py").write_text("SECONDS = 9\n")
    with pytest.raises(ValueError, match=r"new='.*': 1 changed files that are not committed; allowed is"):
        compare.run(options(repository, "first", str(repository), "--benchmarks=a", "--pairs=1"))
    assert worktrees(repository) == 1


def test_wrong_arguments_are_named(repository):
    refused = {
        "old='none': allowed is a commit of this repository or a folder": ("none", "first"),
        "new='none': allowed is a commit": ("first", "none"),
        "pairs=0: allowed is an integer of 1 or more": ("first", "second", "--pairs=0"),
    }
    for said, arguments in refused.items():
        with pytest.raises(ValueError, match=said):
            compare.run(options(repository, *arguments))
    given = options(repository, "first", "second")
    given.old = "--all"  # git must not take it for an option
    with pytest.raises(ValueError, match="old='--all': allowed is a commit"):
        compare.run(given)
    given = options(repository, "first", "second", "--benchmarks=what")
    given.script = None
    with pytest.raises(ValueError, match="benchmarks='what': allowed are simclr, byol"):
        compare.run(given)
    assert worktrees(repository) == 1


def test_the_binomial_p_value_is_that_of_scipy():
    from scipy.stats import binomtest

    for slower in range(10):
        ratios = [1.5] * slower + [0.5] * (9 - slower)
        assert compare.binomial_p_value(ratios) == pytest.approx(binomtest(slower, 9).pvalue)


def test_the_command_says_what_is_wrong_in_one_line():
    command = [sys.executable, "-m", "benchmarks.compare", "no-such-commit", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: old='no-such-commit': allowed is a commit of this repository or a folder\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_worktrees_are_removed_when_it_is_stopped(repository, number):
    begun = repository.parent / "begun"
    script = repository.parent / "slow.py"
    script.write_text(f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(60)\n")
    # Where the tests run in the background, their children would ignore SIGINT.
    command = ["env", "--default-signal=INT", sys.executable]
    command += ["-m", "benchmarks.compare", "first", "second", "--benchmarks=a"]
    process = subprocess.Popen(
        [*command, f"--repository={repository}", f"--script={script}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worktrees(repository) == 3
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        os.kill(process.pid, number)
    assert process.communicate(timeout=60)[1] == "stopped; temporary folders are removed\n"
    assert process.returncode == 1
    assert worktrees(repository) == 1


@pytest.mark.long
@pytest.mark.parametrize("name", compare.BENCHMARKS)
def test_every_benchmark_runs(name, tmp_path):
    seconds = compare.measure(compare.SCRIPT, name, ROOT, tmp_path, ["--quick"])
    assert 0 < seconds < 60


def test_every_benchmark_is_defined():
    text = compare.SCRIPT.read_text()
    assert all(f'"{name}": ' in text for name in compare.BENCHMARKS)
