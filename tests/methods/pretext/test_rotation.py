"""RotNet."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.methods.pretext import rotation
from tests.methods.case import loss_of, method_of, zero_params_loss
from tests.methods.pretext.seeing import seeing


def collapsed(case):
    return zero_params_loss(case), math.log(4)


CORNERS = {0: (0, 0), 90: (-1, 0), 180: (-1, -1), 270: (0, -1)}
"""Where the top left corner of an image goes when it is turned counter-clockwise."""


@pytest.mark.parametrize("rotations", [(0, 90, 180, 270), (0, 180), (270, 90)])
@pytest.mark.parametrize("copies", ["all", "one"])
def test_a_head_that_sees_where_the_corner_went_is_always_right(rotations, copies):
    corners = [CORNERS[angle] for angle in rotations]
    seen = []

    def look(images):
        seen.append(images)
        return jnp.stack([images[:, y, x, 0] for y, x in corners], axis=-1)

    options = {"views": presets.mae(8), "rotations": rotations, "copies": copies}
    method = rotation.build(seeing(look, len(rotations)), **options)
    images = jnp.zeros((6, 1, 8, 8, 1)).at[:, :, 0, 0].set(9.0)
    batch = {"views": (images,)}
    params, state = method.init(jax.random.key(0), batch)
    params["head"]["dense_0"] = {"kernel": jnp.eye(len(rotations)), "bias": jnp.zeros(len(rotations))}
    value, (_, metrics) = method.loss(params, state, batch, jax.random.key(2), jnp.int32(0))
    assert float(metrics["accuracy"]) == 1.0
    expected = math.log(math.exp(9) + len(rotations) - 1) - 9
    assert float(value) == pytest.approx(expected, rel=0.02)
    assert len(seen[-1]) == 6 * (len(rotations) if copies == "all" else 1)
    if copies == "all":
        turned = np.stack([np.rot90(images[0, 0], angle // 90) for angle in rotations])
        np.testing.assert_array_equal(seen[-1][: len(rotations)], turned)


def test_one_rotation_an_image_is_drawn_anew_for_every_key():
    method = method_of("rotation", copies="one")
    images = jnp.zeros((16, 1, 28, 28, 1)).at[:, :, :4].set(1.0)
    batch = {"views": (images,)}
    params, state = method.init(jax.random.key(0), batch)
    loss = jax.jit(method.loss)
    losses = {float(loss(params, state, batch, jax.random.key(k), jnp.int32(0))[0]) for k in range(3)}
    assert len(losses) == 3


def test_two_rotations_collapse_to_one_bit():
    method = method_of("rotation", rotations=(90, 270))
    batch = {"views": (jnp.ones((4, 1, 28, 28, 1)),)}
    params, state = method.init(jax.random.key(0), batch)
    value, *_ = loss_of(method, jax.tree.map(jnp.zeros_like, params), state, batch)
    (sign,) = (value.at(4) for value in method.collapse)
    assert value == pytest.approx(math.log(2)) == sign.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotations": (0, 45)}, "rotations=45"),
        ({"rotations": (90,)}, r"rotations=\(90,\)"),
        ({"rotations": (0, 0)}, r"rotations=\(0, 0\)"),
        ({"copies": "two"}, "copies='two'"),
        (
            {"views": presets.mae(28, rotate_prob=0.5)},
            r"views\[0\]\.ops=.*Rotate\(prob=0\.5\).*no upright, so that its rotation cannot",
        ),
        ({"hidden_layers": -1}, "hidden_layers=-1"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        rotation.build(models.build("convnet"), **options)
