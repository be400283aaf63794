"""A run that is killed, stopped, doubled or poisoned: what a user types, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ssl_jax.cli import pretrain
from ssl_jax.config import build
from ssl_jax.core import trees
from ssl_jax.train import storage
from ssl_jax.train.checkpoint import restore_model
from ssl_jax.train.session import NonFiniteError
from ssl_jax.train.workdir import Workdir

ROOT = Path(__file__).parent.parent.parent
STEPS = 600
TINY = (
    "--config=configs/simclr.py:smoke",
    f"--config.steps={STEPS}",
    "--config.watch.checkpoint.every=20",
    "--config.watch.online.every=300",
)


def start(*arguments, verb="pretrain"):
    command = [sys.executable, "-m", f"experiments.{verb}", *arguments]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, **pipe)


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for_step(process, workdir, step):
    """Until a record of ``step`` or later stands in the metrics."""
    path = workdir / "metrics.jsonl"
    for _ in range(30000):
        records = path.read_text().splitlines() if path.exists() else []
        if records and json.loads(records[-1])["step"] >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("the run made no progress")


def weights(workdir):
    model = restore_model(workdir / "checkpoints", step=STEPS)
    return trees.flatten({"params": model.params, "state": model.state})


@pytest.mark.long
def test_killed_stopped_and_resumed_run_ends_in_the_same_bits(tmp_path):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    first = start(*TINY, f"--workdir={broken}")
    wait_for_step(first, broken, 50)
    first.send_signal(signal.SIGKILL)
    first.communicate()

    second = start(*TINY, f"--workdir={broken}")
    wait_for_step(second, broken, 100)
    second.send_signal(signal.SIGTERM)
    code, out, err = finish(second)
    assert code == 0, err
    assert "stopped by SIGTERM" in out

    for workdir in (broken, whole):
        code, out, err = finish(start(*TINY, f"--workdir={workdir}"))
        assert code == 0, err
        assert f"done: {STEPS} steps" in out
    found, expected = weights(broken), weights(whole)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    series = [
        {
            r["step"]: r["loss"]
            for r in map(json.loads, (w / "metrics.jsonl").read_text().splitlines())
            if "loss" in r
        }
        for w in (broken, whole)
    ]
    assert series[0] == series[1]


def kill_in_refresh(process, step):
    """Kill a run while it clusters its images before the update that follows ``step`` others."""
    for line in process.stderr:
        if line.startswith(f"step {step}/") and "refresh" in line:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return
    pytest.fail("the run ended without that refresh")


@pytest.mark.long
def test_deepcluster_killed_in_and_between_reassignments_ends_in_the_same_bits(tmp_path):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    run = ("--config=configs/deepcluster.py:smoke", "--config.steps=120", "--config.refresh_every=20")
    run += ("--config.watch.checkpoint.every=15", "--config.watch.online.every=60")
    for step in (0, 40):
        kill_in_refresh(start(*run, f"--workdir={broken}"), step)
    third = start(*run, f"--workdir={broken}")
    wait_for_step(third, broken, 70)
    third.send_signal(signal.SIGKILL)
    third.communicate()
    for workdir in (broken, whole):
        code, _, err = finish(start(*run, f"--workdir={workdir}"))
        assert code == 0, err
    models = [restore_model(w / "checkpoints", step=120) for w in (broken, whole)]
    found, expected = (trees.flatten({"params": m.params, "state": m.state}) for m in models)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    series = [
        [{k: v for k, v in r.items() if k in ("step", "loss", "refresh/nmi")} for r in map(json.loads, lines)]
        for lines in ((w / "metrics.jsonl").read_text().splitlines() for w in (broken, whole))
    ]
    assert series[0] == series[1]
    assert any("refresh/nmi" in record for record in series[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config.method.temprature=1",), "temperature"),
        (("--config.batch_size=many",), "batch_size"),
        (("--cofnig.seed=1",), "config"),
    ],
)
def test_wrong_override_is_refused_in_one_line(tmp_path, arguments, message):
    process = start("--config=configs/simclr.py:smoke", f"--workdir={tmp_path / 'run'}", *arguments)
    code, _, err = finish(process)
    assert code == 2
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_changed_config_is_refused_on_resume_with_what_differs(tmp_path):
    config = build.to_dict(_smoke())
    with Workdir(tmp_path / "run") as workdir:
        workdir.configure({**config, "data": {**config["data"], "channels": 1}})
        changed = {**config, "batch_size": 16}
        with pytest.raises(ValueError, match="batch_size: 8 -> 16"):
            pretrain.train(changed, build.run_objects(changed), workdir)


def test_step_that_is_not_finite_stops_with_a_dump_that_replays(tmp_path, capsys):
    config = build.to_dict(_smoke())
    config["optimizer"] |= {"learning_rate": 1e30, "warmup_steps": 0}
    with Workdir(tmp_path / "run") as workdir, pytest.raises(NonFiniteError, match="--replay=") as error:
        pretrain.train(config, build.run_objects(config), workdir)
    dump = Path(str(error.value).split("--replay=")[1].strip())
    recorded = storage.read_manifest(dump)["facts"]["metrics"]
    capsys.readouterr()
    pretrain.replay(dump)
    printed = capsys.readouterr().out
    replayed = json.loads(printed[: printed.index("}") + 1])
    assert replayed["finite"] == 0.0
    assert not np.isfinite(replayed["grad_norm"]) or not np.isfinite(replayed["loss"])
    assert storage.strict_json({name: replayed[name] for name in recorded}) == recorded


def _smoke():
    from configs import simclr

    config = simclr.get_config("smoke")
    config.host.data = -1
    return config
