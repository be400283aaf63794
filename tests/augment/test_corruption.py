"""Corruption: shares, values, what is touched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment.noise import corrupt

IMAGE = jnp.full((100, 100, 1), 0.5)


@pytest.mark.parametrize(("kind", "values"), [("masking", {0.0, 0.5}), ("salt_and_pepper", {0.0, 0.5, 1.0})])
def test_a_share_of_the_pixels_is_changed_and_reported(kind, values):
    noisy, touched = corrupt(jax.random.key(0), IMAGE, kind=kind, level=0.3)
    assert set(np.unique(noisy).tolist()) == values
    np.testing.assert_array_equal(touched, noisy != 0.5)
    assert float(touched.mean()) == pytest.approx(0.3, abs=0.02)
    black = float((noisy == 0).mean())
    assert black == pytest.approx(0.3 if kind == "masking" else 0.15, abs=0.015)


def test_gaussian_noise_has_its_deviation_and_touches_everything():
    noisy, touched = corrupt(jax.random.key(0), IMAGE, kind="gaussian", level=0.2)
    assert touched.all()
    assert float((noisy - IMAGE).std()) == pytest.approx(0.2, rel=0.05)
    assert float((noisy - IMAGE).mean()) == pytest.approx(0.0, abs=0.01)


def test_levels_may_be_swept_and_images_keep_their_type():
    def count(level):
        return corrupt(jax.random.key(1), IMAGE, kind="masking", level=level)[1].sum()

    counts = jax.jit(jax.vmap(count))(jnp.array([0.0, 0.5, 1.0]))
    assert [int(counts[0]), int(counts[2])] == [0, 10_000]
    assert 4_800 < int(counts[1]) < 5_200
    for kind in ("none", "masking", "gaussian"):
        assert (
            corrupt(jax.random.key(0), IMAGE.astype(jnp.bfloat16), kind=kind, level=0.1)[0].dtype
            == jnp.bfloat16
        )
