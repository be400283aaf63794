"""VICReg."""

import numpy as np
import pytest

from tests.methods.case import loss_of, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), 24.75


def test_the_loss_is_the_weighted_sum_of_the_terms_that_are_reported():
    weights = {"invariance_weight": 2.0, "variance_weight": 3.0, "covariance_weight": 5.0}
    method = method_of("vicreg", **weights)
    loss, _, metrics = loss_of(method, *start(method))
    terms = [float(metrics[name]) for name in ("invariance", "variance", "covariance")]
    assert min(terms) > 0
    np.testing.assert_allclose(loss, np.dot([2, 3, 5], terms), rtol=1e-6)


def test_the_declared_collapse_values_follow_weight_target_and_epsilon():
    loss, variance = (
        value.at(16) for value in method_of("vicreg", variance_weight=10.0, target=2.0, epsilon=0.01).collapse
    )
    assert (loss.metric, loss.value) == ("loss", pytest.approx(19.0))
    assert (variance.metric, variance.value) == ("variance", pytest.approx(1.9))
