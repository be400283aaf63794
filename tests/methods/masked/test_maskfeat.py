"""MaskFeat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.methods.parts.mask_token import draw_masks, encode_masked
from ssl_jax.models.serialize import save_encoder
from ssl_jax.ops.hog import hog
from tests.methods.case import loss_inputs, loss_of, method_of, start
from tests.methods.foreign import expected_pixels, loop_resample, save_foreign_vit, standardized


def collapsed(case):
    """Predictions 0 of histograms of unit length: one part in as many as there are bins."""
    params, state, batch = loss_inputs(case)
    noise = jax.random.normal(jax.random.key(3), batch["views"][0].shape)
    zero = jax.tree.map(jnp.zeros_like, params)
    return loss_of(case.method, zero, state, {**batch, "views": (noise,)})[0], 1 / 9


def test_targets_are_the_cells_of_each_patch_in_raster_order():
    method = method_of("maskfeat", cell=1, bins=3, window=None, mask_ratio=0.9)
    params, state, batch = start(method)
    # One number a place: the linear layer's bias is the prediction.
    params["head"]["dense_0"]["kernel"] = jnp.zeros_like(params["head"]["dense_0"]["kernel"])
    bias = jax.random.normal(jax.random.key(1), params["head"]["dense_0"]["bias"].shape)
    params["head"]["dense_0"]["bias"] = bias
    histograms = np.asarray(hog(batch["views"][0][:, 0], cell=1, bins=3, window=None))
    cells = histograms.reshape(16, 4, 7, 4, 7, 3).transpose(0, 1, 3, 2, 4, 5).reshape(16, 16, -1)
    errors = np.mean((np.asarray(bias) - cells) ** 2, axis=-1)
    value, _, _ = loss_of(method, params, state, batch)
    # 15 of 16 patches are masked: the mean over them lies between those without the largest and without the smallest.
    mean = [np.mean((errors.sum(1) - edge) / 15) for edge in (errors.max(1), errors.min(1))]
    assert mean[0] <= value <= mean[1]


def test_brightness_and_contrast_change_no_target():
    method = method_of("maskfeat")
    params, state, batch = start(method)
    zero = jax.tree.map(jnp.zeros_like, params)
    bright = {**batch, "views": (2 * batch["views"][0] + 0.5,)}
    values = [loss_of(method, zero, state, x)[0] for x in (batch, bright)]
    np.testing.assert_allclose(*values, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": 4}, "cell=4.*patch of 7"),
        ({"mask": "cross"}, "mask='cross'"),
        ({"mask_ratio": 0.0}, r"mask_ratio=0\.0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("maskfeat", **options)


# Features of a teacher as targets.


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return save_foreign_vit(tmp_path_factory.mktemp("teacher"))


@pytest.mark.parametrize("size", [28, 24])
def test_targets_are_the_standardised_features_of_the_teacher(foreign, size):
    """The student has 4 x 4 patches, the teacher 7 x 7 or 6 x 6."""
    path, loaded = foreign
    method = method_of("maskfeat", teacher=path, teacher_size=size)
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    masked = draw_masks(
        jax.random.split(jax.random.key(2))[0], method.encoder, images, kind="block", ratio=0.5
    ).masked
    tokens, _ = encode_masked(method.encoder, params, state, images, masked)
    head = {name: np.asarray(leaf, np.float64) for name, leaf in params["head"]["dense_0"].items()}
    predictions = np.asarray(tokens, np.float64) @ head["kernel"] + head["bias"]

    pixels = expected_pixels(loaded, method.views[0], images, size)
    features = loaded.network.apply(loaded.params, loaded.state, pixels, output="tokens")[0][:, 1:]
    grids = np.asarray(features, np.float64).reshape(-1, size // 4, size // 4, 16)
    total, count = 0.0, 0
    for image, grid in enumerate(grids):
        targets = standardized(loop_resample(grid, 4, 4).reshape(16, 16))
        for patch in np.flatnonzero(masked[image]):
            total += np.mean((predictions[image, patch] - targets[patch]) ** 2)
            count += 1
    value, after, _ = loss_of(method, params, state, batch)
    assert value == pytest.approx(total / count, rel=1e-4)
    jax.tree.map(np.testing.assert_array_equal, after["teacher"], state["teacher"])


def test_a_teacher_with_maps_and_a_patch_that_no_cell_divides(tmp_path):
    network = models.build("convnet", widths=(8, 16))
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    save_encoder(tmp_path / "encoder.safetensors", network, params, state, metadata={})
    method = method_of("maskfeat", teacher=str(tmp_path / "encoder.safetensors"), cell=5)
    value, _, _ = loss_of(method, *start(method))
    assert np.isfinite(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "/nowhere"}, "teacher='/nowhere'.*no such file"),
        ({"teacher_size": 18}, "teacher_size=18: allowed is a multiple of .* 4 pixels, such as 16"),
    ],
)
def test_bad_teachers_are_refused_by_name(foreign, options, message):
    with pytest.raises(ValueError, match=message):
        method_of("maskfeat", **{"teacher": foreign[0], **options})


def test_a_teacher_of_colours_sees_gray_images_in_each_channel(tmp_path):
    path, loaded = save_foreign_vit(tmp_path, channels=3)
    method = method_of("maskfeat", teacher=path)
    params, state, batch = start(method)
    value, _, _ = loss_of(method, params, state, batch)
    images = batch["views"][0][:, 0]
    masked = draw_masks(
        jax.random.split(jax.random.key(2))[0], method.encoder, images, kind="block", ratio=0.5
    ).masked
    pixels = expected_pixels(loaded, method.views[0], jnp.repeat(images, 3, axis=-1), 28)
    features = loaded.network.apply(loaded.params, loaded.state, pixels, output="tokens")[0][:, 1:]
    grids = np.asarray(features, np.float64).reshape(-1, 7, 7, 16)
    targets = np.stack([standardized(loop_resample(grid, 4, 4).reshape(16, 16)) for grid in grids])
    tokens, _ = encode_masked(method.encoder, params, state, images, masked)
    head = params["head"]["dense_0"]
    errors = (np.asarray(tokens @ head["kernel"] + head["bias"]) - targets) ** 2
    assert value == pytest.approx(errors[np.asarray(masked)].mean(), rel=1e-4)


def test_images_of_other_channels_than_the_teacher_s_are_refused(tmp_path):
    path, _ = save_foreign_vit(tmp_path, channels=3)
    method = method_of("maskfeat", teacher=path)
    four = {"views": (jnp.zeros((2, 1, 28, 28, 4)),)}
    with pytest.raises(ValueError, match="images=4: allowed is 1 or 3 channels, as the teacher's"):
        jax.eval_shape(method.init, jax.random.key(0), four)
