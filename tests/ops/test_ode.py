"""Fixed-step solvers: closed forms, their orders, refusals."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ssl_jax.ops.ode import SOLVERS, integrate

MATRIX = np.array([[-0.5, 1.0], [-2.0, 0.1]], np.float32)


def error(solver, steps):
    start = np.array([1.0, -0.5], np.float32)
    found = integrate(lambda x, t: jnp.asarray(MATRIX) @ x, jnp.asarray(start), steps=steps, solver=solver)
    return float(np.abs(np.asarray(found) - scipy.linalg.expm(np.float64(MATRIX)) @ start).max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_on_a_linear_field_falls_with_the_order_of_the_solver(solver, order):
    slope = np.log2(error(solver, 8) / error(solver, 16))
    assert slope == pytest.approx(order, abs=0.2)


def test_heun_is_the_trapezoidal_rule_where_the_field_knows_only_the_time():
    # Exact for a field that is linear in t, from any time to any other.
    found = integrate(lambda x, t: 2 * t * jnp.ones_like(x), jnp.zeros(3), steps=2, span=(1.0, -2.0))
    np.testing.assert_allclose(found, 3.0, rtol=1e-6)


def test_a_step_of_each_solver_by_hand():
    def velocity(x, t):
        return x * x + t

    x, h = 0.5, 1.0
    slope = x * x + 0.0
    ahead = x + h * slope
    expected = {"euler": ahead, "heun": x + h / 2 * (slope + ahead * ahead + h)}
    for solver in SOLVERS:
        found = integrate(velocity, jnp.array(x), steps=1, solver=solver)
        assert float(found) == pytest.approx(expected[solver], rel=1e-6)


@pytest.mark.parametrize(("given", "said"), [({"steps": 0}, "steps=0"), ({"solver": "midpoint"}, "solver=")])
def test_refusals_name_the_argument(given, said):
    with pytest.raises(ValueError, match=said):
        integrate(lambda x, t: x, jnp.ones(1), **{"steps": 1, **given})
