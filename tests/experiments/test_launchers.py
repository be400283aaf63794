"""From a folder of mixed real files to features and an exported encoder, by the commands a user types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ssl_jax.models.serialize import load_encoder
from tests.data.images import write_mixed_folder

ROOT = Path(__file__).parent.parent.parent


def launch(verb, *arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", f"experiments.{verb}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def succeed(verb, *arguments):
    done = launch(verb, *arguments)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A run on a folder of 200 files, some unreadable, stopped after four steps and gone on with."""
    folder, workdir = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("runs") / "mixed"
    corrupt = write_mixed_folder(folder, count=200, seed=0)
    arguments = (
        "--config=configs/simclr.py:folder,convnet,smoke",
        f"--config.data.source=folder:{folder}",
        "--config.batch_size=40",
        f"--workdir={workdir}",
    )
    succeed("pretrain", *arguments)
    resumed = succeed("pretrain", *arguments, "--config.steps=8", "--allow_changes")
    return folder, workdir, corrupt, resumed


def test_mixed_folder_trains_and_resumes_and_names_what_it_cannot_read(mixed):
    folder, workdir, corrupt, resumed = mixed
    assert f"200 images in folder:{folder}: 8 steps of 40 are 1.6 epochs" in resumed.stdout
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 9))
    assert "done: 8 steps" in resumed.stdout
    assert sum(Path(name).name in resumed.stderr for name in corrupt) > 0


def test_mixed_folder_is_embedded_with_file_names(mixed, tmp_path):
    folder, workdir, corrupt, _ = mixed
    for suffix in ("npz", "parquet"):
        succeed(
            "embed", f"--workdir={workdir}", f"--source=folder:{folder}", f"--out={tmp_path / 'f'}.{suffix}"
        )
    with np.load(tmp_path / "f.npz") as file:
        features, names = file["features"], file["file_name"].tolist()
    assert len(names) == len(set(names)) == 200 - len(corrupt) == len(features)
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0
    assert not {Path(name).name for name in names} & {Path(name).name for name in corrupt}
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "f.parquet")
    assert parquet.column("file_name").to_pylist() == names
    np.testing.assert_array_equal(np.stack(parquet.column("features").to_pylist()), features)


def test_exported_encoder_gives_the_features_of_embed(mixed, tmp_path):
    _, workdir, _, _ = mixed
    succeed("export", f"--workdir={workdir}", f"--out={tmp_path}")
    facts = json.loads((tmp_path / "encoder.json").read_text())
    images = np.random.default_rng(0).random((3, *facts["image_shape"]), dtype=np.float32)
    program = jax.export.deserialize(bytearray((tmp_path / "encoder.stablehlo").read_bytes()))
    network, params, state, metadata = load_encoder(tmp_path / "encoder.safetensors")
    assert metadata == facts
    normal = (images - np.float32(facts["mean"])) / np.float32(facts["std"])
    features, _ = network.apply(params, state, normal)
    np.testing.assert_allclose(program.call(images), features, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_evaluate_measures_the_encoder_beside_pixels_and_its_start(tmp_path):
    workdir = tmp_path / "run"
    succeed("pretrain", "--config=configs/mae.py:smoke", f"--workdir={workdir}")
    shown = succeed(
        "evaluate", f"--workdir={workdir}", "--train_split=train[:400]", "--test_split=test[:200]"
    )
    result = json.loads((workdir / "evaluation.json").read_text())
    names = ["raw pixels", "PCA of pixels, 64 components", "random encoder", "mae, 4 steps"]
    assert [row["features"] for row in result["rows"]] == names
    for row in result["rows"]:
        assert 0.1 < row["knn"] <= 1
        assert 0.1 < row["linear"] <= 1
        assert f"{100 * row['knn']:.1f}" in shown.stdout
    assert result["examples"] == [400, 200]


@pytest.mark.long
def test_finetune_trains_the_encoder_and_its_random_start_on_a_share_of_the_labels(tmp_path):
    workdir = tmp_path / "run"
    succeed("pretrain", "--config=configs/mae.py:smoke", f"--workdir={workdir}")
    asked = ("--recipe=mae", "--share=0.2", "--seeds=0,1", "--set=epochs=2", "--set=layer_decay=0.5")
    shown = succeed("finetune", f"--workdir={workdir}", *asked)
    result = json.loads((workdir / "finetune.json").read_text())
    assert (result["options"]["epochs"], result["options"]["layer_decay"]) == (2, 0.5)
    assert result["options"]["mixup"] == 0.8
    assert [row["start"] for row in result["rows"]] == ["random encoder", "mae, 4 steps"]
    for row in result["rows"]:
        assert row["labels"] == 200
        assert len(row["accuracy"]) == 2
        assert f"{50 * sum(row['accuracy']):.1f}" in shown.stdout


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("finetune", ("--workdir=/nowhere",), "no run in it"),
        ("finetune", ("--workdir=/x", "--set=rate=1"), "set='rate'.*allowed"),
        ("finetune", ("--workdir=/x", "--set=mixup=os.getcwd()"), "set='mixup=os.*allowed is a number"),
        ("evaluate", ("--workdir=/nowhere",), "no run in it"),
        (
            "embed",
            ("--workdir=/nowhere", "--source=folder:/x", "--out=/tmp/x.csv"),
            "did you mean '.npz'|allowed: .npz",
        ),
        ("pretrain", ("--workdir=/tmp/x",), "--config is missing"),
        (
            "pretrain",
            ("--config=configs/dcca.py", "--config.method.decay=1", "--workdir=/tmp/x"),
            "config.method.decay is not an option: allowed: name, projection",
        ),
    ],
)
def test_mistakes_are_answered_in_plain_words(verb, arguments, message):
    done = launch(verb, *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert pytest.importorskip("re").search(message, done.stderr), done.stderr
