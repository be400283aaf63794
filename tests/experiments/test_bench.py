"""The bench on natural images: which runs there are, searches of the learning rate, tables with ranks."""

import json
from pathlib import Path

import pytest

from ssl_jax.cli import results, tuning
from ssl_jax.cli.bench_tables import bench_table, cost_table
from ssl_jax.cli.results import BENCHES, TableRun, bench_runs, run_of
from ssl_jax.config.find import import_config
from ssl_jax.core.rows import read_rows
from ssl_jax.methods.registry import names

RESULTS = Path(__file__).parent.parent.parent / "results"
TEMPORAL = {"time_contrastive", "triplet_frames"}
"""Methods on clips, which sets of single images are not."""


def test_every_method_has_a_recipe_of_the_bench_and_the_most_telling_come_first():
    runs = bench_runs("color32", "parquet:x", "short", [0, 1])
    assert [run.method for run in runs[:3]] == ["simclr", "supervised", "mae"]
    assert {run.method for run in runs} == set(names()) - TEMPORAL
    assert [run.seed for run in runs] == [0] * (len(runs) // 2) + [1] * (len(runs) // 2)


@pytest.mark.parametrize("method", sorted(set(names()) - TEMPORAL))
def test_all_see_the_same_number_of_images_and_vits_half_of_it(method):
    config = results.run_config(TableRun(method, 0, "short", "color32"))
    transformer = config["encoder"]["name"].startswith("vit")
    passes = config["steps"] * config["batch_size"] / config["data"]["num_examples"]
    assert passes == pytest.approx(2 if transformer else 4, rel=0.01)
    assert config["encoder"].get("patch", 4) == 4


def test_twelve_methods_have_a_recipe_for_64_pixels_that_runs_in_float32_on_one_of_two_encoders():
    runs = bench_runs("color64", "embedded_color", "short", [0])
    assert len(runs) == 12
    for run in runs:
        encoder = results.run_config(run)["encoder"]
        width, patch = (128, 8) if encoder["name"] == "vit_micro" else (0.5, None)
        assert (encoder["width"], encoder.get("patch"), encoder["dtype"]) == (width, patch, "float32"), run


@pytest.mark.parametrize("dataset", BENCHES)
def test_committed_rows_of_the_bench_have_the_config_that_is_committed_now(dataset):
    rows = read_rows(RESULTS / f"{dataset}.jsonl")
    runs = [run_of(row) for row in rows]
    assert runs == sorted(runs, key=lambda run: results.row_key(run._asdict()))
    assert {run.dataset for run in runs} <= {dataset}
    configs = [results.run_config(run, recorded=row["config"]) for run, row in zip(runs, rows, strict=True)]
    assert results.outdated_rows(rows, configs) == []


def test_recipes_have_the_learning_rate_that_their_committed_search_chose():
    for row in read_rows(RESULTS / tuning.FILE):
        assert row["chosen"] == tuning.choose_rate(row["trials"], row["start"])
        assert [trial["learning_rate"] for trial in row["trials"]] == tuning.rates(row["method"])
        recipe = import_config(row["method"]).RECIPES[row["dataset"]]
        assert recipe.optimizer["learning_rate"] == pytest.approx(row["chosen"])


def test_a_run_says_where_its_images_are_and_what_its_first_seed_measures():
    run = TableRun("byol", 0, "short", "color32", source="parquet:images")
    pretrain, evaluate = results.commands(run, Path("runs/x"))
    assert pretrain[1:4] == [
        "--config=configs/byol.py:color32,short",
        "--config.data.source=parquet:images",
        "--config.seed=0",
    ]
    assert any(word.startswith("--measures=") and "finetune" in word for word in evaluate)
    _, second = results.commands(run._replace(seed=1), Path("runs/x"))
    assert not any("finetune" in word for word in second)
    assert run_of({**run._asdict(), "config": {}, "date": ""}) == run


def test_a_search_is_three_trials_and_keeps_the_start_unless_another_is_better_by_a_point(
    tmp_path, monkeypatch
):
    run = TableRun("simclr", 0, "short", "color32")
    called = []

    def sweep(arguments, cores, workdir):
        called.append(arguments)
        workdir.mkdir(parents=True)
        accuracy = {"0.001": 0.40, "0.003": 0.45, "0.009": None}
        rows = [
            {
                "overrides": {"optimizer.learning_rate": float(rate)},
                "diverged": value is None,
                "scalars": {} if value is None else {tuning.MEASURED: value},
            }
            for rate, value in accuracy.items()
        ]
        (workdir / "sweep.json").write_text(json.dumps(rows))
        return 60.0

    monkeypatch.setattr(tuning, "run_command", sweep)
    assert not tuning.is_searched(run, tmp_path)
    assert "0.009 diverged; chosen 0.003" in tuning.make_search(run, tmp_path / "runs", tmp_path, [[1]])
    assert tuning.is_searched(run, tmp_path)
    assert called[0][0] == "sweep" and "--config.steps=195" in called[0]
    (row,) = read_rows(tmp_path / tuning.FILE)
    assert row["chosen"] == row["start"] == 0.003
    assert "diverged" in tuning.searches_table([row])
    assert tuning.searches_table([]) == "not searched yet"


def rows_of(accuracies):
    """Rows of methods by name, with linear accuracies of their seeds."""
    return [
        {
            "method": method,
            "seed": seed,
            "dataset": "color32",
            "config": {
                "encoder": {"name": "vit_micro" if method == "mae" else "convnet"},
                "steps": 10,
                "batch_size": 10,
                "data": {"num_examples": 50},
            },
            "cpu_seconds": {"pretrain": 60.0, "evaluate": 30.0},
            "evaluation": {
                "machine": {"device": "a processor", "cores": 1},
                "source": "images",
                "examples": [50, 10],
                "rows": [
                    *(
                        [{"features": "raw pixels", "role": "baseline", "knn": 0.4, "linear": 0.4}]
                        * (method == "simclr")
                    ),
                    {"features": method, "role": "encoder", "knn": value, "linear": value},
                ],
            },
        }
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_a_table_of_the_bench_has_one_kind_of_encoder_and_the_ranks_that_the_seeds_allow():
    rows = rows_of({"byol": [0.50, 0.52], "simclr": [0.59, 0.60], "vicreg": [0.58, 0.60], "mae": [0.3]})
    lines = bench_table(rows, "convolutional").splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "raw pixels",
        "simclr (convnet)",
        "vicreg (convnet)",
        "byol (convnet)",
    ]
    assert "1 to 2" in lines[2] and "1 to 2" in lines[3] and " 3 " in lines[4]
    assert "--dataset=color32" in "".join(lines)
    transformers = bench_table(rows, "ViT")
    assert "mae" in transformers and "raw pixels" in transformers and "byol" not in transformers
    assert bench_table([], "ViT") == "not measured yet"
    assert "7" in cost_table({"color32": rows}).splitlines()[1]
