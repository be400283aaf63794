"""DINOv2."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.koleo import koleo
from tests.methods.case import loss_of, method_of, start, zero_params_loss


def collapsed(case):
    """Uniform distributions, half of the crops masked, and all features alike."""
    options, width = case.config["method"], case.config["encoder"]["width"]
    uniform = math.log(options["head"]["prototypes"]) * (1 + options["masking"]["crop_fraction"])
    alike = -math.log(1e-8 * (math.sqrt(width) + 1))
    return zero_params_loss(case), uniform + 2 * options["koleo_weight"] * alike


@functools.cache
def started():
    return start(method_of("dinov2"))


def test_koleo_is_summed_over_the_global_crops_and_logged_as_their_mean():
    params, state, batch = started()
    without, _, _ = loss_of(method_of("dinov2", koleo_weight=0.0), params, state, batch)
    loss, _, metrics = loss_of(method_of("dinov2", koleo_weight=0.5), params, state, batch)
    assert loss == pytest.approx(without + 0.5 * 2 * float(metrics["koleo"]), rel=1e-5)
    assert float(metrics["koleo"]) > float(
        koleo(jnp.eye(16))
    )  # random features are closer than orthogonal ones


def test_exactly_half_of_the_crops_are_masked():
    """At uniform distributions the patch loss is the share of masked crops times log K, whatever the key."""
    method = method_of("dinov2")
    params, state, batch = started()
    zero = jax.tree.map(jnp.zeros_like, params)
    loss = jax.jit(method.loss)
    for seed in range(3):
        _, (_, metrics) = loss(zero, state, batch, jax.random.key(seed), jnp.int32(0))
        assert float(metrics["patch_loss"]) == pytest.approx(0.5 * math.log(64), rel=1e-5)


@pytest.mark.parametrize("centering", ["center", "none"])
def test_centres_move_only_where_there_are_any(centering):
    method = method_of("dinov2", centering=centering)
    params, state, batch = start(method)
    _, moved, metrics = loss_of(method, params, state, batch)
    assert np.isfinite(float(metrics["class_loss"]))
    names = {"center", "patch_center"} if centering == "center" else set()
    assert {name for name in moved if "center" in name} == names
    assert all(moved[name].average.any() for name in names)


def test_balancing_uses_the_prototypes_evenly():
    params, state, batch = started()
    _, _, balanced = loss_of(method_of("dinov2", sinkhorn={"iterations": 20}), params, state, batch)
    _, _, plain = loss_of(method_of("dinov2", centering="none"), params, state, batch)
    assert float(balanced["teacher_kl_uniform"]) < 0.01 < float(plain["teacher_kl_uniform"])
    assert float(balanced["patch_kl_uniform"]) < 0.01 < float(plain["patch_kl_uniform"])


def test_unknown_centring_is_refused():
    with pytest.raises(ValueError, match=r"centering='sinkhorm'.*did you mean 'sinkhorn'"):
        method_of("dinov2", centering="sinkhorm")
