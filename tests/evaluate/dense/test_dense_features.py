"""Maps of features of images of any size: alignment to patches, batches, tiles, interpolation, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource, CorruptImage
from ssl_jax.evaluate.dense.features import (
    PENDING,
    candidate_maps,
    cells_of_pixels,
    map_features,
    patch_features,
    pixel_maps,
    upsample,
)
from ssl_jax.evaluate.dense.framing import Framing, frame_image, tile_starts
from ssl_jax.evaluate.encoder import encoder_method
from ssl_jax.evaluate.measure import Candidate

RNG = np.random.default_rng(0)
VIEW = View(size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
VIT = {"name": "vit_micro", "width": 16, "depth": 1, "heads": 2, "patch": 4, "image_size": 16}
NETWORKS = {
    "vit": (models.build(**VIT, class_token=True, registers=1), 4, 16),
    "resnet": (models.build("resnet18", width=0.0625, stem="small"), 8, 32),
    "convnet": (models.build("convnet", widths=(4, 6)), 4, 6),
}


def make_candidate(network):
    variables = network.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    return Candidate("x", "encoder", encoder_method(network, VIEW), *variables)


def pictures(*sizes):
    class Pictures(ArraySource):
        """Images of different sizes."""

        def __getitem__(self, index):
            return {"image": self.pictures[index], "label": -1}

    source = Pictures(np.zeros((len(sizes), 1, 1, 3), np.uint8))
    source.pictures = [RNG.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]
    source.shape = None
    return source


@pytest.mark.parametrize("kind", [pytest.param("resnet", marks=pytest.mark.long), "vit", "convnet"])
def test_a_map_is_what_the_encoder_gives_for_the_image_alone(kind):
    network, stride, dims = NETWORKS[kind]
    candidate = make_candidate(network)
    encoder = candidate_maps(candidate, channels=3)
    assert (encoder.stride, encoder.dims) == (stride, dims)
    source = pictures((16, 24), (32, 16), (16, 24), (32, 16))
    found = {m.index: m for m in map_features(encoder, source, batch_size=2)}
    assert sorted(found) == [0, 1, 2, 3]
    for index, image in enumerate(source.pictures):
        assert found[index].features.shape == (image.shape[0] // stride, image.shape[1] // stride, dims)
    normalized = (source.pictures[2][None].astype(np.float32) / 255 - 0.5) / 0.25
    encode = jax.jit(functools.partial(patch_features, network))
    alone = encode(candidate.params, candidate.state, jnp.asarray(normalized))[0]
    np.testing.assert_allclose(found[2].features, alone, rtol=1e-4, atol=1e-5)


def test_several_last_layers_stand_side_by_side_resized_to_the_finest():
    network = NETWORKS["convnet"][0]
    candidate = make_candidate(network)
    encoder = candidate_maps(candidate, channels=3, layers=2)
    assert (encoder.stride, encoder.dims) == (2, 10)
    image = RNG.integers(0, 255, (1, 8, 12, 3), dtype=np.uint8)
    normalized = jnp.asarray((image.astype(np.float32) / 255 - 0.5) / 0.25)
    layers, _ = network.apply(candidate.params, candidate.state, normalized, output="layers")
    fine, coarse = (np.asarray(layers[name][0]) for name in ("block_0", "block_1"))
    found = np.asarray(encoder.apply(image))[0]
    np.testing.assert_allclose(found[..., :4], fine, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[..., 4:], upsample(coarse, fine.shape[:2]), rtol=1e-4, atol=1e-5)
    tokens = candidate_maps(make_candidate(NETWORKS["vit"][0]), channels=3, layers=5)
    assert (tokens.stride, tokens.dims) == (4, 16)


def test_sides_that_the_patch_does_not_divide_are_resized_or_padded():
    image = RNG.integers(0, 255, (45, 61, 3), dtype=np.uint8)
    assert frame_image(image, 8, Framing()).image.shape == (48, 64, 3)
    assert frame_image(image, 8, Framing(size=90)).image.shape == (88, 120, 3)
    assert frame_image(image[:3, :5], 8, Framing()).image.shape == (8, 8, 3)
    padded = frame_image(image, 8, Framing(align="pad"))
    np.testing.assert_array_equal(padded.image[:45, :61], image)
    np.testing.assert_array_equal(padded.image[45:, :61], np.repeat(image[44:45], 3, 0))
    assert padded.covered == (45 / 48, 61 / 64)


def test_a_padded_map_is_laid_over_the_pixels_that_it_shows():
    rows, columns = np.mgrid[:45, :61].astype(np.float32)
    centers = [(np.arange(count) + 0.5) * 8 - 0.5 for count in (6, 8)]
    grid = np.stack(np.meshgrid(*centers, indexing="ij"), -1).astype(np.float32)
    found = upsample(grid, (45, 61), (45 / 48, 61 / 64))
    inner = (rows >= 3.5) & (columns >= 3.5) & (rows <= 43.5) & (columns <= 59.5)
    np.testing.assert_allclose(found[..., 0][inner], rows[inner], atol=1e-4)
    np.testing.assert_allclose(found[..., 1][inner], columns[inner], atol=1e-4)
    assert cells_of_pixels(6, 45, 45 / 48).tolist() == [i // 8 for i in range(45)]


def test_interpolation_is_bilinear_with_half_pixel_centers():
    values = RNG.normal(size=(3, 5, 2)).astype(np.float32)
    theirs = jax.image.resize(jnp.asarray(values), (11, 12, 2), "linear", antialias=False)
    np.testing.assert_allclose(upsample(values, (11, 12)), theirs, atol=1e-5)
    np.testing.assert_array_equal(upsample(values, (3, 5)), values)
    np.testing.assert_allclose(upsample(values[:1, :1], (4, 3)), np.broadcast_to(values[0, 0], (4, 3, 2)))


def test_tiles_cover_a_line_and_end_with_it():
    for length in range(1, 40):
        for tile in range(1, 12):
            starts = tile_starts(length, tile, 0.3)
            covered = {cell for start in starts for cell in range(start, start + min(tile, length))}
            assert covered == set(range(length)) and len(set(starts)) == len(starts)


def test_a_large_image_in_tiles_has_the_features_of_the_whole_where_they_are_local():
    source = pictures((40, 56))
    encoder = pixel_maps(VIEW, channels=3, patch=8)
    (whole,) = map_features(encoder, source)
    (tiled,) = map_features(encoder, source, framing=Framing(tile=24, overlap=0.4))
    np.testing.assert_allclose(tiled.features, whole.features, atol=1e-6)


def test_overlapping_tiles_are_averaged():
    encoder = pixel_maps(View(), channels=3, patch=4)
    seen = []

    def apply(images):
        seen.append(images.shape[1:3])
        return np.full((1, images.shape[1] // 4, images.shape[2] // 4, 48), len(seen), np.float32)

    (found,) = map_features(
        encoder._replace(apply=apply), pictures((8, 16)), framing=Framing(tile=10, overlap=0.5)
    )
    assert seen == [(8, 8)] * 3
    assert found.features[0, :, 0].tolist() == [1.0, 1.5, 2.5, 3.0]


def test_few_images_wait_and_few_sizes_of_batches_are_compiled():
    encoder = pixel_maps(View(), channels=3, patch=4)
    sizes = [(4 * (1 + i % 40), 4) for i in range(120)]
    read, waiting, shapes = [], [], set()

    source = pictures(*sizes)

    class Counted(type(source)):
        """Counts what was read and not given back yet."""

        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    source.__class__ = Counted

    def apply(images):
        shapes.add(images.shape[0])
        return np.zeros((len(images), images.shape[1] // 4, images.shape[2] // 4, 48), np.float32)

    given = []
    for found in map_features(encoder._replace(apply=apply), source, batch_size=4):
        given.append(found.index)
        waiting.append(len(read) - len(given))
    assert sorted(given) == list(range(120)) and max(waiting) <= PENDING * 4 and shapes <= {1, 2, 4}


def test_unreadable_images_are_left_out_up_to_a_share():
    source = pictures((8, 8), (8, 8), (8, 8))

    class Broken(type(source)):
        """Has an image that cannot be read."""

        def __getitem__(self, index):
            if index == 1:
                raise CorruptImage("1.png", "truncated")
            return super().__getitem__(index)

    source.__class__ = Broken
    encoder = pixel_maps(View(), channels=3, patch=4)
    found = map_features(encoder, source, max_corrupt_fraction=0.5)
    assert [m.index for m in found] == [0, 2]
    with pytest.raises(ValueError, match=r"1 of 3 images or masks cannot be read.*1.png: truncated"):
        list(map_features(encoder, source, max_corrupt_fraction=0.1))


@pytest.mark.parametrize(
    ("framing", "message"),
    [
        (Framing(size=0), "size=0"),
        (Framing(align="crop"), "align="),
        (Framing(tile=2), "tile=2"),
        (Framing(overlap=1.0), "overlap=1.0"),
    ],
)
def test_wrong_framings_are_refused(framing, message):
    with pytest.raises(ValueError, match=message):
        list(map_features(pixel_maps(View(), channels=3, patch=4), pictures((8, 8)), framing=framing))


@pytest.mark.parametrize("layers", [1, 2])
def test_encoders_without_patches_are_refused(layers):
    with pytest.raises(ValueError, match="layers=0"):
        candidate_maps(make_candidate(NETWORKS["convnet"][0]), channels=3, layers=0)
    with pytest.raises(ValueError, match="no features of patches"):
        candidate_maps(make_candidate(models.build("mlp", widths=(4,))), channels=3, layers=layers)
