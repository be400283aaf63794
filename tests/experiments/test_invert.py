"""experiments.invert: picture, tables, refusals; a run from the command line that goes on where it was stopped."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ssl_jax.cli.invert import CELL, Wanted, draw_grid, inversion_table, transformation_table


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


@pytest.mark.long
def test_a_run_is_inverted_goes_on_and_refuses_other_decoders(tmp_path):
    workdir, parts = tmp_path / "run", ("--train_split=train[:3%]", "--test_split=test[:3%]")
    pretrain = [
        sys.executable,
        "-m",
        "experiments.pretrain",
        "--config=configs/simclr.py:smoke",
        f"--workdir={workdir}",
    ]
    done = subprocess.run([*pretrain, "--config.steps=2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    given = (
        f"--workdir={workdir}",
        *parts,
        "--steps=3",
        "--batch_size=16",
        "--width=4",
        "--images=3",
        "--samples=2",
    )
    made = invert(*given, "--solver_steps=2")
    assert made.returncode == 0, made.stderr
    assert "pixels explained" in made.stdout and "rotation" in made.stdout
    folder = workdir / "inversion"
    result = json.loads((folder / "inversion.json").read_text())
    assert [row["read"] for row in result["rows"]] == ["backbone", "projector"]
    assert all({"mse", "explained", "free", "reciprocal_rank"} <= row.keys() for row in result["rows"])
    assert {"chance", "backbone", "projector"} <= result["transformations"][0].keys()
    picture = Image.open(folder / "inversion.png")
    assert (
        picture.size[0] > picture.size[1]
    )  # the image, then a decoded one and two samples of each of two readings
    # The same command trains nothing again, and makes the same of it.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/checkpoints/*/*")}
    again = invert(*given, "--solver_steps=2")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/checkpoints/*/*")} == before
    assert json.loads((folder / "inversion.json").read_text())["rows"] == result["rows"]
    # Other decoders are refused, and what the encoder does not have.
    other = invert(*given[:-5], "--steps=4")
    assert other.returncode == 1 and "training.steps: 3 -> 4" in other.stderr and "--out" in other.stderr
    assert "read='head'" in invert(*given, "--read=head").stderr
    assert "allowed is one of them" in invert(*given, "--encoder=x").stderr
