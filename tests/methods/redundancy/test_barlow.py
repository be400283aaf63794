"""Barlow Twins."""

import jax
import numpy as np
import pytest

from ssl_jax.config import build
from tests.methods.case import config_of, loss_of, method_of, start, with_views, zero_params_loss


def collapsed(case):
    options = case.config["method"]
    return zero_params_loss(case), options["scale"] * options["projection"]


def test_the_loss_is_the_scaled_sum_of_the_terms_that_are_reported():
    options = {"invariance_weight": 0.5, "redundancy_weight": 0.1, "scale": 3.0}
    method = method_of("barlow", **options)
    loss, _, metrics = loss_of(method, *start(method))
    assert metrics["redundancy"] > 0
    np.testing.assert_allclose(
        loss, 3 * (0.5 * metrics["invariance"] + 0.1 * metrics["redundancy"]), rtol=1e-6
    )


def test_cross_entropy_is_the_other_objective_with_its_own_collapse_value():
    options = {"temperature": 0.5, "redundancy_weight": 0.9, "scale": 2.0, "projection": 16}
    method = method_of("barlow", objective="cross_entropy", **options)
    loss, _, metrics = loss_of(method, *start(method))
    np.testing.assert_allclose(loss, 2 * (metrics["invariance"] + 0.9 * metrics["redundancy"]), rtol=1e-6)
    (collapse,) = (value.at(16) for value in method.collapse)
    assert collapse.value == pytest.approx(2 * (0.9 * np.log(16 * 15) - np.log(16)))


def test_without_normalisation_over_the_batch_the_spread_tells_collapse():
    (collapse,) = (value.at(16) for value in method_of("barlow", normalization="features").collapse)
    assert (collapse.metric, collapse.value) == ("embedding_std", 0.0)


def test_the_declared_collapse_value_follows_weight_scale_and_width():
    (collapse,) = (
        value.at(16) for value in method_of("barlow", invariance_weight=0.5, scale=0.1, projection=8).collapse
    )
    assert collapse.value == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["barlow", "vicreg"])
@pytest.mark.parametrize(("norm", "layers"), [("batch", 3), ("none", 2), ("batch", 1), ("batch", 0)])
def test_projector_has_the_layers_asked_for_and_biases_where_nothing_cancels_them(name, norm, layers):
    method = method_of(name, projector_layers=layers, projector_norm=norm)
    params, _ = jax.eval_shape(method.init, jax.random.key(0), with_views(method))
    shapes = {path: {n: x.shape for n, x in leaves.items()} for path, leaves in params["projector"].items()}
    widths = [method.encoder.features, *[32] * (layers - 1), 16]
    expected = {f"dense_{i}": {"kernel": tuple(widths[i : i + 2])} for i in range(layers)}
    for i in range(layers - 1):
        if norm == "batch":
            expected[f"norm_{i}"] = {"scale": (32,), "bias": (32,)}
        else:
            expected[f"dense_{i}"]["bias"] = (32,)
    assert shapes == expected


def test_a_third_view_is_refused():
    config = config_of("barlow")
    config["views"] = {"preset": "wmse", "size": 28, "count": 3}
    with pytest.raises(ValueError, match="views=3"):
        build.method(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projector_layers": -1}, "projector_layers=-1"),
        ({"projector_norm": "instance"}, "projector_norm='instance'"),
        ({"normalization": "layer"}, "normalization='layer'"),
        ({"objective": "margin"}, "objective='margin'"),
    ],
)
def test_a_projector_that_does_not_exist_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("barlow", **options)
