"""Sizes of batch and source outside which a method means nothing: each is stated, tight, and refused before the first step."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.config import build
from ssl_jax.data.sources import ArraySource
from ssl_jax.methods.method import Limits
from ssl_jax.methods.registry import names
from ssl_jax.train.loop import check_sizes, fit
from ssl_jax.train.run import Run
from ssl_jax.train.step import make_init
from tests.methods.case import begun, config_of, make_gradient, method_of, real_batch, with_views

METHODS = [name if name == "simclr" else pytest.param(name, marks=pytest.mark.long) for name in names()]


TRAINS_TO_NOTHING = {
    "swav": "the codes of one image are uniform: it is drawn to the constant",
    "ladder": "BatchNorm of one image leaves the noise and nothing of the image",
    "lejepa": "the directions of one image's views say nothing of a distribution of images",
}
"""Methods with a gradient for fewer images than their limit, and what is wrong with it."""


def encoder_gradient(config, method, count):
    """Loss of a batch of so many images, and the norm of its gradient for the encoder."""
    whole = real_batch(max(count, 2), config)
    start = begun(method, make_init(method, build.optimizer(config), whole)(0))
    batch = jax.tree.map(lambda x: x[:count], with_views(method, whole))
    (loss, _), (to_params, _) = make_gradient(method)(start.params, start.state, batch)
    part = to_params.get("encoder", to_params)
    return float(loss), float(sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(part)))


@pytest.mark.parametrize("name", METHODS)
def test_the_least_batch_trains_the_encoder_and_one_image_less_does_not(name):
    config = config_of(name)
    method = build.method(config)
    least = method.limits.least_batch
    loss, gradient = encoder_gradient(config, method, least)
    # The first three frames of a clip are not far enough apart.
    assert np.isfinite(loss) and (gradient > 1e-6 or name == "time_contrastive")
    if least > 1 and name not in TRAINS_TO_NOTHING:
        try:
            _, too_few = encoder_gradient(config, method, least - 1)
        except ValueError:
            return
        assert too_few <= 1e-5 * gradient  # rounding


@pytest.mark.parametrize(
    ("limits", "sizes", "message"),
    [
        (
            Limits(least_batch=2),
            (1, 1, 9),
            r"batch_size=1: allowed is 2 images or more: .* compares the images",
        ),
        (Limits(least_batch=2), (6, 6, 9), r"batch_size=6 in 6 parts: allowed is 2 images or more in each"),
        (
            Limits(most_batch=64),
            (65, 1, 99),
            r"batch_size=65: allowed is at most the 64 rows of .* queue: .* of 65 or more",
        ),
        (
            Limits(least_images=10, follows_from="clusters=10"),
            (4, 1, 9),
            r"the source has 9 images: allowed is 10 or more, which the method's clusters=10 needs: set fewer, or add",
        ),
    ],
)
def test_what_is_outside_is_refused_with_what_to_set(limits, sizes, message):
    batch_size, accumulate, images = sizes
    with pytest.raises(ValueError, match=message):
        limits.require(batch_size=batch_size, accumulate=accumulate, images=images)
    limits.require(batch_size=2 * accumulate, accumulate=accumulate, images=10)


@pytest.mark.parametrize(
    ("name", "options", "limits"),
    [
        ("moco_v2", {"queue_size": 24}, Limits(most_batch=24)),
        ("nnclr", {"queue_size": 24}, Limits(2, 24)),
        ("msf", {"queue_size": 24}, Limits(2, 24)),
        ("swav", {"queue_size": 24}, Limits(2, 24)),
        ("swav", {"queue_size": 0}, Limits(2)),
        ("obow", {"vocabulary_size": 24}, Limits(1, 24)),
        (
            "bownet",
            {"vocabulary_size": 24, "samples": 5},
            Limits(1, None, 5, "vocabulary_size=24 of samples=5 an image"),
        ),
        ("deepcluster", {"clusters": 5, "pca": 8}, Limits(1, None, 9, "pca=8")),
        ("deepcluster", {"clusters": 9, "pca": 8}, Limits(1, None, 9, "clusters=9")),
        ("deepcluster_v2", {"clusters": 5}, Limits(1, None, 5, "clusters=5")),
        ("exemplar", {"exemplars": 7}, Limits(1, None, 7, "exemplars=7")),
        ("wmse", {"w_size": 8, "projection": 4}, Limits(8)),
        ("wmse", {"w_size": None, "projection": 4}, Limits(5)),
    ],
)
def test_limits_follow_from_the_options(name, options, limits):
    assert method_of(name, **options).limits == limits


def run_of(method, optimizer, images, batch_size, **options):
    source = ArraySource(np.random.default_rng(0).integers(0, 256, (images, 28, 28, 1), np.uint8))
    return Run(method, optimizer, source, steps=1, batch_size=batch_size, **options)


def test_a_run_outside_the_limits_ends_before_its_first_step():
    config = config_of("simclr")
    method, optimizer = build.method(config), build.optimizer(config)
    with pytest.raises(ValueError, match="batch_size=8 in 8 parts: allowed is 2 images or more in each"):
        fit(run_of(method, optimizer, 16, 8, accumulate=8))
    config["batch_size"] = 1
    with pytest.raises(ValueError, match="batch_size=1: allowed is 2 images or more"):
        build.run_objects(config)


def test_a_batch_larger_than_the_source_is_said(caplog):
    config = config_of("simclr")
    method, optimizer = build.method(config), build.optimizer(config)
    with caplog.at_level(logging.WARNING, logger="ssl_jax"):
        fit(run_of(method, optimizer, 8, 16))
    assert (
        "batch_size=16 is more than the 8 images of array" in caplog.text and "set 8 or less" in caplog.text
    )
    caplog.clear()
    # A batch of 1 would be refused.
    with caplog.at_level(logging.WARNING, logger="ssl_jax"):
        check_sizes(run_of(method, optimizer, 1, 16))
    assert caplog.text.rstrip().endswith("this method needs 2 images or more")
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="ssl_jax"):
        fit(run_of(method, optimizer, 16, 16))
    assert not caplog.text
