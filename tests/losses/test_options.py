"""Numbers that a loss or an operation cannot mean are refused in one line, whatever kind of number they are."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses, ops, optim
from ssl_jax.evaluate import knn, spectrum

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
PAIRS = losses.pair_masks(jnp.arange(8) // 2)
VIEWS = jnp.stack([X, X], 1)
DIRECTIONS = losses.random_directions(KEY, 4, 5)
BELOW_ZERO = {
    "barlow_twins invariance_weight": lambda v: losses.barlow_twins(X, X, invariance_weight=v),
    "barlow_twins redundancy_weight": lambda v: losses.barlow_twins(X, X, redundancy_weight=v),
    "contrastive_margin positive_margin": lambda v: losses.contrastive_margin(X, *PAIRS, positive_margin=v),
    "frequency_probabilities power": lambda v: losses.frequency_probabilities(jnp.arange(3), power=v),
    "hard_negative beta": lambda v: losses.hard_negative(X, X, beta=v),
    "hard_negative tau_plus": lambda v: losses.hard_negative(X, X, tau_plus=v),
    "increasing_decay decay": ops.increasing_decay,
    "lejepa weight": lambda v: losses.lejepa(jnp.stack([X, X]), DIRECTIONS, targets=1, weight=v),
    "masked_mean epsilon": lambda v: losses.masked_mean(X, X > 0, epsilon=v),
    "normalize_patches epsilon": lambda v: ops.normalize_patches(X, epsilon=v),
    "pca_whiten epsilon": lambda v: ops.pca_whiten(X, 2, epsilon=v),
    "ranking margin": lambda v: losses.ranking(KEY, X, jnp.arange(8) ^ 1, PAIRS[1], margin=v),
    "rebalancing_weights alpha": lambda v: ops.rebalancing_weights(jnp.ones(4) / 4, alpha=v),
    "rebalancing_weights gamma": lambda v: ops.rebalancing_weights(jnp.ones(4) / 4, gamma=v),
    "semi_hard_triplet margin": lambda v: losses.semi_hard_triplet(X, *PAIRS, margin=v),
    "triplet margin": lambda v: losses.triplet(X, *PAIRS, margin=v),
    "vicreg covariance_weight": lambda v: losses.vicreg(X, X, covariance_weight=v),
    "vicreg invariance_weight": lambda v: losses.vicreg(X, X, invariance_weight=v),
    "vicreg variance_weight": lambda v: losses.vicreg(X, X, variance_weight=v),
    "whiten epsilon": lambda v: losses.whiten(X, epsilon=v),
}
NOT_ABOVE_ZERO = {
    "annealed_mean temperature": lambda v: ops.annealed_mean(jnp.ones((2, 313)), temperature=v),
    "barlow_cross_entropy temperature": lambda v: losses.barlow_cross_entropy(X, X, temperature=v),
    "barlow_twins epsilon": lambda v: losses.barlow_twins(X, X, epsilon=v),
    "barlow_twins scale": lambda v: losses.barlow_twins(X, X, scale=v),
    "dcl sigma": lambda v: losses.dcl(X, X, sigma=v),
    "gumbel_softmax temperature": lambda v: losses.gumbel_softmax(KEY, X, temperature=v),
    "info_nce temperature": lambda v: losses.info_nce(X, X, temperature=v),
    "nce noise": lambda v: losses.nce.nce(X[:, 0], X, log_normalizer=0.0, noise=v),
    "nt_xent temperature": lambda v: losses.nt_xent(X, X, temperature=v),
    "predictive_coding temperature": lambda v: losses.predictive_coding(X, X, jnp.arange(8), temperature=v),
    "sigreg limit": lambda v: losses.sigreg(X, DIRECTIONS, limit=v),
    "smooth_l1 beta": lambda v: losses.smooth_l1(X, beta=v),
    "spectral_contrastive mu": lambda v: losses.spectral_contrastive(X, X, mu=v),
    "step_decay factor": lambda v: ops.step_decay(1.0, (5,), v),
    "sup_con temperature": lambda v: losses.sup_con(X, PAIRS[0], temperature=v),
    "vicreg_variance epsilon": lambda v: losses.vicreg_variance(X, epsilon=v),
    "vicreg_variance target": lambda v: losses.vicreg_variance(X, target=v),
}


@pytest.mark.parametrize("name", [*BELOW_ZERO, *NOT_ABOVE_ZERO])
@pytest.mark.parametrize("value", [-1, np.float32(-0.5), float("nan"), np.float32("nan"), float("inf"), True])
def test_numbers_out_of_range_are_one_line(name, value):
    option = name.split()[1]
    with pytest.raises(ValueError, match=f"^{option}=.*: allowed is [^\n]*$"):
        (BELOW_ZERO | NOT_ABOVE_ZERO)[name](value)


@pytest.mark.parametrize("name", NOT_ABOVE_ZERO)
@pytest.mark.parametrize("value", [0, 0.0, np.float32(0)])
def test_zero_is_refused_where_it_divides_or_ends_a_term(name, value):
    with pytest.raises(ValueError, match=f"^{name.split()[1]}=.*: allowed is [^\n]*$"):
        NOT_ABOVE_ZERO[name](value)


@pytest.mark.parametrize("name", ["nt_xent temperature", "sup_con temperature", "smooth_l1 beta"])
def test_traced_numbers_and_scalars_of_numpy_pass(name):
    function = NOT_ABOVE_ZERO[name]
    np.testing.assert_allclose(jax.jit(function)(0.5), function(np.float32(0.5)), rtol=1e-6)


def test_boundaries_below_zero_and_no_directions_are_refused():
    with pytest.raises(ValueError, match=r"boundaries=\(-1, 5\): allowed is steps of 0 or more"):
        ops.step_decay(1.0, (-1, 5), 0.1)
    with pytest.raises(ValueError, match="count=0: allowed"):
        losses.random_directions(KEY, 4, 0)


@pytest.mark.parametrize(
    "option, allowed, build",
    [
        ("momentum", "[0, 1)", lambda v: optim.sgd(momentum=v)),
        ("momentum", "[0, 1)", lambda v: optim.lars.lars(momentum=v)),
        ("b1", "[0, 1)", lambda v: optim.adam(b1=v)),
        ("b2", "[0, 1)", lambda v: optim.adamw(b2=v)),
        ("decay", "0 to 1", optim.ema.ema),
        ("peak", "0 or more", lambda v: optim.LearningRate(v if v < 1 else -v, 10)),
    ],
)
@pytest.mark.parametrize("value", [-0.1, 1.5, np.float32(1.2), float("nan")])
def test_optimizers_and_averages_refuse_what_diverges(option, allowed, build, value):
    with pytest.raises(ValueError, match=f"^{option}=.*: allowed is a number [^\n]*{re.escape(allowed)}"):
        build(value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), np.float32(-1)])
def test_measures_refuse_exponents_and_factors_that_mean_nothing(value):
    with pytest.raises(ValueError, match=r"^power=.*: allowed is a number above 0$"):
        spectrum.alignment(X, X[::-1], power=value)
    with pytest.raises(ValueError, match=r"^scale=.*: allowed is a number above 0$"):
        spectrum.uniformity(X, scale=value)


@pytest.mark.parametrize("k", [(0,), (-1,), (1, 0), ()])
def test_neighbours_are_one_or_more(k):
    with pytest.raises(ValueError, match=r"^k=.*: allowed is integers of 1 or more$"):
        knn.knn_scores(X, np.arange(8) % 2, X, classes=2, k=k)
