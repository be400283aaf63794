"""dBOT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.methods.parts.mask_token import draw_masks
from ssl_jax.models.decoders import masked_decoder
from ssl_jax.models.serialize import save_encoder
from tests.methods.case import loss_of, method_of, start
from tests.methods.foreign import expected_pixels, loop_resample, save_foreign_vit

DECODER = {"width": 32, "depth": 1, "heads": 2}  # of the smoke config


def collapsed(case):
    """Predictions 0 of standardised targets, none beyond β with β as large: half their mean square over β."""
    method = method_of("dbot", beta=100.0)
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    width = method.encoder.features
    return loss_of(method, zero, state, batch)[0], (width - 1) / width / (2 * 100.0)


def standardized(y):
    """By the unbiased variance of each token."""
    return (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, ddof=1, keepdims=True) + 1e-6)


def expected_loss(method, params, batch, y, *, with_class, norm=True, beta=2.0):
    """By a loop over tokens, from targets ``[b, l, d]`` in front of which the class token's stands where it counts."""
    images = batch["views"][0][:, 0]
    mask_key = jax.random.split(jax.random.key(2), 3)[0]
    order = draw_masks(mask_key, method.encoder, images, kind="random", ratio=0.5)
    tokens, _ = method.encoder.apply(params["encoder"], {}, images, keep=order.keep, output="tokens")
    decoder = masked_decoder(outputs=y.shape[-1], grid=4, prefix=1, keep_prefix=True, **DECODER)
    predictions = np.asarray(
        decoder.apply(params["decoder"], {}, tokens, restore=order.restore)[0], np.float64
    )
    y = standardized(y) if norm else y
    errors = []
    for image in range(len(images)):
        counted = [0] * with_class + [1 + int(place) for place in np.flatnonzero(order.masked[image])]
        for token in counted:
            target = y[image, token if with_class else token - 1]
            d = np.abs(predictions[image, token] - target)
            errors.append(np.mean([x * x / (2 * beta) if x < beta else x - beta / 2 for x in d]))
    return np.mean(errors)


@pytest.mark.parametrize(("norm", "beta"), [(True, 2.0), (False, 0.3)])
def test_loss_is_the_smooth_error_of_the_last_block_at_masked_patches_and_the_class_token(norm, beta):
    method = method_of("dbot", norm_target=norm, beta=beta)
    params, state, batch = start(method)
    params["decoder"]["pred"]["kernel"] = 0.1 * jax.random.normal(
        jax.random.key(9), params["decoder"]["pred"]["kernel"].shape
    )
    images = batch["views"][0][:, 0]
    blocks = method.encoder.apply(state["teacher"].params, {}, images, output="layers")[0]
    y = np.asarray(blocks["blocks_1"], np.float64)
    value, _, metrics = loss_of(method, params, state, batch)
    expected = expected_loss(method, params, batch, y, with_class=True, norm=norm, beta=beta)
    assert value == pytest.approx(expected, rel=1e-4)
    patches = (standardized(y) if norm else y)[:, 1:]
    assert float(metrics["target_std"]) == pytest.approx(patches.std(axis=(0, 1)).mean(), rel=1e-4)


def test_the_first_teacher_is_the_start_of_the_student_and_stays():
    method = method_of("dbot")
    params, state, batch = start(method)
    jax.tree.map(np.testing.assert_array_equal, state["teacher"].params, params["encoder"])
    moved = jax.tree.map(lambda x: x + 1, params)
    _, after, _ = loss_of(method, moved, state, batch)
    after = method.after_update(moved, after, jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, after["teacher"], state["teacher"])


def test_the_teacher_of_the_next_stage_is_the_old_student_bit_by_bit_and_the_student_starts_anew(tmp_path):
    first = method_of("dbot")
    params, state, _ = start(first, seed=5)
    trained = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), params)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, first.encoder, *first.encoder_variables(trained, state), metadata={})
    second = method_of("dbot", teacher=str(path))
    own, kept, batch = start(second, seed=6)
    jax.tree.map(np.testing.assert_array_equal, kept["teacher"].params, trained["encoder"])
    kernels = [p["encoder"]["patch_embed"]["kernel"] for p in (own, trained, params)]
    assert all(np.abs(kernels[0] - other).max() > 1e-3 for other in kernels[1:])
    value, after, _ = loss_of(second, own, kept, batch)
    assert np.isfinite(value)
    jax.tree.map(np.testing.assert_array_equal, after["teacher"], kept["teacher"])


def test_a_teacher_on_another_grid_is_resampled_before_it_is_standardised(tmp_path):
    """6 x 6 patches of 24 pixels for the student's 4 x 4 of 28, of another width."""
    path, loaded = save_foreign_vit(tmp_path, depth=3)
    method = method_of("dbot", teacher=path, teacher_size=24)
    params, state, batch = start(method)
    pixels = expected_pixels(loaded, method.views[0], batch["views"][0][:, 0], 24)
    blocks = loaded.network.apply(loaded.params, loaded.state, pixels, output="layers")[0]
    last = np.asarray(blocks["blocks_2"], np.float64)
    patches = [loop_resample(grid, 4, 4).reshape(16, 16) for grid in last[:, 1:].reshape(-1, 6, 6, 16)]
    y = np.concatenate([last[:, :1], np.stack(patches)], axis=1)
    value, _, _ = loss_of(method, params, state, batch)
    assert value == pytest.approx(expected_loss(method, params, batch, y, with_class=True), rel=1e-4)


def test_of_a_teacher_without_a_class_token_patches_alone_count(tmp_path):
    network = models.build("convnet", widths=(8, 16))
    variables = network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    save_encoder(tmp_path / "encoder.safetensors", network, *variables, metadata={})
    method = method_of("dbot", teacher=str(tmp_path / "encoder.safetensors"))
    params, state, batch = start(method)
    maps = network.apply(*variables, batch["views"][0][:, 0], output="tokens")[0]
    y = np.stack([loop_resample(np.asarray(m, np.float64), 4, 4).reshape(16, 16) for m in maps])
    value, _, _ = loss_of(method, params, state, batch)
    assert value == pytest.approx(expected_loss(method, params, batch, y, with_class=False), rel=1e-4)


def test_registers_are_predicted_by_nobody():
    method = method_of("dbot", encoder={"registers": 2})
    params, state, batch = start(method)
    value, _, _ = loss_of(method, params, state, batch)
    assert np.isfinite(value)


def test_a_moving_teacher_follows_the_student_after_the_update():
    method = method_of("dbot", decay=0.75)
    params, state, batch = start(method)
    still = method_of("dbot")
    assert loss_of(method, params, state, batch)[0] == loss_of(still, *start(still))[0]
    moved = {**params, "encoder": jax.tree.map(lambda x: x + 1, params["encoder"])}
    after = method.after_update(moved, state, jnp.int32(0))
    pairs = zip(
        jax.tree.leaves(state["teacher"].params), jax.tree.leaves(after["teacher"].params), strict=True
    )
    for old, new in pairs:
        np.testing.assert_allclose(new, old + 0.25, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "cross"}, "mask='cross'"),
        ({"mask_ratio": 1.0}, r"mask_ratio=1\.0"),
        ({"decay": 1.5}, r"decay=1\.5"),
        ({"teacher": "/nowhere"}, "teacher='/nowhere'.*no such file"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("dbot", **options)
