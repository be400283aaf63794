"""Two runs of which the second learns from the first."""

import json
import re
import subprocess
import sys

import pytest

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
        "--rounds=1",
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "first" / "encoder" / "encoder.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SECOND, OPTION, "--workdir=/tmp/x"), "--first is missing"),
        ((FIRST, SECOND, OPTION, "--workdir=/tmp/x", "--rounds=0"), "rounds=0"),
        ((FIRST, SECOND, OPTION, "--workdir=/tmp/x", "--set_first=steps"), "set_first='steps'.*name=value"),
    ],
)
def test_mistakes_are_answered_in_plain_words(arguments, message):
    done = stages(*arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
