"""Contrastive predictive coding's InfoNCE: golden numbers, a loop written from the definition, and the blockwise form."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.contrastive import info_nce, predictive_coding
from tests.golden_files import assert_close, golden

DTYPES = [(jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)]


def inputs(dtype, *names):
    return [jnp.asarray(golden("contrastive_extra")[f"in__{name}"], dtype) for name in names]


def assert_golden(case, names, loss, dtype, loss_tolerance, tolerance):
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(names)))))(
        *inputs(dtype, *names)
    )
    file = golden("contrastive_extra")
    assert value.dtype == dtype
    np.testing.assert_allclose(value, file[f"{case}__loss"], rtol=loss_tolerance)
    for name, gradient in zip(names, gradients, strict=True):
        assert_close(gradient, file[f"{case}__grad__{name}"], tolerance=tolerance)


@pytest.mark.parametrize("block_size", [None, 5])
@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), DTYPES)
def test_scores_of_contexts_through_a_matrix_equal_golden(dtype, loss_tolerance, tolerance, block_size):
    def loss(z, c, w):
        return predictive_coding(c @ w.T, z, jnp.arange(len(z)), block_size=block_size)

    with jax.enable_x64(dtype == jnp.float64):
        assert_golden("cpc_bilinear", ("z0", "c", "W"), loss, dtype, loss_tolerance, tolerance)


@pytest.mark.parametrize("block_size", [None, 5])
@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), DTYPES)
@pytest.mark.parametrize(
    ("case", "temperature"), [("cpc_permuted_targets", 0.1), ("cpc_t0p07", 0.07), ("cpc_sym_t0p5", 0.5)]
)
def test_cosines_with_named_positives_equal_golden(
    case, temperature, dtype, loss_tolerance, tolerance, block_size
):
    targets = golden("contrastive_extra")["in__targets"]
    positives = jnp.asarray(targets if "permuted" in case else np.arange(len(targets)))
    options = {"temperature": temperature, "normalize": True, "block_size": block_size}

    def loss(x, y):
        one = predictive_coding(x, y, positives, **options)
        return one if "sym" not in case else (one + predictive_coding(y, x, positives, **options)) / 2

    with jax.enable_x64(dtype == jnp.float64):
        assert_golden(case, ("z0", "z1"), loss, dtype, loss_tolerance, tolerance)


def test_loss_equals_a_loop_over_the_definition():
    """More candidates than predictions, one positive of two predictions, one candidate of none."""
    random = np.random.default_rng(0)
    p, z, positives = random.normal(size=(5, 3)), random.normal(size=(7, 3)), np.array([6, 0, 3, 3, 1])
    expected = []
    for row, place in zip(p, positives, strict=True):
        scores = [sum(a * b for a, b in zip(row, candidate, strict=True)) / 0.7 for candidate in z]
        expected.append(-np.log(np.exp(scores[place]) / sum(np.exp(score) for score in scores)))
    found = predictive_coding(jnp.asarray(p), jnp.asarray(z), jnp.asarray(positives), temperature=0.7)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-5)


def test_with_each_row_its_own_positive_it_is_info_nce():
    random = np.random.default_rng(1)
    x, y = (jnp.asarray(random.normal(size=(6, 4)), jnp.float32) for _ in range(2))
    found = predictive_coding(x, y, jnp.arange(6), temperature=0.2, normalize=True)
    np.testing.assert_allclose(found, info_nce(x, y, temperature=0.2), rtol=1e-6)


@pytest.mark.parametrize("constant", [1.0, 0.0])
def test_candidates_that_agree_give_the_logarithm_of_their_number(constant):
    p, z = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)), jnp.float32), jnp.full((9, 4), constant)
    np.testing.assert_allclose(predictive_coding(p, z, jnp.array([0, 8, 8])), np.log(9), rtol=1e-6)


def test_scores_far_beyond_the_range_of_exp_stay_finite():
    p, z = 1e3 * jnp.eye(4), 1e3 * jnp.eye(4)
    loss, gradient = jax.value_and_grad(predictive_coding)(p, z, jnp.array([1, 0, 2, 3]))
    assert float(loss) == pytest.approx(5e5) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("candidates", "positives", "options", "message"),
    [
        ((4, 2), (3,), {}, r"candidates.shape=\(4, 2\)"),
        ((0, 5), (3,), {}, r"candidates.shape=\(0, 5\)"),
        ((4, 5), (4,), {}, r"positives.shape=\(4,\)"),
        ((4, 5), (3,), {"temperature": 0.0}, "temperature"),
        ((4, 5), (3,), {"block_size": 0}, "block_size=0"),
    ],
)
def test_bad_inputs_are_refused_by_name(candidates, positives, options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(predictive_coding)(
            jnp.zeros((3, 5)), jnp.zeros(candidates), jnp.zeros(positives, int), **options
        )
