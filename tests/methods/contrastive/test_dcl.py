"""DCL."""

import math

import numpy as np

from tests.methods.case import BATCH, loss_of, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(2 * BATCH - 2)


def test_weights_change_the_loss_and_at_a_large_sigma_no_longer():
    plain = method_of("dcl")
    params, state, batch = start(plain)
    losses = [loss_of(method_of("dcl", sigma=s), params, state, batch)[0] for s in (None, 0.5, 1e6)]
    assert abs(losses[1] - losses[0]) > 1e-4
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)
