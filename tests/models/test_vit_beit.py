"""What BEiT, I-JEPA and DINOv2 need of the vision transformer: relative positions, absent tokens, exact stochastic depth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.positions import relative_index
from ssl_jax.models.transformer import kept_examples
from ssl_jax.models.vit import vit
from tests.models.fill import random_variables

nano = functools.partial(vit, "vit_micro", width=16, depth=2, heads=2, patch=4, image_size=12)


def images(seed=0, count=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, 12, 12, 3)), jnp.float32)


def made(**options):
    network = nano(**options)
    return network, *random_variables(network, images())


def test_relative_index_equals_a_loop_over_pairs():
    height, width = 3, 4
    found = relative_index(height, width, 2)
    rows = {}
    for i in range(14):
        for j in range(14):
            if i < 2 or j < 2:
                kind = "prefix" if i < 2 and j < 2 else "to patch" if i < 2 else "from patch"
            else:
                (y, x), (v, u) = divmod(i - 2, width), divmod(j - 2, width)
                kind = (y - v, x - u)
            rows.setdefault(kind, set()).add(int(found[i, j]))
    assert all(len(row) == 1 for row in rows.values())
    assert sorted(row for (row,) in rows.values()) == list(range(5 * 7 + 3))
    assert [rows[kind] for kind in ("to patch", "from patch", "prefix")] == [{35}, {36}, {37}]
    # microsoft/unilm's formula for one distance: a patch to its right neighbour of the row below.
    assert rows[(-1, -1)] == {(height - 2) * (2 * width - 1) + width - 2}


def test_relative_bias_is_added_to_the_scores_of_the_last_block():
    network, params, state = made(position="relative", depth=1)
    base = {**params, "relative_bias": jnp.zeros_like(params["relative_bias"])}
    weights, _ = network.apply(base, state, images(), output="attention")
    biased, _ = network.apply(params, state, images(), output="attention")
    table = np.asarray(params["relative_bias"])
    expected = np.log(weights) + table[relative_index(3, 3, 1)].transpose(2, 0, 1)
    expected = np.exp(expected) / np.exp(expected).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(biased, expected, atol=1e-5)


@pytest.mark.long
def test_relative_positions_follow_the_kept_patches_and_nothing_else_tells_places():
    network, params, state = made(position="relative")
    assert "pos_embed" not in params
    keep = jnp.array([[4, 0, 7], [1, 2, 3], [8, 5, 6]])
    tokens, _ = network.apply(params, state, images(), keep=keep, output="tokens")
    turned, _ = network.apply(params, state, images(), keep=keep[:, ::-1], output="tokens")
    np.testing.assert_allclose(tokens[:, 1:], turned[:, 1:][:, ::-1], atol=1e-5)
    np.testing.assert_allclose(
        network.apply(params, state, images(), keep=jnp.tile(jnp.arange(9), (3, 1)))[0],
        network.apply(params, state, images())[0],
        atol=1e-5,
    )
    # The same patches at the same distances, one row lower.
    shifted = jnp.roll(images(), 4, axis=1)
    first, _ = network.apply(params, state, images(), keep=jnp.tile(jnp.array([0, 1, 4]), (3, 1)))
    second, _ = network.apply(params, state, shifted, keep=jnp.tile(jnp.array([3, 4, 7]), (3, 1)))
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("position", ["learned", "relative"])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_absent_patches_change_nothing_for_the_others(position, pool):
    network, params, state = made(position=position, pool=pool)
    keep = jnp.array([[4, 0, 7, 2], [1, 2, 3, 5], [8, 5, 6, 0]])
    present = jnp.array([[True, True, True, False]] * 3)
    run = functools.partial(network.apply, params, state, images())
    for output in ("features", "tokens"):
        expected, _ = run(keep=keep[:, :3], output=output)
        found, _ = run(keep=keep, present=present, output=output)
        found = found if output == "features" else found[:, :4]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    gradient = jax.grad(lambda x: network.apply(params, state, x, keep=keep, present=present)[0].sum())(
        images()
    )
    blocks = np.abs(gradient).reshape(3, 3, 4, 3, 4, 3).sum(axis=(2, 4, 5)).reshape(3, 9)
    for row, kept in zip(blocks, keep, strict=True):
        assert (row[np.array(kept[:3])] > 0).all()
        assert row[int(kept[3])] == 0


@pytest.mark.long
def test_a_mask_with_keep_is_about_the_kept_patches():
    network, params, state = made(mask_token=True)
    keep = jnp.array([[4, 0, 7], [1, 2, 3], [8, 5, 6]])
    mask = jnp.array([[True, False, False]] * 3)
    whole = jnp.zeros((3, 9), bool).at[jnp.arange(3), keep[:, 0]].set(True)
    found, _ = network.apply(params, state, images(), keep=keep, mask=mask)
    # The same by hiding in image order first: all patches kept, then those of ``keep`` alone count.
    present = jnp.zeros((3, 9), bool).at[jnp.arange(3)[:, None], keep].set(True)
    order = jnp.tile(jnp.arange(9), (3, 1))
    expected, _ = network.apply(params, state, images(), keep=order, mask=whole, present=present)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.long
def test_subset_drop_path_keeps_an_exact_number_of_examples_and_the_expectation():
    network, params, state = made(depth=1, drop_path=0.4, drop_path_uniform=True, drop_path_kind="subset")
    plain, *_ = made(depth=1, pool="cls")
    x = images(count=10)
    attended = jax.jit(
        lambda key: network.apply(params, state, x, train=True, key=key, output="layers")[0]["blocks_0"]
    )
    start = params["cls_token"][0]
    branchless = {**params, "blocks_0": jax.tree.map(jnp.zeros_like, params["blocks_0"])}
    base = plain.apply(branchless, state, x, output="layers")[0]["blocks_0"]
    np.testing.assert_allclose(base[:, 0], jnp.broadcast_to(start, (10, 16)), atol=1e-6)
    draws = jax.lax.map(attended, jax.random.split(jax.random.key(0), 20))
    # Both branches are dropped for some; six of ten keep each of them.
    unchanged = (jnp.abs(draws - base).max(axis=(2, 3)) < 1e-6).sum(axis=1)
    assert 0 < unchanged.max() <= 4
    chosen = np.stack([kept_examples(k, 10, rate=0.4) for k in jax.random.split(jax.random.key(1), 400)])
    assert chosen.shape == (400, 6)
    assert all(len(set(row)) == 6 for row in chosen)
    # Six standard deviations of a binomial share.
    np.testing.assert_allclose(np.bincount(chosen.ravel()) / 400, 0.6, atol=6 * (0.24 / 400) ** 0.5)


def test_subset_drop_path_scales_the_branch_of_those_it_keeps():
    options = {"depth": 1, "drop_path_uniform": True, "layer_scale": 1.0}
    network, params, state = made(drop_path=0.5, drop_path_kind="subset", **options)
    plain, *_ = made(**options)
    # Without the MLP one branch is left.
    blocks = params["blocks_0"]
    blocks = {**blocks, "ls2": {"gamma": jnp.zeros(16)}}
    params = {**params, "blocks_0": blocks}
    x = images(count=4)
    whole = plain.apply(params, state, x, output="layers")[0]["blocks_0"]
    none = {**params, "blocks_0": {**blocks, "ls1": {"gamma": jnp.zeros(16)}}}
    base = plain.apply(none, state, x, output="layers")[0]["blocks_0"]
    found, _ = network.apply(params, state, x, train=True, key=jax.random.key(0), output="layers")
    factor = np.asarray((found["blocks_0"] - base) / (whole - base)).reshape(4, -1)
    np.testing.assert_allclose(np.sort(np.median(factor, axis=1)), [0, 0, 2, 2], atol=1e-3)


def test_uniform_rates_reach_the_first_block():
    network, params, state = made(drop_path=0.9, drop_path_uniform=True)
    linear, *_ = made(drop_path=0.9)
    x = images(count=40)
    outputs = [
        n.apply(params, state, x, train=True, key=jax.random.key(0), output="layers")[0]["blocks_0"]
        for n in (network, linear)
    ]
    start = {**params, "blocks_0": jax.tree.map(jnp.zeros_like, params["blocks_0"])}
    base = linear.apply(start, state, x, output="layers")[0]["blocks_0"]
    changed = [(jnp.abs(y - base).max(axis=(1, 2)) > 1e-6).mean() for y in outputs]
    assert changed[0] < 0.5
    assert changed[1] == 1.0


@pytest.mark.long
def test_beit_start_is_a_cut_normal_that_shrinks_with_the_depth_of_the_branch():
    network = nano(init="beit", width=64, heads=4, depth=4, mask_token=True)
    params, _ = network.init(jax.random.key(0), images())
    deviation = 0.02 * 0.5396  # of a normal cut at one deviation
    for layer in range(4):
        block = params[f"blocks_{layer}"]
        for name, part in (("qkv", block["attn"]["qkv"]), ("fc1", block["mlp"]["fc1"])):
            assert np.std(part["kernel"]) == pytest.approx(deviation, rel=0.05), name
            assert np.abs(part["kernel"]).max() <= 0.02
        for part in (block["attn"]["proj"], block["mlp"]["fc2"]):
            assert np.std(part["kernel"]) == pytest.approx(deviation / (2 * layer + 2) ** 0.5, rel=0.05)
    assert np.abs(params["mask_token"]).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"position": "rotary"}, "position='rotary'"), ({"drop_path_kind": "exact"}, "drop_path_kind='exact'")],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nano(**options)
