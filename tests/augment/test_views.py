"""Views as data, and whole pipelines: every preset, channel count, device count and place in the batch."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_jax.augment import presets, views
from ssl_jax.augment.views import Jitter, View

KEY = jax.random.key(0)
FULL = View(size=8, solarize_prob=0.3, blur_kernel=3, mean=(0.5,), std=(0.25,))


def images(count, channels=3, height=12, width=10, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def made(batch, wanted, *, key=KEY, loop=None):
    return jax.jit(lambda k, b: views.make_views(k, b, wanted, loop=loop))(key, batch)


def test_views_survive_json_and_are_hashable():
    for name in presets.PRESETS:
        for view in presets.build(name):
            again = views.view_from(json.loads(json.dumps(dataclasses.asdict(view))))
            assert again == view and hash(again) == hash(view)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("area", (0.0, 1.0)),
        ("area", (0.5, 0.2)),
        ("ratio", (2.0, 1.0)),
        ("interpolation", "cubic"),
        ("flip_prob", 1.5),
        ("rotate_prob", -0.1),
        ("blur_sigma", (0.0, 1.0)),
        ("blur_kernel", 4),
        ("mean", (0.5,)),
    ],
)
def test_a_view_out_of_range_is_an_error_that_names_the_field(field, value):
    with pytest.raises(ValueError, match="std" if field == "mean" else field):
        View(**{field: value})


def test_a_jitter_out_of_range_is_an_error_that_names_the_field():
    for field, value in (("hue", 0.6), ("brightness", -0.1), ("probability", 2.0)):
        with pytest.raises(ValueError, match=field):
            Jitter(**{field: value})


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_makes_finite_views_in_range_for_one_and_for_five_channels(name, channels):
    small = {"local_size": 6, "local_count": 2} if name == "dino" else {}
    wanted = presets.build(name, size=8, blur_kernel=3, **small)
    found = made({"image": images(3, channels)}, wanted)
    sizes = [(3, len(g), wanted[g[0]].size, wanted[g[0]].size, channels) for g in views.groups(wanted)]
    assert [x.shape for x in found] == sizes
    for x in found:
        assert x.dtype == jnp.float32
        assert float(x.min()) >= 0 and float(x.max()) <= 1 and float(x.std()) > 0.01


def test_looping_over_examples_equals_all_at_once():
    wanted = (FULL, dataclasses.replace(FULL, size=6), FULL)
    batch = {"image": images(8)}
    for x, y in zip(made(batch, wanted, loop=True), made(batch, wanted, loop=False), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)


def test_make_views_equals_augment_with_the_documented_keys():
    batch = images(3)
    other = dataclasses.replace(FULL, blur_prob=1.0)
    found = made({"image": batch}, (FULL, other, FULL))[0]
    one = jax.jit(views.augment, static_argnums=2)
    for i in range(3):
        for v, view in enumerate((FULL, other, FULL)):
            key = jax.random.fold_in(jax.random.fold_in(KEY, i), v)
            expected = one(key, jnp.asarray(batch[i], jnp.float32) / 255, view)
            np.testing.assert_allclose(found[i, v], expected, atol=2e-5)


@pytest.mark.parametrize("loop", [True, False])
def test_what_becomes_of_an_example_does_not_depend_on_the_rest_of_the_batch(loop):
    batch = images(6)
    whole = made({"image": batch}, (FULL, FULL), loop=loop)[0]
    part = made({"image": batch[:2]}, (FULL, FULL), loop=loop)[0]
    np.testing.assert_allclose(part, whole[:2], atol=2e-5)
    others = np.concatenate([batch[:2], images(4, seed=1)])
    np.testing.assert_array_equal(made({"image": others}, (FULL, FULL), loop=loop)[0][:2], whole[:2])


def test_examples_views_and_keys_differ():
    same = np.repeat(images(1), 3, axis=0)
    found = np.asarray(made({"image": same}, (FULL, FULL))[0]).reshape(6, -1)
    again = np.asarray(made({"image": same}, (FULL, FULL), key=jax.random.key(1))[0]).reshape(6, -1)
    everything = np.concatenate([found, again])
    distances = np.abs(everything[:, None] - everything[None]).max(-1)
    assert (distances + np.eye(12) > 0.05).all()


@pytest.mark.parametrize("loop", [None, False])
def test_one_device_equals_eight(loop):
    batch = images(16)
    run = jax.jit(lambda k, x: views.make_views(k, {"image": x}, (FULL, FULL), loop=loop)[0])
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    sharded = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_allclose(run(KEY, sharded), run(KEY, batch), atol=2e-5)


def test_all_at_once_keeps_the_sharding_and_needs_no_communication_of_pixels():
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    batch = jax.ShapeDtypeStruct((16, 12, 10, 3), jnp.uint8, sharding=sharding)
    run = jax.jit(lambda k, x: views.make_views(k, {"image": x}, (FULL, FULL), loop=False)[0])
    compiled = run.lower(KEY, batch).compile()
    assert compiled.output_shardings.is_equivalent_to(sharding, 5)
    text = compiled.as_text()
    assert "all-to-all" not in text and "u8[16,12,10,3]{3,2,1,0} all-gather" not in text


def test_memory_of_a_large_batch_stays_within_a_few_copies_of_the_output():
    wanted = presets.simclr(64)
    batch = jax.ShapeDtypeStruct((64, 64, 64, 3), jnp.uint8)
    output = 64 * 2 * 64 * 64 * 3 * 4
    for loop, copies in ((True, 0.5), (False, 8)):
        run = jax.jit(lambda k, x, loop=loop: views.make_views(k, {"image": x}, wanted, loop=loop)[0])
        temporary = run.lower(KEY, batch).compile().memory_analysis().temp_size_in_bytes
        assert temporary < copies * output, (loop, temporary / output)


def test_crops_from_the_host_are_finished_as_crops_from_the_device():
    wanted = (FULL, dataclasses.replace(FULL, size=6, interpolation="bilinear"), FULL)
    crops = [views.host_crops(np.random.default_rng(i), images(1)[0], wanted) for i in range(2)]
    crops = tuple(np.stack(group) for group in zip(*crops, strict=True))
    assert [(x.shape, x.dtype.name) for x in crops] == [
        ((2, 2, 8, 8, 3), "uint8"),
        ((2, 1, 6, 6, 3), "uint8"),
    ]
    found = made({"crops": crops}, wanted)
    finish = jax.jit(views.finish, static_argnums=2)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 1), 2)
    expected = finish(key, jnp.asarray(crops[0][1, 1], jnp.float32) / 255, FULL)
    np.testing.assert_allclose(found[0][1, 1], expected, atol=2e-5)


def test_crops_that_do_not_match_the_views_and_batches_without_images_are_errors():
    with pytest.raises(ValueError, match=r"views, size, size"):
        views.make_views(KEY, {"crops": (np.zeros((2, 1, 8, 8, 3), np.uint8),)}, (FULL, FULL))
    with pytest.raises(ValueError, match="'image' or 'crops'"):
        views.make_views(KEY, {"label": np.zeros(2)}, (FULL,))


def test_host_crops_draw_as_many_numbers_whatever_the_image():
    rngs = np.random.default_rng(0), np.random.default_rng(0)
    views.host_crops(rngs[0], images(1)[0], (FULL, FULL))
    views.host_crops(rngs[1], images(1, height=40, width=4)[0], (FULL, FULL))
    assert rngs[0].random() == rngs[1].random()


def test_nothing_random_and_the_whole_image_gives_the_normalised_image():
    plain = View(
        size=8,
        area=(1.0, 1.0),
        ratio=(1.0, 1.0),
        flip_prob=0.0,
        jitter=None,
        grayscale_prob=0.0,
        blur_prob=0.0,
    )
    plain = dataclasses.replace(plain, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    batch = images(2, height=8, width=8)
    found = made({"image": batch}, (plain,))[0][:, 0]
    np.testing.assert_allclose(found, (batch / 255 - plain.mean) / plain.std, atol=1e-5)
    np.testing.assert_allclose(found, views.normalize_for_evaluation(batch, plain), atol=1e-5)


def test_every_operation_happens_as_often_as_it_should():
    quiet = {"area": (1.0, 1.0), "ratio": (1.0, 1.0), "jitter": None}
    off = {"flip_prob": 0.0, "grayscale_prob": 0.0, "blur_prob": 0.0, "solarize_prob": 0.0}
    batch = np.repeat(images(1, height=8, width=8), 400, axis=0)
    for name, probability in (
        ("flip_prob", 0.5),
        ("grayscale_prob", 0.2),
        ("blur_prob", 0.5),
        ("solarize_prob", 0.2),
    ):
        view = View(size=8, blur_kernel=3, **quiet, **{**off, name: probability})
        found = made({"image": batch}, (view,), loop=True)[0][:, 0]
        changed = np.abs(np.asarray(found) - batch / 255).max(axis=(1, 2, 3)) > 1e-3
        # A blur of width .1 to .25 changes nothing that is seen.
        assert abs(changed.mean() - probability) < 4 * (probability * (1 - probability) / 400) ** 0.5 + 0.03


def test_turned_views_are_quarter_turns_as_often_as_asked():
    options = {
        "area": (1.0, 1.0),
        "ratio": (1.0, 1.0),
        "flip_prob": 0.0,
        "jitter": None,
        "grayscale_prob": 0.0,
        "blur_prob": 0.0,
    }
    batch = {"image": images(1, 1, 8, 8).repeat(600, axis=0)}
    plain, turned = (
        np.asarray(made(batch, (View(size=8, **options, rotate_prob=p),), loop=False)[0]) for p in (0, 0.6)
    )
    quarters = np.stack([np.rot90(plain[0, 0], k) for k in range(4)])
    same = np.abs(turned - quarters).max(axis=(2, 3, 4)) < 1e-5
    assert np.all(same.sum(axis=1) == 1)
    np.testing.assert_allclose(same.mean(axis=0), (0.4, 0.2, 0.2, 0.2), atol=0.06)


def test_float_and_uint16_images_give_the_same_views_as_uint8():
    batch = images(2)
    expected = made({"image": batch}, (FULL,))[0]
    wide = batch.astype(np.uint16) * 257
    for other in (wide, (batch / 255).astype(np.float32)):
        np.testing.assert_allclose(made({"image": other}, (FULL,))[0], expected, atol=2e-4)


def test_bfloat16_crops_are_finished_in_float32():
    found = views.finish(KEY, jnp.ones((8, 8, 3), jnp.bfloat16) / 2, dataclasses.replace(FULL, size=8))
    assert found.dtype == jnp.float32


# Presets.


def test_presets_have_the_published_numbers():
    byol = presets.byol()
    assert [(v.blur_prob, v.solarize_prob) for v in byol] == [(1.0, 0.0), (0.1, 0.2)]
    assert byol[0].jitter == Jitter(0.4, 0.4, 0.2, 0.1) and byol[0].area == (0.08, 1.0)
    dino = presets.dino()
    assert [v.area for v in dino] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8
    assert [v.blur_prob for v in dino] == [1.0, 0.1] + [0.5] * 8 and dino[2].solarize_prob == 0.0
    assert presets.mae()[0].area == (0.2, 1.0) and len(presets.mae()) == 1
    assert presets.moco_v2()[0].jitter == Jitter(0.4, 0.4, 0.4, 0.1)
    assert views.blur_taps(presets.simclr()[0]) == 23
    strong, weak = presets.msf()
    assert strong == presets.moco_v2()[0]
    assert (weak.area, weak.jitter, weak.grayscale_prob, weak.blur_prob) == (strong.area, None, 0.0, 0.0)
    assert presets.msf(query="weak") == (weak, weak)
    first, *others = presets.wmse(count=4)
    assert others == [first] * 3 and (first.grayscale_prob, first.blur_prob, first.area) == (
        0.1,
        0.0,
        (0.2, 1.0),
    )


def test_overrides_reach_every_view_and_a_mapping_changes_the_jitter_in_part():
    for name in presets.PRESETS:
        wanted = presets.build(name, mean=(0.4,), std=(0.2,), jitter={"hue": 0.0, "exact": False})
        assert all(view.mean == (0.4,) for view in wanted)
        jitters = [
            view.jitter for view in wanted if view.jitter is not None
        ]  # MeanShift's weak view has none.
        assert jitters and all(jitter.hue == 0.0 and not jitter.exact for jitter in jitters)
    assert presets.byol(jitter={"hue": 0.0})[0].jitter.brightness == 0.4
    assert presets.simclr(jitter=None)[0].jitter is None


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("simclrr", {}, "simclr"),
        ("simclr", {"strenght": 0.5}, "strength"),
        ("byol", {"jitter": {"hew": 0.1}}, "hue"),
        ("dino", {"area": (0.1, 1.0)}, "global_area"),
        ("wmse", {"count": 0}, "count=0"),
    ],
)
def test_a_misspelt_preset_or_option_is_an_error_with_the_nearest_right_one(preset, options, message):
    with pytest.raises(ValueError, match=message):
        presets.build(preset, **options)
