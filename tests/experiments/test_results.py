"""Results: what is made again and what is not, and the tables written from the files."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import results
from ssl_jax.cli.tables import correlations, dataset_of, method_table, results_table
from ssl_jax.config.datasets import DATASETS
from ssl_jax.methods.registry import names


def result(method, seed, knn, *, encoder="convnet", yardsticks=()):
    rows = [
        {
            "features": name,
            "role": "yardstick",
            "knn": value,
            "linear": value,
            "linear_10": 0.5,
            "linear_10_std": 0.02,
        }
        for name, value in yardsticks
    ]
    role = "supervised" if method == "supervised" else "encoder"
    own = {"features": f"{method}, 9 steps", "role": role, "knn": knn, "linear": knn + 0.01}
    own |= {"linear_10": 0.6 + seed / 100, "linear_10_std": 0.03}
    own |= {"health": {"rankme": 100 * knn, "uniformity": -knn}, "rotation": 1 - knn}
    return {
        "method": method,
        "seed": seed,
        "config": {
            "encoder": {"name": encoder},
            "steps": 468,
            "batch_size": 256,
            "data": {"source": "fashion_mnist"},
        },
        "cpu_seconds": {"pretrain": 120.0 + 60 * seed, "evaluate": 5.0},
        "evaluation": {
            "machine": {"device": "a processor", "cores": 2},
            "source": "fashion_mnist",
            "examples": [60000, 10000],
            "rows": [*rows, own],
        },
    }


@pytest.fixture
def folder(tmp_path):
    first = (("raw pixels", 0.85), ("random encoder", 0.80))
    files = [
        result("simclr", 0, 0.86, yardsticks=first),
        result("simclr", 1, 0.88, yardsticks=(("random encoder", 0.82),)),
        result("mae", 0, 0.75, encoder="vit_micro", yardsticks=(("random encoder", 0.6),)),
        result("supervised", 0, 0.9),
    ]
    for one in files:
        (tmp_path / f"{one['method']}-{one['seed']}.json").write_text(json.dumps(one))
    return tmp_path


def row(table, start):
    (line,) = [line for line in table.splitlines() if line.startswith(start)]
    return line


def test_seeds_become_mean_and_deviation_and_yardsticks_come_first(folder):
    table = results_table(folder)
    names = [line.split("  ")[0] for line in table.splitlines()[1:7]]
    assert names == [
        "random convnet",
        "random vit_micro",
        "raw pixels",
        "mae (vit_micro)",
        "simclr (convnet)",
        "supervised (convnet)",
    ]
    # Mean and deviation (n - 1) of 86 and 88.
    assert "87.0 ± 1.4" in row(table, "simclr")
    assert "60.5 ± 0.7" in row(table, "simclr")
    # One seed: the deviation over the draws of its labels.
    assert "60.0 ± 3.0" in row(table, "mae")
    assert row(table, "simclr").split()[-3:] == ["2", "2", "2.5"]
    assert "`fashion_mnist`: probes of 60,000 training images" in table
    assert "2 core(s) a run of a processor" in table


def test_a_yardstick_of_two_runs_with_one_seed_counts_once_as_measured_best(folder):
    again = result("ibot", 0, 0.7, encoder="vit_micro", yardsticks=(("random encoder", 0.7),))
    del again["evaluation"]["rows"][0]["linear"]
    (folder / "ibot-0.json").write_text(json.dumps(again))
    assert row(results_table(folder), "random vit_micro").split()[2:4] == ["60.0", "60.0"]
    again["evaluation"]["rows"][0] |= {"linear": 0.7, "logistic": 0.7}
    (folder / "ibot-0.json").write_text(json.dumps(again))
    assert row(results_table(folder), "random vit_micro").split()[2:4] == ["70.0", "70.0"]


def test_a_method_stands_beside_the_yardsticks_of_its_encoder(folder):
    table = method_table(folder, "mae")
    names = {line.split("  ")[0] for line in table.splitlines()[1:]}
    assert names == {"raw pixels", "random vit_micro", "mae (vit_micro)"}
    assert method_table(folder, "byol") == ""


def test_correlations_are_over_self_supervised_runs(folder):
    table = correlations(folder)
    assert row(table, "rankme").split() == ["rankme", "1.00", "1.00", "1.00", "1.00", "3"]
    assert row(table, "rotation").split() == ["rotation", "-1.00", "-1.00", "-1.00", "-1.00", "3"]
    assert "nan" in row(table, "lidar")


def test_empty_folder_is_said(tmp_path):
    assert "no results" in results_table(tmp_path)
    assert "no correlation" in correlations(tmp_path)


def test_a_result_counts_only_with_the_config_that_is_committed_now(tmp_path):
    config = results.config_of("byol", 1, "smoke")
    assert config["seed"] == 1
    path = results.file_of("byol", 1, "smoke", tmp_path)
    path.parent.mkdir(parents=True)
    assert not results.done("byol", 1, "smoke", tmp_path)
    path.write_text(json.dumps({"config": config}))
    assert results.done("byol", 1, "smoke", tmp_path)
    path.write_text(json.dumps({"config": {**config, "log": {"every": 9}}}))
    assert results.done("byol", 1, "smoke", tmp_path)
    path.write_text(json.dumps({"config": {**config, "steps": 5}}))
    assert not results.done("byol", 1, "smoke", tmp_path)


def test_a_masked_methods_result_counts_only_with_its_fine_tuned_accuracy(tmp_path):
    config, row = results.config_of("mae", 0, "smoke"), {"knn": 0.5}
    path = results.file_of("mae", 0, "smoke", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"config": config, "evaluation": {"rows": [row]}}))
    assert not results.done("mae", 0, "smoke", tmp_path)
    row["finetune_1_percent"] = 0.5
    path.write_text(json.dumps({"config": config, "evaluation": {"rows": [row]}}))
    assert results.done("mae", 0, "smoke", tmp_path)


@pytest.mark.parametrize("method", names())
def test_every_method_is_measured_on_a_dataset_of_its_config(method):
    config = results.config_of(method, 0, "smoke")
    assert config["data"]["source"] == DATASETS[dataset_of(method)].source
    place = results.file_of(method, 2, "short", Path("out"))
    assert place == Path("out", dataset_of(method), "short", f"{method}-2.json")


def test_a_failed_run_is_reported_with_its_last_words(tmp_path):
    with pytest.raises(ValueError, match=r"failed .exit code 1.*--config is missing"):
        results.run(["pretrain", f"--workdir={tmp_path / 'x'}"], [], tmp_path / "x")
    assert float((tmp_path / "x.pretrain.cpu").read_text()) > 0


def test_a_run_that_was_stopped_is_not_measured(tmp_path, monkeypatch):
    def stopped(arguments, cores, workdir):
        assert arguments[0] == "pretrain"
        workdir.mkdir(parents=True)
        (workdir / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
        return 1.0

    monkeypatch.setattr(results, "_RUNS", SimpleNamespace(value=str(tmp_path / "runs")))
    monkeypatch.setattr(results, "run", stopped)
    with pytest.raises(ValueError, match=r"byol, seed 2, was stopped at step 1 of \d+"):
        results.make("byol", 2, "short", tmp_path, [[0]])
    assert not results.file_of("byol", 2, "short", tmp_path).exists()


def test_the_last_value_of_each_scalar_is_kept():
    assert results.final([{"step": 1, "loss": 2.0}, {"step": 2, "online/knn": 0.5}]) == {
        "step": 2,
        "loss": 2.0,
        "online/knn": 0.5,
    }
