"""Rows of the invariance of many runs: means over seeds in a table, runs that are there stay, time that is up ends it."""

import json

import numpy as np
import pytest

from ssl_jax.cli import invariance as rows_of
from ssl_jax.evaluate.invariance import CHANGES
from tests.experiments.test_launchers import launch, succeed

MOVED = [f"{name} {strength:g}" for name, change in CHANGES.items() for strength in change.strengths]
READ = [f"{name} {parameter}" for name, change in CHANGES.items() for parameter in change.parameters]


def row(method, seed, level, *, projector=False, step=9):
    """A row whose movements are ``level``, and R² half of it."""
    facts = {"source": "s", "method": method, "encoder": "vit", "seed": seed, "step": step}
    numbers = {"invariance": dict.fromkeys(MOVED, level), "equivariance": dict.fromkeys(READ, level / 2)}
    if projector:
        numbers |= {f"projector_{key}": {k: v / 2 for k, v in part.items()} for key, part in numbers.items()}
    return {**facts, **numbers}


def test_table_has_means_over_seeds_projectors_and_untrained_encoders_first():
    rows = [row("mae", 0, 0.5), row("mae", 1, 0.7), row("simclr", 0, 0.2, projector=True)]
    rows.append(row("untrained", 0, 0.9, step=0))
    maps = rows_of.mean_maps(rows)
    names = ["untrained (vit)", "simclr (vit)", "simclr (vit), projector", "mae (vit)"]
    assert maps["invariance"].rows == maps["equivariance"].rows == names
    assert maps["invariance"].columns == MOVED and maps["equivariance"].columns == READ
    np.testing.assert_allclose(maps["invariance"].values[:, 4], [0.9, 0.2, 0.1, 0.6])
    text = rows_of.invariance_rows_table(rows, markdown=True)
    assert "| mae (vit)               |          0.60 |" in text and "`s`: means over seeds (2)" in text
    assert text.splitlines()[0].count("|") == 12
    assert rows_of.invariance_rows_table([]) == "not measured yet"


def test_rows_that_are_there_stay_and_no_run_is_begun_when_time_is_up(tmp_path, monkeypatch):
    out, asked = tmp_path / "rows.jsonl", []

    def measure(candidate):
        asked.append(candidate)
        return {key: row("mae", 0, 0.5)[key] for key in ("invariance", "equivariance")}

    config = {"data": {"source": "s"}, "method": {"name": "mae"}, "encoder": {"name": "vit_micro"}}
    monkeypatch.setattr(rows_of.build, "read_config", lambda folder: {**config, "seed": int(folder.name)})
    monkeypatch.setattr(rows_of.build, "restore", lambda folder, step: (config, "method", step))
    monkeypatch.setattr(rows_of, "steps", lambda folder: [3, 9])
    monkeypatch.setattr(rows_of, "run_candidate", lambda config, method, model: f"step {model}")
    monkeypatch.setattr(rows_of, "random_candidate", lambda config, method: "start")
    monkeypatch.setattr(rows_of, "encoder_name", lambda config: "vit")
    monkeypatch.setattr(rows_of, "measure_candidate", lambda config, candidate: measure(candidate))
    folders = [tmp_path / "0", tmp_path / "1"]
    assert rows_of.measure_runs(folders, out, minutes=-1.0, report=print) == 2 and not out.exists()
    assert rows_of.measure_runs(folders[:1], out) == 0 and asked == ["step 9", "start"]
    assert rows_of.measure_runs(folders, out) == 0 and asked == ["step 9", "start"] * 2
    assert rows_of.measure_runs(folders, out, minutes=-1.0) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    keys = sorted((made["method"], made["seed"], made["step"]) for made in rows)
    assert keys == [("mae", 0, 9), ("mae", 1, 9), ("untrained", 0, 0), ("untrained", 1, 0)]


def test_a_folder_without_runs_is_one_line():
    done = launch("invariance", "--runs=docs")
    assert done.returncode != 0 and "runs='docs'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.long
def test_launcher_measures_a_run_once(tmp_path):
    run = tmp_path / "runs/simclr"
    succeed("pretrain", "--config=configs/simclr.py:smoke", f"--workdir={run}")
    out = tmp_path / "rows.jsonl"
    said = succeed("invariance", f"--runs={tmp_path / 'runs'}", f"--out={out}").stdout
    assert "simclr (" in said and ", projector" in said and "untrained (" in said
    assert len(out.read_text().splitlines()) == 2
    before = out.read_bytes()
    succeed("invariance", f"--runs={tmp_path / 'runs'}", f"--out={out}")
    assert out.read_bytes() == before
