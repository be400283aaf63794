"""Spectral contrastive learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_inputs, loss_of, method_of, start, with_views


def collapsed(case):
    """All projections are the first unit vector: what is left of the last normalisation is its β."""
    params, state, batch = loss_inputs(case)
    params = jax.tree.map(jnp.zeros_like, params)
    params["projector"]["norm_1"]["bias"] = jnp.zeros(16).at[0].set(1.0)
    (loss, _), _ = case.gradient(params, state, batch)
    return float(loss), -1.0


@pytest.mark.parametrize(("mu", "value"), [(1.0, -1.0), (10.0, -0.1), (0.5, -1.5), (None, -1.0)])
def test_the_declared_collapse_value_is_the_least_of_one_vector(mu, value):
    (collapse,) = (collapse.at(16) for collapse in method_of("spectral", mu=mu).collapse)
    assert collapse.value == pytest.approx(value)
    scale, most = (1.0, 9.0) if mu is None else (mu, mu)
    r = np.linspace(0, most, 10_001)
    assert collapse.value == pytest.approx(np.min(r**2 - 2 * r) / scale)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_every_layer_of_the_projector_ends_in_a_batch_norm(layers):
    method = method_of("spectral", projector_layers=layers)
    params, _ = jax.eval_shape(method.init, jax.random.key(0), with_views(method))
    shapes = {name: {n: x.shape for n, x in leaves.items()} for name, leaves in params["projector"].items()}
    widths = [method.encoder.features, *[32] * (layers - 1), 16]
    dense = {f"dense_{i}": {"kernel": tuple(widths[i : i + 2])} for i in range(layers)}
    norms = {f"norm_{i}": {"scale": (w,), "bias": (w,)} for i, w in enumerate(widths[1 : layers + 1])}
    assert shapes == {**dense, **norms}


@pytest.mark.parametrize("mu", [None, 10.0])
def test_the_loss_is_the_sum_of_the_terms_that_are_reported(mu):
    method = method_of("spectral", mu=mu)
    loss, _, metrics = loss_of(method, *start(method))
    np.testing.assert_allclose(loss, metrics["attraction"] + metrics["repulsion"], rtol=1e-5)
    assert {"embedding_std", "alignment"} < set(metrics)


@pytest.mark.parametrize(
    ("options", "message"), [({"projector_layers": -1}, "projector_layers=-1"), ({"mu": 0.0}, "mu=0.0")]
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("spectral", **options)


def test_the_squared_radius_may_be_traced():
    params, state, batch = start(method_of("spectral"))

    @jax.jit
    def loss(mu):
        return method_of("spectral", mu=mu).loss(params, state, batch, jax.random.key(2), jnp.int32(0))[0]

    for mu in (1.0, 4.0):
        np.testing.assert_allclose(
            loss(mu), loss_of(method_of("spectral", mu=mu), params, state, batch)[0], rtol=1e-4
        )
