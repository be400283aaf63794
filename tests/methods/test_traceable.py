"""Float hyper-parameters may be traced: one program sweeps over them, and each vectorized run is its own single run."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.methods.case import method_of, start


def assert_vectorized_runs_are_single_runs(run, values):
    """``run(value)`` gives a tree; mapped over values it gives each value's own."""
    mapped = jax.jit(jax.vmap(run))(values)
    single = jax.jit(run)
    for number, value in enumerate(values):
        for found, expected in zip(jax.tree.leaves(mapped), jax.tree.leaves(single(value)), strict=True):
            expected = np.asarray(expected)
            tolerance = 1e-5 * max(np.abs(expected).max(), 1.0)
            np.testing.assert_allclose(found[number], expected, rtol=0, atol=tolerance)
    return mapped


def test_simclr_over_temperatures():
    params, state, batch = start(method_of("simclr"))

    def run(temperature):
        method = method_of("simclr", temperature=temperature)
        loss = lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[0]  # noqa: E731
        value, gradients = jax.value_and_grad(loss)(params)
        return value, gradients["projector"]

    losses, _ = assert_vectorized_runs_are_single_runs(run, jnp.array([0.1, 0.2, 0.5]))
    assert len(set(losses.tolist())) == 3


def test_byol_over_momenta_with_two_updates():
    start_params, start_state, batch = start(method_of("byol", decay_steps=None))

    def run(decay):
        method = method_of("byol", decay=decay, decay_steps=None)
        function = jax.value_and_grad(method.loss, has_aux=True)

        def update(carry, step):
            params, state = carry
            (loss, (state, _)), gradients = function(params, state, batch, jax.random.key(2), step)
            params = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradients)
            return (params, method.after_update(params, state, step)), loss

        (params, state), losses = jax.lax.scan(update, (start_params, start_state), jnp.arange(2))
        return losses, params["projector"], state["teacher"].params["projector"]

    _, _, teachers = assert_vectorized_runs_are_single_runs(run, jnp.array([0.0, 0.9, 1.0]))
    # At 0 the teacher is the student, at 1 it has not moved.
    first = start_state["teacher"].params["projector"]["dense_0"]["kernel"]
    np.testing.assert_array_equal(teachers["dense_0"]["kernel"][2], first)
    assert np.abs(teachers["dense_0"]["kernel"][1] - first).max() > 0
