"""iBOT."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core import trees
from ssl_jax.methods.distillation import ibot
from ssl_jax.methods.parts.self_distillation import Masking, draw_masks
from ssl_jax.models.build import build as build_encoder
from tests.methods.case import loss_of, method_of, start, with_average

KEY = jax.random.key(2)
ALL = {"crop_fraction": 1.0}


@functools.cache
def everything_masked():
    method = method_of("ibot", masking=ALL)
    return method, *start(method)


def gradients(method, params, state, batch):
    loss = lambda p: method.loss(p, state, batch, KEY, jnp.int32(0))[0]  # noqa: E731
    return trees.flatten(jax.jit(jax.grad(loss))(params))


def collapsed(case):
    """Both losses at uniform distributions, the patches' times the expected share of masked crops."""
    options = case.config["method"]
    method, params, state, batch = everything_masked()
    _, _, metrics = loss_of(method, jax.tree.map(jnp.zeros_like, params), state, batch)
    fraction = options["masking"]["crop_fraction"]
    loss = float(metrics["class_loss"]) + fraction * float(metrics["patch_loss"])
    return loss, math.log(options["head"]["prototypes"]) * (1 + fraction)


def test_nothing_masked_leaves_the_loss_of_the_crops():
    method = method_of("ibot", masking={"crop_fraction": 0.0})
    loss, _, metrics = loss_of(method, *start(method))
    assert metrics["patch_loss"] == metrics["patch_teacher_entropy"] == 0
    assert loss == float(metrics["class_loss"])


def test_the_patch_loss_alone_needs_only_the_first_crops_and_moves_the_mask_token():
    method = method_of("ibot", masking=ALL, class_weight=0.0)
    _, params, state, batch = everything_masked()
    found = gradients(method, params, state, batch)
    assert found["encoder/mask_token"].any()
    local = (batch["views"][0], 1 - batch["views"][1])
    run = functools.partial(loss_of, method, params, state)
    assert run(batch)[0] == pytest.approx(run({**batch, "views": local})[0], rel=1e-6)


def test_teacher_carries_the_mask_token_without_use():
    method, params, state, batch = everything_masked()
    kept = state["teacher"].average
    other = trees.map_with_path(lambda path, x: x + 5.0 if "mask_token" in path else x, kept.average)
    changed = {**state, "teacher": with_average(state["teacher"], other)}
    assert loss_of(method, params, state, batch)[0] == loss_of(method, params, changed, batch)[0]


def test_centres_are_averages_over_crops_and_over_all_patches():
    method, params, state, batch = everything_masked()
    _, moved, _ = loss_of(method, params, state, batch)
    # The patches' centre does not depend on what is masked; key and mask change, it stays.
    elsewhere = jax.jit(method.loss)(params, state, batch, jax.random.key(9), jnp.int32(0))[1][0]
    np.testing.assert_allclose(
        moved["patch_center"].average, elsewhere["patch_center"].average, rtol=1e-5, atol=1e-7
    )
    assert moved["patch_center"].average.any() and moved["center"].average.any()
    assert (moved["patch_center"].average != moved["center"].average).any()


@pytest.mark.parametrize(
    ("patches", "own"),
    [
        ("prototypes", {"patch_head/prototypes/direction"}),
        ("separate", {"patch_head/prototypes/direction", "patch_head/mlp/dense_0/kernel"}),
    ],
)
def test_heads_can_be_untied_in_part_or_as_a_whole(patches, own):
    method = method_of("ibot", masking=ALL, head={"patches": patches})
    params, state, batch = start(method)
    found = gradients(method, params, state, batch)
    mine = {path for path in found if path.startswith("patch_head")}
    assert own <= mine and (len(mine) == 1) == (patches == "prototypes")
    assert all(found[path].any() for path in own)
    assert state["teacher"].params.keys() == params.keys()


@pytest.mark.parametrize("kind", ["block", "random"])
def test_masks_have_at_most_as_many_patches_as_places(kind):
    masking, encoder = Masking(kind=kind, crop_fraction=1.0), method_of("ibot").encoder
    crops = jnp.zeros((64, 2, 28, 28, 1))
    masks = jax.jit(lambda key: draw_masks(key, masking, crops, encoder, stratified=False))(KEY)
    assert masks.shape == (128, 16)
    counts = masks.sum(axis=1)
    assert counts.min() >= 1 and counts.max() <= 8


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        ({"masking": {"kind": "blocks"}}, {}, "did you mean 'block'"),
        ({"head": {"patches": "tied"}}, {}, "head.patches='tied'"),
        ({}, {"mask_token": False}, "encoder.mask_token=False"),
        ({}, {"fc_norm": True}, "encoder.fc_norm=True"),
    ],
)
def test_bad_options_are_refused_by_name(options, encoder, message):
    with pytest.raises(ValueError, match=message):
        method_of("ibot", encoder=encoder, **options)


def test_convolutional_encoders_are_refused():
    with pytest.raises(ValueError, match="encoder='convnet': allowed is a ViT"):
        ibot.build(build_encoder("convnet", widths=(4,), grid=1))
