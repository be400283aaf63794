"""Results: what is made again and what is not, and the tables written from the rows."""

from pathlib import Path

import pytest

from ssl_jax.cli import results
from ssl_jax.cli.results import TableRun, row_key
from ssl_jax.cli.tables import DATASET, ELSEWHERE, dataset_of, method_table, results_table
from ssl_jax.config.datasets import DATASETS
from ssl_jax.core.rows import read_rows, write_row
from ssl_jax.methods.registry import names

RESULTS = Path(__file__).parent.parent.parent / "results"


def result(method, seed, knn, *, encoder="convnet", baselines=()):
    rows = [
        {
            "features": name,
            "role": "baseline",
            "knn": value,
            "linear": value,
            "linear_10": 0.5,
            "linear_10_std": 0.02,
        }
        for name, value in baselines
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
            "data": {"source": "fashion_mnist", "num_examples": 60_000},
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
def rows():
    first = (("raw pixels", 0.85), ("random encoder", 0.80))
    return [
        result("simclr", 0, 0.86, baselines=first),
        result("simclr", 1, 0.88, baselines=(("random encoder", 0.82),)),
        result("mae", 0, 0.75, encoder="vit_micro", baselines=(("random encoder", 0.6),)),
        result("supervised", 0, 0.9),
    ]


def row(table, start):
    (line,) = [line for line in table.splitlines() if line.startswith(start)]
    return line


def test_seeds_become_mean_and_deviation_and_baselines_come_first(rows):
    table = results_table(rows)
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


def test_a_baseline_of_two_runs_with_one_seed_counts_once_as_measured_best(rows):
    again = result("ibot", 0, 0.7, encoder="vit_micro", baselines=(("random encoder", 0.7),))
    del again["evaluation"]["rows"][0]["linear"]
    assert row(results_table([*rows, again]), "random vit_micro").split()[2:4] == ["60.0", "60.0"]
    again["evaluation"]["rows"][0] |= {"linear": 0.7, "logistic": 0.7}
    assert row(results_table([*rows, again]), "random vit_micro").split()[2:4] == ["70.0", "70.0"]


def test_a_method_stands_next_to_the_baselines_of_its_encoder(rows):
    table = method_table(rows, "mae")
    names = {line.split("  ")[0] for line in table.splitlines()[1:]}
    assert names == {"raw pixels", "random vit_micro", "mae (vit_micro)"}
    assert method_table(rows, "byol") == ""


def test_no_result_is_said():
    assert "no results" in results_table([])


def store(row, run, folder):
    write_row(results.rows_path(run, folder), {**run._asdict(), **row}, row_key)


def test_a_result_counts_only_with_the_config_that_is_committed_now(tmp_path):
    run = TableRun("byol", 1, "smoke")
    config = results.run_config(run)
    assert config["seed"] == 1
    assert not results.is_done(run, tmp_path)
    store({"config": config}, run, tmp_path)
    assert results.is_done(run, tmp_path)
    store({"config": {**config, "watch": {**config["watch"], "log": {"every": 9}}}}, run, tmp_path)
    assert results.is_done(run, tmp_path)
    store({"config": {**config, "steps": 5}}, run, tmp_path)
    assert not results.is_done(run, tmp_path)


def test_a_masked_methods_result_counts_only_with_its_fine_tuned_accuracy(tmp_path):
    run, row = TableRun("mae", 0, "smoke"), {"knn": 0.5}
    config = results.run_config(run)
    store({"config": config, "evaluation": {"rows": [row]}}, run, tmp_path)
    assert not results.is_done(run, tmp_path)
    row["finetune_1_percent"] = 0.5
    store({"config": config, "evaluation": {"rows": [row]}}, run, tmp_path)
    assert results.is_done(run, tmp_path)


@pytest.mark.parametrize("method", names())
def test_every_method_is_measured_on_a_dataset_of_its_config(method):
    config = results.run_config(TableRun(method, 0, "smoke"))
    assert config["data"]["source"] == DATASETS[dataset_of(method)].source
    path = results.rows_path(TableRun(method, 2, "short"), Path("out"))
    assert path == Path("out", f"{dataset_of(method)}.jsonl")


@pytest.mark.parametrize("dataset", sorted({DATASET, *ELSEWHERE.values()}))
def test_committed_rows_have_the_config_that_is_committed_now(dataset):
    rows = read_rows(RESULTS / f"{dataset}.jsonl")
    runs = [TableRun(row["method"], row["seed"], row["budget"]) for row in rows]
    assert runs == sorted(runs, key=lambda run: (run.budget, run.method, run.seed))
    assert {dataset_of(run.method) for run in runs} == {dataset}
    assert results.outdated_rows(rows, [results.run_config(run) for run in runs]) == []


def test_the_quickstart_has_the_config_that_is_committed_now():
    rows = read_rows(RESULTS / "quickstart.jsonl")
    assert [TableRun(row["method"], row["seed"], row["budget"]) for row in rows] == [results.QUICKSTART]
    assert results.outdated_rows(rows, [results.quickstart_config()]) == []


def test_outdated_rows_are_named_with_what_differs():
    run = TableRun("byol", 1, "smoke")
    config = results.run_config(run)
    old = {**config, "steps": 5, "watch": {**config["watch"], "log": {"every": 9}}}
    rows = [{**run._asdict(), "config": config}, {**run._asdict(), "config": old}]
    assert results.outdated_rows(rows, [config, config]) == [f"byol, seed 1: steps: 5 -> {config['steps']}"]


def test_a_failed_run_is_reported_with_its_last_words(tmp_path):
    with pytest.raises(ValueError, match=r"failed .exit code 1.*--config is missing"):
        results.run_command(["pretrain", f"--workdir={tmp_path / 'x'}"], [], tmp_path / "x")
    assert float((tmp_path / "x.pretrain.cpu").read_text()) > 0


def test_a_run_that_was_stopped_is_not_measured(tmp_path, monkeypatch):
    def stopped(arguments, cores, workdir):
        assert arguments[0] == "pretrain"
        workdir.mkdir(parents=True)
        (workdir / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
        return 1.0

    run = TableRun("byol", 2, "short")
    monkeypatch.setattr(results, "run_command", stopped)
    with pytest.raises(ValueError, match=r"byol, seed 2, was stopped at step 1 of \d+"):
        results.make_run(run, tmp_path / "runs", tmp_path, [[0]])
    assert not results.rows_path(run, tmp_path).exists()


def test_a_run_becomes_a_row_with_its_commands_and_its_teacher_is_made_first(tmp_path, monkeypatch):
    run = TableRun("beit", 1, "smoke")
    steps = results.run_config(run)["steps"]
    verbs = []

    def succeed(arguments, cores, workdir):
        assert cores == [3]
        verbs.append((arguments[0], workdir.name))
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "metrics.jsonl").write_text(f'{{"step": {steps}, "loss": 2.0}}\n')
        (workdir / "evaluation.json").write_text('{"rows": [{"knn": 0.5, "finetune_1_percent": 0.5}]}')
        return 1.0

    monkeypatch.setattr(results, "run_command", succeed)
    results.make_run(run, tmp_path / "runs", tmp_path / "rows", [[3]])
    assert verbs == [
        ("pretrain", "dvae-1"),
        ("export", "dvae-1"),
        ("pretrain", "beit-1"),
        ("evaluate", "beit-1"),
    ]
    (row,) = read_rows(tmp_path / "rows/fashion_mnist.jsonl")
    assert row["commands"][0].startswith(
        "python -m experiments.pretrain --config=configs/beit.py:fashion_mnist,smoke"
    )
    assert "--config.method.tokenizer=" in row["commands"][0] and "--baselines=random" in row["commands"][1]
    assert row["cpu_seconds"] == {"pretrain": 1.0, "evaluate": 1.0}
    assert results.is_done(run, tmp_path / "rows")
