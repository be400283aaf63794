"""Triplets of frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.temporal import ranking
from tests.methods.case import config_of, loss_of, method_of, real_batch, start, zero_params_loss


def collapsed(case):
    """Every frame alike: the margin."""
    return zero_params_loss(case), case.config["method"]["margin"]


def test_the_partner_is_the_frame_of_the_clip_furthest_in_time():
    method = method_of("triplet_frames", negatives=8, hard=8)
    params, state, batch = start(method, batch=real_batch(10, config_of("triplet_frames")))
    # Three frames of one clip, two of another, and one that is alone and no anchor.
    clips, times = [0, 0, 0, 1, 1, 2, 3, 3, 4, 4], [0, 5, 9, 0, 3, 7, 1, 0, 2, 3]
    batch |= {"clip": jnp.array(clips), "time": jnp.array(times)}
    value, _, metrics = loss_of(method, params, state, batch)
    key = jax.random.split(jax.random.key(2))[1]
    images = batch["views"][0][:, 0]
    features = method.encoder.apply(params["encoder"], state["encoder"], images, train=True)[0]
    z = features @ params["head"]["dense_0"]["kernel"] + params["head"]["dense_0"]["bias"]
    other = jnp.array(clips)[:, None] != jnp.array(clips)[None]
    partners = jnp.array([2, 0, 0, 4, 3, -1, 7, 6, 9, 8])
    expected, active = ranking(key, z, partners, other, margin=1.0, negatives=8, hard=8)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["active"], active, rtol=1e-4)


def test_windows_are_pairs_of_clips():
    batch = real_batch(16, config_of("triplet_frames"))
    np.testing.assert_array_equal(np.diff(batch["time"].reshape(8, 2), axis=1), 8)
    assert len(set(batch["clip"].tolist())) == 8


@pytest.mark.parametrize(
    ("options", "message"), [({"negatives": 0}, "negatives=0"), ({"hard": 33}, "hard=33")]
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method = method_of("triplet_frames", **options)
        loss_of(method, *start(method, batch=real_batch(4, config_of("triplet_frames"))))
