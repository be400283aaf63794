"""Runs in stages, each of which learns from the one before."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ssl_jax.cli import two_stage
from ssl_jax.cli.two_stage import Stage, run_stages
from ssl_jax.config import build
from ssl_jax.methods.parts.frozen_teacher import read_teacher

FIRST, SECOND = "--first=configs/dvae.py:smoke", "--second=configs/beit.py:smoke"
OPTION = "--option=method.tokenizer"


def stages(*arguments):
    command = [sys.executable, "-m", "experiments.two_stage", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.long
def test_beit_learns_from_the_tokenizer_that_the_same_command_trains_and_nothing_is_made_twice(tmp_path):
    done = stages(
        FIRST,
        SECOND,
        OPTION,
        f"--workdir={tmp_path}",
        "--set_second=watch.evaluate.train_split=train[:400]",
        "--set_second=watch.evaluate.test_split=test[:200]",
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["method"]["tokenizer"] == str(tmp_path / "first" / "encoder" / "encoder.safetensors")
    rows = json.loads((tmp_path / "second" / "evaluation.json").read_text())["rows"]
    assert any(row["features"].startswith("beit") for row in rows)
    written = (tmp_path / "first" / "encoder" / "encoder.safetensors").stat().st_mtime_ns
    again = stages(
        FIRST,
        SECOND,
        OPTION,
        f"--workdir={tmp_path}",
        "--set_second=watch.evaluate.train_split=train[:400]",
        "--set_second=watch.evaluate.test_split=test[:200]",
        "--stages=2",
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "first" / "encoder" / "encoder.safetensors").stat().st_mtime_ns == written


@pytest.mark.long
def test_each_stage_of_dbot_learns_from_the_one_before_from_another_start(tmp_path):
    done = stages(
        "--first=configs/dbot.py:smoke",
        "--option=method.teacher",
        "--stages=3",
        f"--workdir={tmp_path}",
        "--set_first=watch.evaluate.train_split=train[:400]",
        "--set_first=watch.evaluate.test_split=test[:200]",
    )
    assert done.returncode == 0, done.stderr
    folders = [tmp_path / name for name in ("first", "second", "stage_3")]
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    teachers = [""] + [str(folder / "encoder" / "encoder.safetensors") for folder in folders[:2]]
    assert [config["method"]["teacher"] for config in configs] == teachers
    assert [config["seed"] for config in configs] == [0, 1, 2]
    assert (folders[2] / "evaluation.json").exists()
    # Bit by bit: what a stage has learnt is the teacher of the next one, at its end too.
    for before, after in itertools.pairwise(folders):
        _, method, old = build.restore(before, "latest")
        _, _, new = build.restore(after, "latest")
        learnt, _ = method.encoder_variables(old.params, old.state)
        jax.tree.map(np.testing.assert_array_equal, new.state["teacher"].params, learnt)
        # The run's folder is as good a name.
        by_folder, _ = read_teacher(str(before), method.encoder).variables
        jax.tree.map(np.testing.assert_array_equal, by_folder, learnt)


@pytest.fixture
def launched(monkeypatch):
    """Launchers that are called, none of which runs: runs leave their seed, exports their file."""
    calls = []

    def launch(verb, *options):
        calls.append((verb, *options))
        values = dict(option.removeprefix("--").split("=", 1) for option in options)
        if verb == "export":
            (Path(values["out"]) / two_stage.ENCODER).touch()
            return
        Path(values["workdir"], "encoder").mkdir(parents=True)
        seed = int(values.get("config.seed", 0))
        Path(values["workdir"], "config.json").write_text(json.dumps({"seed": seed}))

    monkeypatch.setattr(two_stage, "run_launcher", launch)
    return calls


def test_a_config_that_is_repeated_gets_the_next_seed(launched, tmp_path):
    first, second = Stage("simclr", ["--config.seed=4"]), Stage("bownet", ["--config.seed=7"])
    assert run_stages(first, second, tmp_path, option="method.teacher", stages=4) == tmp_path / "stage_4"
    runs = [call for call in launched if call[0] == "pretrain"]
    assert [call[1] for call in runs] == ["--config=simclr"] + 3 * ["--config=bownet"]
    places = ["first", "second", "stage_3", "stage_4"]
    assert [call[2] for call in runs] == [f"--workdir={tmp_path / place}" for place in places]
    assert [seed(tmp_path / place) for place in places] == [4, 7, 8, 9]
    for run, place in zip(runs[1:], places, strict=False):
        assert f"--config.method.teacher={tmp_path / place / 'encoder' / 'encoder.safetensors'}" in run


def seed(folder):
    return json.loads((folder / "config.json").read_text())["seed"]


def test_the_first_config_repeated_gets_the_next_seed_from_the_second_stage_on(launched, tmp_path):
    stage = Stage("dbot", ["--config.seed=4"])
    run_stages(stage, stage, tmp_path, option="method.teacher", stages=3)
    assert [seed(tmp_path / place) for place in ("first", "second", "stage_3")] == [4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SECOND, OPTION, "--workdir=/tmp/x"), "--first is missing"),
        ((FIRST, SECOND, OPTION, "--workdir=/tmp/x", "--stages=1"), "stages=1"),
        ((FIRST, SECOND, OPTION, "--workdir=/tmp/x", "--set_first=steps"), "set_first='steps'.*name=value"),
    ],
)
def test_mistakes_are_answered_in_plain_words(arguments, message):
    done = stages(*arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
