"""Learning to count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import presets
from ssl_jax.methods.pretext import counting
from tests.methods.case import loss_of, method_of, zero_params_loss
from tests.methods.pretext.seeing import seeing


def collapsed(case):
    return zero_params_loss(case), case.config["method"]["margin"]


@pytest.mark.parametrize("elementwise", [False, True])
def test_loss_is_that_of_the_halved_image_and_its_quarters_against_the_image_before(elementwise):
    seen = []

    def look(images):
        seen.append(np.asarray(images))
        return jnp.stack([images.mean(axis=(1, 2, 3)), images[:, 0, 0, 0]], axis=-1)

    options = {
        "hidden_layers": 0,
        "counts": 2,
        "filters": ("box",),
        "margin": 2.0,
        "elementwise": elementwise,
    }
    method = counting.build(seeing(look, 2), views=presets.mae(6), **options)
    images = jax.random.normal(jax.random.key(1), (5, 1, 6, 6, 1))
    batch = {"views": (images,)}
    params, state = method.init(jax.random.key(0), batch)
    kernel = np.array([[1.0, -2.0], [0.5, 0.3]], np.float32)
    params["head"]["dense_0"] = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(2)}
    value, (_, metrics) = method.loss(params, state, batch, jax.random.key(2), jnp.int32(0))
    x = np.asarray(images[:, 0])
    parts = [x.reshape(5, 3, 2, 3, 2, 1).mean(axis=(2, 4))]
    parts += [x[:, y : y + 3, z : z + 3] for y in (0, 3) for z in (0, 3)]
    np.testing.assert_allclose(seen[-1], np.stack(parts, axis=1).reshape(25, 3, 3, 1), atol=1e-6)
    looks = [np.stack([p.mean(axis=(1, 2, 3)), p[:, 0, 0, 0]], axis=-1) for p in parts]
    phi = [np.maximum(look @ kernel, 0) for look in looks]
    own = (phi[0] - sum(phi[1:])) ** 2
    other = (np.stack([phi[0][i - 1] for i in range(5)]) - sum(phi[1:])) ** 2
    if elementwise:
        expected = (own + np.maximum(0, 2 - other)).mean()
    else:
        expected = (own.sum(1) + np.maximum(0, 2 - other.sum(1))).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], (own.sum(1) < other.sum(1)).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["count"], phi[0].mean(), rtol=1e-5)


def test_counts_that_are_all_zero_cost_the_margin_of_the_option():
    method = method_of("counting", margin=3.0, elementwise=True)
    batch = {"views": (jax.random.normal(jax.random.key(1), (4, 1, 28, 28, 1)),)}
    params, state = method.init(jax.random.key(0), batch)
    zero = jax.tree.map(jnp.zeros_like, params)
    value, _, metrics = loss_of(method, zero, state, batch)
    assert value == pytest.approx(3.0) == method.collapse[0].at(4).value
    assert float(metrics["accuracy"]) == 0.0


def test_a_batch_of_one_image_is_refused():
    method = method_of("counting")
    batch = {"views": (jnp.ones((1, 1, 28, 28, 1)),)}
    params, state = method.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match="batch='1 image'"):
        method.loss(params, state, batch, jax.random.key(2), jnp.int32(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.0}, r"margin=0\.0"),
        ({"counts": 0}, "counts=0"),
        ({"hidden_layers": -1}, "hidden_layers=-1"),
        ({"views": presets.mae(27)}, "views='27 pixels': allowed is an even size"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    views = {"views": presets.mae(28), **options}
    with pytest.raises(ValueError, match=message):
        counting.build(seeing(lambda x: x[:, 0, 0], 1), **views)
