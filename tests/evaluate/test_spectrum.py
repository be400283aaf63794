"""Ranks, spectrum and sphere measures against golden numbers and exact constructions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.evaluate import spectrum
from tests.golden_files import golden

ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0]
MEASURES = {
    "rankme": spectrum.rankme,
    "alpha_req": spectrum.alpha_req,
    "feature_std": spectrum.feature_std,
    "uniformity": spectrum.uniformity,
}
CASES = {
    "rankme_paper": spectrum.rankme,
    "rankme_spt": functools.partial(spectrum.rankme, epsilon=1e-5),
    "effective_rank": spectrum.effective_rank,
}


@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("matrix", ["X", "Z", "low_rank"])
@pytest.mark.parametrize("case", CASES)
def test_ranks_equal_the_golden_numbers(case, matrix, wide):
    with jax.enable_x64(wide):
        features = jnp.asarray(golden("rank_metrics")[f"in__{matrix}"])
        expected = float(golden("rank_metrics")[f"{case}_{matrix}__out__value"])
        # Zero singular values of the low-rank matrix come out as rounding noise, which the entropy sees.
        tolerance = 1e-9 if wide else (1e-4 if matrix == "low_rank" else 1e-5)
        np.testing.assert_allclose(CASES[case](features), expected, rtol=tolerance)


@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize(("first", "last"), [(1, 24), (3, 20)])
def test_alpha_equals_the_golden_slope(first, last, wide):
    data = golden("rank_metrics")
    expected = float(data[f"alpha_req_{first}_{last}__out__value"])
    eigenvalues = data[f"alpha_req_{first}_{last}__out__eigenvalues"]
    with jax.enable_x64(wide):
        for name in "XZ":
            centred = data[f"in__{name}"] - data[f"in__{name}"].mean(0)
            if np.allclose(np.linalg.svd(centred, compute_uv=False) ** 2 / (len(centred) - 1), eigenvalues):
                found = spectrum.alpha_req(jnp.asarray(data[f"in__{name}"]), first=first, last=last)
                np.testing.assert_allclose(found, expected, rtol=1e-9 if wide else 1e-5)
                return
    raise AssertionError("no input has these eigenvalues")


@pytest.mark.parametrize("rank", [1, 5, 24])
def test_an_isotropic_spectrum_of_rank_r_has_rank_r_whatever_its_scale_and_rotation(rank):
    rows = 1e3 * np.eye(40, 24)[:, :24] @ np.diag((np.arange(24) < rank).astype(float)) @ ROTATION
    np.testing.assert_allclose(spectrum.rankme(rows.astype(np.float32)), rank, rtol=1e-3)
    np.testing.assert_allclose(spectrum.effective_rank(rows.astype(np.float32)), rank, rtol=1e-3)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_a_power_law_gives_back_its_exponent_at_any_scale(slope):
    values = 7.0 * np.arange(1, 25) ** (-slope / 2)
    rows = np.concatenate([np.diag(values), -np.diag(values)]) @ ROTATION
    np.testing.assert_allclose(spectrum.alpha_req(rows.astype(np.float32)), slope, rtol=1e-3)


def test_eigenvalues_that_are_rounding_noise_do_not_enter_the_slope():
    values = np.arange(1.0, 9.0) ** -0.5
    rows = np.concatenate([np.diag(values), -np.diag(values)]) @ ROTATION[:8]
    np.testing.assert_allclose(spectrum.alpha_req(rows.astype(np.float32)), 1.0, rtol=1e-2)


def test_collapsed_features_read_as_collapsed():
    ones = np.ones((16, 8), np.float32)
    assert float(spectrum.rankme(ones)) == pytest.approx(1.0, abs=1e-2)
    assert float(spectrum.feature_std(ones)) == pytest.approx(0.0, abs=1e-6)
    assert float(spectrum.uniformity(ones)) == pytest.approx(0.0, abs=1e-5)
    assert float(spectrum.alignment(ones, 3 * ones)) == 0.0
    assert np.isnan(spectrum.alpha_req(ones))
    assert float(spectrum.rankme(np.zeros((4, 4), np.float32))) == pytest.approx(1.0, abs=1e-4)


def test_spread_features_have_the_standard_deviation_of_the_sphere():
    x = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)
    assert float(spectrum.feature_std(x)) == pytest.approx(1 / 4, rel=0.02)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_alignment_equals_its_definition(power):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 9, 5))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y)]
    expected = np.mean(np.linalg.norm(unit[0] - unit[1], axis=1) ** power)
    found = spectrum.alignment(x.astype(np.float32), y.astype(np.float32), power=power)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 4, 64])
def test_uniformity_equals_a_loop_over_pairs_in_blocks_of_any_size(block):
    x = np.random.default_rng(2).normal(size=(11, 3))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [np.exp(-1.5 * np.sum((unit[i] - unit[j]) ** 2)) for i in range(11) for j in range(i)]
    found = spectrum.uniformity(x.astype(np.float32), scale=1.5, block=block)
    np.testing.assert_allclose(found, np.log(np.mean(pairs)), rtol=1e-5)


@pytest.mark.parametrize("name", MEASURES)
def test_jit_equals_eager_vmap_equals_a_loop_and_bfloat16_is_close(name):
    measure = MEASURES[name]
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 12, 6)).astype(np.float32))
    one = measure(x[0])
    assert one.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(measure)(x[0]), one, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(measure)(x)[0], one, rtol=1e-5)
    np.testing.assert_allclose(measure(x[0].astype(jnp.bfloat16)), one, rtol=0.05)


def test_impossible_ranges_are_refused():
    x = np.ones((1, 3), np.float32)
    with pytest.raises(ValueError, match="first=5"):
        spectrum.alpha_req(x, first=5, last=5)
    with pytest.raises(ValueError, match="two rows or more"):
        spectrum.uniformity(x)
