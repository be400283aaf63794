"""OBoW."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.augment.operations import Blur, ColorJitter, Flip
from ssl_jax.config import build
from ssl_jax.core.numerics import normalize
from ssl_jax.methods.bag_of_words import obow
from ssl_jax.methods.bag_of_words.obow import draw_words
from ssl_jax.models import heads
from tests.methods.case import config_of, loss_inputs, loss_of, method_of, start

SHARPNESS, KAPPA = 40.0, 5.0
TINY = {"vocabulary_size": 24, "levels": 1, "hidden_dim": 8, "inverse_delta": SHARPNESS, "kappa": KAPPA}
ENCODER = {"widths": (4, 6), "grid": 1}


def with_local_crops(**options):
    """A tiny method whose students see one large crop and two small ones."""
    config = config_of("obow")
    config["encoder"] |= ENCODER
    config["method"] |= TINY | options
    config["views"] |= {"crop_count": 1, "local_count": 2}
    return build.method(config)


def collapsed(case):
    """Words that are all the same: every bag is even, and so is what the generators make of them."""
    params, state, batch = loss_inputs(case)
    same = {
        name: queue._replace(items=jnp.ones_like(queue.items)) for name, queue in state["vocabulary"].items()
    }
    (loss, (_, metrics)), _ = case.gradient(params, {**state, "vocabulary": same}, batch)
    for sign in case.method.collapse:
        if sign.metric.endswith("image_perplexity"):
            assert float(metrics[sign.metric]) == pytest.approx(sign.value, rel=1e-4)
    return float(loss), 0.0


@pytest.fixture(scope="module")
def tiny():
    method = with_local_crops()
    return method, *start(method)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(method, params, state, batch, words):
    """Loss, bags, scale and the maps of one level, in numpy with a given vocabulary."""
    encoder = method.encoder
    teacher = state["teacher"]
    clean = batch["views"][0][:, 0]
    layers, _ = encoder.apply(teacher.params, teacher.state, clean, train=True, output="layers")
    maps = np.asarray(layers["block_1"], np.float64)
    words = np.asarray(words, np.float64)
    squared = ((maps[..., None, :] - words) ** 2).sum(-1)
    scale = 0.99 * 0.5 + 0.01 * squared.min(-1).mean()
    pooled = softmax(-squared * SHARPNESS / scale).max((1, 2))
    bags = pooled / pooled.sum(1, keepdims=True)
    generator = heads.mlp((8, encoder.features), hidden_bias=False)
    own = params["generator"]["level_1"], state["online"]["generator"]["level_1"]
    weights = normalize(generator.apply(*own, normalize(jnp.asarray(words, jnp.float32)), train=True)[0])
    total = 0.0
    for crops in (batch["views"][0][:, 1:], batch["views"][1]):
        merged = crops.reshape(-1, *crops.shape[2:])
        features, _ = encoder.apply(params["encoder"], state["online"]["encoder"], merged, train=True)
        predicted = softmax(KAPPA * np.asarray(features @ weights.T, np.float64))
        y = np.repeat(bags, crops.shape[1], axis=0)
        total += (y * (np.log(np.maximum(y, 1e-300)) - np.log(predicted))).sum(1).mean()
    return total, bags, scale, maps


def test_loss_and_targets_are_those_of_the_words_before_the_step_which_the_images_then_renew(tiny):
    method, params, state, batch = tiny
    before = state["vocabulary"]["level_1"].items
    assert [x.shape[1] for x in batch["views"]] == [2, 2]
    expected, bags, scale, maps = by_hand(method, params, state, batch, before)
    loss, moved, metrics = loss_of(method, params, state, batch)
    assert loss == pytest.approx(expected, rel=1e-3)
    assert float(metrics["level_1/scale"]) == pytest.approx(scale, rel=1e-4)
    assert float(moved["scale"]["level_1"].average) == pytest.approx(scale, rel=1e-4)
    entropies = -(bags * np.log(np.maximum(bags, 1e-300))).sum(1)
    assert float(metrics["level_1/image_perplexity"]) == pytest.approx(np.exp(entropies).mean(), rel=1e-3)
    # The vocabulary that it leaves would have given another loss.
    after = moved["vocabulary"]["level_1"]
    assert int(after.pointer) == 16
    np.testing.assert_array_equal(after.items[16:], before[16:])
    windows = np.lib.stride_tricks.sliding_window_view(maps, (3, 3), axis=(1, 2)).mean((-1, -2))
    for image, word in enumerate(np.asarray(after.items[:16])):
        assert np.abs(windows[image] - word).max(-1).min() < 1e-4
    assert by_hand(method, params, state, batch, after.items)[0] != pytest.approx(expected, rel=1e-2)
    # The next step goes on at the pointer and around the end.
    _, wrapped, _ = loss_of(method, params, moved, batch, step=1)
    assert int(wrapped["vocabulary"]["level_1"].pointer) == 8


def test_the_preset_has_a_clean_view_and_crops_of_two_sizes():
    clean, *crops = presets.obow(112)
    assert (clean.size, clean.crop.area, clean.crop.ratio) == (112, (1.0, 1.0), (1.0, 1.0))
    assert clean.ops == (Flip(prob=0.5),)
    blurs = [Blur(prob=0.5)] * 2 + [None] * 5
    assert [(crop.size, crop.find(Blur)) for crop in crops] == list(
        zip([160] * 2 + [96] * 5, blurs, strict=True)
    )
    assert {crop.find(ColorJitter).hue for crop in crops} == {0.1}
    with pytest.raises(ValueError, match="crop_area and local_area"):
        presets.obow(area=(0.1, 1.0))


def test_every_image_gives_its_own_word_and_places_are_drawn():
    maps = jnp.arange(6.0)[:, None, None, None] + 0.1 * jax.random.normal(jax.random.key(0), (6, 5, 5, 3))
    first, second = (draw_words(jax.random.key(seed), maps) for seed in (1, 2))
    np.testing.assert_allclose(first.mean(1), np.arange(6), atol=0.3)
    assert (first != second).any()


def test_the_vocabulary_starts_as_the_positive_part_of_normal_numbers():
    _, state, _ = start(method_of("obow", encoder=ENCODER, **{**TINY, "vocabulary_size": 2000}))
    items = np.asarray(state["vocabulary"]["level_1"].items)
    assert (items >= 0).all()
    assert (items == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert (items**2).mean() == pytest.approx(0.5, abs=0.05)


def test_sizes_of_crops_count_alike_however_many_crops_they_have(tiny):
    method, params, state, batch = tiny
    loss, _, _ = loss_of(method, params, state, batch)
    large, small = batch["views"]
    twice = (jnp.concatenate([large, large[:, 1:]], axis=1), small)
    assert loss_of(method, params, state, {**batch, "views": twice})[0] == pytest.approx(loss, rel=1e-4)
    parts = [
        loss_of(method, params, state, {**batch, "views": v})[0] for v in ((large,), (large[:, :1], small))
    ]
    assert sum(parts) == pytest.approx(loss, rel=1e-4)


def test_a_level_more_has_words_generator_and_scale_of_its_own():
    method = method_of("obow", encoder=ENCODER, **{**TINY, "levels": 2})
    params, state, batch = start(method)
    widths = {name: queue.items.shape[1] for name, queue in state["vocabulary"].items()}
    assert widths == {"level_1": 6, "level_2": 4}
    assert set(params["generator"]) == set(state["scale"]) == set(widths)
    _, _, metrics = loss_of(method, params, state, batch)
    assert {sign.metric for sign in method.collapse} <= {*metrics, "loss"}


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_the_teacher_is_the_average_of_the_student(decay):
    method = method_of("obow", encoder=ENCODER, decay=decay, decay_steps=None, **TINY)
    _, state, _ = start(method)
    other, _, _ = start(method, seed=5)
    old = state["teacher"].params
    new = method.after_update(other, state, jnp.int32(0))["teacher"].params
    expected = jax.tree.map(lambda x, y: decay * x + (1 - decay) * y, old, other["encoder"])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), new, expected)


def test_float_options_may_be_traced(tiny):
    method, params, state, batch = tiny

    def run(sharpness, kappa):
        traced = with_local_crops(inverse_delta=sharpness, kappa=kappa)
        return traced.loss(params, state, batch, jax.random.key(2), jnp.int32(0))[0]

    losses = jax.jit(jax.vmap(run))(jnp.array([SHARPNESS, 1.0]), jnp.array([KAPPA, 2.0]))
    assert float(losses[0]) == pytest.approx(loss_of(method, params, state, batch)[0], rel=1e-4)
    assert losses[0] != losses[1]


def test_a_vocabulary_smaller_than_the_batch_is_refused():
    method = method_of("obow", encoder=ENCODER, **{**TINY, "vocabulary_size": 8})
    with pytest.raises(ValueError, match=r"items\.shape=\(16, 6\).*at most the queue's 8 rows"):
        jax.eval_shape(method.loss, *start(method), jax.random.key(2), jnp.int32(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary_size": 0}, "vocabulary_size=0"),
        ({"kappa": 0.0}, r"kappa=0\.0"),
        ({"inverse_delta": -1.0}, r"inverse_delta=-1\.0"),
        ({"levels": 3}, "levels=3: allowed is 1 to 2"),
        ({"levels": 0}, "levels=0: allowed is an integer from 1"),
        ({"border": 4}, "border=4"),
        ({"border": 3}, r"maps\.shape=\(16, 1, 1, 6\)"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        start(method_of("obow", encoder=ENCODER, **{**TINY, **options}))


def test_encoders_without_maps_and_views_without_crops_are_refused(tiny):
    with pytest.raises(ValueError, match="encoder='vit_micro'"):
        obow.build(models.build("vit_micro", image_size=28, patch=7))
    with pytest.raises(ValueError, match="views=1"):
        obow.build(tiny[0].encoder, views=tiny[0].views[:1])
