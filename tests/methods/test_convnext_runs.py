"""A ConvNeXt in the place of a recipe's encoder: loss and gradients, one device as eight, whole or split state."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import optim
from ssl_jax.config import build
from ssl_jax.core import trees
from ssl_jax.train.program import make_program
from ssl_jax.train.sharding import batch_sharding, make_mesh
from tests.methods.case import BATCH, make_gradient, real_batch, start


def method_with_convnext(name):
    config = importlib.import_module(f"configs.{name}").get_config("convnext_tiny,smoke")
    config.batch_size = BATCH
    return build.method(build.to_dict(config))


@pytest.mark.long
@pytest.mark.parametrize("name", ["dino", "context_encoder"])
def test_methods_that_take_convolutional_encoders_take_a_convnext(name):
    method = method_with_convnext(name)
    params, state, batch = start(method)
    (loss, _), (gradient, _) = make_gradient(method)(params, state, batch)
    assert np.isfinite(loss)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    kernels = [leaf for path, leaf in trees.flatten(gradient).items() if path.endswith("conv_dw/kernel")]
    assert len(kernels) == 2
    assert all((leaf != 0).any() for leaf in kernels)


@pytest.mark.long
def test_one_device_equals_eight_with_whole_and_with_split_state():
    method, batch = method_with_convnext("simclr"), real_batch()
    # One step: the last normalisation divides the small features of the start by their deviation, and rounding grows with them.
    sgd = optim.from_options("sgd", steps=4, learning_rate=0.05, scaling="none", batch_size=BATCH)
    ends = []
    for mesh, options in (
        (make_mesh(devices=jax.devices()[:1]), {}),
        (make_mesh(devices=jax.devices()[:8]), {}),
        (make_mesh(data=2, fsdp=4), {"fsdp_min_size": 64}),
    ):
        program = make_program(method, sgd, batch, mesh, **options)
        state, placed = program.init(0), jax.device_put(batch, batch_sharding(mesh))
        state, _ = program.step(state, placed)
        ends.append(trees.flatten(jax.tree.map(np.asarray, state.params)))
    for path, leaf in ends[0].items():
        for other in ends[1:]:
            scale = max(np.abs(leaf).max(), 0.1)
            np.testing.assert_allclose(other[path], leaf, rtol=0, atol=1e-4 * scale, err_msg=path)
