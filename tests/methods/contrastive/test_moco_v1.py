"""MoCo v1."""

import math

import jax

from tests.methods.case import method_of, with_views, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(case.config["method"]["queue_size"] + 1)


def test_projector_is_one_layer_with_a_bias():
    method = method_of("moco_v1")
    params, state = jax.eval_shape(method.init, jax.random.key(0), with_views(method))
    shapes = jax.tree.map(lambda x: x.shape, params["projector"])
    assert shapes == {"dense_0": {"kernel": (method.encoder.features, 16), "bias": (16,)}}
    assert state["online"]["projector"] == {}
