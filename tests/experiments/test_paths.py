"""Runs, images and results below folders of any name: what is written there is found again."""

import json
import shlex
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from ssl_jax import data
from ssl_jax.cli import embed, evaluate, export, finetune, launch, pretrain, search_space
from ssl_jax.cli.report import Pictures, write_report
from ssl_jax.cli.sweep import Search, sweep
from ssl_jax.config import build
from ssl_jax.models.serialize import load_encoder
from ssl_jax.report.runs import read_run
from ssl_jax.report.verdict import verdict
from ssl_jax.train.checkpoint import restore_model, steps
from ssl_jax.train.session import replay_command
from tests.data.images import encode
from tests.methods.case import config_of

ODD = "lr[0.1]_b[8],{a,b} *? ~#@%41=\u00e9e\u0301\n"
"""A legal name of a folder that has whatever is a pattern, a separator, an escape or not ASCII somewhere."""


def write_images(folder, *, count=12):
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = np.clip(rng.normal(60 + 90 * number, 20, (28, 28)), 0, 255).astype(np.uint8)
            (folder / name / f"{i:03d}.png").write_bytes(encode(image))
    return f"folder:{folder}"


def config_for(source, **changes):
    config = config_of("simclr")
    config |= {"steps": 2, "batch_size": 8} | changes
    config["encoder"]["widths"] = (4,)
    config["data"] |= {"source": source, "channels": 1, "num_examples": 24, "split": "train"}
    config["watch"]["evaluate"] |= {"train_split": "train[:80%]", "test_split": "train[80%:]"}
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps, then moved to another folder of such a name."""
    folder = tmp_path_factory.mktemp("runs") / ODD
    source = write_images(folder / "images")
    config = config_for(source)
    pretrain.pretrain(config, folder / "first")
    moved = folder / f"-moved {ODD}" / "run"
    moved.parent.mkdir()
    (folder / "first").rename(moved)
    return moved, config, source


def test_a_run_goes_on_where_it_was_moved_to(run, tmp_path, capfd):
    moved, config, _ = run
    copy = tmp_path / f"{ODD}[1-9]" / "run"
    shutil.copytree(moved, copy)
    pretrain.pretrain({**config, "steps": 3}, copy, allow_changes=True)
    assert steps(copy / "checkpoints") == [2, 3] and restore_model(
        copy / "checkpoints", step="best"
    ).step in (2, 3)
    records = [json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert set(records) == {1, 2, 3}
    assert "tensorstore" not in capfd.readouterr().err


def test_what_reads_a_run_finds_it(run, tmp_path):
    moved, _, source = run
    evaluate.evaluate_run(moved, measures=["knn"], baselines=[], beside=[moved])
    assert len(json.loads((moved / "evaluation.json").read_text())["rows"]) == 2
    out = tmp_path / ODD
    out.mkdir()
    embed.embed_images(moved, source, out / "features.npz")
    with np.load(out / "features.npz") as file:
        assert len(file["features"]) == 24
    export.export_encoder(moved, out / "encoder")
    assert load_encoder(out / "encoder" / "encoder.safetensors")[3]["image_shape"][-1] == 1
    write_report([str(moved)], out / "report.html", Pictures(points=10))
    page = (out / "report.html").read_text()
    assert "No pictures" not in page and "cannot be" not in page


@pytest.mark.long
def test_what_trains_from_a_run_finds_it(run, tmp_path):
    moved, _, source = run
    finetune.finetune_run(moved, overrides=["epochs=1", "batch_size=8"], random_start=False)
    assert (moved / "finetune.json").exists()
    grid = dict([search_space.parse_axis("method.temperature=0.1,0.2")])

    def load(overrides, recorded=None):
        return ConfigDict(build.with_changes(config_for(source), overrides))

    sweep(load, tmp_path / ODD, Search(grid=grid, mode="vectorized"))
    assert len(json.loads((tmp_path / ODD / "sweep.json").read_text())) == 2
    assert restore_model(tmp_path / ODD / "temperature=0.2" / "checkpoints").step == 2


@pytest.mark.parametrize("kind", ["folder", "parquet", "tfds"])
def test_images_below_a_folder_of_any_name_are_those_below_a_plain_one(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ODD / "cache"))
    found = []
    for name in ("plain", ODD):
        folder = tmp_path / name / "images"
        if kind == "folder":
            write_images(folder, count=2)
        elif kind == "parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
            table = {"image": [encode(np.full((8, 8), i, np.uint8)) for i in range(3)], "label": [0, 1, 0]}
            folder.mkdir(parents=True)
            parquet.write_table(pytest.importorskip("pyarrow").table(table), folder / "train-0.parquet")
        else:
            shutil.copytree(data.fashion_mnist.EMBEDDED, folder)
        source = data.open_source(f"{kind}:{folder}")
        found.append([(source[i]["image"].tolist(), source[i]["label"]) for i in (0, len(source) - 1)])
    assert found[0] == found[1]


def test_a_flag_of_folders_is_repeated_and_a_comma_is_part_of_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "lr=0.1,b=8"):
        (tmp_path / name).mkdir()
    parse = launch.parse_folders
    assert [str(path) for path in parse("beside", ["lr=0.1,b=8", "a"])] == ["lr=0.1,b=8", "a"]
    for folder in ("a,b", "a,nowhere", "a,"):
        with pytest.raises(
            ValueError, match="there is no such folder; repeat the flag for several: --beside=a "
        ):
            parse("beside", [folder])
    assert len(parse("beside", ["no,where"])) == 1, "what reads it says that there is no run"
    assert parse("beside", None) == parse("beside", [""]) == []


def test_the_names_of_trials_are_folders_of_any_search(tmp_path):
    name, values = search_space.parse_axis('data.source=["folder:/x/a,b", "folder:C\\\\y"]')
    assert (name, values) == ("data.source", ["folder:/x/a,b", "folder:C\\y"])
    long = [search_space.folder_name("source=" + "\u00e9" * 150 + end) for end in "ab"]
    assert len(set(long)) == 2 and all(len(name.encode()) <= 200 for name in long)
    for name in (*long, search_space.folder_name("a/b\\c")):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"grid='seed=\[1': \[1 is not a list in JSON"):
        search_space.parse_axis("seed=[1")


def test_commands_that_are_printed_can_be_typed(run, tmp_path):
    moved, *_ = run
    copy = tmp_path / ODD
    shutil.copytree(moved, copy, ignore=shutil.ignore_patterns("evaluation.json"))
    (line,) = [line.text for line in verdict(read_run(copy)) if "Not evaluated" in line.text]
    command = line.partition("worth: ")[2].rpartition(" measures it")[0]
    for text, flag in ((command, "--workdir"), (replay_command(copy), "--replay")):
        assert shlex.split(text)[-1] == f"{flag}={copy}"
