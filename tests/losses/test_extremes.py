"""Every public function of losses, ops and spectra under extreme inputs: value, gradient, dtype; collapse against theory."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

import ssl_jax.losses
import ssl_jax.ops
from ssl_jax.core import numerics
from ssl_jax.core.numerics import center
from ssl_jax.evaluate import spectrum
from ssl_jax.losses import bag_of_words as bags
from ssl_jax.losses import (
    barlow,
    canonical_correlation,
    clustering,
    consistency,
    contrastive,
    discrete_vae,
    distillation,
    energy,
    flow_matching,
    metric,
    nce,
    pretext,
    prototypes,
    reconstruction,
    sketched_gaussian,
    spectral,
    temporal,
    variance_covariance,
    whitening,
)
from ssl_jax.losses.adversarial import discriminator_cross_entropy, generator_cross_entropy
from ssl_jax.losses.covariance import covariance, sum_off_diagonal_squares
from ssl_jax.losses.koleo import LEAST_DISTANCE, koleo
from ssl_jax.models.norm import BatchNorm, GroupNorm
from ssl_jax.models.norm import standardize as standardize_kernel
from ssl_jax.ops import cielab, hog, kmeans, neighbors, patches, sinkhorn

N, D = 8, 4
KEY = jax.random.key(0)
IDS = jnp.arange(N) // 2
PAIRS = metric.pair_masks(IDS)
MASK = (jnp.arange(N) % 2 == 0)[None, :]
DIRECTIONS = sketched_gaussian.random_directions(KEY, D, 5)
BAG = jnp.full((N, 1, D), 1 / D)
EPSILON = float(jnp.finfo(jnp.float32).eps)


def as_mse(loss):
    return lambda x, y: loss(x[None], y[None], MASK)


# Functions of one or two matrices of numbers of any size, [n, d]: of the rows x, of x and y.
ROWS = {
    "koleo": koleo,
    "distances": metric.distances,
    "distances p=1": lambda x: metric.distances(x, p=1),
    "distances p=3": lambda x: metric.distances(numerics.at_least_float32(x) / 10, p=3),
    "distances squared": lambda x: metric.distances(x, squared=True),
    "contrastive_margin": lambda x: metric.contrastive_margin(x, *PAIRS),
    "contrastive_margin raw": lambda x: metric.contrastive_margin(x, *PAIRS, normalize=False, power=1),
    "triplet": lambda x: metric.triplet(x, *PAIRS),
    "triplet raw": lambda x: metric.triplet(x, *PAIRS, normalize=False, soft=True, mining="batch_hard"),
    "sup_con": lambda x: metric.sup_con(x, PAIRS[0]),
    "semi_hard_triplet": lambda x: temporal.semi_hard_triplet(x, *PAIRS),
    "pair_info_nce": lambda x: temporal.pair_info_nce(x, *PAIRS),
    "ranking": lambda x: temporal.ranking(KEY, x, jnp.arange(N) ^ 1, PAIRS[1]),
    "wmse": lambda x, y: whitening.wmse(KEY, jnp.stack([x, y], 1), epsilon=1e-3),
    "wmse raw": lambda x, y: whitening.wmse(KEY, jnp.stack([x, y], 1), epsilon=1e-3, normalize=False),
    "whiten": lambda x: whitening.whiten(x, epsilon=1e-3),
    "center": lambda x: center(x),
    "covariance": lambda x: covariance(center(x), center(x)),
    "sum_off_diagonal_squares": lambda x: sum_off_diagonal_squares(numerics.at_least_float32(x[:D])),
    "barlow_twins": barlow.barlow_twins,
    "barlow_twins features": lambda x, y: barlow.barlow_twins(x, y, normalization="features"),
    "barlow_twins none": lambda x, y: barlow.barlow_twins(x, y, normalization="none"),
    "barlow_cross_entropy": barlow.barlow_cross_entropy,
    "vicreg": variance_covariance.vicreg,
    "vicreg_invariance": variance_covariance.vicreg_invariance,
    "vicreg_variance": variance_covariance.vicreg_variance,
    "vicreg_covariance": variance_covariance.vicreg_covariance,
    "cca": canonical_correlation.cca,
    "sigreg": lambda x: sketched_gaussian.sigreg(x, DIRECTIONS),
    "lejepa": lambda x, y: sketched_gaussian.lejepa(jnp.stack([x, y]), DIRECTIONS, targets=1),
    "spectral_contrastive": spectral.spectral_contrastive,
    "project_to_ball": lambda x: spectral.project_to_ball(x, 2.0),
    "nt_xent": contrastive.nt_xent,
    "nt_xent blocks": lambda x, y: contrastive.nt_xent(x, y, block_size=3),
    "info_nce": lambda x, y: contrastive.info_nce(x, y),
    "info_nce queue": lambda x, y: contrastive.info_nce(x, y, x[::-1]),
    "dcl": contrastive.dcl,
    "dcl weighted": lambda x, y: contrastive.dcl(x, y, sigma=0.5, detach_weights=False),
    "hard_negative": lambda x, y: contrastive.hard_negative(x, y, beta=1.0, tau_plus=0.1),
    "predictive_coding": lambda x, y: contrastive.predictive_coding(x, y, jnp.arange(N)[::-1]),
    "predictive_coding blocks": lambda x, y: contrastive.predictive_coding(x, y, IDS, block_size=3),
    "predictive_coding cosines": lambda x, y: contrastive.predictive_coding(x, y, IDS, normalize=True),
    "interpolate": lambda x, y: flow_matching.interpolate(x, y, jnp.linspace(0.0, 1.0, N)),
    "flow_matching": lambda x, y: flow_matching.flow_matching(x, y, x[::-1]),
    "negative_cosine": distillation.negative_cosine,
    "softmax_similarity": distillation.softmax_similarity,
    "byol_loss": distillation.byol_loss,
    "mean_shift": lambda x, y: distillation.mean_shift(x, jnp.stack([y, x], 1)),
    "dino_loss": lambda x, y: distillation.dino_loss(x[None], y[None, :2], jnp.zeros(D)),
    "teacher_log_probabilities": lambda x: distillation.teacher_log_probabilities(x, jnp.zeros(D), 0.04),
    "softened_kl": lambda x, y: distillation.softened_kl(x, y, student_temperature=4.0),
    "feature_mse": distillation.feature_mse,
    "crop_cross_entropy": lambda x: prototypes.crop_cross_entropy(x[:, None].repeat(3, 1), BAG),
    "patch_cross_entropy": lambda x: prototypes.patch_cross_entropy(x[None], BAG.reshape(1, N, D), MASK),
    "swapped_prediction": lambda x: clustering.swapped_prediction(x[:, None].repeat(3, 1), BAG),
    "balanced_codes": lambda x: clustering.balanced_codes(x[:, None]),
    "cluster_cross_entropy": lambda x: clustering.cluster_cross_entropy(x[None, :, None], IDS[None] - 1),
    "kl_from_uniform": discrete_vae.kl_from_uniform,
    "gumbel_softmax": lambda x: discrete_vae.gumbel_softmax(KEY, x, temperature=0.1, hard=True),
    "labeled_cross_entropy": lambda x: consistency.labeled_cross_entropy(x, IDS - 1),
    "mean_squared_difference": consistency.mean_squared_difference,
    "mean_divergence": consistency.mean_divergence,
    "discriminator_cross_entropy": lambda x, y: discriminator_cross_entropy(x.ravel(), y.ravel()),
    "generator_cross_entropy": lambda x: generator_cross_entropy(x.ravel()),
    "nce": lambda x, y: nce.nce(x[:, 0], y, log_normalizer=1.0, noise=0.01),
    "negative_sampling": lambda x, y: nce.negative_sampling(x[:, 0], y),
    "cross_entropy": lambda x, y: nce.cross_entropy(x[:, 0], y),
    "information_bound": lambda x: nce.information_bound(x[0, 0], N),
    "counting": lambda x, y: pretext.counting(x, jnp.stack([y, y], 1), x[::-1]),
    "masked_mse": as_mse(reconstruction.masked_mse),
    "masked_l1": as_mse(reconstruction.masked_l1),
    "masked_smooth_l1": as_mse(reconstruction.masked_smooth_l1),
    "smooth_l1": reconstruction.smooth_l1,
    "masked_mean": lambda x: reconstruction.masked_mean(x, x > 0),
    "weighted_mse": lambda x, y: reconstruction.weighted_mse(x, y, jnp.ones_like(x)),
    "weighted_cross_entropy": lambda x, y: reconstruction.weighted_cross_entropy(
        x, jnp.full_like(y, 0.5), jnp.ones_like(x)
    ),
    "free_energy": lambda x, y: energy.free_energy(x, y[:D], y[0], x[0]),
    "contrastive_divergence": lambda x, y: energy.contrastive_divergence(x, y, y[:D], y[0], x[0]),
    "gibbs": lambda x, y: energy.gibbs(KEY, x, y[:D], y[0], x[0], steps=2),
    "distances_to_words": lambda x, y: bags.distances_to_words(x, y),
    "soft_assign": lambda x, y: bags.soft_assign(bags.distances_to_words(x, y), jnp.abs(x[0, 0])),
    "hard_assign": lambda x, y: bags.hard_assign(bags.distances_to_words(x, y)),
    "word_logits": lambda x, y: bags.word_logits(x, y, 5.0),
    "bow_loss": lambda x: bags.bow_loss(x[:, None], BAG),
    "crop_border": lambda x: numerics.at_least_float32(bags.crop_border(x[:, None].repeat(3, 1)[None], 1)),
    "local_average": lambda x: numerics.at_least_float32(bags.local_average(x[:, None].repeat(3, 1)[None])),
    # ops
    "sinkhorn": sinkhorn.sinkhorn,
    "sinkhorn products": lambda x: sinkhorn.sinkhorn(numerics.normalize(x), log_domain=False),
    "assign": lambda x, y: kmeans.assign(x, y)[1],
    "nearest_neighbors": lambda x, y: neighbors.nearest_neighbors(x, y, 2)[0],
    "normalize_patches": patches.normalize_patches,
    "normalize_patches 0": lambda x: patches.normalize_patches(x, epsilon=0.0),
    "unnormalize_patches": patches.unnormalize_patches,
    "standardize": patches.standardize,
    "hog": lambda x: hog.hog(jnp.tile(x, (2, 4))[None, ..., None]),
    "hog central": lambda x: hog.hog(jnp.tile(x, (2, 4))[None, ..., None], kernel="central"),
    "soft_bins": lambda x: cielab.soft_bins(x[:, :2]),
    "annealed_mean": lambda x: cielab.annealed_mean(jnp.tile(x, (1, 80))[:, :313]),
    "rgb_to_lab": lambda x: cielab.rgb_to_lab(jax.nn.sigmoid(numerics.at_least_float32(x[:, :3]))),
    "lab_to_rgb": lambda x: cielab.lab_to_rgb(100 * jnp.tanh(numerics.at_least_float32(x[:, :3]))),
    # models and spectra
    "standardize_kernel": lambda x: numerics.at_least_float32(standardize_kernel(x)),
    "feature_std": spectrum.feature_std,
    "uniformity": spectrum.uniformity,
    "alignment": spectrum.alignment,
    "alignment 1": lambda x, y: spectrum.alignment(x, y, power=1),
    "alignment same": lambda x: spectrum.alignment(x, x, power=1),
}
# Functions of distributions: they get rows of sum 1, one-hot, uniform, some with zeros.
DISTRIBUTIONS = {
    "perplexities": bags.perplexities,
    "bag_of_words": lambda p: bags.bag_of_words(p[None]),
    "bag_of_words sum": lambda p: bags.bag_of_words(p[None], pool="sum"),
    "bow_loss bags": lambda p: bags.bow_loss(jnp.ones((N, 2, D)), p[:, None]),
    "crop_cross_entropy targets": lambda p: prototypes.crop_cross_entropy(jnp.ones((N, 3, D)), p[:, None]),
    "teacher_entropy": lambda p: distillation.teacher_entropy(log_of(p)),
    "divergence_from_uniform": lambda p: distillation.divergence_from_uniform(log_of(p)),
    "usage": lambda p: distillation.usage(log_of(p)),
    "rebalancing_weights": lambda p: cielab.rebalancing_weights(p[0]),
    "rebalancing_weights 0": lambda p: cielab.rebalancing_weights(p[0], gamma=0.0),
}
NOT_LOSSES = {"frequency_probabilities", "frequency_sampler", "label_ids", "linear_cca", "matmul_exactly"}
NOT_LOSSES |= {"pair_masks", "random_directions", "require_rows", "require_views", "time_masks"}
# They return what they got, in its dtype.
OWN_DTYPE = {"local_average", "crop_border", "standardize_kernel"}
MOVEMENT = {
    "abs",
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "dynamic_slice",
    "gather",
    "neg",
}
MOVEMENT |= {
    "optimization_barrier",
    "pad",
    "reshape",
    "rev",
    "select_n",
    "slice",
    "squeeze",
    "stack",
    "stop_gradient",
}
MOVEMENT |= {"tile", "transpose"}
# Singular in float32: one row is 1e4 in all dimensions, which the docstrings say.
ILL_CONDITIONED = {"wmse", "wmse raw", "whiten", "cca"}
# Their gradient at 0 is 1/ε of their formula.
STEEP = {"standardize_kernel", "normalize_patches 0"}


def log_of(p):
    return jnp.log(jnp.maximum(numerics.at_least_float32(p), 1e-30)).astype(p.dtype)


def parameters(function):
    return len([p for p in inspect.signature(function).parameters.values() if p.kind != p.KEYWORD_ONLY])


def extremes():
    """Pairs of matrices [e, n, d] by name."""
    random = np.random.default_rng(0)
    x, y, row = random.normal(size=(N, D)), random.normal(size=(N, D)), random.normal(size=D)
    dead, short, outlier = x.copy(), x.copy(), x.copy()
    dead[0], short[0], outlier[0] = 0.0, 1e-5 * x[0], 1e4
    cases = {
        "plain": (x, y),
        "zeros": (0 * x, 0 * y),
        "ones": (x**0, x**0),
        "constant": (np.tile(row, (N, 1)), np.tile(row, (N, 1))),
        "constant 1e3": (1e3 * np.tile(row, (N, 1)), -1e3 * np.tile(row, (N, 1))),
        "one constant": (np.where(np.arange(D), x, row), np.where(np.arange(D), y, row)),
        "two rows": (x[np.arange(N) % 2], y[np.arange(N) % 2]),
        "equal views": (x, x),
        "huge": (1e4 * x, 1e4 * y),
        "tiny": (1e-6 * x, 1e-6 * y),
        "dead row": (dead, y),
        "dead rows": (dead, dead),
        "short row": (short, y),
        "outlier": (outlier, y),
        "all far": (x, y + 1e4),
    }
    return tuple(cases), tuple(
        np.stack(side).astype(np.float32) for side in zip(*cases.values(), strict=True)
    )


NAMES, (FIRST, SECOND) = extremes()


def total(function):
    """A scalar of whatever a function returns, with a different weight for each number so that no gradient cancels."""

    def scalar(*inputs):
        results = [r for r in jax.tree.leaves(function(*inputs)) if jnp.issubdtype(r.dtype, jnp.floating)]
        return sum(
            jnp.sum(r * jnp.linspace(0.5, 1.0, r.size, dtype=r.dtype).reshape(r.shape)) for r in results
        )

    return scalar


def test_the_tables_have_every_public_function():
    def functions(package):
        return {n for n in dir(package) if inspect.isfunction(getattr(package, n))}

    tested = {name.split()[0] for name in (*ROWS, *DISTRIBUTIONS)}
    assert functions(ssl_jax.losses) - tested <= NOT_LOSSES
    floats = {"sinkhorn", "hog", *functions(ssl_jax.ops)} & tested
    assert len(floats) >= 12


@pytest.mark.parametrize("name", ROWS)
def test_value_and_gradient_are_finite_and_a_dead_row_moves_nothing_far(name):
    function = ROWS[name]
    count = parameters(function)
    inputs = (FIRST, SECOND)[:count]
    step = jax.value_and_grad(total(function), argnums=tuple(range(count)))
    values, gradients = jax.jit(jax.vmap(step))(*inputs)
    finite = np.isfinite(values)
    for gradient in gradients:
        finite &= np.isfinite(gradient).all((1, 2))
    if name in ILL_CONDITIONED:
        finite[NAMES.index("outlier")] = True
    assert finite.all(), [NAMES[i] for i in np.flatnonzero(~finite)]
    largest = np.max([np.abs(g).max((1, 2)) for g in gradients], axis=0)
    usual = max(1.0, largest[NAMES.index("plain")])
    for case in ("zeros", "constant", "dead row", "dead rows", "short row"):
        # 1/LEAST_NORM is 1000 times the gradient of a unit vector; koleo's bound is 1/LEAST_DISTANCE.
        if name in STEEP:
            break
        bound = 3 / numerics.LEAST_NORM * usual * (20 if name == "koleo" else 1)
        assert largest[NAMES.index(case)] <= bound, case


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_with_zeros_have_finite_gradients(name):
    function = total(DISTRIBUTIONS[name])
    half = np.where(np.arange(D) < 2, 0.5, 0.0)
    cases = [
        np.eye(D)[np.arange(N) % D],
        np.eye(D)[np.zeros(N, int)],
        np.full((N, D), 1 / D),
        np.tile(half, (N, 1)),
    ]
    if not name.startswith("rebalancing"):
        cases.append(np.zeros((N, D)))
    values, gradients = jax.vmap(jax.value_and_grad(function))(np.stack(cases).astype(np.float32))
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    assert np.abs(gradients).max() < 100


def narrow_arithmetic(jaxpr):
    """Operations that compute in bfloat16, those of programs in programs too."""
    found = set()
    for equation in jaxpr.eqns:
        inner = [
            p for p in jax.tree.leaves(list(equation.params.values())) if isinstance(p, Jaxpr | ClosedJaxpr)
        ]
        inner = [getattr(p, "jaxpr", p) for p in inner]
        for each in inner:
            found |= narrow_arithmetic(each)
        if not inner and any(v.aval.dtype == jnp.bfloat16 for v in equation.outvars):
            found |= {equation.primitive.name} - MOVEMENT
    return found


@pytest.mark.parametrize("name", [n for n in (*ROWS, *DISTRIBUTIONS) if n not in OWN_DTYPE])
def test_bfloat16_is_widened_before_anything_is_computed(name):
    """So the result is that of the same numbers in float32; signs are exact in any dtype."""
    function = (ROWS | DISTRIBUTIONS)[name]
    half = [jnp.ones((N, D), jnp.bfloat16)] * parameters(function)
    program, results = jax.make_jaxpr(function, return_shape=True)(*half)
    assert {r.dtype for r in jax.tree.leaves(results)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    assert not narrow_arithmetic(program.jaxpr)


@pytest.mark.parametrize("name", ["free_energy", "bow_loss bags", "perplexities", "koleo", "alignment 1"])
def test_bfloat16_gives_what_float32_gives(name):
    function = (ROWS | DISTRIBUTIONS)[name]
    given = [FIRST[0], SECOND[0]] if name in ROWS else [np.full((N, D), [0.45, 0.35, 0.15, 0.05])]
    half = [jnp.asarray(x, jnp.bfloat16) for x in given[: parameters(function)]]
    found, expected = function(*half), function(*(x.astype(jnp.float32) for x in half))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


# What collapse means in theory: constant rows are as good as rows of zeros to whatever subtracts a mean.
SHIFT_INVARIANT = {
    "wmse": lambda x: whitening.wmse(KEY, jnp.stack([x, x], 1), epsilon=1e-4),
    "wmse groups": lambda x: whitening.wmse(KEY, jnp.stack([x, 2 * x], 1), epsilon=1e-4, w_iter=2),
    "whiten": lambda x: whitening.whiten(x, epsilon=1e-8),
    "barlow": lambda x: barlow.barlow_twins(x, 2 * x),
    "vicreg_variance": variance_covariance.vicreg_variance,
    "vicreg_covariance": variance_covariance.vicreg_covariance,
    "cca": lambda x: canonical_correlation.cca(x, 2 * x)[0],
    "pca_whiten": lambda x: kmeans.pca_whiten(x, 2),
    "batch norm": lambda x: BatchNorm(affine="none").apply(
        {"batch_stats": {"mean": jnp.zeros(D), "var": jnp.ones(D)}}, x, train=True, mutable=["batch_stats"]
    )[0],
    "normalized batch norm": lambda x: numerics.normalize(SHIFT_INVARIANT["batch norm"](x)),
    "group norm": lambda x: GroupNorm(groups=1, spatial_axes=1).apply(
        {"params": {"scale": jnp.ones(D), "bias": jnp.zeros(D)}},
        jnp.zeros_like(x).at[:].set(x[:, :1]),
        train=True,
    ),
    "patches": lambda x: patches.normalize_patches(x.T, epsilon=1e-12),
    "targets": lambda x: patches.standardize(x.T),
    "kernel": standardize_kernel,
    "std": numerics.compute_std,
    "feature_std": spectrum.feature_std,
    "stable_rank": spectrum.stable_rank,
    "participation_ratio": spectrum.participation_ratio,
    "effective_rank": lambda x: spectrum.effective_rank(numerics.center(x)),
    "lidar": lambda x: spectrum.lidar(jnp.stack([x, x], 1)),
    "center": numerics.center,
}
WITHOUT_GRADIENT = {"stable_rank", "participation_ratio", "effective_rank", "lidar", "pca_whiten", "cca"}


def constants(n, *, ulps=0, draws=80):
    """Constant columns of random numbers, of four scales; with noise of some roundings."""
    random = np.random.default_rng(n)
    rows = random.normal(size=(draws, 1, D)) * np.resize([1e-3, 1.0, 30.0, 1e3], (draws, 1, 1))
    rows = np.repeat(rows.astype(np.float32), n, axis=1)
    return rows * (1 + EPSILON * random.integers(-ulps, ulps + 1, size=rows.shape)).astype(np.float32)


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
def test_constant_rows_give_exactly_what_zeros_give(name):
    function = SHIFT_INVARIANT[name]
    step = total(function) if name in WITHOUT_GRADIENT else jax.value_and_grad(total(function))
    rows = np.concatenate([constants(67), np.zeros((1, 67, D), np.float32)])
    for found in jax.tree.leaves(jax.jit(jax.vmap(step))(rows)):
        # A gradient at a row of zeros is that of 1/LEAST_NORM, that of a constant row is not.
        if name != "feature_std" or found.ndim == 1:
            scale = 1 + np.abs(found[-1]).max()
            np.testing.assert_allclose(found, np.broadcast_to(found[-1], found.shape), atol=1e-5 * scale)


@pytest.mark.parametrize("n", [2, 3, 32, 512])
def test_constants_and_noise_of_a_few_roundings_are_centered_to_zero(n):
    for ulps in (0, 2):
        assert not np.any(jax.jit(jax.vmap(numerics.center))(constants(n, ulps=ulps)))
    assert not np.any(numerics.center(jnp.asarray(constants(n)[3])))
    with jax.enable_x64(True):
        assert not np.any(numerics.center(jnp.asarray(constants(n)[3], jnp.float64) / 3))


def test_wmse_of_collapsed_projections_is_two():
    for n in (8, 64):
        z = np.repeat(constants(n)[:, :, None], 2, axis=2)
        for epsilon in (1e-8, 1e-4, 1e-2):
            loss = jax.jit(jax.vmap(lambda z, e=epsilon: whitening.wmse(KEY, z, epsilon=e)))(z)
            np.testing.assert_allclose(loss, 2.0, atol=1e-6)


def test_what_varies_is_not_taken_for_constant():
    """Differences of 1e-4 of the mean, of one row among many too, are those of float64."""
    x = np.full((64, 3), [1.0, 100.0, -3.0])
    x[5] *= 1 + 1e-4
    x = x.astype(np.float32)
    exact = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(
        numerics.center(jnp.asarray(x)), exact, rtol=1e-5, atol=2e-6 * np.abs(exact).max()
    )
    y = barlow.barlow_twins(jnp.asarray(x), jnp.asarray(x), epsilon=1e-12)[1]["invariance"]
    np.testing.assert_allclose(y, 0, atol=1e-3)


def test_health_sees_random_constants():
    same = constants(40)
    ranks = (spectrum.feature_std, spectrum.stable_rank, spectrum.participation_ratio, spectrum.alpha_req)
    std, stable, participation, alpha = jax.jit(jax.vmap(lambda z: [rank(z) for rank in ranks]))(same)
    assert np.all(std == 0) and np.all(stable == 0) and np.all(participation == 0)
    assert np.all(np.isnan(alpha))


# normalize


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_gradient_of_normalize_is_bounded_and_exact_above_the_least_norm(dtype):
    with jax.enable_x64(True):
        direction, cotangent = np.array([0.6, 0.0, -0.8]), np.array([1.0, 2.0, 3.0])
        for norm in (0.0, 1e-30, 1e-13, 1e-11, 1e-6, 1e-4, 9.9e-4, 1.1e-3, 1e-2, 1.0, 1e4):
            x = jnp.asarray(norm * direction, dtype)
            value, back = jax.vjp(numerics.normalize, x)
            gradient = np.asarray(back(jnp.asarray(cotangent, value.dtype))[0], np.float64)
            wide = np.asarray(x, np.float64)
            length = np.linalg.norm(wide)
            unit = wide / max(length, 1e-12)
            expected = (cotangent - unit * (unit @ cotangent)) / max(length, 1e-3)
            tolerance = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
            # Below 1e-19 squares underflow in float32 to 0.
            if length == 0 or length > 1e-18 or dtype == "float64":
                np.testing.assert_allclose(value, unit, atol=tolerance)
                np.testing.assert_allclose(
                    gradient, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
                )
            assert np.linalg.norm(gradient) <= 1005 * np.linalg.norm(cotangent)


def test_normalize_has_finite_derivatives_of_any_kind_and_order():
    x = jnp.asarray(
        np.stack([np.zeros(3), np.full(3, 1e-13), np.full(3, 1e-5), np.array([1.0, 2.0, 3.0])]), jnp.float32
    )

    def of(x):
        return jnp.sum(numerics.normalize(x) * jnp.arange(1.0, 4.0))

    second, forward, back = jax.jit(
        jax.vmap(lambda x: (jax.hessian(of)(x), jax.jacfwd(of)(x), jax.grad(of)(x)))
    )(x)
    assert np.isfinite(second).all()
    np.testing.assert_allclose(forward, back, rtol=1e-5, atol=1e-4)
    # Of c·x/‖x‖, at a row of usual length: −(c uᵀ + u cᵀ + (c·u)(I − 3 u uᵀ)) / ‖x‖².
    c, norm = np.arange(1.0, 4.0), np.sqrt(14)
    u = c / norm
    exact = -(np.outer(c, u) + np.outer(u, c) + (c @ u) * (np.eye(3) - 3 * np.outer(u, u))) / norm**2
    np.testing.assert_allclose(second[3], exact, atol=1e-5)


@pytest.mark.parametrize("loss", [contrastive.nt_xent, distillation.byol_loss, contrastive.dcl])
def test_one_dead_row_gets_at_most_a_thousand_times_the_gradient_to_its_direction(loss):
    x, y = jnp.asarray(FIRST[0]), jnp.asarray(SECOND[0])
    for scale in (0.0, 1e-5, 1e-3):
        gradient = jax.grad(loss)(x.at[0].multiply(scale), y)
        to_direction = jax.grad(loss)(numerics.normalize(x.at[0].multiply(scale)).at[0].add(0.0), y)
        others = np.linalg.norm(gradient[1:], axis=1).max()
        assert np.linalg.norm(gradient[0]) <= 1001 * max(others, np.linalg.norm(to_direction[1:])) * 3
        assert others < 2


# distances


def exact_distances(x, y):
    return np.linalg.norm(x[:, None].astype(np.float64) - y[None].astype(np.float64), axis=-1)


@pytest.mark.parametrize("case", ["outlier", "offset", "two groups", "near", "ulp"])
def test_distances_are_those_of_float64(case):
    random = np.random.default_rng(1)
    x = random.normal(size=(12, 5))
    x = {
        "outlier": np.where(np.arange(12)[:, None] == 3, 1e4 * x, x),
        "offset": x + 1e4,
        "two groups": x + 1e4 * (np.arange(12)[:, None] % 2),
        "near": x[:1] + 1e-5 * x,
        "ulp": x[:1] * (1 + EPSILON * random.integers(0, 3, size=x.shape)),
    }[case].astype(np.float32)
    exact = exact_distances(x, x)
    np.testing.assert_allclose(jax.jit(metric.distances)(x), exact, rtol=1e-5)
    weights = random.normal(size=exact.shape)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(metric.distances(x) * weights)))(jnp.asarray(x))
    apart = np.where(exact > 0, exact, np.inf)[..., None]
    directions = (x[:, None].astype(np.float64) - x[None]) / apart
    expected = np.sum((weights + weights.T)[..., None] * directions, axis=1)
    np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_blocks_of_squared_distances_change_nothing(monkeypatch):
    random = np.random.default_rng(2)
    x, y = (jnp.asarray(random.normal(size=(n, 3)), jnp.float32) for n in (5, 7))

    def of(x, y):
        return jnp.sum(numerics.squared_distances(x, y) * jnp.arange(35.0).reshape(5, 7))

    value, gradients = jax.value_and_grad(of, (0, 1))(x, y)
    monkeypatch.setattr(numerics, "BLOCK_NUMBERS", 31)  # two columns at a time, the last block half empty
    again, blockwise = jax.value_and_grad(of, (0, 1))(x, y)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), gradients, blockwise)


@pytest.mark.parametrize("distance", [1e-2, 1e-3, 2e-4])
def test_koleo_of_near_duplicates_is_that_of_float64(distance):
    random = np.random.default_rng(3)
    x = random.normal(size=(6, 16))
    for i in range(2):
        x[i + 1] = x[0] + (i + 1) * distance * random.normal(size=16)
    x = x.astype(np.float32)
    loss, gradient = jax.jit(jax.value_and_grad(koleo))(jnp.asarray(x))
    with jax.enable_x64(True):

        def plain(x):
            u = x / jnp.linalg.norm(x, axis=1, keepdims=True)
            apart = jnp.sum((u[:, None] - u[None]) ** 2, -1) + 9.0 * jnp.eye(6)
            near = jnp.argmin(jax.lax.stop_gradient(apart), 1)
            return -jnp.mean(jnp.log(jnp.sqrt(jnp.sum((u - u[near] + 1e-8) ** 2, -1)) + 1e-8))

        expected, slope = jax.value_and_grad(plain)(jnp.asarray(x, jnp.float64))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(gradient, slope, atol=3e-3 * np.abs(slope).max())


@pytest.mark.parametrize("distance", [0.0, 1e-7, 1e-5])
def test_koleo_pushes_duplicates_no_harder_than_it_says(distance):
    x = np.random.default_rng(4).normal(size=(6, 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x[1:4] = x[0] + distance * np.eye(16)[:3]
    gradient = jax.grad(koleo)(jnp.asarray(x, jnp.float32))
    # Each row is in at most 6 terms of 1/n, of slope 1/LEAST_DISTANCE at most.
    assert np.linalg.norm(gradient, axis=1).max() <= 1.01 / LEAST_DISTANCE
    if distance == 0:
        assert np.linalg.norm(gradient, axis=1).max() < 10


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_kmeans_finds_the_nearest_centroid_beside_one_that_is_far(far):
    random = np.random.default_rng(5)
    points, centroids = (random.normal(size=(n, 3)).astype(np.float32) for n in (60, 6))
    centroids[2] += far
    points[:5] += far
    labels, squares = jax.jit(lambda p, c: kmeans.assign(p, c, block_size=16))(points, centroids)
    exact = exact_distances(points, centroids)
    np.testing.assert_array_equal(labels, exact.argmin(axis=1))
    np.testing.assert_allclose(squares, exact.min(axis=1) ** 2, rtol=1e-5)


# words


@pytest.mark.parametrize("case", ["equal", "one word", "far", "one far"])
def test_words_that_equal_features_or_are_far_get_finite_shares(case):
    random = np.random.default_rng(6)
    features, words = (random.normal(size=s).astype(np.float32) for s in ((2, 3, 3, 4), (5, 4)))
    if case == "equal":
        features = words[np.arange(18) % 5].reshape(2, 3, 3, 4)
    elif case == "one word":
        words = np.tile(words[:1], (5, 1))
        features = np.broadcast_to(words[0], features.shape).copy()
    else:
        words[slice(None) if case == "far" else slice(1)] += 1e4

    @jax.jit
    def bag(features, words, scale):
        distances = bags.distances_to_words(features, words)
        codes = bags.soft_assign(distances, jnp.mean(jnp.min(distances, -1)) * scale)
        return distances, codes, bags.bag_of_words(codes)

    exact = exact_distances(features.reshape(-1, 4), words).reshape(2, 3, 3, 5) ** 2
    for scale in (0.0, 1e-30, 1.0):
        distances, codes, bag_ = bag(features, words, scale)
        np.testing.assert_allclose(distances, exact, rtol=1e-4 if case == "equal" else 1e-2, atol=1e-6)
        np.testing.assert_allclose(codes.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(bag_.sum(-1), 1, rtol=1e-5)
        if case == "equal":
            np.testing.assert_allclose(codes, np.eye(5)[exact.argmin(-1)], atol=1e-6)
        if case == "one word":
            np.testing.assert_allclose(codes, 1 / 5, rtol=1e-6)
    gradients = jax.grad(lambda *a: jnp.sum(bag(*a)[2] * jnp.arange(5.0)), (0, 1))(features, words, 1.0)
    assert all(np.isfinite(g).all() for g in gradients)
