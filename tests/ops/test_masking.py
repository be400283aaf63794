"""Random masks: golden numbers of MAE and lightly, round trips, uniformity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.masking import mask_from_noise, random_mask
from tests.golden_files import golden


@pytest.mark.parametrize("ratio", [0.6, 0.75])
def test_masks_equal_golden_of_mae(ratio):
    file, case = golden("mae"), f"random_masking_{str(ratio).replace('.', 'p')}__out__"
    noise = jnp.asarray(file["in__noise"], jnp.float32)
    mask = jax.jit(jax.vmap(lambda x: mask_from_noise(x, ratio=ratio)))(noise)
    np.testing.assert_array_equal(mask.keep, file[case + "ids_keep"])
    np.testing.assert_array_equal(mask.restore, file[case + "ids_restore"])
    np.testing.assert_array_equal(mask.masked, file[case + "mask"].astype(bool))
    visible = np.take_along_axis(file["in__tokens"], np.asarray(mask.keep)[..., None], axis=1)
    np.testing.assert_array_equal(visible, file[case + "x_masked"])


@pytest.mark.parametrize("ratio", [0.6, 0.75])
def test_visible_and_hidden_patches_equal_golden_of_lightly(ratio):
    file, case = golden("tokens"), f"random_token_mask_{str(ratio).replace('.', 'p')}__out__"
    noise = jnp.asarray(file["in__noise"][:, 1:], jnp.float32)  # token 0 is the class token, always visible
    mask = jax.vmap(lambda x: mask_from_noise(x, ratio=ratio))(noise)
    np.testing.assert_array_equal(mask.keep + 1, file[case + "idx_keep"][:, 1:])
    masked = jnp.argsort(mask.restore)[:, mask.keep.shape[1] :]
    np.testing.assert_array_equal(masked + 1, file[case + "idx_mask"])


def test_restore_puts_visible_and_hidden_tokens_back_in_image_order():
    mask = random_mask(jax.random.key(0), 12, ratio=0.5)
    tokens = jnp.arange(12)
    order = jnp.argsort(mask.restore)
    np.testing.assert_array_equal(mask.keep, order[:6])
    np.testing.assert_array_equal(tokens[order][mask.restore], tokens)
    slots = jnp.concatenate([tokens[mask.keep], jnp.full(6, -1)])[mask.restore]
    np.testing.assert_array_equal(slots, np.where(mask.masked, -1, tokens))


def test_dtypes_are_int32_and_bool_whatever_the_noise():
    for dtype in (jnp.float32, jnp.bfloat16):
        mask = mask_from_noise(jnp.linspace(0, 1, 8).astype(dtype), ratio=0.5)
        assert [x.dtype.name for x in mask] == ["int32", "int32", "bool"]
    with jax.enable_x64(True):
        assert [x.dtype.name for x in random_mask(jax.random.key(0), 8, ratio=0.5)] == [
            "int32",
            "int32",
            "bool",
        ]


def test_ratio_zero_hides_nothing():
    mask = random_mask(jax.random.key(0), 8, ratio=0.0)
    assert mask.keep.shape == (8,)
    assert not mask.masked.any()


def test_every_patch_is_hidden_equally_often():
    keys = jax.random.split(jax.random.key(0), 4000)
    masked = jax.jit(jax.vmap(lambda key: random_mask(key, 8, ratio=0.75).masked))(keys)
    assert (masked.sum(axis=1) == 6).all()
    np.testing.assert_allclose(masked.mean(axis=0), 0.75, atol=5 * np.sqrt(0.75 * 0.25 / 4000))


def test_vmap_equals_a_loop_and_jit_equals_eager():
    keys = jax.random.split(jax.random.key(1), 3)
    mapped = jax.jit(jax.vmap(lambda key: random_mask(key, 8, ratio=0.75)))(keys)
    for i, key in enumerate(keys):
        for found, expected in zip(mapped, random_mask(key, 8, ratio=0.75), strict=True):
            np.testing.assert_array_equal(found[i], expected)


def test_number_of_visible_patches_truncates_as_the_authors_code_does():
    assert random_mask(jax.random.key(0), 100, ratio=0.9).keep.shape == (int(100 * (1 - 0.9)),)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 0.99])
def test_ratios_outside_their_range_or_without_visible_patches_are_refused(ratio):
    with pytest.raises(ValueError, match=f"ratio={ratio}"):
        random_mask(jax.random.key(0), 8, ratio=ratio)
