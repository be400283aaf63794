"""The loop around the step: accumulation, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.data.sources import ArraySource
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.loop import fit
from ssl_jax.train.program import make_program
from ssl_jax.train.run import Host, Run
from ssl_jax.train.sharding import make_mesh
from ssl_jax.train.step import make_train_step

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
SGD = optim.from_options("sgd", steps=4, learning_rate=0.1, scaling="none", batch_size=8)


def tiny(**options):
    encoder = models.build("convnet", widths=(4,), grid=1)
    return simclr.build(
        encoder, views=presets.simclr(8, blur_prob=0.0), projector_width=8, projection=4, **options
    )


def one_device():
    return make_mesh(devices=jax.devices()[:1])


def test_accumulated_gradient_of_a_mean_over_examples_is_that_of_the_whole_batch():
    """A linear model on whole, unchanged images: nothing is drawn, so micro-batches must give the same update."""
    method = tiny()

    def loss(params, state, batch, key, step):
        del key, step
        x = batch["views"][0][:, 0].reshape(-1, 64)
        return jnp.mean((x @ params["w"] - 1) ** 2), (state, {})

    whole_images = presets.mae(8, area=(1.0, 1.0), ratio=(1.0, 1.0), flip_prob=0.0)
    linear = dataclasses.replace(
        method, views=whole_images, loss=loss, init=lambda key, batch: ({"w": jnp.ones(64)}, {})
    )
    batch = {"image": IMAGES[:8], "label": np.zeros(8, np.int32), "index": np.arange(8, dtype=np.int32)}
    state = make_program(linear, SGD, batch, one_device()).init(0)
    results = [jax.jit(make_train_step(linear, SGD, accumulate=parts))(state, batch) for parts in (1, 2, 4)]
    x = IMAGES[:8].reshape(8, 64) / 255.0
    expected = np.mean((x.sum(axis=1) - 1) ** 2)
    for after, metrics in results:
        assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(after.params["w"], results[0][0].params["w"], rtol=1e-5)
        assert int(after.step) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batch_size": 9}, "batch_size=9"), ({"steps": 0}, "steps=0"), ({"accumulate": 3}, "accumulate=3")],
)
def test_numbers_that_do_not_fit_are_refused(change, message):
    options = {"steps": 2, "batch_size": 8, **change}
    with pytest.raises(ValueError, match=message):
        fit(Run(tiny(), SGD, ArraySource(IMAGES), **options), Host(mesh=make_mesh(devices=jax.devices()[:2])))
