"""Several processes train, evaluate and save as one does; what happens when one of them dies. 500 CPU seconds."""

import json
import shutil
import signal
import time

import numpy as np
import pytest

from ssl_jax.cli.processes import Cluster, distributed
from ssl_jax.core import trees
from ssl_jax.train.checkpoint import restore_model
from tests.experiments.processes import finished, launch, start, train

METHODS = ("simclr", "dino", "swav", "mae", "npid", "temporal_ensembling", "deepcluster")
"""Pairs, a teacher with crops of two sizes, Sinkhorn, masks, memories with a row an example, refreshes of all images."""
PATIENCE = 60
"""Seconds after the death of a process, on this machine, in which the others must have stopped."""
SMOKE = ("--config=configs/simclr.py:smoke", "--config.batch_size=16")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs of one process with one device."""
    folder = tmp_path_factory.mktemp("alone")
    train([folder / name for name in METHODS], processes=1, devices=1)
    return folder


def records(workdir):
    """Step to scalars, without those that tell the time."""
    found = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record.pop("step"), {}).update(record)
    timed = ("images_per_second", "stall_share", "time")
    return {step: {k: v for k, v in r.items() if k not in timed} for step, r in found.items()}


def assert_same_run(found, expected):
    ours, theirs = records(found), records(expected)
    assert ours.keys() == theirs.keys()
    for step, record in theirs.items():
        assert ours[step].keys() == record.keys()
        for name, value in record.items():
            assert ours[step][name] == pytest.approx(value, rel=1e-3, abs=1e-4), (step, name)
        if "loss" in record:
            assert ours[step]["loss"] == pytest.approx(record["loss"], rel=2e-5), step
    ours, theirs = (restore_model(w / "checkpoints", step=4) for w in (found, expected))
    ours, theirs = (trees.flatten({"params": m.params, "state": m.state}) for m in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        scale = max(float(np.abs(leaf).max()), 0.1) if leaf.size else 0.1
        np.testing.assert_allclose(ours[path], leaf, rtol=0, atol=1e-4 * scale, err_msg=path)


def halfway(run, folder):
    """A copy of a run whose last checkpoint is lost."""
    shutil.copytree(run, folder / run.name)
    shutil.rmtree(folder / run.name / "checkpoints" / "4")
    return folder / run.name


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 4])
def test_two_processes_train_as_one_and_go_on_from_each_others_checkpoints(alone, devices, tmp_path):
    """Losses, online evaluation, health and final weights; every method, and SimCLR from a checkpoint of one process."""
    (tmp_path / "again").mkdir()
    resumed = halfway(alone / "simclr", tmp_path / "again")
    train([*(tmp_path / name for name in METHODS), resumed], processes=2, devices=devices)
    for name in METHODS:
        assert_same_run(tmp_path / name, alone / name)
    assert_same_run(resumed, alone / "simclr")
    (tmp_path / "back").mkdir()
    back = halfway(tmp_path / "simclr", tmp_path / "back")
    train([back], processes=1, devices=1)
    assert_same_run(back, alone / "simclr")


LONG = (
    *SMOKE,
    "--config.steps=100000",
    "--config.watch.checkpoint.every=10",
    "--config.watch.online.every=100000",
)
LONG += ("--config.watch.health.batch=0", "--config.watch.health.sample=0")


def wait_for_step(running, workdir, step):
    """Until a record of ``step`` or later stands in the metrics."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if (workdir / "metrics.jsonl").exists() and max(records(workdir), default=0) >= step:
            return
        assert all(process.poll() is None for process in running), [p.communicate() for p in running]
        time.sleep(0.1)
    pytest.fail("the run made no progress")


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_of_two_processes_dies_the_other_stops_and_says_why(tmp_path, rank):
    """At once, for the connections close; only of a machine that is cut off it takes ``--heartbeat`` seconds."""
    running = launch("pretrain", *LONG, f"--workdir={tmp_path}", devices=1)
    wait_for_step(running, tmp_path, 12)
    running[rank].kill()
    running[rank].communicate()
    begin = time.monotonic()
    _, err = running[1 - rank].communicate(timeout=PATIENCE)
    assert time.monotonic() - begin < PATIENCE
    assert running[1 - rank].returncode != 0
    ours = "another process of this run ended or cannot be reached" in err
    # Without process 0, which the others ask for news, JAX ends them itself, unless the step fails first.
    assert ours or (rank == 0 and "another task died" in err), err


@pytest.mark.long
def test_sigterm_to_one_process_stops_both_after_the_same_step_and_two_evaluate_as_one(tmp_path):
    running = launch("pretrain", *LONG, f"--workdir={tmp_path}", devices=1)
    wait_for_step(running, tmp_path, 12)
    running[1].send_signal(signal.SIGTERM)
    (out, _), (silent, _) = finished(running)
    assert "stopped by preemption after step" in out
    assert "stopped" not in silent
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert saved == max(records(tmp_path)) == int(out.split("after step ")[1].split(",")[0])

    measures = ("--measures=knn,ridge", "--baselines=random", f"--workdir={tmp_path}")
    finished([start(["-m", "experiments.evaluate", *measures], 1)])
    alone = json.loads((tmp_path / "evaluation.json").read_text())
    (out, _), (silent, _) = finished(launch("evaluate", *measures))
    assert "written to" in out
    assert "measured" not in silent
    together = json.loads((tmp_path / "evaluation.json").read_text())
    assert together["examples"] == alone["examples"]
    for row, expected in zip(together["rows"], alone["rows"], strict=True):
        assert row["features"] == expected["features"]
        for name in ("knn", "ridge"):
            assert row[name] == pytest.approx(expected[name], abs=0.005)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 2}, "give all three"),
        ({"coordinator": "127.0.0.1:1", "processes": 2, "process": 2}, "--process=2: allowed is 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(given, message):
    with pytest.raises(ValueError, match=message), distributed(Cluster(**given)):
        pass
