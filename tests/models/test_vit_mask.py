"""The mask token of the vision transformer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.torch_names_vit import vit_from_torch, vit_to_torch
from ssl_jax.models.vit import vit
from tests.models.fill import random_variables

nano = functools.partial(vit, "vit_micro", width=16, depth=1, heads=2, patch=4, image_size=8)
HIDDEN = jnp.array([[True, False, False, True], [False, True, False, False], [False] * 4])


def images(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(3, 8, 8, 3)), jnp.float32)


def made(**options):
    network = nano(**options)
    return network, *random_variables(network, images())


def test_mask_token_starts_at_zero_and_is_there_only_when_asked_for():
    params, _ = nano(mask_token=True).init(jax.random.key(0), images())
    np.testing.assert_array_equal(params["mask_token"], jnp.zeros((1, 1, 16)))
    plain, _ = nano().init(jax.random.key(0), images())
    assert set(params) - set(plain) == {"mask_token"}
    assert nano().config["mask_token"] is False


def test_without_a_mask_the_token_has_no_influence_and_no_gradient():
    network, params, state = made(mask_token=True)
    plain, *_ = made()
    without = {name: p for name, p in params.items() if name != "mask_token"}
    np.testing.assert_array_equal(
        network.apply(params, state, images())[0], plain.apply(without, state, images())[0]
    )
    gradient = jax.grad(lambda p: network.apply(p, state, images())[0].sum())(params)
    assert not gradient["mask_token"].any()


def test_what_is_hidden_has_no_influence_but_its_place_does():
    network, params, state = made(mask_token=True)
    run = jax.jit(lambda x, mask: network.apply(params, state, x, mask=mask, output="tokens")[0])
    x = images()
    other = jnp.where(jnp.zeros((3, 8, 8, 3), bool).at[0, :4, :4].set(True), images(1), x)
    np.testing.assert_array_equal(run(x, HIDDEN)[0], run(other, HIDDEN)[0])
    assert (run(x, HIDDEN)[1] == run(other, HIDDEN)[1]).all()
    assert (run(x, ~HIDDEN)[0] != run(other, ~HIDDEN)[0]).any()
    # Nothing masked is the plain network; two masked patches differ by their positions alone.
    plain, _ = network.apply(params, state, x, output="tokens")
    np.testing.assert_allclose(run(x, HIDDEN)[2], plain[2], atol=1e-5)
    masked = run(x, jnp.ones((3, 4), bool))[0, 1:]
    assert (masked[0] != masked[3]).any()


def test_a_mask_needs_the_token():
    network, params, state = made()
    with pytest.raises(ValueError, match="mask_token=False: allowed is True"):
        network.apply(params, state, images(), mask=HIDDEN)


def test_the_token_survives_the_way_to_torch_and_back():
    network, params, state = made(mask_token=True)
    weights = vit_to_torch(params, state, network)
    flat = {**weights, "mask_token": weights["mask_token"].reshape(1, 16)}  # as DINOv2 stores it
    for given in (weights, flat):
        jax.tree.map(np.testing.assert_array_equal, vit_from_torch(given, network)[0], params)
    # A network without the token leaves it out, as that of MAE's decoder.
    assert "mask_token" not in vit_from_torch(weights, nano())[0]
