"""DirectCLR."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.methods.contrastive import directclr
from ssl_jax.models.network import Network
from tests.methods.case import BATCH, zero_params_loss

FEATURES, PART = 16, 4


def collapsed(case):
    return zero_params_loss(case), math.log(BATCH)


def residual_encoder():
    """Features ``h + relu(h W₂)``, ``h = pixels W₁``: the smallest one with a residual connection."""

    def init(key, images):
        first, second = jax.random.split(key)
        pixels = images[0].size
        return {
            "stem": jax.random.normal(first, (pixels, FEATURES)) / jnp.sqrt(pixels),
            "block": jax.random.normal(second, (FEATURES, FEATURES)) / jnp.sqrt(FEATURES),
        }, {}

    def apply(params, state, images, *, train=False, key=None):
        hidden = images.reshape(images.shape[0], -1) @ params["stem"]
        return hidden + jax.nn.relu(hidden @ params["block"]), state

    return Network(init, apply, FEATURES, {})


def loss_and_gradients(key=2, **options):
    method = directclr.build(residual_encoder(), subvector=PART, groups=4, projector_width=8, **options)
    batch = {"views": (jax.random.normal(jax.random.key(1), (8, 2, 4, 4, 1)),)}
    params, state = method.init(jax.random.key(0), batch)
    function = jax.value_and_grad(lambda p, k: method.loss(p, state, batch, k, jnp.int32(0)), has_aux=True)
    (loss, (_, metrics)), gradients = jax.jit(function)(params, jax.random.key(key))
    return loss, metrics, gradients["encoder"], method


def test_features_outside_the_subvector_get_no_gradient_but_their_stem_does():
    _, _, gradients, _ = loss_and_gradients()
    assert not np.any(gradients["block"][:, PART:])
    assert np.all(np.abs(gradients["block"][:, :PART]).sum(axis=0) > 0)
    assert np.all(np.abs(gradients["stem"]).sum(axis=0) > 0)


@pytest.mark.parametrize("mode", ["none", "linear", "mlp", "group"])
def test_in_the_other_modes_all_features_get_a_gradient(mode):
    loss, metrics, gradients, method = loss_and_gradients(mode=mode)
    assert np.all(np.abs(gradients["block"]).sum(axis=0) > 0)
    terms = 4 if mode == "group" else 1
    np.testing.assert_allclose(metrics["information_bound"], np.log(8) - loss / terms, rtol=1e-5)
    assert method.collapse[0].at(8).value == pytest.approx(terms * math.log(8))


def test_groups_are_drawn_anew_with_the_key_and_cover_all_features():
    (first, *_), (again, *_), (other, *_) = (loss_and_gradients(key, mode="group") for key in (2, 2, 3))
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "subvektor"}, "did you mean 'subvector'"),
        ({"subvector": 17}, "subvector=17"),
        ({"mode": "group", "groups": 5}, "groups=5"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        directclr.build(residual_encoder(), **{"subvector": 8, **options})
