"""The watchdog names what a run waits for, and watching does not change the run."""

import io
import time

import jax
import numpy as np
import pytest

from ssl_jax.train import session
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.progress import Progress
from ssl_jax.train.watchdog import Watchdog
from tests.train.test_stop import Look, Slow, assert_same_bits, program, run, whole  # noqa: F401 (fixtures)


def wait(seconds=0.5):
    return lambda: time.sleep(seconds)


def told(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("no step has finished")]


@pytest.mark.parametrize("what", ["data", "device", "checkpoint", "evaluation"])
def test_what_a_run_waits_for_is_named(program, whole, tmp_path, capfd, monkeypatch, what):  # noqa: F811
    source, hooks, used = None, [], program
    if what == "data":
        source = Slow(20, wait())
        source.go.set()
    if what == "evaluation":
        hooks = [Look(act=wait())]
    if what == "device":
        slow = [wait()]

        def step(state, batch):
            slow.pop()() if slow and int(state.step) == 2 else None
            return program.step(state, batch)

        used = program._replace(step=step)
    if what == "checkpoint":
        save, left = Checkpoints.save, [wait()]

        def slow_save(self, *arguments, **options):
            left.pop()() if left else None
            return save(self, *arguments, **options)

        monkeypatch.setattr(Checkpoints, "save", slow_save)
    # Without saves, behind which a short wait for data would vanish.
    options = {"folder": tmp_path if what == "checkpoint" else None, "hooks": hooks, "stall_seconds": 0.15}
    done = run(used, source, **options) if source else run(used, **options)
    names = {
        "data": "waiting for data from array",
        "device": "waiting for the device",
        "checkpoint": f"waiting for a checkpoint in {tmp_path}",
        "evaluation": "waiting for evaluation (Look)",
    }
    lines = told(capfd)
    assert any(names[what] in line for line in lines), lines
    assert_same_bits(done.state, whole)


def test_it_tells_twice_as_late_each_time_and_once_when_it_goes_on():
    lines: list[str] = []
    watchdog = Watchdog(3600.0, lines.append)
    with watchdog.waiting("data"):
        for hours in (0.9, 1.1, 1.9, 2.1, 3.9, 4.1):
            watchdog._check(watchdog._since + 3600 * hours)
    watchdog.finished(7)
    watchdog.finished(8)
    watchdog._check(watchdog._since + 3700)
    watchdog.close()
    assert lines == [
        "no step has finished for 1:06:00 since the start: waiting for data",
        "no step has finished for 2:06:00 since the start: waiting for data",
        "no step has finished for 4:06:00 since the start: waiting for data",
        "step 7 has finished",
        "no step has finished for 1:01:40 since step 8: waiting for the host",
    ]


def test_a_watchdog_that_barks_all_the_time_changes_no_bit(program, whole, monkeypatch):  # noqa: F811
    lines: list[str] = []
    monkeypatch.setattr(Progress, "note", lambda self, line: lines.append(line))
    monkeypatch.setattr(session, "Watchdog", lambda stall_seconds, report: Watchdog(1e-9, report))
    assert_same_bits(run(program, source=_slowly()).state, whole)
    assert lines


def _slowly():
    source = Slow(10**9, wait(0))
    read = type(source).__getitem__
    slower = type("Slower", (Slow,), {"__getitem__": lambda self, i: time.sleep(0.005) or read(self, i)})
    return slower(10**9, wait(0))


def test_no_patience_is_no_thread_and_a_negative_one_is_refused():
    assert Watchdog(0.0, print)._thread is None
    with pytest.raises(ValueError, match=r"stall_seconds=-1\.0"):
        Watchdog(-1.0, print)


def test_the_share_of_time_that_input_took_is_in_the_bar(program, capfd):  # noqa: F811
    run(program, source=_slowly(), log_every=3)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step 6/6")]
    share = float(lines[0].split("input stall ")[1].rstrip("%"))
    assert share > 20
    stream = io.StringIO()
    progress = Progress(4, 0, 8, stream=stream)
    progress.stall(1e9)
    assert progress.report(2, {"loss": np.float32(1)})["stall_share"] == 1.0
    assert "input stall 100%" in stream.getvalue() and jax.process_count() == 1
