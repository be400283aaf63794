"""data2vec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.methods.parts.mask_token import draw_block_masks, encode_masked
from ssl_jax.models.serialize import save_encoder
from tests.methods.case import config_of, loss_of, method_of, start
from tests.methods.foreign import expected_pixels, loop_resample, save_foreign_vit, standardized


def collapsed(case):
    """Predictions 0 of targets with mean 0 and variance 1, none beyond β with β as large: half the variance over β."""
    return zero_params_loss_of_large_beta(), 0.5 / 100.0


def zero_params_loss_of_large_beta():
    method = method_of("data2vec", beta=100.0)
    params, state, batch = start(method)
    return loss_of(method, jax.tree.map(jnp.zeros_like, params), state, batch)[0]


def test_loss_at_zero_predictions_is_the_smooth_error_of_the_targets():
    method = method_of("data2vec", layers=1, mask_ratio=0.9, mask="filled", beta=1e-3)
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    images = batch["views"][0][:, 0]
    encoder = models.build(**config_of("data2vec")["encoder"])
    outputs, _ = encoder.apply(params["encoder"], state["encoder"], images, output="layers")
    y = np.asarray(outputs["blocks_1"][:, 1:], np.float64)
    for _ in range(2):
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    sizes = np.abs(y).mean(axis=-1)
    value, _, _ = loss_of(method, zero, state, batch)
    low, high = ((sizes.sum(1) - edge).sum() / (16 * 15) for edge in (sizes.max(1), sizes.min(1)))
    assert low - 1e-3 <= value <= high


def test_targets_come_from_the_whole_image_and_average_the_last_blocks():
    one, two = (method_of("data2vec", layers=k) for k in (1, 2))
    params, state, batch = start(one)
    assert loss_of(one, params, state, batch)[0] != loss_of(two, params, state, batch)[0]


def test_teacher_follows_the_student_after_the_update():
    method = method_of("data2vec", decay=0.75)
    params, state, _ = start(method)
    moved = {**params, "encoder": jax.tree.map(lambda x: x + 1, params["encoder"])}
    after = method.after_update(moved, state, jnp.int32(0))
    for old, new in zip(
        jax.tree.leaves(state["teacher"].params), jax.tree.leaves(after["teacher"].params), strict=True
    ):
        np.testing.assert_allclose(new, old + 0.25, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "encoder", "message"),
    [
        ({"layers": 3}, {}, "layers=3.*2 blocks"),
        ({"mask": "grid"}, {}, "mask='grid'"),
        ({"mask_ratio": 0.0}, {}, r"mask_ratio=0\.0"),
        ({}, {"mask_token": False}, "mask_token=True"),
    ],
)
def test_bad_options_are_refused_by_name(options, encoder, message):
    with pytest.raises(ValueError, match=message):
        method_of("data2vec", encoder=encoder, **options)


# A teacher that stays as it is.


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return save_foreign_vit(tmp_path_factory.mktemp("teacher"), depth=3)


def test_the_targets_of_a_frozen_teacher(foreign):
    """Its last two of three blocks, on 6 x 6 patches; the student has 4 x 4."""
    path, loaded = foreign
    method = method_of(
        "data2vec", teacher=path, teacher_size=24, layers=2, beta=0.5, mask="random", mask_ratio=0.5
    )
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    mask_key = jax.random.split(jax.random.key(2))[0]
    masked = draw_block_masks(mask_key, method.encoder, images, kind="random", ratio=0.5)
    tokens, _ = encode_masked(method.encoder, params, state, images, masked)
    head = {name: np.asarray(leaf, np.float64) for name, leaf in params["head"]["dense_0"].items()}
    predictions = np.asarray(tokens, np.float64) @ head["kernel"] + head["bias"]

    pixels = expected_pixels(loaded, method.views[0], images, 24)
    blocks = loaded.network.apply(loaded.params, loaded.state, pixels, output="layers")[0]
    mean = sum(standardized(np.asarray(blocks[f"blocks_{i}"][:, 1:], np.float64)) for i in (1, 2)) / 2
    total, count = 0.0, 0
    for image, grid in enumerate(mean.reshape(-1, 6, 6, 16)):
        targets = standardized(loop_resample(grid, 4, 4).reshape(16, 16))
        for patch in np.flatnonzero(masked[image]):
            errors = np.abs(predictions[image, patch] - targets[patch])
            total += np.where(errors < 0.5, errors**2 / (2 * 0.5), errors - 0.25).mean()
            count += 1
    value, after, _ = loss_of(method, params, state, batch)
    assert value == pytest.approx(total / count, rel=1e-4)
    moved = method.after_update(jax.tree.map(lambda x: x + 1, params), after, jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, moved["teacher"], state["teacher"])


def test_a_frozen_copy_of_the_student_gives_the_loss_of_the_average_at_the_start(tmp_path):
    """At step 0 the average is the student: the same numbers from a file of it."""
    own = method_of("data2vec")
    params, state, batch = start(own)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, own.encoder, params["encoder"], state["encoder"], metadata={})
    frozen = method_of("data2vec", teacher=str(path))
    _, kept, _ = start(frozen)
    expected = loss_of(own, params, state, batch)[0]
    assert loss_of(frozen, params, kept, batch)[0] == pytest.approx(expected, rel=1e-5)


def test_teachers_that_have_no_blocks_or_too_few_are_refused(foreign, tmp_path):
    with pytest.raises(ValueError, match=r"layers=4.*the teacher's 3 blocks"):
        method_of("data2vec", teacher=foreign[0], layers=4)
    network = models.build("convnet", widths=(8,))
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    save_encoder(tmp_path / "encoder.safetensors", network, params, state, metadata={})
    with pytest.raises(ValueError, match=r"teacher=.*a ViT, whose blocks are read, not 'convnet'"):
        method_of("data2vec", teacher=str(tmp_path / "encoder.safetensors"))
