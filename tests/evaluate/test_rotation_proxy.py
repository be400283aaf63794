"""The rotation proxy: chance, and images that stay together."""

import numpy as np
import pytest

from ssl_jax.evaluate import ridge
from ssl_jax.evaluate.rotation import rotation_proxy

RNG = np.random.default_rng(0)


def test_features_that_tell_the_turn_score_one_and_features_that_do_not_score_chance():
    image, turn = RNG.normal(size=(2, 60, 1, 6)), np.eye(4, 6)
    told = (image + 3 * turn).astype(np.float32)
    assert rotation_proxy(told[0], told[1]).accuracy > 0.95
    blind = np.repeat(image, 4, axis=2).astype(np.float32)
    assert rotation_proxy(blind[0], blind[1]).accuracy == pytest.approx(0.25, abs=0.02)


def test_the_four_rotations_of_an_image_are_held_out_together(monkeypatch):
    seen = []
    ridge_on = ridge.ridge_on

    def spy(*sets, held_out, **options):
        seen.append(held_out)
        return ridge_on(*sets, held_out=held_out, **options)

    monkeypatch.setattr("ssl_jax.evaluate.rotation.ridge_on", spy)
    rotation_proxy(np.ones((10, 4, 3), np.float32), np.ones((2, 4, 3), np.float32), holdout=0.3)
    assert sorted(np.bincount(seen[0] // 4, minlength=10)) == [0] * 7 + [4] * 3


def test_order_of_the_images_does_not_matter_to_the_final_fit():
    train, test = RNG.normal(size=(2, 40, 4, 5)).astype(np.float32)
    one, other = (rotation_proxy(x, test, l2=(0.1,)) for x in (train, train[::-1]))
    assert one.accuracy == pytest.approx(other.accuracy, abs=0.02)


def test_wrong_arguments_are_refused():
    features = np.ones((4, 4, 2), np.float32)
    with pytest.raises(ValueError, match=r"holdout=0\.0"):
        rotation_proxy(features, features, holdout=0.0)
    with pytest.raises(ValueError, match="l2="):
        rotation_proxy(features, features, l2=(), holdout=0.5)
