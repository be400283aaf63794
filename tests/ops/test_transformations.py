"""Versions of images: each against numpy, one image at a time."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops.transformations import TRANSFORMATIONS
from tests.golden_files import golden

IMAGES = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)


def puzzles(image):
    quarters = [image[:2, :2], image[:2, 2:], image[2:, :2], image[2:, 2:]]
    for a, b, c, d in itertools.permutations(quarters):
        yield np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])


BY_HAND = {
    "rotation": lambda image: [np.rot90(image, k) for k in range(4)],
    "vertical_flip": lambda image: [image, np.flipud(image)],
    "horizontal_flip": lambda image: [image, np.fliplr(image)],
    "half_swap": lambda image: [image, np.concatenate([image[2:], image[:2]])],
    "jigsaw": lambda image: list(puzzles(image)),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_versions_of_every_image_are_those_made_by_hand_itself_first(name):
    transform, count = TRANSFORMATIONS[name]
    made = np.asarray(transform(jnp.asarray(IMAGES)))
    assert made.shape == (3, count, 4, 4, 2)
    np.testing.assert_array_equal(made, np.stack([np.stack(BY_HAND[name](image)) for image in IMAGES]))
    np.testing.assert_array_equal(made[:, 0], IMAGES)
    assert len({version.tobytes() for version in made[0]}) == count


def test_rotations_equal_golden():
    """There in blocks of one rotation, ``[4 b, c, h, w]``."""
    file = golden("contrastive_extra")
    made = TRANSFORMATIONS["rotation"][0](jnp.asarray(file["in__img"].transpose(0, 2, 3, 1), jnp.float32))
    blocks = np.asarray(made).transpose(1, 0, 4, 2, 3).reshape(12, 3, 6, 6)
    np.testing.assert_allclose(blocks, file["essl_rotate__out__rotated"], rtol=1e-6)
    assert file["essl_rotate__out__labels"].tolist() == np.repeat(range(4), 3).tolist()


@pytest.mark.parametrize("name", ["half_swap", "jigsaw"])
def test_an_odd_side_is_refused(name):
    with pytest.raises(ValueError, match=r"images=.*5"):
        TRANSFORMATIONS[name][0](jnp.zeros((1, 5, 5, 1)))
