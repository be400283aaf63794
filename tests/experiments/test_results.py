"""Results: what is made again and what is not, and the tables written from the files."""

import json

import pytest

from experiments import results
from experiments.tables import correlations, method_table, results_table


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
        "config": {"encoder": {"name": encoder}, "steps": 468, "batch_size": 256},
        "cpu_seconds": {"pretrain": 120.0 + 60 * seed, "evaluate": 5.0},
        "evaluation": {
            "machine": {"device": "a processor", "cores": 2},
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
    assert "60,000 unlabelled" in table
    assert "2 core(s) a run of a processor" in table


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
    config = results.config_of("simclr", 1, "smoke")
    assert config["seed"] == 1
    path = tmp_path / "simclr-1.json"
    assert not results.done("simclr", 1, "smoke", tmp_path)
    path.write_text(json.dumps({"config": config}))
    assert results.done("simclr", 1, "smoke", tmp_path)
    path.write_text(json.dumps({"config": {**config, "log": {"every": 9}}}))
    assert results.done("simclr", 1, "smoke", tmp_path)
    path.write_text(json.dumps({"config": {**config, "steps": 5}}))
    assert not results.done("simclr", 1, "smoke", tmp_path)


def test_a_failed_run_is_reported_with_its_last_words(tmp_path):
    with pytest.raises(ValueError, match=r"failed .exit code 1.*--config is missing"):
        results.run(["pretrain", f"--workdir={tmp_path / 'x'}"], [], tmp_path / "x")
    assert float((tmp_path / "x.pretrain.cpu").read_text()) > 0


def test_the_last_value_of_each_scalar_is_kept():
    assert results.final([{"step": 1, "loss": 2.0}, {"step": 2, "online/knn": 0.5}]) == {
        "step": 2,
        "loss": 2.0,
        "online/knn": 0.5,
    }
