"""Vectorized runs are the single runs; a sweep goes on where it stopped; runs that cannot be vectorized are processes."""

import copy
import functools
import importlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ssl_jax.cli import pretrain, search_space, vectorized_runs
from ssl_jax.config import build
from ssl_jax.config.load import load_config
from ssl_jax.config.overrides import apply_overrides
from ssl_jax.core import trees
from ssl_jax.train.checkpoint import restore_model
from ssl_jax.train.sharding import make_mesh
from ssl_jax.train.workdir import Workdir
from ssl_jax.train.writers import read_jsonl

ROOT = Path(__file__).parent.parent.parent
GRID = [{"method.temperature": t, "seed": s} for t in (0.1, 0.5) for s in (0, 1)]


def config_of(name="simclr", **changes):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.update_from_flattened_dict({"steps": 3, "watch.checkpoint.every": 2, **changes})
    return config


def load_changed(config):
    def load(overrides):
        changed = copy.deepcopy(config)
        apply_overrides(changed, overrides)
        return changed

    return load


def make_trials(config, differing, folder):
    trials = [search_space.make_trial(load_changed(config), overrides, folder) for overrides in differing]
    return [trial._replace(config=build.with_changes(trial.config, {"data.channels": 1})) for trial in trials]


@pytest.mark.long
def test_vectorized_runs_of_temperature_and_seed_are_the_single_runs(tmp_path):
    """Losses, parameters and online probes, to rounding."""
    runs = make_trials(config_of(), GRID, tmp_path / "vectorized")
    assert vectorized_runs.train(runs, tmp_path / "scratch").finite == [True] * 4
    assert not (tmp_path / "scratch").exists()
    losses = set()
    for run in runs:
        alone = tmp_path / "alone" / run.folder.name
        with Workdir(alone) as workdir:
            pretrain.train(run.config, build.run_objects(run.config), workdir)
        found, expected = (restore_model(folder / "checkpoints") for folder in (run.folder, alone))
        assert (
            (found.step, found.metadata)
            == (expected.step, expected.metadata)
            == (3, json.loads(json.dumps(run.config)))
        )
        for path, value in trees.flatten({"p": expected.params, "s": expected.state}).items():
            ours = trees.flatten({"p": found.params, "s": found.state})[path]
            np.testing.assert_allclose(ours, value, rtol=2e-4, atol=2e-5, err_msg=path)
        ours, theirs = (
            {(r["step"], n): v for r in read_jsonl(folder / "metrics.jsonl") for n, v in r.items()}
            for folder in (run.folder, alone)
        )
        assert {key for key in theirs if key[1] not in ("images_per_second", "stall_share")} == set(ours)
        for key, value in ours.items():
            np.testing.assert_allclose(value, theirs[key], rtol=2e-3, atol=1e-4, err_msg=str(key))
        losses.add(ours[3, "loss"])
    assert len(losses) == 4


@pytest.mark.long
def test_a_run_that_diverges_stands_still_and_the_others_go_on(tmp_path):
    rates = [{"optimizer.learning_rate": rate} for rate in (1e-3, 1e30)]
    runs = make_trials(config_of(**{"optimizer.warmup_steps": 0}), rates, tmp_path)
    trained = vectorized_runs.train(runs, tmp_path / "scratch")
    assert trained.finite == [True, False]
    good, bad = (restore_model(run.folder / "checkpoints") for run in runs)
    assert good.step == 3 > bad.step
    assert all(np.isfinite(x).all() for x in trees.flatten(good.params).values())


@pytest.mark.parametrize(
    ("name", "overrides", "reason"),
    [
        ("simclr", {"method.temperature": 0.2, "seed": 1, "optimizer.learning_rate": 0.1}, ""),
        ("simclr", {"method.projector_layers": 3}, "neither the seed nor a number"),
        ("simclr", {"batch_size": 64}, "neither the seed nor a number"),
        ("dino", {"method.temperatures.student": 0.2, "method.teacher.decay": 0.9}, ""),
        ("dino", {"method.head.prototypes": 32}, "method.head.prototypes is neither the seed nor a number"),
        ("deepcluster", {"seed": 1}, "looks at all images between steps"),
    ],
)
def test_what_can_be_vectorized(name, overrides, reason):
    trial = search_space.make_trial(load_changed(config_of(name)), overrides, Path())
    found = vectorized_runs.obstacle(trial.config, overrides)
    assert bool(found) == bool(reason)
    assert reason in found


def test_an_option_that_decides_about_shapes_is_not_traceable(tmp_path):
    runs = make_trials(config_of("mae"), [{"method.mask_ratio": ratio} for ratio in (0.5, 0.75)], tmp_path)
    rows = build.sample(runs[0].config)
    with pytest.raises(
        vectorized_runs.NotTraceableError, match=r"method\.mask_ratio cannot be traced by mae"
    ):
        vectorized_runs.make_vectorized_program(runs, rows, make_mesh())


def test_random_overrides_keep_to_their_ranges_and_begin_alike():
    grid = dict(map(search_space.parse_axis, ("a=0.001:10:log", "b=-1:1", "c=x,y", "seed=0,1,2")))
    many, few = (search_space.combinations(grid, draws=draws, seed=3) for draws in (200, 20))
    assert many[:20] == few
    assert search_space.combinations(grid, draws=20, seed=4) != few
    values = {name: [overrides[name] for overrides in many] for name in grid}
    assert 0.001 <= min(values["a"]) < 0.01 < 1 < max(values["a"]) <= 10
    # Half the draws of a log-uniform distribution lie below the geometric mean of its ends.
    assert 0.4 < np.mean(np.array(values["a"]) < 0.1) < 0.6
    assert -1 <= min(values["b"]) < -0.9 < 0.9 < max(values["b"]) <= 1
    assert (set(values["c"]), set(values["seed"])) == ({"x", "y"}, {0, 1, 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature", "grid='temperature': allowed is NAME=value"),
        ("a=1:0", "two numbers"),
        ("a=0:1:log", "0 < low"),
        ("a=1:x", "two numbers"),
        ("a=1:2:cubic", "two numbers"),
    ],
)
def test_a_malformed_axis_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        search_space.parse_axis(text)


def test_trials_of_another_rule_have_its_options():
    load = functools.partial(load_config, str(ROOT / "configs/simclr.py:smoke"))
    sgd, lars = (
        search_space.make_trial(load, {"optimizer.name": name, "seed": 1}, Path()) for name in ("sgd", "lars")
    )
    assert sgd.folder.name == "name=sgd,seed=1"
    assert "trust_norm" in lars.config["optimizer"] and "trust_norm" not in sgd.config["optimizer"]
    assert vectorized_runs.obstacle(sgd.config, sgd.overrides)


def test_ranges_need_draws_and_options_must_exist(tmp_path):
    with pytest.raises(ValueError, match="a range goes with --random"):
        search_space.combinations(dict([search_space.parse_axis("a=1:2")]), draws=0, seed=0)
    with pytest.raises(ValueError, match=r"grid=method\.temprature"):
        search_space.make_trial(load_changed(config_of()), {"method.temprature": 1}, tmp_path)
    with pytest.raises(ValueError, match="grid=steps=many"):
        search_space.make_trial(load_changed(config_of()), {"steps": "many"}, tmp_path)


def command(workdir, *arguments):
    small = (
        "--config.host.data=1",
        "--config.watch.health.batch=0",
        "--config.watch.health.sample=0",
        "--config.watch.log.every=1",
    )
    return [
        *(
            sys.executable,
            "-m",
            "experiments.sweep",
            "--config=configs/simclr.py:smoke",
            f"--workdir={workdir}",
        ),
        *small,
        *arguments,
    ]


def sweeping(workdir, *arguments):
    done = subprocess.run(command(workdir, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_a_sweep_goes_on_where_it_was_stopped_and_takes_further_values(tmp_path):
    grid = ("--grid=method.temperature=0.1,0.5", "--grid=seed=0,1", "--config.watch.checkpoint.every=5")
    long = ("--config.steps=60", "--config.watch.online.every=60")
    first = tmp_path / "stopped"
    with subprocess.Popen(
        command(first, *grid, *long), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        watched = first / "temperature=0.1,seed=0" / "metrics.jsonl"
        deadline = time.monotonic() + 300
        while not (watched.exists() and len(read_jsonl(watched)) > 5):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert len(read_jsonl(watched)) < 60
    shown = sweeping(first, *grid, *long)
    assert "0 of 4 runs are in" in shown
    whole = tmp_path / "whole"
    sweeping(whole, *grid, *long)
    for run in ("temperature=0.1,seed=0", "temperature=0.5,seed=1"):
        ours, theirs = (restore_model(folder / run / "checkpoints") for folder in (first, whole))
        assert ours.step == theirs.step == 60
        for path, value in trees.flatten(theirs.params).items():
            np.testing.assert_array_equal(trees.flatten(ours.params)[path], value)
    assert "4 of 4 runs are in" in sweeping(first, *grid, *long)
    wider = (grid[0], "--grid=seed=0,1,2", *grid[2:])
    shown = sweeping(first, *wider, *long)
    assert "4 of 6 runs are in" in shown
    assert len(json.loads((first / "sweep.json").read_text())) == 6
    rows = [line for line in shown.splitlines() if re.match(r"0\.[15] ", line)]
    assert len(rows) == 2 and all("±" in row for row in rows)


@pytest.mark.long
def test_runs_of_other_shapes_are_processes(tmp_path):
    grid = ("--grid=method.projector_layers=1,2", "--config.steps=2")
    shown = sweeping(tmp_path, *grid)
    assert "one process a run: method.projector_layers is neither" in shown
    assert re.search(r"^1 .*\n2 |^2 .*\n1 ", shown, re.MULTILINE), shown
    assert "2 of 2 runs are in" in sweeping(tmp_path, *grid)
