"""Rows of checkpoints, the rule that they give, and its tables."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssl_jax.cli import label_free
from ssl_jax.cli.label_free import check_table, checkpoint_table, read_measured, rule_lines, rule_table
from ssl_jax.core.rows import write_row
from ssl_jax.evaluate.label_free_rule import UNTRAINED, choose_rule
from ssl_jax.train.checkpoint import restore_model

ROOT = Path(__file__).parent.parent.parent
ENCODER = {"name": "convnet", "widths": [32, 64, 128]}


def result(method, seed, quality, *, budget="short"):
    """A row of a results table, with baselines; RankMe follows the accuracy."""
    health = {"rankme": math.exp(quality), "uniformity": -quality % 0.3, "feature_std": 0.1}
    encoder = {
        "features": f"{method}, 9 steps",
        "role": "encoder",
        "knn": quality,
        "linear": quality,
        "health": health,
    }
    untrained = {**encoder, "features": "random encoder", "role": "baseline", "knn": 0.1, "linear": 0.1}
    pixels = {"features": "raw pixels", "role": "baseline", "knn": 0.3}
    return {
        "method": method,
        "seed": seed,
        "budget": budget,
        "config": {"encoder": ENCODER, "steps": 9},
        "evaluation": {"rows": [pixels, untrained, encoder]},
    }


def checkpoint(step, quality, *, method="simclr", last=False):
    measures = {
        "knn": quality,
        "linear": quality,
        "label_free_values": {"rankme": math.exp(quality), "rotation": 0.5},
    }
    facts = {"source": "toy", "method": method, "encoder": "convnet", "seed": 0, "step": step, "last": last}
    return {**facts, "measures": measures}


@pytest.fixture
def table_file(tmp_path):
    path = tmp_path / "toy.jsonl"
    for i in range(8):
        for seed in (0, 1):
            row = result(f"m{i}", seed, 0.4 + 0.05 * i + 0.01 * seed)
            write_row(path, row, lambda row: (row["budget"], row["method"], row["seed"]))
    write_row(
        path, result("m0", 0, 0.9, budget="paper"), lambda row: (row["budget"], row["method"], row["seed"])
    )
    return path


def test_rows_of_a_results_table_are_read_with_untrained_encoders_once_a_seed(table_file):
    runs = read_measured(table_file, budget="short")
    assert sum(run.method == UNTRAINED for run in runs) == 2 and len(runs) == 8 * 2 + 2
    assert {run.encoder for run in runs} == {"convnet"}
    (first,) = [run for run in runs if (run.method, run.seed) == ("m3", 1)]
    assert first.accuracy == pytest.approx({"knn": 0.56, "linear": 0.56})
    assert first.values["rankme"] == pytest.approx(math.exp(0.56)) and "feature_std" not in first.values
    with pytest.raises(ValueError, match=r"budget=None: allowed is one of paper, short"):
        read_measured(table_file)


def test_tables_name_the_measure_that_follows_the_accuracy(table_file):
    runs = read_measured(table_file, budget="short")
    rule = choose_rule(runs, fixed_on="toy", resamples=50)
    assert rule.name == "rankme"
    (line,) = [line for line in rule_table(runs, resamples=50).splitlines() if line.startswith("rankme ")]
    assert line.split()[1:3] == ["1.00", "[1.00,"] and line.split()[-1] == "8"
    assert "chosen on 8 methods and 1 encoder of toy" in rule_lines(rule)[0]
    checked = check_table(rule, {"toy": runs}).splitlines()[1]
    assert "1.00 [1.00, 1.00]" in checked and "100.0" in checked
    assert rule_table(runs[:2]) == "fewer than three methods with one encoder: no correlation"
    assert checkpoint_table(runs, rule) == "no run with three checkpoints"


def test_checkpoints_are_ranked_within_their_run(tmp_path, table_file):
    path = tmp_path / "checkpoints.jsonl"
    for step, quality in enumerate((0.2, 0.5, 0.4)):
        write_row(path, checkpoint(step, quality, last=step == 2), label_free.ROW_KEY)
    runs = read_measured(path)
    assert [run.last for run in runs] == [False, False, True]
    rule = choose_rule(read_measured(table_file, budget="short"), fixed_on="toy", resamples=20)
    chosen = checkpoint_table(runs, rule).splitlines()[1]
    assert chosen.startswith("rule: rankme") and chosen.split()[-3:] == ["0.00", "10.00", "1"]


def test_segmentation_of_the_same_runs_is_one_more_accuracy(tmp_path, table_file):
    path = tmp_path / "dense.jsonl"
    names = [("m2", 0, 0.5), ("m2", 0, 0.7), ("random encoder", 1, 0.1), ("other", 0, 0.9)]
    rows = [
        {"method": method, "seed": seed, "encoder": "convnet", "size": i, "miou_linear": score}
        for i, (method, seed, score) in enumerate(names)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    joined = label_free.join_segmentation(read_measured(table_file, budget="short"), path)
    found = {
        (run.method, run.seed): run.accuracy["miou_linear"] for run in joined if "miou_linear" in run.accuracy
    }
    assert found == pytest.approx({("m2", 0): 0.6, (UNTRAINED, 1): 0.1})
    with pytest.raises(ValueError, match="there is no such file"):
        label_free.join_segmentation([], tmp_path / "none.jsonl")


def test_the_committed_gray_runs_give_what_was_found_on_them():
    """Rotations order the encoders of one kind nearly as the linear probe does, RankMe does not."""
    runs = [
        run
        for run in read_measured(ROOT / "results" / "fashion_mnist.jsonl", budget="short")
        if run.encoder == "convnet" and run.method != UNTRAINED
    ]
    lines = {line.split("  ")[0]: line for line in rule_table(runs, targets=("linear",)).splitlines()}
    value, low, high = (float(word.strip("[],")) for word in lines["rotation"].split()[1:4])
    assert value == pytest.approx(0.92, abs=0.03) and 0.7 < low < 0.85 and high > 0.95
    assert float(lines["rankme"].split()[1]) < 0.5


def test_rows_of_something_else_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        read_measured(tmp_path / "none.jsonl")
    (tmp_path / "other.jsonl").write_text('{"name": 1}\n')
    with pytest.raises(ValueError, match=r"allowed are rows of experiments\.results"):
        read_measured(tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match="a folder with runs that have checkpoints"):
        label_free.runs_below(tmp_path)


def launch(verb, *arguments):
    command = [sys.executable, "-m", f"experiments.{verb}", *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.long
def test_checkpoints_of_a_run_are_measured_once_and_ranked_without_labels(tmp_path):
    """A run on a folder without labels keeps the checkpoint with the best score; measured with labels, every one has a row."""
    workdir, out = tmp_path / "runs" / "first", tmp_path / "rows.jsonl"
    trained = launch(
        "pretrain",
        "--config=configs/simclr.py:embedded,convnet,smoke",
        "--config.watch.checkpoint.rank_by=label_free",
        "--config.watch.checkpoint.keep=3",
        "--config.watch.checkpoint.every=1",
        f"--workdir={workdir}",
    )
    assert trained.returncode == 0, trained.stderr
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    scores = {
        record["step"]: record["online/label_free"] for record in records if "online/label_free" in record
    }
    assert set(scores) == {2, 4} and all(0 <= score <= 1 for score in scores.values())
    better = max(scores, key=lambda step: scores[step])
    assert restore_model(workdir / "checkpoints", step="best").step == better
    flags = (f"--runs={tmp_path / 'runs'}", f"--out={out}")
    assert "4 checkpoints are left" in launch("label_free", *flags, "--minutes=0").stdout
    done = launch("label_free", *flags)
    assert done.returncode == 0 and f"all checkpoints are in {out}" in done.stdout, done.stderr
    before = out.read_text()
    rows = [json.loads(line) for line in before.splitlines()]
    assert [row["step"] for row in rows] == [2, 3, 4, 0]
    assert [row["last"] for row in rows] == [False, False, True, True]
    assert [row["method"] for row in rows] == ["simclr"] * 3 + [UNTRAINED]
    assert all({"knn", "linear", "label_free_values"} <= set(row["measures"]) for row in rows)
    assert np.isfinite([row["measures"]["knn"] for row in rows]).all()
    assert launch("label_free", *flags).returncode == 0 and out.read_text() == before
    refused = launch("label_free", f"--rows={out}")
    assert refused.returncode == 1 and "runs of 3 methods or more" in refused.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--rows: give rows to judge by"),
        (("--fix", "--runs=x"), "--fix: allowed with --rows"),
        (("--runs=x",), "--out"),
        (("--rows=none.jsonl",), "there is no such file"),
    ],
)
def test_wrong_flags_are_one_line(flags, message):
    done = launch("label_free", *flags)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") <= 2
