"""Inversion: statistics, errors and ranks against loops, frozen networks, resumed training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate.encoder import encoder_method
from ssl_jax.evaluate.inversion import (
    Inverter,
    Training,
    build_inverter,
    draw_samples,
    feature_statistics,
    images_as_seen,
    readings,
    reciprocal_rank,
    reconstruction_error,
    train_decoder,
)
from ssl_jax.evaluate.measure import Candidate
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.run import Host
from ssl_jax.train.sharding import make_mesh
from ssl_jax.train.state import TrainState

SIZE = 8
VIEW = View(size=SIZE, mean=(0.4,), std=(0.2,))
ONE = Host(mesh=make_mesh(devices=jax.devices()[:1]))
IMAGES = np.random.default_rng(0).integers(0, 256, (40, SIZE, SIZE, 1), dtype=np.uint8)


class Flat:
    """An encoder that gives back its pixels, so that everything is known of its features."""

    @staticmethod
    def read(params, state, images):
        return images.reshape(len(images), -1)

    @staticmethod
    def nothing(params, state, images):
        return jnp.zeros((len(images), 3))


def candidate():
    network = models.build("convnet", widths=(4,), grid=1)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 1)))
    return Candidate("tiny", "encoder", encoder_method(network, VIEW), *variables)


def made_up(kind, reconstruct=None, sample=None):
    """An inverter whose outputs are given, and whose features are the pixels."""

    def condition(state, images):
        return images.reshape(len(images), -1)

    method = encoder_method(models.build("convnet", widths=(4,), grid=1), VIEW)
    return Inverter(kind, method, condition, reconstruct, sample)


def state_of(image):
    held = {"image": jnp.asarray(image, jnp.float32)}
    return TrainState(jnp.int32(0), {}, held, (), jax.random.key(0), jnp.bool_(True))


def test_statistics_are_those_of_a_loop_over_images_and_patches():
    def read(params, state, images):
        return images.reshape(len(images), 4, 2, SIZE)  # patches with 8 features each

    found = feature_statistics(candidate(), read, ArraySource(IMAGES))
    pixels = IMAGES / 255.0
    normalized = ((pixels - 0.4) / 0.2).reshape(-1, SIZE)
    mean = sum(row for row in normalized) / len(normalized)
    variance = sum((row - mean) ** 2 for row in normalized) / len(normalized)
    np.testing.assert_allclose(found.mean, mean, atol=1e-5)
    np.testing.assert_allclose(found.std, np.sqrt(variance), rtol=1e-5)
    np.testing.assert_allclose(found.image, pixels.mean(axis=0), atol=1e-5)
    constant = feature_statistics(candidate(), Flat.nothing, ArraySource(IMAGES))
    assert constant.std.tolist() == [1.0, 1.0, 1.0]


def test_reconstruction_error_is_that_of_a_loop():
    inverter = made_up("deterministic", lambda params, state, images: jnp.full(images.shape, 0.25))
    mean = np.full((SIZE, SIZE, 1), 0.6)
    row = reconstruction_error(inverter, state_of(mean), ArraySource(IMAGES))
    pixels = IMAGES / 255.0
    mse = sum((image - 0.25) ** 2 for image in pixels).sum() / pixels.size
    of_mean = sum((image - mean) ** 2 for image in pixels).sum() / pixels.size
    assert row["mse"] == pytest.approx(mse, rel=1e-5)
    assert row["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-5)
    assert row["explained"] == pytest.approx(1 - mse / of_mean, rel=1e-4)


def test_what_varies_between_samples_is_what_was_put_there():
    rng = np.random.default_rng(0)
    images = np.float32(rng.random((6, SIZE, SIZE, 1)))

    def sample(params, state, h, key, *, steps, solver):
        pixels = 0.4 + 0.2 * h.reshape(len(h), SIZE, SIZE, 1)
        return pixels + 0.1 * jax.random.normal(key, pixels.shape)

    mean = np.full((SIZE, SIZE, 1), 0.5)
    drawn = draw_samples(made_up("flow", sample=sample), state_of(mean), images, samples=200, steps=1)
    assert drawn.images.shape == (6, 200, SIZE, SIZE, 1)
    assert drawn.row["free"] == pytest.approx(0.01 / np.mean((images - 0.5) ** 2), rel=0.02)
    assert drawn.row["sample_mse"] == pytest.approx(0.01, rel=0.02)
    assert drawn.row["reciprocal_rank"] == 1.0  # noise of .1 on images far apart
    assert drawn.row["chance_rank"] == pytest.approx(np.mean([1 / r for r in range(1, 7)]))


def test_ranks_are_those_of_sorting():
    rng = np.random.default_rng(0)
    sampled, conditions = rng.normal(size=(7, 3, 4)), rng.normal(size=(7, 4))
    total = 0.0
    for i in range(7):
        for k in range(3):
            order = sorted(range(7), key=lambda j: np.linalg.norm(sampled[i, k] - conditions[j]))
            total += 1 / (1 + order.index(i))
    assert reciprocal_rank(sampled, conditions) == pytest.approx(total / 21)


def test_backbone_projector_and_patches_are_read_where_they_are():
    network = models.build("convnet", widths=(4, 8), grid=1)
    method = simclr.build(network, views=(VIEW, VIEW), projection=5)
    image = jax.ShapeDtypeStruct((2, SIZE, SIZE, 1), jnp.float32)
    batch = {"views": (jnp.zeros((2, 2, SIZE, SIZE, 1)),)}
    variables = jax.eval_shape(lambda key: method.init(key, batch), jax.random.key(0))
    found = readings(method, image, *variables)
    shapes = {name: jax.eval_shape(read, *variables, image).shape for name, read in found.items()}
    assert shapes == {"backbone": (2, 8), "projector": (2, 5), "patches": (2, 2, 2, 8)}
    bare = models.build("mlp")
    method, flat = encoder_method(bare, VIEW), jax.ShapeDtypeStruct((2, SIZE, SIZE, 1), jnp.float32)
    variables = jax.eval_shape(lambda key: bare.init(key, jnp.zeros(flat.shape)), jax.random.key(0))
    assert list(readings(method, flat, *variables)) == ["backbone"]


def test_images_are_those_of_evaluation_and_the_encoders_own_where_it_has_one():
    source = ArraySource(np.arange(12 * 16, dtype=np.uint8).reshape(1, 12, 16, 1))
    seen = images_as_seen(candidate(), source, 1.0)
    assert seen[0]["image"].shape == (SIZE, SIZE, 1)
    own = candidate()._replace(preprocess=lambda image: image[:SIZE, :SIZE])
    np.testing.assert_array_equal(
        images_as_seen(own, source, 1.0)[0]["image"], source[0]["image"][:SIZE, :SIZE]
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [({"samples": 1}, "samples=1"), ({"steps": 0}, "solver_steps=0"), ({"solver": "rk4"}, "solver=")],
)
def test_refusals_of_samples_name_the_argument(given, said):
    with pytest.raises(ValueError, match=said):
        draw_samples(made_up("flow"), state_of(np.zeros((SIZE, SIZE, 1))), IMAGES / np.float32(255), **given)


def test_refusals_of_training_name_the_option():
    tiny = candidate()
    with pytest.raises(ValueError, match="kind="):
        build_inverter(tiny, Flat.read, channels=1, kind="gan")
    inverter = build_inverter(tiny, Flat.read, channels=1)
    for option, value in (("steps", 0), ("batch_size", 0), ("learning_rate", 0.0)):
        with pytest.raises(ValueError, match=f"{option}={value}"):
            training = Training()._replace(**{option: value})
            train_decoder(inverter, tiny, lambda: None, ArraySource(IMAGES), training=training)
    with pytest.raises(ValueError, match="kind="):
        draw_samples(inverter, state_of(np.zeros((SIZE, SIZE, 1))), IMAGES / np.float32(255))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["deterministic", "flow"])
def test_training_moves_the_decoder_alone_and_a_resumed_run_ends_in_the_same_bits(kind, tmp_path):
    tiny, source = candidate(), ArraySource(IMAGES)
    inverter = build_inverter(tiny, tiny.method.encode, channels=1, kind=kind, width=4)
    statistics = feature_statistics(tiny, tiny.method.encode, source)
    training = Training(steps=6, batch_size=8, width=4)

    def train(folder, steps):
        # The same schedule: only the checkpoint says how far it went.
        with Checkpoints(tmp_path / folder, every=2, keep=9, metadata={}) as checkpoints:
            return train_decoder(
                inverter,
                tiny,
                statistics,
                source,
                training=training._replace(steps=steps),
                host=ONE,
                checkpoints=checkpoints,
            ).state

    whole = train("whole", 6)
    for name in ("4", "6"):
        (tmp_path / "whole" / name).rename(tmp_path / f"gone-{name}")
    resumed = train("whole", 6)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    frozen = whole.state["frozen"]
    jax.tree.map(np.testing.assert_array_equal, frozen[0], tiny.params)
    jax.tree.map(np.testing.assert_array_equal, frozen[1], tiny.state)


@pytest.mark.long
def test_pixels_come_back_from_features_that_hold_them_and_not_from_others():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (192, 2, 2, 1), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    train, test = ArraySource(blocks[:160]), ArraySource(blocks[160:])
    tiny = candidate()

    def half(params, state, images):
        """The upper two of four blocks."""
        return images[:, 0, ::4, 0]

    explained, free = {}, {}
    training = Training(steps=150, batch_size=32, learning_rate=1e-2, width=8)
    for name, read in (("all", Flat.read), ("half", half), ("nothing", Flat.nothing)):
        statistics = feature_statistics(tiny, read, train)
        inverter = build_inverter(tiny, read, channels=1, width=8)
        fitted = train_decoder(inverter, tiny, statistics, train, training=training, host=ONE)
        explained[name] = reconstruction_error(inverter, fitted.state, test)["explained"]
        if name == "nothing":
            continue
        flow = build_inverter(tiny, read, channels=1, kind="flow", width=8)
        longer = training._replace(steps=250)
        fitted = train_decoder(flow, tiny, statistics, train, training=longer, host=ONE)
        drawn = draw_samples(flow, fitted.state, blocks[160:] / np.float32(255), samples=4, steps=10)
        free[name] = drawn.row["free"]
    assert explained["all"] > 0.9
    assert explained["half"] == pytest.approx(0.5, abs=0.15)
    assert abs(explained["nothing"]) < 0.1
    # A flow that was trained for so short still adds something of its own.
    assert free["all"] < 0.45 and free["half"] > free["all"] + 0.1, free
