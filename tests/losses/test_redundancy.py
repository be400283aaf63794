"""Barlow Twins, VICReg, W-MSE and CCA: golden numbers, numpy in float64, invariances, degenerate input, linear CCA."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax.losses.barlow import barlow_cross_entropy, barlow_twins
from ssl_jax.losses.canonical_correlation import cca, linear_cca
from ssl_jax.losses.variance_covariance import vicreg, vicreg_covariance, vicreg_invariance, vicreg_variance
from ssl_jax.losses.whitening import whiten, wmse
from tests.golden_files import assert_close, golden

PRECISIONS = [(jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)]
KEY = jax.random.key(0)
# Each as a function of two views and its main number.
LOSSES = {
    "barlow": lambda a, b, x: barlow_twins(a, b, redundancy_weight=x)[0],
    "barlow_cross_entropy": lambda a, b, x: barlow_cross_entropy(a, b, temperature=x + 0.1)[0],
    "vicreg": lambda a, b, x: vicreg(a, b, covariance_weight=x)[0],
    "wmse": lambda a, b, x: wmse(KEY, jnp.stack([a, b], axis=1), w_size=a.shape[0] // 2, epsilon=x),
    "wmse_plain": lambda a, b, x: wmse(KEY, jnp.stack([a, b], axis=1), epsilon=x, normalize=False),
    "cca": lambda a, b, x: cca(a, b, ridge=x)[0],
    "cca_top": lambda a, b, x: cca(a, b, ridge=x, top_k=2)[0],
}


@functools.cache
def compiled(name):
    """Loss and its gradients to both views and the number."""
    return jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1, 2)))


def rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def two_views(n=24, d=4):
    """Views that agree in part, of dimensions with different scales and means."""
    z = rows(0, n, d) @ rows(1, d, d) + rows(2, d)
    return [jnp.asarray(z + 0.5 * rows(seed, n, d), jnp.float32) for seed in (3, 4)]


def numpy_normalized(z, axis):
    y = np.asarray(z, np.float64)
    if axis is None:
        return y
    return (y - y.mean(axis, keepdims=True)) / np.sqrt(y.var(axis, keepdims=True) + 1e-5)


def numpy_whiten(x, epsilon):
    """One dimension after the other: Gram-Schmidt on the columns, which is what a Cholesky factor does."""
    n, d = x.shape
    x = np.asarray(x, np.float64)
    centered = x - x.mean(0)
    covariance = (1 - epsilon) * centered.T @ centered / (n - 1) + epsilon * np.eye(d)
    inverse = np.zeros((d, d))
    for i in range(d):
        row = np.eye(d)[i]
        for earlier in inverse[:i]:
            row = row - (earlier @ covariance @ np.eye(d)[i]) * earlier
        inverse[i] = row / np.sqrt(row @ covariance @ row)
    return centered @ inverse.T


def numpy_correlations(x, y, ridge):
    """By the symmetric roots of the definition."""
    x, y = (np.asarray(a, np.float64) for a in (x, y))
    x, y = x - x.mean(0), y - y.mean(0)
    root = [
        np.real(scipy.linalg.inv(scipy.linalg.sqrtm(a.T @ a / (len(a) - 1) + ridge * np.eye(a.shape[1]))))
        for a in (x, y)
    ]
    return np.linalg.svd(root[0] @ (x.T @ y / (len(x) - 1)) @ root[1], compute_uv=False)


# Golden numbers.


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("case", ["lam0p005", "lam0p0051", "solo_scale0p025", "solo_scale0p1"])
def test_barlow_twins_equals_golden(case, dtype, loss_tolerance, tolerance):
    file = golden("barlow")
    options = {"redundancy_weight": 0.0051 if case == "lam0p0051" else 0.005}
    if case.startswith("solo"):
        options["scale"] = {"solo_scale0p025": 0.025, "solo_scale0p1": 0.1}[case]
    function = jax.value_and_grad(lambda a, b: barlow_twins(a, b, **options)[0], argnums=(0, 1))
    with jax.enable_x64(dtype == jnp.float64):
        loss, gradients = jax.jit(function)(*(jnp.asarray(file[f"in__z{i}"], dtype) for i in (0, 1)))
        np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=loss_tolerance)
        for i in (0, 1):
            assert_close(gradients[i], file[f"{case}__grad__z{i}"], tolerance=tolerance)


VICREG = {
    "inv": vicreg_invariance,
    "var": lambda a, b: (vicreg_variance(a) + vicreg_variance(b)) / 2,
    "cov": lambda a, b: vicreg_covariance(a) + vicreg_covariance(b),
    "total": lambda a, b: vicreg(a, b)[0],
    "solo_total": lambda a, b: vicreg(a, b, variance_weight=50.0)[0],
}


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("case", VICREG)
def test_vicreg_and_its_terms_equal_golden(case, dtype, loss_tolerance, tolerance):
    file = golden("vicreg")
    with jax.enable_x64(dtype == jnp.float64):
        z = [jnp.asarray(file[f"in__z{i}"], dtype) for i in (0, 1)]
        loss, gradients = jax.jit(jax.value_and_grad(VICREG[case], argnums=(0, 1)))(*z)
        np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=loss_tolerance)
        for i in (0, 1):
            assert_close(gradients[i], file[f"{case}__grad__z{i}"], tolerance=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.float64, 1e-7)])
@pytest.mark.parametrize(("case", "epsilon"), [("whiten_eps0", 0.0), ("whiten_eps0p01", 0.01)])
def test_whitening_equals_golden(case, epsilon, dtype, tolerance):
    file = golden("wmse")
    with jax.enable_x64(dtype == jnp.float64):
        x, probe = (jnp.asarray(v, dtype) for v in (file["in__x0"], file[f"{case}__out__probe"]))
        y, pull = jax.vjp(functools.partial(whiten, epsilon=epsilon), x)
        assert_close(y, file[f"{case}__out__y"], tolerance=tolerance)
        assert_close(pull(probe)[0], file[f"{case}__grad__x0"], tolerance=tolerance)


@pytest.mark.parametrize(
    ("dtype", "loss_tolerance", "tolerance"), [(jnp.float32, 2e-5, 1e-5), (jnp.float64, 1e-8, 1e-7)]
)
@pytest.mark.parametrize("case", ["full", "sub"])
def test_wmse_equals_golden(case, dtype, loss_tolerance, tolerance):
    file = golden("wmse")
    groups = [np.arange(64)] if case == "full" else np.split(file["in__perm"], 2)

    def loss(z):
        return sum(wmse(KEY, z[group]) for group in groups) / len(groups)

    with jax.enable_x64(dtype == jnp.float64):
        z = jnp.stack(jnp.split(jnp.asarray(file["in__x"], dtype), 2), axis=1)
        found, gradient = jax.jit(jax.value_and_grad(loss))(z)
        np.testing.assert_allclose(found, file[f"{case}__loss"], rtol=loss_tolerance)
        merged = np.concatenate([gradient[:, 0], gradient[:, 1]])
        assert_close(merged, file[f"{case}__grad__x"], tolerance=tolerance)


# Definitions in numpy.


def test_barlow_cross_entropy_equals_a_loop_over_pairs_of_dimensions():
    z1, z2 = two_views()
    loss, terms = barlow_cross_entropy(
        z1, z2, temperature=0.3, invariance_weight=0.7, redundancy_weight=0.2, normalization="features"
    )
    y1, y2 = numpy_normalized(z1, 1), numpy_normalized(z2, 1)
    same = other = 0.0
    for i in range(4):
        for j in range(4):
            c = np.mean(y1[:, i] * y2[:, j])
            same += np.exp(c / 0.3) if i == j else 0
            other += np.exp(max(c, 0) / 0.3) if i != j else 0
    expected = [-np.log(same), np.log(other), -0.7 * np.log(same) + 0.2 * np.log(other)]
    np.testing.assert_allclose([terms["invariance"], terms["redundancy"], loss], expected, rtol=1e-5)


@pytest.mark.parametrize(("normalization", "axis"), [("batch", 0), ("features", 1), ("none", None)])
def test_barlow_terms_equal_a_loop_over_pairs_of_dimensions(normalization, axis):
    z1, z2 = two_views()
    loss, terms = barlow_twins(
        z1, z2, invariance_weight=0.3, redundancy_weight=0.2, scale=2.0, normalization=normalization
    )
    y1, y2 = numpy_normalized(z1, axis), numpy_normalized(z2, axis)
    invariance = redundancy = 0.0
    for i in range(4):
        for j in range(4):
            c = np.mean(y1[:, i] * y2[:, j])
            invariance += (1 - c) ** 2 if i == j else 0
            redundancy += c**2 if i != j else 0
    found = [terms["invariance"], terms["redundancy"], loss]
    np.testing.assert_allclose(
        found, [invariance, redundancy, 2 * (0.3 * invariance + 0.2 * redundancy)], rtol=1e-5
    )


def test_whitening_equals_gram_schmidt_and_has_the_identity_as_covariance():
    x = two_views(n=40, d=6)[0]
    for epsilon in (0.0, 0.1):
        found = np.asarray(jax.jit(whiten)(x, epsilon=epsilon))
        np.testing.assert_allclose(found, numpy_whiten(x, epsilon), atol=1e-4)
    white = np.asarray(whiten(x))
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T), np.eye(6), atol=1e-4)


def test_shrinkage_leaves_the_variance_that_the_docstring_says():
    x = 0.1 * whiten(jnp.asarray(rows(0, 32, 3), jnp.float32))
    found = np.cov(np.asarray(whiten(x, epsilon=0.05)).T)
    np.testing.assert_allclose(found, np.eye(3) * 0.01 / (0.95 * 0.01 + 0.05), atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_wmse_of_three_views_equals_a_loop_over_draws_groups_and_pairs(normalize):
    z = jnp.asarray(rows(0, 24, 3, 4) + 2 * rows(1, 24, 1, 4), jnp.float32)
    found = wmse(KEY, z, w_size=8, w_iter=2, epsilon=0.01, normalize=normalize)
    terms = []
    for key in jax.random.split(KEY, 2):
        order = np.asarray(jax.random.permutation(key, 24))
        for group in order.reshape(3, 8):
            x = np.stack([numpy_whiten(z[group, v], 0.01) for v in range(3)])
            if normalize:
                x /= np.linalg.norm(x, axis=-1, keepdims=True)
            for a, b in ((0, 1), (0, 2), (1, 2)):
                squares = ((x[a] - x[b]) ** 2).sum(-1)
                terms.append(squares.mean() / (1 if normalize else 4))
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-4)


@pytest.mark.parametrize("top_k", [None, 1, 3])
def test_cca_equals_the_symmetric_roots_of_the_definition(top_k):
    x = two_views(n=40, d=5)[0]
    y = jnp.asarray(np.asarray(x)[:, :3] @ rows(5, 3, 3) + rows(6, 40, 3), jnp.float32)
    expected = numpy_correlations(x, y, 0.01)[:top_k]
    loss, correlations = jax.jit(functools.partial(cca, top_k=top_k))(x, y, ridge=0.01)
    np.testing.assert_allclose(correlations, expected, rtol=1e-4)
    np.testing.assert_allclose(loss, -expected.sum(), rtol=1e-5)


# Invariances.


def test_losses_do_not_change_under_permutation_of_images_and_swap_of_views():
    z1, z2 = two_views()
    order = np.random.default_rng(7).permutation(24)
    # A permutation makes other groups, so W-MSE has one.
    one_group = lambda a, b, x: wmse(KEY, jnp.stack([a, b], axis=1), epsilon=x)  # noqa: E731
    for loss in (*(LOSSES[name] for name in LOSSES if name != "wmse"), one_group):
        expected = loss(z1, z2, 0.01)
        np.testing.assert_allclose(loss(z1[order], z2[order], 0.01), expected, rtol=1e-4)
        np.testing.assert_allclose(loss(z2, z1, 0.01), expected, rtol=1e-4)


def test_barlow_does_not_see_shift_and_scale_of_a_dimension_and_wmse_those_of_a_view():
    z1, z2 = two_views()
    scale = jnp.array([0.5, 2.0, 3.0, 1.0])
    np.testing.assert_allclose(barlow_twins(z1 * scale + 3, z2)[0], barlow_twins(z1, z2)[0], rtol=1e-4)
    moved, still = (wmse(KEY, jnp.stack([z, z2], axis=1), w_size=12) for z in (z1 * scale + 3, z1))
    np.testing.assert_allclose(moved, still, rtol=1e-3)


def test_cca_does_not_see_invertible_linear_maps_of_either_view():
    with jax.enable_x64(True):
        z1, z2 = (jnp.asarray(np.asarray(z, np.float64)) for z in two_views())
        expected, _ = cca(z1, z2, ridge=1e-10)
        for a, b in ((z1 @ rows(5, 4, 4) + 1, z2), (z1, z2 @ rows(6, 4, 4))):
            np.testing.assert_allclose(cca(a, b, ridge=1e-10)[0], expected, rtol=1e-7)


# Theory at special points.


def test_constant_projections_give_the_constants_of_theory_and_finite_gradients():
    z = jnp.ones((16, 4))
    for name, x, expected in (
        ("barlow", 0.0051, 4.0),
        ("vicreg", 1.0, 24.75),
        ("wmse", 1e-4, 2.0),
        ("wmse_plain", 1e-4, 0.0),
        ("cca", 1e-3, 0.0),
        ("cca_top", 1e-3, 0.0),
    ):
        loss, gradients = compiled(name)(z, z, x)
        np.testing.assert_allclose(loss, expected, rtol=1e-6, err_msg=name)
        assert all(np.isfinite(g).all() for g in gradients), name


def test_whitened_views_that_agree_cost_nothing_and_redundant_dimensions_cost_their_pairs():
    white = whiten(jnp.asarray(rows(0, 64, 4), jnp.float32))
    np.testing.assert_allclose(barlow_twins(white, white)[0], 0, atol=1e-6)
    np.testing.assert_allclose(vicreg(2 * white, 2 * white)[0], 0, atol=1e-6)
    np.testing.assert_allclose(wmse(KEY, jnp.stack([white, white], axis=1)), 0, atol=1e-6)
    # The batch has unbiased covariance I.
    np.testing.assert_allclose(cca(white, white)[0], -4 / 1.001, rtol=1e-5)
    alike = jnp.repeat(white[:, :1], 4, axis=1)
    np.testing.assert_allclose(barlow_twins(alike, alike)[0], 0.0051 * 4 * 3, rtol=1e-4)
    np.testing.assert_allclose(vicreg_covariance(alike), 3, rtol=1e-5)


def test_normal_vectors_have_the_terms_that_the_docstrings_promise():
    z = jnp.asarray(rows(0, 4000, 16), jnp.float32)
    assert vicreg_variance(z) < 0.01
    np.testing.assert_allclose(vicreg_covariance(z), 15 / 4000, rtol=0.2)
    views = jnp.asarray(rows(1, 512, 2, 16), jnp.float32)
    np.testing.assert_allclose(wmse(KEY, views, w_size=128), 2, atol=0.1)
    np.testing.assert_allclose(wmse(KEY, views, w_size=128, normalize=False), 2 * 127 / 128, atol=0.1)
    # Ten independent dimensions of 500 images already seem to be correlated.
    found, _ = cca(*(jnp.asarray(rows(s, 500, 10), jnp.float32) for s in (2, 3)))
    np.testing.assert_allclose(found, -1.2, atol=0.15)


def test_whitening_where_the_covariance_is_singular_is_nan_and_not_a_number_that_looks_right():
    flat = jnp.asarray(rows(0, 16, 3), jnp.float32).at[:, 2].set(1.0)
    assert np.isnan(whiten(flat)).any()
    assert np.isfinite(whiten(flat, epsilon=1e-4)).all()
    np.testing.assert_array_equal(whiten(jnp.ones((16, 3)), epsilon=1e-4), 0)


@pytest.mark.parametrize("name", LOSSES)
def test_one_nan_makes_the_loss_nan(name):
    z1, z2 = two_views()
    assert np.isnan(compiled(name)(z1.at[3, 1].set(jnp.nan), z2, 0.01)[0])


# Gradients.


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_agrees_with_a_finite_difference(name):
    with jax.enable_x64(True):
        inputs = [*(jnp.asarray(np.asarray(z, np.float64)) for z in two_views()), jnp.float64(0.1)]
        direction = [jnp.asarray(rows(s, *x.shape)) for s, x in zip((5, 6, 7), inputs, strict=True)]
        ends = [[x + h * d for x, d in zip(inputs, direction, strict=True)] for h in (1e-5, -1e-5)]
        above, below = (compiled(name)(*end)[0] for end in ends)
        _, gradients = compiled(name)(*inputs)
        slope = sum(jnp.sum(g * d) for g, d in zip(gradients, direction, strict=True))
        np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_both_views_are_moved(name):
    _, gradients = compiled(name)(*two_views(), 0.01)
    assert all(np.abs(g).max() > 1e-4 for g in gradients[:2])


def test_cca_has_its_right_gradient_where_all_singular_values_are_equal():
    """Whitened views that agree: T = I/(1 + r), whose singular vectors are free. A formula with differences of singular values
    in a denominator would give NaN."""
    with jax.enable_x64(True):
        white = whiten(jnp.asarray(rows(0, 32, 4)))
        inputs, direction = [white, white], [jnp.asarray(rows(s, 32, 4)) for s in (1, 2)]
        gradients = jax.grad(lambda a, b: cca(a, b, ridge=0.1)[0], argnums=(0, 1))(*inputs)
        ends = [[x + h * d for x, d in zip(inputs, direction, strict=True)] for h in (1e-5, -1e-5)]
        above, below = (cca(*end, ridge=0.1)[0] for end in ends)
        slope = sum(jnp.sum(g * d) for g, d in zip(gradients, direction, strict=True))
        np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6)


# How it is computed.


@pytest.mark.parametrize("name", LOSSES)
def test_jit_equals_eager_and_vmap_over_a_number_equals_a_loop(name):
    z1, z2 = two_views()
    numbers = jnp.array([0.01, 0.3])
    one_by_one = jnp.stack([compiled(name)(z1, z2, x)[0] for x in numbers])
    np.testing.assert_allclose(LOSSES[name](z1, z2, numbers[0]), one_by_one[0], rtol=1e-5)
    mapped = jax.vmap(lambda x: compiled(name)(z1, z2, x)[0])(numbers)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-5)
    assert one_by_one[0] != one_by_one[1]


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_inputs_are_computed_in_float32(name):
    narrow = [z.astype(jnp.bfloat16) for z in two_views()]
    loss, gradients = compiled(name)(*narrow, 0.01)
    expected, _ = compiled(name)(*(z.astype(jnp.float32) for z in narrow), 0.01)
    assert loss.dtype == jnp.float32
    assert {g.dtype.name for g in gradients[:2]} == {"bfloat16"}
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["barlow", "vicreg", "wmse", "cca"])
def test_eight_devices_give_the_same_loss_and_gradients_as_one(name):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    views = two_views()
    sharded = [jax.device_put(z, NamedSharding(mesh, PartitionSpec("data"))) for z in views]
    loss, gradients = compiled(name)(*sharded, 0.01)
    expected, expected_gradients = compiled(name)(*views, 0.01)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for found, gradient in zip(gradients, expected_gradients, strict=True):
        assert_close(found, np.asarray(gradient), tolerance=1e-4)


# Linear CCA.


def test_linear_cca_equals_the_generalised_eigenproblem():
    x = rows(0, 60, 5) @ rows(1, 5, 5) + 3
    y = x[:, :4] @ rows(2, 4, 3) + 2 * rows(3, 60, 3)
    centered = np.concatenate([x - x.mean(0), y - y.mean(0)], axis=1)
    covariance = centered.T @ centered / 59
    blocks = scipy.linalg.block_diag(covariance[:5, :5], covariance[5:, 5:]) + 1e-4 * np.eye(8)
    values, vectors = scipy.linalg.eigh(covariance + 1e-4 * np.eye(8), blocks)
    expected = values[::-1][:3] - 1  # in pairs 1 ± correlation
    with jax.enable_x64(True):
        fit = jax.tree.map(np.asarray, linear_cca(jnp.asarray(x), jnp.asarray(y)))
    np.testing.assert_allclose(fit.correlations, expected, rtol=1e-8)
    for i in range(3):
        direction = vectors[:5, -1 - i]
        cosine = direction @ fit.x_directions[:, i] / np.linalg.norm(direction)
        np.testing.assert_allclose(abs(cosine), np.linalg.norm(fit.x_directions[:, i]), rtol=1e-8)


def test_linear_cca_gives_variates_of_unit_variance_correlated_with_their_partners_only():
    x, y = two_views(n=60, d=4)
    fit = linear_cca(x, y[:, :3], ridge=1e-6, components=2)
    assert (fit.x_directions.shape, fit.y_directions.shape) == ((4, 2), (3, 2))
    variates = np.concatenate(
        [(x - fit.x_mean) @ fit.x_directions, (y[:, :3] - fit.y_mean) @ fit.y_directions], axis=1
    )
    r1, r2 = fit.correlations
    expected = np.array([[1, 0, r1, 0], [0, 1, 0, r2], [r1, 0, 1, 0], [0, r2, 0, 1]])
    np.testing.assert_allclose(np.cov(variates.T), expected, atol=1e-4)
    np.testing.assert_allclose(fit.correlations, cca(x, y[:, :3], ridge=1e-6, top_k=2)[1], rtol=1e-5)


# Bad input.


@pytest.mark.parametrize(
    ("loss", "shapes", "options", "message"),
    [
        (barlow_twins, ((4, 3), (4, 2)), {}, r"z2\.shape=\(4, 2\).*\(4, 3\)"),
        (barlow_twins, ((1, 3), (1, 3)), {}, r"z1\.shape=\(1, 3\).*n >= 2"),
        (barlow_twins, ((4, 3), (4, 3)), {"normalization": "layer"}, "normalization='layer'"),
        (barlow_cross_entropy, ((4, 1), (4, 1)), {}, r"z1\.shape=\(4, 1\).*d >= 2"),
        (vicreg, ((4, 3), (5, 3)), {}, r"z2\.shape"),
        (vicreg_invariance, ((4, 3), (4,)), {}, r"z2\.shape"),
        (vicreg_variance, ((1, 3),), {}, r"z\.shape=\(1, 3\).*n >= 2"),
        (vicreg_covariance, ((1, 3),), {}, r"z\.shape=\(1, 3\).*n >= 2"),
        (whiten, ((3, 3),), {}, r"x\.shape=\(3, 3\).*n > d"),
        (whiten, ((8, 3),), {"epsilon": -0.1}, r"epsilon=-0\.1"),
        (cca, ((4, 4), (4, 2)), {}, r"z1\.shape=\(4, 4\).*n > d"),
        (cca, ((8, 2), (9, 2)), {}, r"z1\.shape=\(8, 2\).*one n for both"),
        (cca, ((8, 2), (8, 3)), {"ridge": 0.0}, r"ridge=0\.0"),
        (cca, ((8, 2), (8, 3)), {"top_k": 3}, "top_k=3.*2 correlations"),
        (linear_cca, ((8, 2), (3, 3)), {}, r"y\.shape=\(3, 3\)"),
        (linear_cca, ((8, 2), (8, 3)), {"components": 0}, "components=0"),
    ],
)
def test_bad_input_is_refused_by_name(loss, shapes, options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(loss)(*(jnp.ones(shape) for shape in shapes), **options)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((8, 1, 3), {}, r"z\.shape=\(8, 1, 3\).*v >= 2"),
        ((16, 2, 4), {"w_size": 4}, "w_size=4: .*width 4.*batch of 16"),
        ((16, 2, 4), {"w_size": 6}, "w_size=6: .*divisor of the batch of 16"),
        ((4, 2, 4), {}, "w_size=4: .*width 4.*batch of 4"),
        ((16, 2, 4), {"w_iter": 0}, "w_iter=0"),
    ],
)
def test_groups_that_cannot_be_whitened_are_refused_by_name(shape, options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(wmse)(KEY, jnp.ones(shape), **options)
