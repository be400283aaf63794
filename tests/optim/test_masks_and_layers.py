"""Exclusion, freezing tables, layer-wise decay and clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import trees
from ssl_jax.optim import clip, layerwise, masks


@pytest.fixture(scope="module")
def vit():
    network = models.build("vit_micro", image_size=16, patch=8, registers=2, layer_scale=1e-5)
    params, _ = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    return {"encoder": params, "projector": {"blocks_0": {"kernel": jnp.zeros((2, 2))}}}


def test_the_decayed_parameters_of_a_vit_are_counted_by_hand(vit):
    # Four kernels a block (qkv, proj, fc1, fc2); patch kernel, CLS, positions, registers; the head's.
    decayed = [path for path, on in trees.flatten(masks.decay_mask(vit)).items() if on]
    assert len(decayed) == 4 * 4 + 4 + 1
    assert not any(word in path for path in decayed for word in ("bias", "norm", "gamma"))


def test_exclude_none_decays_everything_and_expressions_exclude_by_path(vit):
    assert all(jax.tree.leaves(masks.decay_mask(vit, exclude="none")))
    by_path = trees.flatten(masks.decay_mask(vit, exclude=("cls_token", "pos_embed", "bias$")))
    assert not by_path["encoder/cls_token"] and not by_path["encoder/norm/bias"]
    assert by_path["encoder/norm/scale"]


def test_an_unknown_exclusion_is_refused_by_name():
    with pytest.raises(ValueError, match="exclude='norm_and_bias'"):
        masks.decay_mask({"w": jnp.zeros(1)}, exclude="norm_and_bias")


def test_the_longest_freeze_counts_and_for_ever_is_longest():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1), "c": jnp.zeros(1)}
    table = masks.frozen_until(params, freeze=(("a|b", 5), ("a", 9), ("b", -1)))
    assert table == {"a": 9, "b": -1, "c": 0}


@pytest.mark.parametrize(("freeze", "message"), [((("hed", 3),), "hed"), ((("a", -2),), "-1 for ever")])
def test_a_freeze_that_matches_nothing_or_has_a_wrong_step_is_refused(freeze, message):
    with pytest.raises(ValueError, match=message):
        masks.frozen_until({"a": jnp.zeros(1)}, freeze=freeze)


def test_layer_table_of_the_vit_is_that_of_mae(vit):
    table = trees.flatten(layerwise.layer_scales(vit, decay=0.5))
    depth = 4
    for path, scale in table.items():
        if path.startswith(("encoder/patch_embed", "encoder/cls_token", "encoder/pos_embed", "encoder/reg")):
            expected = 0.5 ** (depth + 1)
        elif path.startswith("encoder/blocks_"):
            expected = 0.5 ** (depth - int(path.split("blocks_")[1][0]))
        else:
            expected = 1.0
        assert scale == expected, path
    assert table["projector/blocks_0/kernel"] == table["encoder/norm/scale"] == 1.0


def test_layer_table_of_the_convnext_is_that_of_its_authors():
    """Their table for depths 3, 3, 27, 3: stem 0, stages 1 and 2, nine parts of stage 3, the last stage 12, the norm 13."""
    network = models.build("convnext_small", widths=(4, 4, 4, 4))
    shapes, _ = jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    table = trees.flatten(layerwise.layer_scales({"encoder": shapes, "head": {"w": jnp.zeros(1)}}, decay=0.5))
    layers = {path: 13 + round(np.log2(scale)) for path, scale in table.items()}
    for path, layer in layers.items():
        stage, _, block = path.removeprefix("encoder/stages_").partition("_blocks_")
        if path.startswith("encoder/stem"):
            expected = 0
        elif block:
            expected = {"0": 1, "1": 2, "2": 3 + int(block.split("/")[0]) // 3, "3": 12}[stage]
        elif "downsample" in path:
            expected = {"1": 2, "2": 3, "3": 12}[stage[0]]
        else:
            expected = 13
        assert layer == expected, path
    assert set(layers.values()) == set(range(14))


def test_layer_decay_without_transformer_blocks_is_refused():
    with pytest.raises(ValueError, match="layer_decay"):
        layerwise.layer_scales({"stem": {"kernel": jnp.zeros((2, 2))}}, decay=0.75)


def test_clip_each_bounds_every_tensor_and_leaves_short_ones_alone():
    gradients = {"long": jnp.array([3.0, 4.0]), "short": jnp.array([0.1]), "zero": jnp.zeros(2)}
    clipped = clip.clip_each(gradients, norm=1.0)
    np.testing.assert_allclose(clipped["long"], [0.6, 0.8], rtol=1e-6)
    assert clipped["short"].tobytes() == gradients["short"].tobytes()
    assert clipped["zero"].tolist() == [0.0, 0.0]


def test_clip_global_scales_all_tensors_by_the_same_factor():
    rng = np.random.default_rng(0)
    gradients = {"a": rng.normal(size=(3, 2)).astype(np.float32), "b": rng.normal(size=4).astype(np.float32)}
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
    gradients = jax.tree.map(jnp.asarray, gradients)
    clipped = clip.clip_global(gradients, norm=0.5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(clipped[name], gradient * 0.5 / norm, rtol=1e-5)
        np.testing.assert_array_equal(clip.clip_global(gradients, norm=2 * norm)[name], gradient)


@pytest.mark.parametrize("function", [clip.clip_each, clip.clip_global])
def test_clipping_keeps_bfloat16_and_measures_it_in_float32(function):
    clipped = function({"a": jnp.full(1000, 1.0, jnp.bfloat16)}, norm=1.0)["a"]
    assert clipped.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(clipped, np.float32), 1000**-0.5, rtol=1e-2)
