"""LeJEPA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_inputs, loss_of, method_of, start, zero_params_loss


def collapsed(case):
    """Embeddings 0: no difference between views, and the statistic of a point."""
    t = np.linspace(-3, 3, 33)
    density = (1 - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    integral = np.sum((density[1:] + density[:-1]) / 2) * (t[1] - t[0])
    weight = case.config["method"]["weight"]
    return zero_params_loss(case), weight * len(loss_inputs(case)[2]["image"]) * integral


def test_loss_weighs_the_two_terms_that_are_reported():
    method = method_of("lejepa", weight=0.3)
    value, _, metrics = loss_of(method, *start(method))
    np.testing.assert_allclose(value, 0.3 * metrics["sigreg"] + 0.7 * metrics["invariance"], rtol=1e-5)


def test_directions_are_drawn_anew_with_the_key():
    method = method_of("lejepa")
    params, state, batch = start(method)
    first, again = (
        float(jax.jit(method.loss)(params, state, batch, jax.random.key(k), jnp.int32(0))[1][1]["sigreg"])
        for k in (0, 1)
    )
    assert first != again


def test_without_projector_the_features_are_tested():
    method = method_of("lejepa", projector_layers=0)
    params, state, batch = start(method)
    assert set(params) == {"encoder"}
    assert np.isfinite(loss_of(method, params, state, batch)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": 0}, "directions=0"),
        ({"projector_layers": -1}, "projector_layers=-1"),
        ({"knots": 4}, "knots=4"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method = method_of("lejepa", **options)
        loss_of(method, *start(method))
