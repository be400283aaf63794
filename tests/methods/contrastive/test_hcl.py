"""HCL."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import BATCH, method_of, start, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(2 * BATCH - 1)


def test_concentration_falls_to_zero_where_the_loss_is_the_debiased_one():
    annealed, debiased = method_of("hcl", beta=2.0, anneal_steps=10), method_of("hcl", beta=0.0)
    params, state, batch = start(annealed)
    losses = [jax.jit(method.loss) for method in (annealed, debiased)]
    found = [losses[0](params, state, batch, jax.random.key(2), jnp.int32(step)) for step in (0, 5, 10, 20)]
    assert [float(metrics["beta"]) for _, (_, metrics) in found] == [2.0, 1.0, 0.0, 0.0]
    expected, _ = losses[1](params, state, batch, jax.random.key(2), jnp.int32(0))
    np.testing.assert_allclose(found[2][0], expected, rtol=1e-6)
    assert found[0][0] > expected  # hard negatives count more


@pytest.mark.parametrize(("options", "message"), [({"anneal_steps": 0}, "steps=0")])
def test_options_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("hcl", **options)
