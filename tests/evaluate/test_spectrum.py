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
    "stable_rank": spectrum.stable_rank,
    "participation_ratio": spectrum.participation_ratio,
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
            centered = data[f"in__{name}"] - data[f"in__{name}"].mean(0)
            if np.allclose(np.linalg.svd(centered, compute_uv=False) ** 2 / (len(centered) - 1), eigenvalues):
                found = spectrum.alpha_req(jnp.asarray(data[f"in__{name}"]), first=first, last=last)
                np.testing.assert_allclose(found, expected, rtol=1e-9 if wide else 1e-5)
                return
    raise AssertionError("no input has these eigenvalues")


@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
def test_lidar_equals_the_golden_number(wide):
    data = golden("rank_metrics")
    expected = float(data["lidar__out__value"])
    with jax.enable_x64(wide):
        features = jnp.asarray(data["in__Z"]).reshape(16, 8, 24)
        np.testing.assert_allclose(spectrum.lidar(features), expected, rtol=1e-8 if wide else 1e-4)


def lidar_oracle(x, delta, epsilon):
    """By loops and symmetric square roots, float64."""
    n, q, d = x.shape
    means = x.mean(1)
    between = sum(np.outer(m, m) for m in means - means.mean(0)) / (n - 1)
    within = sum(np.outer(v - means[i], v - means[i]) for i in range(n) for v in x[i]) / (n * (q - 1))
    values, axes = np.linalg.eigh(within + delta * np.eye(d))
    root = axes @ np.diag(values**-0.5) @ axes.T
    shares = np.maximum(np.linalg.eigvalsh(root @ between @ root), 0) + epsilon
    shares = shares / shares.sum()
    return np.exp(-np.sum(shares * np.log(shares)))


@pytest.mark.parametrize("images", [4, 30], ids=["fewer_images_than_dimensions", "more"])
def test_lidar_equals_loops_over_its_definition(images):
    x = np.random.default_rng(4).normal(size=(images, 3, 6)) @ np.diag([3, 2, 1, 1, 0.5, 0.1])
    for options in ({"delta": 1e-4, "epsilon": 1e-8}, {"delta": 0.5, "epsilon": 1e-2}):
        found = spectrum.lidar(x.astype(np.float32), **options)
        np.testing.assert_allclose(found, lidar_oracle(x, **options), rtol=1e-3)


def test_lidar_reads_the_rank_of_what_images_differ_in_whatever_rotation_and_order():
    rng = np.random.default_rng(5)
    images = np.concatenate([np.eye(24)[:5], -np.eye(24)[:5]] * 4)[:, None]
    views = images + 1e-2 * rng.normal(size=(40, 6, 24))
    found = float(spectrum.lidar(views.astype(np.float32)))
    assert found == pytest.approx(5, rel=0.05)
    turned = (views @ ROTATION)[rng.permutation(40)][:, ::-1]
    np.testing.assert_allclose(spectrum.lidar(turned.astype(np.float32)), found, rtol=1e-3)


def test_lidar_of_identical_views_is_ruled_by_delta_and_of_a_collapse_is_one():
    images = np.random.default_rng(6).normal(size=(50, 1, 8)) @ np.diag([5.0] + [1.0] * 7)
    copies = np.repeat(images, 3, axis=1).astype(np.float32)
    covariance = np.cov(images[:, 0].T)
    shares = np.linalg.eigvalsh(covariance) / np.trace(covariance)
    expected = np.exp(-np.sum(shares * np.log(shares)))  # Σ_w = δI: the spectrum between images alone
    np.testing.assert_allclose(spectrum.lidar(copies), expected, rtol=1e-3)
    for collapsed in (np.ones((6, 3, 4), np.float32), np.zeros((6, 3, 4), np.float32)):
        assert float(spectrum.lidar(collapsed)) == 1.0


def test_ranks_of_the_covariance_equal_numpy_and_ignore_a_shift():
    x = np.random.default_rng(7).normal(size=(40, 5)) @ np.diag([3, 2, 1, 1, 0.3])
    values = np.linalg.eigvalsh(np.cov(x.T))
    shares = values / values.sum()
    shifted = (x + 5.0).astype(np.float32)
    expected = np.exp(-np.sum(shares * np.log(shares)))
    np.testing.assert_allclose(spectrum.rankme(shifted, of="covariance"), expected, rtol=1e-3)
    np.testing.assert_allclose(spectrum.effective_rank(shifted, of="covariance"), expected, rtol=1e-3)
    np.testing.assert_allclose(spectrum.stable_rank(shifted), values.sum() / values.max(), rtol=1e-3)
    np.testing.assert_allclose(
        spectrum.participation_ratio(shifted), values.sum() ** 2 / (values**2).sum(), rtol=1e-3
    )
    assert float(spectrum.rankme(shifted)) != pytest.approx(expected, rel=0.01)


def test_inverse_weights_are_those_of_the_authors_fit():
    x = np.random.default_rng(8).normal(size=(60, 20)) @ np.diag(np.arange(1, 21) ** -0.7)
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    index = np.arange(3, 16)
    # polyfit weights the error, not its square.
    slope = np.polyfit(np.log(index), np.log(values[index - 1]), 1, w=index**-0.5)[0]
    found = spectrum.alpha_req(x.astype(np.float32), first=3, last=15, weights="inverse")
    np.testing.assert_allclose(found, -slope, rtol=1e-4)
    assert float(spectrum.alpha_req(x, first=3, last=15)) != pytest.approx(-slope, rel=1e-3)


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
    assert float(spectrum.stable_rank(ones)) == float(spectrum.participation_ratio(ones)) == 0.0
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
    with pytest.raises(ValueError, match="of='eigenvalues'"):
        spectrum.rankme(x, of="eigenvalues")
    with pytest.raises(ValueError, match="weights='1/i'"):
        spectrum.alpha_req(x, weights="1/i")
    with pytest.raises(ValueError, match=r"features='2 x 1'.*two images and views"):
        spectrum.lidar(np.ones((2, 1, 3)))
    with pytest.raises(ValueError, match="delta=0"):
        spectrum.lidar(np.ones((2, 2, 3)), delta=0.0)
