"""Pictures and what methods show: pixels in the right place, units undone."""

import base64
import dataclasses
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax import models
from ssl_jax.augment.views import View, normalize_for_evaluation
from ssl_jax.data.sources import ArraySource
from ssl_jax.methods.contrastive import simclr
from ssl_jax.methods.masked import mae
from ssl_jax.ops.patches import patchify
from ssl_jax.report import attention, figures, pictures
from ssl_jax.report.sample import draw_views, encode_sample

rng = np.random.default_rng(0)


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_holds_the_same_pixels(channels):
    pixels = rng.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    np.testing.assert_array_equal(decode(pictures.data_uri(pixels)).reshape(pixels.shape), pixels)


def test_every_dtype_and_number_of_channels_can_be_shown():
    values = rng.random((4, 4, 6))
    as_bytes = (255 * values).round().astype(np.uint8)
    as_words = (65535 * values).round().astype(np.uint16)
    for image in (as_bytes, as_words, values.astype(np.float32)):
        np.testing.assert_allclose(pictures.visible(image), as_bytes[..., :3], atol=1)
    assert pictures.visible(as_bytes[..., :2]).shape == (4, 4, 1)
    assert pictures.visible(np.full((1, 1, 1), np.nan, np.float32)).item() == 0


def test_normalisation_is_undone():
    view = View(mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
    images = rng.random((2, 4, 4, 3), dtype=np.float32)
    normal = np.asarray(normalize_for_evaluation(images, view))
    np.testing.assert_allclose(pictures.raw(normal, view), images, atol=1e-6)


def test_sprite_holds_picture_i_where_the_page_looks_for_it():
    images = rng.integers(0, 256, (7, 4, 6, 1), dtype=np.uint8)
    sheet, columns = pictures.sprite(images), pictures.sprite_columns(7)
    for i, image in enumerate(images):
        y, x = 4 * (i // columns), 6 * (i % columns)
        np.testing.assert_array_equal(sheet[y : y + 4, x : x + 6], image)


def test_atlas_puts_the_nearest_example_into_each_cell():
    images = np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    made = pictures.atlas(np.array([[0.25, 0.25], [0.3, 0.1], [0.99, 1.0]]), images, columns=2, rows=2)
    assert made[0, 0].tolist() == [1, 1, 1, 255]
    assert made[-1, -1].tolist() == [3, 3, 3, 255]
    assert made[0, -1, 3] == 0


def test_map_fits_its_box_on_one_scale():
    points = rng.normal(size=(50, 2)) * [5, 1]
    places = figures.fit_to_box(points)
    assert (places >= 0).all() and (places <= figures.BOX).all()
    ratio = np.ptp(places, axis=0) / np.ptp(points, axis=0)
    assert ratio[0] == pytest.approx(ratio[1])


def test_eigenvalue_shares_equal_those_of_the_covariance():
    x = rng.normal(size=(40, 5)) * [5, 4, 3, 2, 1] + 7
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    np.testing.assert_allclose(figures.eigenvalue_shares(x), values / values.sum(), rtol=1e-6)
    assert len(figures.eigenvalue_shares(np.ones((4, 3)))) == 0


def test_mae_reconstructs_in_the_units_of_the_images():
    """A decoder of zeros predicts standardised patches of 0: each patch's mean is shown."""
    encoder = models.build("vit_micro", width=16, depth=1, heads=2, patch=4, image_size=8)
    images = jnp.asarray(rng.normal(size=(3, 8, 8, 1)), jnp.float32)
    for norm_pix, means in ((True, True), (False, False)):
        method = mae.build(
            encoder, norm_pix=norm_pix, decoder_width=16, decoder_depth=1, decoder_heads=2, mask_ratio=0.5
        )
        params, state = method.init(jax.random.key(0), {"views": (images[:, None],)})
        params["decoder"]["pred"] = jax.tree.map(jnp.zeros_like, params["decoder"]["pred"])
        found = jax.jit(method.reconstruct)(params, state, images, jax.random.key(1))
        expected = patchify(images, patch=4).mean(-1) if means else jnp.zeros((3, 4))
        np.testing.assert_allclose(patchify(found.predictions, patch=4).mean(-1), expected, atol=1e-6)
        assert found.masked.shape == (3, 8, 8, 1)
        hidden = patchify(found.masked.astype(jnp.float32), patch=4)
        assert set(np.unique(hidden.mean(-1))) == {0.0, 1.0}
        np.testing.assert_allclose(found.masked.mean(axis=(1, 2, 3)), 0.5)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_head_maps_are_the_rows_of_the_attention(pool):
    encoder = models.build(
        "vit_micro", width=16, depth=2, heads=2, patch=4, image_size=8, pool=pool, registers=1
    )
    images = jnp.asarray(rng.normal(size=(3, 8, 12, 1)), jnp.float32)
    params, state = encoder.init(jax.random.key(0), images[:, :, :8])
    weights = np.asarray(encoder.apply(params, state, images, output="attention")[0])
    found = attention.head_maps(encoder, params, state, images)
    expected = weights[:, :, 0, 2:] if pool == "cls" else weights[:, :, 2:, 2:].mean(2)
    np.testing.assert_allclose(found, expected.reshape(3, 2, 2, 3), rtol=1e-5)
    with pytest.raises(ValueError, match="a ViT"):
        attention.head_maps(models.build("convnet"), {}, {}, images)


def test_sample_keeps_features_pictures_and_names_together():
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.full((1, 28, 28, 1), 20, np.uint8)
    source = ArraySource(images, np.arange(12))
    method = simclr.build(models.build("convnet", widths=(4, 8)), views=(View(size=28), View(size=28)))
    first_pixels = method.encoder._replace(apply=lambda params, state, x, train: (x[:, 0, 0], state))
    method = dataclasses.replace(
        method, encoder=first_pixels, encoder_variables=lambda params, state: (params, state)
    )
    found = encode_sample(method, {}, {}, source, count=6, num_images=3)
    np.testing.assert_allclose(255 * found.features[:, 0], found.thumbnails[:, 0, 0, 0], atol=1e-3)
    np.testing.assert_array_equal(20 * found.labels, found.thumbnails[:, 0, 0, 0])
    assert [int(name[-2:]) for name in found.names] == found.labels.tolist()
    assert found.images.shape == (3, 28, 28, 1)


@pytest.mark.parametrize("shape", [(1, 30_000), (30_000, 2), (1200, 900), (16, 12)])
def test_an_original_of_any_size_is_a_small_picture_on_the_page(shape):
    """1 x 30,000 pixels were a picture of that size, shown 72 pixels wide and 2,160,000 high where they stood upright."""
    source = ArraySource(np.full((2, *shape, 3), 128, np.uint8))
    drawn = draw_views(jax.random.key(0), source, (View(size=4),), count=1)
    height, width = drawn[0].original.shape[:2]
    assert max(height, width) == min(max(shape), 512) and (height > width) == (shape[0] > shape[1])
    np.testing.assert_allclose(drawn[0].original, 128 / 255, atol=1e-6)
    shown = int(re.search(r'width="(\d+)"', figures.views(drawn).body)[1])
    assert shown == min(72, max(round(144 * width / height), 1))
    assert shown * height / width <= 512


def test_views_are_drawn_in_their_order_and_without_their_normalisation():
    source = ArraySource(np.full((3, 16, 12, 3), 128, np.uint8))
    views = (View(size=8, mean=(0.5,) * 3, std=(0.1,) * 3), View(size=4), View(size=8))
    drawn = draw_views(jax.random.key(0), source, views, count=2)
    assert len(drawn) == 2
    assert [view.shape[0] for view in drawn[0].views] == [8, 4, 8]
    for view in drawn[1].views:
        np.testing.assert_allclose(view, 128 / 255, atol=1e-5)
