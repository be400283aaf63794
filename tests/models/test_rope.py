"""Rotary positions: the numbers of DINOv3, and what the vision transformer does with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core import trees
from ssl_jax.models.build import without_draws
from ssl_jax.models.rope import augment_coordinates, patch_coordinates, rotate, rotation
from ssl_jax.models.vit import vit
from tests.golden_files import assert_close, golden
from tests.models.fill import random_variables

nano = functools.partial(
    vit, "vit_micro", width=16, depth=2, heads=2, patch=4, image_size=12, position="rope"
)


def images(seed=0, count=3, shape=(12, 12)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, *shape, 3)), jnp.float32)


def made(**options):
    network = nano(**options)
    return network, *random_variables(network, images())


@pytest.mark.parametrize(
    ("case", "grid", "features", "base"),
    [("hf_4x4", (4, 4), 16, 100.0), ("hf_3x5_base50", (3, 5), 24, 50.0), ("timm_4x4", (4, 4), 16, 100.0)],
)
def test_angles_equal_those_of_others(case, grid, features, base):
    file = golden("dinov3_rope")
    with jax.enable_x64(True):
        cosines, sines = rotation(jnp.asarray(patch_coordinates(*grid)), features=features, base=base)
    assert_close(cosines, file[f"{case}__out__cos"], tolerance=1e-12)
    assert_close(sines, file[f"{case}__out__sin"], tolerance=1e-12)


@pytest.mark.parametrize(("case", "prefix"), [("hf_4x4", 5), ("hf_3x5_base50", 1)])
def test_turned_queries_and_keys_and_their_gradient_equal_those_of_transformers(case, prefix):
    file = golden("dinov3_rope")
    with jax.enable_x64(True):
        query, key, probe = (
            jnp.asarray(file[f"in__{name}_{case}"][:, :, prefix:]) for name in ("q", "k", "probe")
        )
        cosines, sines = jnp.asarray(file[f"{case}__out__cos"]), jnp.asarray(file[f"{case}__out__sin"])

        def loss(q):
            return (rotate(q, cosines, sines) * rotate(key, cosines, sines) * probe).sum()

        gradient = jax.grad(loss)(query)
        assert_close(rotate(query, cosines, sines), file[f"{case}__out__q"][:, :, prefix:], tolerance=1e-12)
    assert_close(gradient, file[f"{case}__grad__q_{case}"][:, :, prefix:], tolerance=1e-12)
    # Prefix tokens leave the oracle as they came.
    np.testing.assert_array_equal(
        file[f"{case}__out__k"][:, :, :prefix], file[f"in__k_{case}"][:, :, :prefix]
    )


@pytest.mark.parametrize(
    ("case", "grid", "shifted"), [("aug_rescale", (4, 4), False), ("aug_all", (3, 4), True)]
)
def test_moved_coordinates_equal_those_of_dinov3_for_its_draws(case, grid, shifted):
    file = golden("dinov3_rope")
    coordinates = patch_coordinates(*grid)
    if shifted:
        coordinates = (coordinates + file["in__shift_hw"]) * file["in__jitter_hw"]
    with jax.enable_x64(True):
        cosines, _ = rotation(jnp.asarray(coordinates * file["in__rescale_hw"]), features=16, base=100.0)
    assert_close(cosines, file[f"{case}__out__cos"], tolerance=1e-12)


@pytest.mark.long
def test_draws_are_a_shift_then_a_factor_of_each_axis_then_one_of_both():
    coordinates = jnp.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.5]])

    def read(shift, jitter, rescale):
        """Factor and shift of each axis, from where the corners go: a (c + s)."""
        options = {"shift": shift, "jitter": jitter, "rescale": rescale}
        keys = jax.random.split(jax.random.key(0), 4000)
        moved = jax.vmap(lambda k: augment_coordinates(k, coordinates, **options))(keys)
        factor = (moved[:, 1] - moved[:, 0]) / 2
        middle = (moved[:, 1] + moved[:, 0]) / 2
        np.testing.assert_allclose(moved[:, 2], factor * coordinates[2] + middle, atol=1e-5)
        return np.asarray(factor), np.asarray(middle / factor)

    factor, shift = read(0.5, 1.0, 1.0)
    np.testing.assert_allclose(factor, 1.0, atol=1e-6)
    assert 0.49 < shift.max() <= 0.5 and -0.5 <= shift.min() < -0.49
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.1
    factor, shift = read(0.0, 2.0, 1.0)
    assert 1.95 < factor.max() <= 2.0 and 0.5 <= factor.min() < 0.52
    np.testing.assert_allclose(np.median(factor), 1.0, atol=0.05)
    assert abs(np.corrcoef(np.log(factor).T)[0, 1]) < 0.1
    factor, shift = read(0.0, 1.0, 2.0)
    assert 1.95 < factor.max() <= 2.0 and 0.5 <= factor.min() < 0.52
    np.testing.assert_allclose(factor[:, 0], factor[:, 1], rtol=1e-5)
    factor, shift = read(0.5, 2.0, 2.0)
    assert np.abs(shift).max() <= 0.5 + 1e-5 and 2.5 < factor.max() <= 4.0


def test_scores_depend_on_the_distance_of_two_patches_alone():
    """Of one query and one key, wherever they are: the angle between them."""
    cosines, sines = rotation(jnp.asarray(patch_coordinates(4, 4), jnp.float32), features=8, base=100.0)
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(rng.normal(size=8), jnp.float32) for _ in range(2))
    scores = rotate(query, cosines, sines) @ rotate(key, cosines, sines).T
    scores = np.asarray(scores).reshape(4, 4, 4, 4)
    np.testing.assert_allclose(scores[1:, 1:, 1:, 1:], scores[:-1, :-1, :-1, :-1], atol=1e-5)
    assert np.abs(scores[0, 0, 0] - scores[0, 0, 1]).max() > 0.1


@pytest.mark.long
def test_a_vit_has_no_table_and_tells_places_apart():
    network, params, state = made()
    assert not [path for path in trees.flatten(params) if "pos" in path or "relative" in path]
    x = images()
    tokens, _ = network.apply(params, state, x, output="tokens")
    swapped = jnp.concatenate([x[:, 4:8], x[:, :4], x[:, 8:]], axis=1)
    changed, _ = network.apply(params, state, swapped, output="tokens")
    assert np.abs(changed[:, 0] - tokens[:, 0]).max() > 1e-3
    unplaced, *_ = made(position="none")
    first, _ = unplaced.apply(params, state, x)
    second, _ = unplaced.apply(params, state, swapped)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_kept_patches_turn_at_their_own_places():
    network, params, state = made(registers=2)
    x, length = images(shape=(8, 20)), 10
    order = jnp.asarray(np.random.default_rng(0).permuted(np.tile(np.arange(length), (3, 1)), axis=1))
    run = jax.jit(functools.partial(network.apply, params, state, output="tokens"))
    (full, _), (kept, _) = run(x), run(x, keep=order)
    expected = jnp.take_along_axis(full[:, 3:], order[..., None], axis=1)
    np.testing.assert_allclose(kept[:, 3:], expected, atol=2e-5)
    np.testing.assert_allclose(kept[:, :3], full[:, :3], atol=2e-5)


@pytest.mark.long
def test_absent_patches_change_nothing():
    network, params, state = made(pool="mean")
    keep = jnp.array([[4, 0, 7, 2], [1, 2, 3, 5], [8, 5, 6, 0]])
    expected, _ = network.apply(params, state, images(), keep=keep[:, :3])
    found, _ = network.apply(
        params, state, images(), keep=keep, present=jnp.arange(4)[None] < jnp.full((3, 1), 3)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.long
def test_attention_of_patches_alone_is_turned():
    """Rows sum to 1, and class token and registers attend to each other as they do without positions."""
    network, params, state = made(depth=1, registers=1)
    unplaced, *_ = made(depth=1, registers=1, position="none")
    found, _ = network.apply(params, state, images(), output="attention")
    plain, _ = unplaced.apply(params, state, images(), output="attention")
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-5)
    ratio = np.asarray(found / plain)
    assert np.abs(ratio[:, :, 2:, 2:] / ratio[:, :, 2:, 2:3] - 1).max() > 0.01
    np.testing.assert_allclose(ratio[:, :, :2, 1], ratio[:, :, :2, 0], rtol=1e-4)


@pytest.mark.long
def test_training_moves_coordinates_and_evaluation_does_not():
    network, params, state = made(rope_rescale=2.0, rope_shift=0.2, rope_jitter=1.3)
    plain, *_ = made()
    x = images()
    np.testing.assert_array_equal(network.apply(params, state, x)[0], plain.apply(params, state, x)[0])
    draw = jax.jit(lambda key: network.apply(params, state, x, train=True, key=key)[0])
    first, same, other = (draw(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3
    with pytest.raises(ValueError, match=r"key=None.*rope_shift, rope_jitter, rope_rescale draws"):
        network.apply(params, state, x, train=True)


@pytest.mark.long
def test_every_block_draws_for_itself(monkeypatch):
    network, params, state = made(rope_rescale=2.0)
    keys = []

    def record(key, coordinates, **options):
        keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        return augment_coordinates(key, coordinates, **options)

    monkeypatch.setattr("ssl_jax.models.vit.augment_coordinates", record)
    network.apply(params, state, images(), train=True, key=jax.random.key(0))
    assert len(set(keys)) == 2


@pytest.mark.long
def test_teachers_run_without_what_training_draws():
    network, params, state = made(rope_rescale=2.0, drop_path=0.3)
    teacher = without_draws(network)
    assert (teacher.config["rope_rescale"], teacher.config["drop_path"]) == (1.0, 0.0)
    trained, _ = teacher.apply(params, state, images(), train=True)
    np.testing.assert_array_equal(trained, network.apply(params, state, images())[0])
    assert without_draws(teacher) is teacher


@pytest.mark.long
@pytest.mark.parametrize("options", [{"remat": True}, {"drop_path": 0.5, "drop_path_kind": "subset"}])
def test_training_options_of_blocks_work_with_draws(options):
    network, params, state = made(rope_rescale=2.0, **options)

    def loss(p):
        keep = jnp.array([[0, 3, 2], [5, 6, 7], [1, 2, 8]])
        out, _ = network.apply(p, state, images(), train=True, key=jax.random.key(3), keep=keep)
        return (out**2).sum()

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["blocks_1"]["attn"]["qkv"]["kernel"]).max() > 0


@pytest.mark.long
def test_bfloat16_is_close_to_float32():
    network, params, state = made()
    low, *_ = made(dtype="bfloat16")
    expected, _ = network.apply(params, state, images())
    found, _ = low.apply(params, state, images())
    assert found.dtype == jnp.float32
    assert 0 < float(jnp.abs(found - expected).max()) < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 12}, r"width=12: allowed is 4 heads=2"),
        ({"rope_jitter": 0.5}, r"rope_jitter=0.5"),
        ({"rope_shift": -1.0}, r"rope_shift=-1.0"),
        ({"rope_base": 0.0}, r"rope_base=0.0"),
        ({"position": "learned", "rope_rescale": 2.0}, r"rope_rescale=2.0: allowed is 1.0 unless"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nano(**options)
