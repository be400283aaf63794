"""experiments.invert: picture, tables, refusals; a run from the command line that goes on where it was stopped."""

import dataclasses
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ssl_jax.cli.invert import (
    CELL,
    Wanted,
    draw_grid,
    inversion_table,
    invert_run,
    transformation_table,
)
from ssl_jax.cli.pretrain import pretrain
from ssl_jax.config import build
from ssl_jax.config.find import find_config
from ssl_jax.config.load import load_config
from ssl_jax.evaluate import transformations
from ssl_jax.evaluate.inversion import Training


def test_the_picture_has_each_image_where_its_row_and_column_are():
    originals = np.zeros((2, 8, 8, 3), np.float32)
    originals[1] = [1.0, 0.0, 0.0]
    decoded = np.full((2, 8, 8, 3), 0.5, np.float32)
    picture = Image.open(
        io.BytesIO(draw_grid(originals, {"backbone: decoded": decoded, "backbone: sample 1": originals}))
    )
    pixels = np.asarray(picture)
    assert pixels.shape == (32 + 2 * (CELL + 4) + 4, 3 * (CELL + 4) + 4, 3)

    def at(row, column):
        return pixels[32 + row * (CELL + 4) + CELL // 2, 4 + column * (CELL + 4) + CELL // 2].tolist()

    assert at(0, 0) == [0, 0, 0] and at(1, 0) == [255, 0, 0] == at(1, 2)
    assert at(0, 1) == at(1, 1) == [128, 128, 128]
    assert (pixels[:30] < 255).any(), "headings"


def test_the_picture_of_gray_and_of_many_channels():
    for channels in (1, 2, 5):
        images = np.random.default_rng(0).random((2, 8, 8, channels)).astype(np.float32)
        assert Image.open(io.BytesIO(draw_grid(images, {}))).mode == "RGB"


def test_tables_show_shares_in_percent():
    rows = [
        {"read": "backbone", "features": 64, "mse": 0.01, "psnr": 20.0, "explained": 0.75}
        | {"free": 0.25, "reciprocal_rank": 1.0, "chance_rank": 0.3},
        {"read": "projector", "features": 16, "mse": 0.02, "psnr": 17.0, "explained": 0.5},
    ]
    text = inversion_table(rows)
    assert "75.0" in text and "25.0" in text and "20.0" in text
    told = transformation_table(
        [{"transformation": "hue", "chance": 1 / 3, "backbone": 0.5, "projector": 0.4}]
    )
    assert "hue" in told and "33.3" in told and "50.0" in told


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"read": ("head",)}, "read='head'"),
        ({"kinds": ("gan",)}, "kinds='gan'"),
        ({"kinds": ()}, "kinds="),
        ({"images": 1}, "images=1"),
        ({"samples": 1}, "samples=1"),
        ({"solver": "rk4"}, "solver='rk4'"),
        ({"solver_steps": 0}, "solver_steps=0"),
    ],
)
def test_refusals_name_the_option(given, said):
    with pytest.raises(ValueError, match=said):
        Wanted(**given)


def invert(*arguments):
    command = [sys.executable, "-m", "experiments.invert", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def workdir(tmp_path):
    """A run of SimCLR with two steps."""
    small = {"steps": 2, "watch.health.batch": 0, "watch.health.sample": 0, "watch.online.every": 9}
    config = load_config(f"{find_config('simclr')}:embedded,smoke", small)
    pretrain(build.to_dict(config), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.long
def test_a_run_is_inverted_once_and_other_decoders_are_refused(workdir, monkeypatch, capsys):
    few = {name: transformations.TRANSFORMATIONS[name] for name in ("flip", "brightness")}
    monkeypatch.setattr(transformations, "TRANSFORMATIONS", few)
    training = Training(steps=3, batch_size=16, width=4)
    given = {"splits": ("train[:3%]", "test[:3%]"), "training": training}
    wanted = Wanted(images=3, samples=2, solver="euler", solver_steps=2)
    invert_run(workdir, wanted=wanted, **given)
    said = capsys.readouterr().out
    assert "pixels explained" in said and "brightness" in said
    folder = workdir / "inversion"
    result = json.loads((folder / "inversion.json").read_text())
    assert [row["read"] for row in result["rows"]] == ["backbone", "projector"]
    assert all({"mse", "explained", "free", "reciprocal_rank"} <= row.keys() for row in result["rows"])
    assert [row["transformation"] for row in result["transformations"]] == list(few)
    assert {"chance", "backbone", "projector"} <= result["transformations"][0].keys()
    # The image, one decoded from each of two readings, and two samples of each.
    with Image.open(folder / "inversion.png") as picture:
        assert picture.size[0] == 7 * (4 * 28 + 4) + 4
    # Another picture of the same decoders trains nothing again.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/checkpoints/*/*")}
    again = dataclasses.replace(wanted, kinds=("deterministic",), images=4)
    invert_run(workdir, wanted=again, **given)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/checkpoints/*/*")} == before
    rows = json.loads((folder / "inversion.json").read_text())["rows"]
    assert [row["mse"] for row in rows] == [row["mse"] for row in result["rows"]]
    # Other decoders are refused, and what the encoder does not have.
    other = {**given, "training": training._replace(steps=4)}
    with pytest.raises(ValueError, match=r"training\.steps: 3 -> 4(.|\n)*--out"):
        invert_run(workdir, wanted=wanted, **other)


@pytest.mark.long
def test_errors_of_the_command_line_are_one_message():
    assert "read='head'" in invert("--workdir=runs/none", "--read=head").stderr
    failed = invert("--workdir=runs/none", "--encoder=x")
    assert failed.returncode == 1 and failed.stderr.startswith("error: --workdir and --encoder")
