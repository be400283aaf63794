"""Twenty times kill -9, wherever it falls, and the same bits in the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssl_jax.core import trees
from ssl_jax.train.checkpoint import restore_model
from tests.experiments.kill_resume_worker import MOMENTS, STEPS

ROOT = Path(__file__).parent.parent.parent
SAME = ("step", "loss", "grad_norm", "refresh/nmi", "online/knn", "online/linear", "batch/effective_rank")


def series(workdir):
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in record.items() if name in SAME} for record in records]


@pytest.mark.long
def test_a_run_killed_at_twenty_random_moments_ends_in_the_same_bits(tmp_path):
    """In steps, saves, commits, evaluations, refreshes, prefetches, records; tests/train/test_stop.py has the cheap form."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.experiments.kill_resume_worker", str(tmp_path), "20", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    lives = told["lives"]
    assert len(lives) == 20 and all(life["killed"] for life in lives), (lives, done.stderr)
    assert {life["fate"][0] for life in lives} == set(MOMENTS) and told["last"] == 0, done.stderr
    models = [restore_model(tmp_path / name / "checkpoints", step=STEPS) for name in ("broken", "whole")]
    found, expected = (trees.flatten({"params": m.params, "state": m.state}) for m in models)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    assert series(tmp_path / "broken") == series(tmp_path / "whole")
