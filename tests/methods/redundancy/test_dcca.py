"""Deep CCA."""

import jax
import numpy as np
import pytest

from tests.methods.case import loss_of, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), 0.0


def test_the_loss_is_minus_the_sum_of_the_correlations_that_count():
    whole, two = method_of("dcca"), method_of("dcca", top_k=2)
    params, state, batch = start(whole)
    loss, _, metrics = loss_of(whole, params, state, batch)
    first_two, _, of_two = loss_of(two, params, state, batch)
    assert 1 >= metrics["largest_correlation"] > metrics["smallest_correlation"] > 0
    assert -4 < loss < first_two
    np.testing.assert_allclose(
        first_two, -of_two["largest_correlation"] - of_two["smallest_correlation"], rtol=1e-6
    )


def test_a_batch_no_larger_than_the_projections_is_refused():
    method = method_of("dcca", projection=16)
    params, state, batch = start(method)
    with pytest.raises(ValueError, match=r"z1\.shape=\(16, 16\).* n > d"):
        jax.eval_shape(method.loss, params, state, batch, jax.random.key(0), 0)
