import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models import heads
from ssl_jax.models.build import BUILDERS
from ssl_jax.models.network import Network, grouped_apply


def shapes_of(network):
    return jax.eval_shape(
        network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    )


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_encoder_is_rebuilt_by_its_config_after_a_round_trip_through_json(name):
    network = models.build(name)
    assert network.config["name"] == name
    again = models.build(**json.loads(json.dumps(dict(network.config))))
    assert again.config == network.config
    assert again.features == network.features
    params, state = shapes_of(again)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((params, state)))
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    features, same = jax.eval_shape(again.apply, params, state, images)
    assert features.shape == (2, network.features)
    assert features.dtype == jnp.float32
    assert same == state


def test_options_that_were_changed_are_in_the_config():
    network = models.build("convnet", widths=(8, 16), grid=1, dtype="bfloat16")
    again = models.build(**json.loads(json.dumps(dict(network.config))))
    assert again.features == 16
    assert again.config["dtype"] == "bfloat16"


def test_a_misspelt_name_or_option_is_an_error_that_names_the_nearest_right_one():
    with pytest.raises(ValueError, match=r"name='resnet5'.*did you mean 'resnet50'"):
        models.build("resnet5")
    with pytest.raises(ValueError, match=r"resnet18\.widht is not an option: did you mean 'width'"):
        models.build("resnet18", widht=2)


def test_init_runs_under_jit_and_gives_the_same_params():
    network = models.build("convnet", widths=(4,))
    images = jnp.ones((2, 8, 8, 1))
    eager, jitted = network.init(jax.random.key(0), images), jax.jit(network.init)(jax.random.key(0), images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), eager, jitted)


@pytest.fixture(scope="module")
def head():
    head = heads.mlp((5, 4), last_norm="batch")
    x = jax.random.normal(jax.random.key(1), (12, 3)) * jnp.arange(1.0, 13.0)[:, None]
    return head, *head.init(jax.random.key(0), x), x


def test_groups_are_a_loop_over_parts_of_the_batch_with_running_statistics_averaged(head):
    network, params, state, x = head
    found, new = jax.jit(lambda x: grouped_apply(network, params, state, x, groups=3, train=True))(x)
    loop = [network.apply(params, state, part, train=True) for part in np.split(np.asarray(x), 3)]
    np.testing.assert_allclose(found, np.concatenate([outputs for outputs, _ in loop]), atol=1e-5)
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *[s for _, s in loop])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), new, expected)


def test_one_group_is_the_whole_batch_and_evaluation_knows_no_groups(head):
    network, params, state, x = head
    found = grouped_apply(network, params, state, x, groups=1, train=True)
    expected = network.apply(params, state, x, train=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    outputs, same = grouped_apply(network, params, state, x, groups=3)
    assert same is state
    np.testing.assert_array_equal(outputs, network.apply(params, state, x)[0])


def test_groups_leave_all_state_but_batch_statistics_alone_and_split_the_key():
    def apply(params, state, x, *, train, key):
        noise = jax.random.normal(key, x.shape)
        part = {"batch_stats": {"mean": x.mean(0)}, "frozen": {"kernel": state["part"]["frozen"]["kernel"]}}
        return (x + noise, x), {"part": part}

    network = Network(lambda key, x: ({}, {}), apply, 2, {})
    state = {"part": {"batch_stats": {"mean": jnp.zeros(2)}, "frozen": {"kernel": jnp.float32(1 / 3)}}}
    x = jnp.arange(12.0).reshape(6, 2)
    (noisy, same), new = grouped_apply(network, {}, state, x, groups=3, train=True, key=jax.random.key(0))
    np.testing.assert_array_equal(same, x)
    assert len(np.unique(np.round(noisy - x, 3))) == 12
    np.testing.assert_allclose(new["part"]["batch_stats"]["mean"], x.mean(0))
    assert new["part"]["frozen"]["kernel"] == state["part"]["frozen"]["kernel"]


def test_a_batch_that_groups_do_not_divide_is_an_error(head):
    network, params, state, x = head
    with pytest.raises(ValueError, match="groups=5: allowed is a divisor of the batch, 12"):
        grouped_apply(network, params, state, x, groups=5, train=True)
