"""Health: the measures agree with their own functions, and each kind of collapse is named."""

import numpy as np
import pytest

from ssl_jax.evaluate import spectrum
from ssl_jax.evaluate.health import diagnose, measure_health
from ssl_jax.methods.method import CollapseValue


def healthy(n=64, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n, 1, dim))
    return (base + 0.1 * rng.normal(size=(n, 2, dim))).astype(np.float32)


def as_records(features, steps=(10, 20, 30)):
    scalars = {f"batch/{name}": float(value) for name, value in measure_health(features).items()}
    return [{"step": step, **scalars} for step in steps]


def test_measures_are_those_of_the_first_views():
    features = healthy()
    found = measure_health(features)
    assert float(found["rankme"]) == pytest.approx(float(spectrum.rankme(features[:, 0])))
    assert float(found["spread"]) == pytest.approx(
        float(spectrum.feature_std(features[:, 0])) * 4.0, rel=1e-6
    )
    pair = spectrum.alignment(features[:, 0], features[:, 1])
    assert float(found["alignment"]) == pytest.approx(float(pair))
    singular = np.linalg.svd(features[:, 0] - features[:, 0].mean(0), compute_uv=False)
    p = singular / singular.sum()
    assert float(found["effective_rank"]) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_a_common_offset_does_not_change_the_effective_rank():
    features = healthy()
    moved = measure_health(features + 10.0)["effective_rank"]
    assert float(moved) == pytest.approx(float(measure_health(features)["effective_rank"]), rel=1e-3)


def test_healthy_features_are_not_warned_about():
    assert diagnose(as_records(healthy())) == []


def test_constant_features_are_named():
    constant = np.broadcast_to(np.arange(1, 17, dtype=np.float32), (64, 2, 16))
    noise = 1e-3 * np.random.default_rng(0).normal(size=(64, 2, 16))
    (finding,) = diagnose(as_records((constant + noise).astype(np.float32)))
    assert finding.kind == "constant"
    assert finding.step == 30
    assert "almost the same vector" in finding.message


def test_features_on_a_line_are_named():
    rng = np.random.default_rng(0)
    line = rng.normal(size=(64, 1, 1)) * np.ones((1, 2, 16)) + 1e-3 * rng.normal(size=(64, 2, 16))
    (finding,) = diagnose(as_records(line.astype(np.float32)))
    assert finding.kind == "low_rank"
    assert "1.0 directions only" in finding.message


@pytest.mark.parametrize("value", [0.0, np.log(511.0)])
def test_a_loss_at_the_collapse_constant_is_named(value):
    collapse = (CollapseValue("loss", value, "all projections are alike"),)
    stuck = [{"step": step, "loss": value + 0.004} for step in range(1, 6)]
    (finding,) = diagnose(stuck, collapse=collapse)
    assert finding.kind == "collapse:loss"
    assert "all projections are alike" in finding.message
    moving = [{"step": step, "loss": value + 0.2 * step} for step in range(1, 6)]
    assert diagnose(moving, collapse=collapse) == []


def test_the_start_of_a_run_and_single_records_are_not_judged():
    records = [{"step": step, "batch/spread": 0.0 if step in (1, 2, 3, 7) else 0.5} for step in range(1, 10)]
    assert diagnose(records, after=3) == []
    assert diagnose(records, after=0)[0].step == 3
    assert diagnose([{"step": 1, "batch/spread": None}, *records], after=3) == []


def test_wrong_shapes_and_options_are_refused():
    with pytest.raises(ValueError, match="two images and two views"):
        measure_health(np.zeros((4, 1, 3), np.float32))
    with pytest.raises(ValueError, match="patience=0"):
        diagnose([], patience=0)
