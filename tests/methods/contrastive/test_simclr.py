"""SimCLR."""

import math

import jax
import numpy as np
import pytest

from configs import simclr
from ssl_jax.config import build
from tests.methods.case import BATCH, loss_of, method_of, start, with_views, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(2 * BATCH - 1)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_projector_has_the_layers_asked_for(layers):
    method = method_of("simclr", projector_layers=layers)
    params, state = jax.eval_shape(method.init, jax.random.key(0), with_views(method))
    shapes = {name: {n: x.shape for n, x in leaves.items()} for name, leaves in params["projector"].items()}
    widths = [method.encoder.features, *[32] * (layers - 1), 16]
    dense = {f"dense_{i}": {"kernel": tuple(widths[i : i + 2])} for i in range(layers)}
    norms = {f"norm_{i}": {"scale": (width,), "bias": (width,)} for i, width in enumerate(widths[1:-1])}
    last = {f"norm_{layers - 1}": {"scale": (16,)}} if layers else {}
    assert shapes == {**dense, **norms, **last}
    output, _ = jax.eval_shape(
        lambda p, s, b: method.loss(p, s, b, jax.random.key(2), 0), params, state, with_views(method)
    )
    assert output.shape == ()


def test_a_projector_of_negative_depth_is_refused():
    with pytest.raises(ValueError, match="projector_layers=-1"):
        method_of("simclr", projector_layers=-1)


def test_bound_is_the_logarithm_of_the_candidates_minus_the_loss():
    method = method_of("simclr")
    loss, _, metrics = loss_of(method, *start(method))
    np.testing.assert_allclose(
        metrics["information_bound"], np.log(2 * BATCH - 1) - loss, rtol=1e-4, atol=1e-5
    )


def test_both_scalings_of_the_paper_meet_at_a_batch_of_4096():
    """Linear 0.3 x B/256, and for small batches 0.075 x √B."""
    config = build.to_dict(simclr.get_config("imagenet"))
    peak = config["optimizer"]["warmup_steps"]
    square_root = {"learning_rate": 0.075, "scaling": "sqrt", "reference_batch": 1}
    for changed, expected in (
        ({}, 4.8),
        (square_root, 4.8),
        ({"batch_size": 1024}, 1.2),
        ({**square_root, "batch_size": 1024}, 2.4),
    ):
        optimizer = build.optimizer({**config, "optimizer": {**config["optimizer"], **changed}})
        assert float(optimizer.learning_rate(peak)) == pytest.approx(expected, rel=1e-6)
