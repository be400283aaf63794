"""BoWNet."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.config import build
from ssl_jax.methods.bag_of_words import bownet
from ssl_jax.models.serialize import save_encoder
from tests.methods.case import config_of, loss_of, method_of, start, zero_params_loss

TINY = {"vocabulary_size": 12}
ENCODER = {"widths": (4, 6), "grid": 1}
STATISTICS = {"mean": [0.5], "std": [2.0]}
network = functools.partial(models.build, "convnet", grid=1)


def collapsed(case):
    """Features of 0 give every word the same share."""
    return zero_params_loss(case), math.log(case.config["method"]["vocabulary_size"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A teacher's file, wider than the student, and its variables."""
    teacher, path = network(widths=(8, 10)), tmp_path_factory.mktemp("teacher") / "encoder.safetensors"
    params, state = teacher.init(jax.random.key(7), jnp.zeros((1, 28, 28, 1)))
    save_encoder(path, teacher, params, state, metadata=STATISTICS)
    return str(path), teacher, (params, state)


def tiny(**options):
    method = method_of("bownet", encoder=ENCODER, **{**TINY, **options})
    return method, *start(method)


def bags_by_hand(exported, batch, words, *, layer, border):
    """Counts of the nearest words in the teacher's map of the clean images, in numpy."""
    _, teacher, variables = exported
    pixels = batch["views"][0][:, 0] * 0.353 + 0.286
    maps = teacher.apply(*variables, (pixels - 0.5) / 2.0, output="layers")[0][layer]
    inner = slice(border, maps.shape[1] - border)
    maps = np.asarray(maps[:, inner, inner], np.float64).reshape(16, -1, 1, maps.shape[-1])
    nearest = ((maps - np.asarray(words, np.float64)) ** 2).sum(-1).argmin(-1)
    return np.stack([np.bincount(row, minlength=len(words)) for row in nearest])


@pytest.mark.parametrize(("bag", "level", "border"), [("counts", 1, 0), ("presence", 2, 1)])
def test_loss_and_bags_are_those_of_the_clean_image_under_the_teacher_of_the_file(
    exported, bag, level, border
):
    method, params, state, batch = tiny(teacher=exported[0], bag=bag, level=level, border=border, scale=3.0)
    layer = {1: "block_1", 2: "block_0"}[level]
    counts = bags_by_hand(exported, batch, state["vocabulary"], layer=layer, border=border)
    bags = counts if bag == "counts" else counts > 0
    bags = bags / bags.sum(1, keepdims=True)
    crops = batch["views"][0][:, 1]
    features, _ = method.encoder.apply(params["encoder"], state["online"]["encoder"], crops, train=True)
    rows = np.asarray(params["head"]["direction"], np.float64)
    logits = 3.0 * np.asarray(features, np.float64) @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss, moved, metrics = loss_of(method, params, state, batch)
    assert loss == pytest.approx(-(bags * logs).sum(1).mean(), rel=1e-4)
    mean = bags.mean(0)[bags.any(0)]
    best = -(mean * np.log(mean)).sum()
    assert float(metrics["information"]) == pytest.approx(best - loss, abs=1e-3)
    assert float(metrics["batch_perplexity"]) == pytest.approx(np.exp(best), rel=1e-4)
    for name in ("teacher", "vocabulary"):
        jax.tree.map(np.testing.assert_array_equal, moved[name], state[name])


def test_the_length_of_the_weights_means_nothing_and_the_magnitude_is_trained():
    method, params, state, batch = tiny()
    loss = jax.jit(lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[0])
    longer = {**params, "head": {**params["head"], "direction": 7 * params["head"]["direction"]}}
    assert float(loss(longer)) == pytest.approx(float(loss(params)), rel=1e-5)
    gradient = jax.jit(jax.grad(loss))(params)["head"]
    assert gradient["scale"].shape == () and gradient["scale"] != 0
    assert gradient["direction"].any()


def test_the_vocabulary_is_made_once_and_by_k_means():
    method, _, state, _ = tiny(iterations=8)
    centres = 10 * jax.random.normal(jax.random.key(1), (12, 6))
    features = jnp.repeat(centres, 6, axis=0).reshape(36, 2, 6)
    made = jax.jit(method.refresh.update)(state, features, jax.random.key(0))
    assert jax.tree.structure(made) == jax.tree.structure(state)
    gaps = np.linalg.norm(np.asarray(made["vocabulary"])[:, None] - np.asarray(centres), axis=-1)
    assert (gaps.min(0) < 1e-3).mean() > 0.7
    later = jax.jit(method.refresh.update)(made, None, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, later, made)
    assert method.refresh.features_once
    with pytest.raises(ValueError, match="vocabulary_size=12: allowed is at most the 8 local"):
        method.refresh.update(state, features[:4], jax.random.key(0))


def test_what_describes_an_image_are_local_features_of_the_teacher(exported):
    method, params, state, batch = tiny(teacher=exported[0], samples=3)
    clean = batch["views"][0][:, 0]
    found = jax.jit(method.refresh.features)(params, state, clean)
    assert found.shape == (16, 3, 10)
    maps = exported[1].apply(*exported[2], ((clean * 0.353 + 0.286) - 0.5) / 2.0, output="tokens")[0]
    gaps = np.abs(np.asarray(found)[:, :, None] - np.asarray(maps).reshape(16, 1, -1, 10)).max(-1)
    assert gaps.min(-1).max() < 1e-4
    assert len({tuple(row) for row in gaps.argmin(-1).tolist()}) > 5
    again = jax.jit(method.refresh.features)(params, state, clean)
    np.testing.assert_array_equal(found, again)


def test_cutmix_mixes_bags_in_the_shares_of_the_pixels():
    crops = jnp.broadcast_to(jnp.arange(4.0)[:, None, None, None, None], (4, 2, 8, 8, 1))
    mixed, bags = bownet.mix_crops(jax.random.key(0), crops, jnp.eye(4))
    for image in range(4):
        before = (image - 1) % 4
        own = np.asarray(mixed[image] == image).mean((1, 2, 3))
        np.testing.assert_allclose(bags[image, :, image], own, rtol=1e-6)
        np.testing.assert_allclose(bags[image, :, before], 1 - own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bags.sum(-1), 1, rtol=1e-6)
    method, params, state, batch = tiny(cutmix=True)
    plain, _, _ = loss_of(tiny()[0], params, state, batch)
    loss, _, _ = loss_of(method, params, state, batch)
    assert np.isfinite(loss) and loss != plain


def test_crops_of_two_sizes_add_up():
    config = config_of("bownet")
    config["encoder"] |= ENCODER
    config["method"] |= TINY
    config["views"] |= {"local_count": 2}
    method = build.method(config)
    params, state, batch = start(method)
    loss, _, _ = loss_of(method, params, state, batch)
    large, small = batch["views"]
    parts = [
        loss_of(method, params, state, {**batch, "views": v})[0] for v in ((large,), (large[:, :1], small))
    ]
    assert sum(parts) == pytest.approx(loss, rel=1e-4)
    assert method.collapse[0].at(16).value == pytest.approx(2 * math.log(12))


def test_the_student_is_the_teacher_of_the_next_round(tmp_path):
    method, params, state, batch = tiny()
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, method.encoder, *method.encoder_variables(params, state), metadata=STATISTICS)
    following, own, kept, _ = tiny(teacher=str(path))
    jax.tree.map(np.testing.assert_array_equal, kept["teacher"].params, params["encoder"])
    assert np.isfinite(loss_of(following, own, kept, batch)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary_size": 0}, "vocabulary_size=0"),
        ({"samples": 0}, "samples=0"),
        ({"iterations": 0}, "iterations=0"),
        ({"level": 0}, "level=0"),
        ({"level": 3}, "levels=3: allowed is 1 to 2"),
        ({"border": 4}, "border=4"),
        ({"bag": "binary"}, "bag='binary'"),
        ({"teacher": "missing.safetensors"}, "there is no such file"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_teachers_without_maps_or_of_other_channels_are_refused(tmp_path, exported):
    vit = models.build("vit_micro", image_size=28, patch=7, width=32, depth=1)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, vit, *vit.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))))
    with pytest.raises(ValueError, match="encoder='vit_micro'"):
        tiny(teacher=str(path))
    method = method_of("bownet", encoder=ENCODER, teacher=exported[0])
    with pytest.raises(ValueError, match="images of 3 channels"):
        jax.eval_shape(method.init, jax.random.key(0), {"views": (jnp.zeros((2, 2, 28, 28, 3)),)})
