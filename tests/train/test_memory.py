"""What is held at a time: parts of the batch, cached gradients, recomputed activations, parameters split over devices."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.augment.views import make_views
from ssl_jax.core import trees
from ssl_jax.core.flops import matmul_flops
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.program import make_program
from ssl_jax.train.sharding import batch_sharding, make_mesh
from ssl_jax.train.step import make_train_step
from tests.methods.case import BATCH, method_of, real_batch

SGD = optim.from_options("sgd", steps=4, learning_rate=0.1, scaling="none", batch_size=BATCH)
WITHOUT_BATCH_NORM = {"norm": "group"}


def one_device():
    return make_mesh(devices=jax.devices()[:1])


def stepped(method, **options):
    """State and metrics after one step from the same start."""
    batch = real_batch()
    state = make_program(method, SGD, batch, one_device()).init(0)
    return jax.jit(make_train_step(method, SGD, **options))(state, batch)


def assert_close(found, expected, tolerance):
    found, expected = trees.flatten(found), trees.flatten(expected)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        scale = max(float(jnp.abs(leaf).max()), 0.1)
        np.testing.assert_allclose(found[path], leaf, rtol=0, atol=tolerance * scale, err_msg=path)


@pytest.mark.parametrize(
    "name",
    [
        "simclr",
        *(
            pytest.param(n, marks=pytest.mark.long)
            for n in ("barlow", "vicreg", "lejepa", "spectral", "swav")
        ),
    ],
)
def test_cached_gradients_are_those_of_the_whole_batch(name):
    """Projectors keep their BatchNorm: they see all features at once."""
    method = method_of(name, encoder=WITHOUT_BATCH_NORM)
    whole, expected = stepped(method)
    cached, metrics = stepped(method, accumulate=4, cached_gradients=True)
    for part in ("params", "state"):
        assert_close(getattr(cached, part), getattr(whole, part), 2e-5)
    assert_close(metrics, expected, 2e-5)
    apart, _ = stepped(method, accumulate=4)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), apart.params, whole.params)
    assert max(jax.tree.leaves(difference)) > 1e-4, "parts by themselves have another gradient"


@pytest.mark.long
def test_cached_gradients_of_split_parameters_are_those_of_one_device():
    method, mesh = method_of("simclr", encoder=WITHOUT_BATCH_NORM), make_mesh(data=2, fsdp=4)
    options = {"fsdp_min_size": 64, "accumulate": 2, "cached_gradients": True}
    program = make_program(method, SGD, real_batch(), mesh, **options)
    found, _ = program.step(program.init(0), jax.device_put(real_batch(), batch_sharding(mesh)))
    assert not all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(found.params))
    assert_close(found.params, stepped(method)[0].params, 2e-5)


def test_a_method_that_asks_for_the_boxes_of_its_views_gets_those_of_the_whole_batch_in_every_form_of_step():
    """The metric is a weighted mean of the boxes: parts average it, cached gradients take it once."""
    view = dataclasses.replace(presets.mae(28)[0], boxes=True)
    method = dataclasses.replace(method_of("simclr", encoder=WITHOUT_BATCH_NORM), views=(view, view))

    def loss(params, state, batch, key, step):
        value, (state, metrics) = method.loss(params, state, batch, key, step)
        weights = jnp.array([1.0, 10.0, 100.0, 1000.0])
        return value, (state, {**metrics, "boxes": jnp.mean(batch["boxes"] @ weights)})

    asking = dataclasses.replace(method, loss=loss)
    (_, whole), (_, parts), (_, cached) = (
        stepped(asking, **options)
        for options in ({}, {"accumulate": 4}, {"accumulate": 4, "cached_gradients": True})
    )
    assert float(whole["boxes"]) > 0
    for metrics in (parts, cached):
        np.testing.assert_allclose(metrics["boxes"], whole["boxes"], rtol=1e-6)


def test_cached_gradients_are_refused_where_they_would_lie():
    with pytest.raises(ValueError, match="the encoder has BatchNorm"):
        stepped(method_of("simclr"), accumulate=4, cached_gradients=True)
    with pytest.raises(ValueError, match="reads the images themselves"):
        stepped(method_of("mae"), accumulate=4, cached_gradients=True)


def test_parts_of_a_batch_see_the_views_of_the_whole():
    """So a loss that is a mean over examples has the same value and gradient, though its views are drawn."""
    method = method_of("simclr")

    def loss(params, state, batch, key, step):
        return jnp.mean((jnp.sum(batch["views"][0] * params["w"], axis=(1, 2, 3, 4)) - 1) ** 2), (state, {})

    def init(key, batch):
        return {"w": jnp.full(batch["views"][0].shape[2:], 1e-3)}, {}

    linear = dataclasses.replace(method, loss=loss, init=init)
    results = [stepped(linear, accumulate=parts) for parts in (1, 2, 8)]
    for after, metrics in results[1:]:
        assert float(metrics["loss"]) == pytest.approx(float(results[0][1]["loss"]), rel=1e-5)
        assert_close(after.params, results[0][0].params, 3e-5)
    views = make_views(jax.random.key(0), real_batch(), method.views)[0]
    part = jax.tree.map(lambda x: x[4:8], real_batch())
    found = make_views(jax.random.key(0), part, method.views, positions=jnp.arange(4, 8))[0]
    np.testing.assert_allclose(found, views[4:8], atol=1e-6)


def vit(**options):
    encoder = models.build("vit_micro", image_size=28, patch=7, **{"width": 64, "heads": 2, **options})
    return simclr.build(encoder, views=presets.simclr(28, blur_prob=0.0), projection=64)


def compiled(method, *, batch=BATCH, mesh=None, **options):
    """The compiled step for a batch of this size; nothing is run."""
    mesh = one_device() if mesh is None else mesh
    program = make_program(method, SGD, real_batch(1), mesh, **options)
    where = batch_sharding(mesh)
    shapes = {
        name: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype, sharding=where)
        for name, x in real_batch(1).items()
    }
    return program.step.lower(program.abstract, shapes).compile()


def held(program):
    """Bytes on a device: of what goes in, and of what is there in between."""
    memory = program.memory_analysis()
    return memory.argument_size_in_bytes, memory.temp_size_in_bytes


@pytest.mark.long
def test_a_batch_16_times_larger_fits_into_the_same_activation_memory():
    """25 CPU seconds."""
    _, small = held(compiled(vit(depth=6), batch=32))
    _, cached = held(compiled(vit(depth=6), batch=512, accumulate=16, cached_gradients=True))
    _, accumulated = held(compiled(vit(depth=6), batch=512, accumulate=16))
    _, whole = held(compiled(vit(depth=6), batch=512))
    assert whole > 12 * small
    assert accumulated < 1.25 * small
    # And all images' features, projections and similarities, which the loss is about.
    assert cached < 1.25 * small + 4 * (1024 * (4 * 64 + 4 * 64) + 4 * 1024**2)


def test_recomputed_blocks_are_not_kept_for_the_backward_pass():
    """Counted in the traced program: XLA's CPU backend merges what is computed twice, so its memory shows nothing of it."""

    def kept(method):
        params, state = jax.eval_shape(lambda: method.init(jax.random.key(0), batch))

        def pull(params, state):
            return jax.vjp(lambda p: method.loss(p, state, batch, jax.random.key(1), jnp.int32(0))[0], params)

        _, residuals = jax.eval_shape(pull, params, state)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(residuals))

    batch = {"views": (jnp.zeros((BATCH, 2, 28, 28, 1)),)}
    everything, products = kept(vit(depth=8)), kept(vit(depth=8, remat=True, remat_keeps="products"))
    nothing = kept(vit(depth=8, remat=True))
    assert nothing < 0.25 * everything
    # Of a block the results of three products with weights, 3 + 1 + 4 widths a token; that of the last is only added on.
    assert products - nothing == 8 * (3 + 1 + 4) * 64 * 4 * (2 * BATCH * 17)
    assert products < 0.6 * everything


def test_blocks_of_split_parameters_are_recomputed_too():
    """Products of the forward pass that come once more: all of the blocks', nothing of what lies outside; or attention's."""

    def products(remat, keeps="nothing", **mesh):
        method = vit(depth=4, remat=remat, remat_keeps=keeps)
        program = make_program(method, SGD, real_batch(), make_mesh(**mesh), fsdp_min_size=64)
        return matmul_flops(program.step.trace(program.abstract, real_batch()).jaxpr)

    again = products(True) - products(False)
    assert again > 0
    assert products(False, data=2, fsdp=4) == products(False)
    assert products(True, data=2, fsdp=4) - products(False) == again
    # In 4 blocks, for 2 views: queries with keys, weights with values.
    scores = 4 * 2 * (2 * 2 * BATCH * 17**2 * 64)
    assert products(True, "products") - products(False) == scores
    assert products(True, "products", data=2, fsdp=4) - products(False) == scores


@pytest.mark.long
@pytest.mark.parametrize("shape", [{"fsdp": 8}, {"data": 2, "fsdp": 4}])
def test_split_parameters_take_their_share_of_memory_and_no_activation_is_sent(shape):
    """20 CPU seconds each."""
    method = vit(width=256, depth=2)
    replicated, split = (compiled(method, mesh=make_mesh(**mesh)) for mesh in ({}, shape))
    (whole, between), (part, smaller) = held(replicated), held(split)
    state = make_program(method, SGD, real_batch(1), one_device()).abstract
    kernels = [x.size * 4 for x in jax.tree.leaves(state.params) if x.size >= 2**16]
    kept = sum(kernels) * 2 * (1 - 1 / shape["fsdp"])
    assert whole - part == pytest.approx(kept, rel=0.01), "kernels and momentum, a part each"
    assert whole + between - part - smaller > 0.9 * kept, "and nothing is held in their place"
    # Each kernel is put together for the forward and once more for the backward pass; besides, embeddings for the loss.
    gathered = re.findall(r"f32\[([\d,]+)\]\S* all-gather\(", split.as_text())
    sizes = [int(np.prod([int(n) for n in found.split(",")])) * 4 for found in gathered]
    assert len([size for size in sizes if size in kernels]) <= 2 * len(kernels)
    assert all(size in kernels or size == 2 * BATCH * 64 * 4 for size in sizes), gathered
