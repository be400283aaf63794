"""Views as data, and whole pipelines: device counts, positions in the batch, boxes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_jax.augment import host, presets, views
from ssl_jax.augment.crop import Box, RandomResizedCrop, crop_resize
from ssl_jax.augment.operations import Blur, ColorJitter, Flip, Grayscale, Rotate, Solarize
from ssl_jax.augment.views import View
from ssl_jax.train.features import extract

KEY = jax.random.key(0)
OPS = (Flip(), ColorJitter(), Grayscale(), Blur(kernel=3), Solarize(0.3))
FULL = View(size=8, ops=OPS, mean=(0.5,), std=(0.25,))
WHOLE = RandomResizedCrop(area=(1.0, 1.0), ratio=(1.0, 1.0))


def images(count, channels=3, height=12, width=10, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def made(batch, wanted, *, key=KEY, loop=None):
    return jax.jit(lambda k, b: views.make_views(k, b, wanted, loop=loop))(key, batch)


def test_a_view_out_of_range_is_an_error_that_names_the_field():
    for field, value in (("size", 0), ("mean", (0.5,)), ("std", (0.5,))):
        with pytest.raises(ValueError, match="std" if field == "mean" else field):
            View(**{field: value})
    with pytest.raises(ValueError, match="std"):
        View(mean=(0.5,), std=(0.0,))


def test_looping_over_examples_equals_all_at_once():
    wanted = (FULL, dataclasses.replace(FULL, size=6), FULL)
    batch = {"image": images(8)}
    for x, y in zip(made(batch, wanted, loop=True), made(batch, wanted, loop=False), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)


def test_make_views_equals_augment_with_the_documented_keys():
    batch = images(3)
    other = dataclasses.replace(FULL, ops=(*OPS[:3], Blur(1.0, kernel=3)))
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
    wanted = (FULL, dataclasses.replace(FULL, size=6, crop=RandomResizedCrop(interpolation="bilinear")), FULL)
    crops = [host.host_crops(np.random.default_rng(i), images(1)[0], wanted) for i in range(2)]
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
    host.host_crops(rngs[0], images(1)[0], (FULL, FULL))
    host.host_crops(rngs[1], images(1, height=40, width=4)[0], (FULL, FULL))
    assert rngs[0].random() == rngs[1].random()


def test_nothing_random_and_the_whole_image_gives_the_normalised_image():
    plain = View(size=8, crop=WHOLE)
    plain = dataclasses.replace(plain, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    batch = images(2, height=8, width=8)
    found = made({"image": batch}, (plain,))[0][:, 0]
    np.testing.assert_allclose(found, (batch / 255 - plain.mean) / plain.std, atol=1e-5)
    np.testing.assert_allclose(found, views.normalize_for_evaluation(batch, plain), atol=1e-5)


@pytest.mark.parametrize("op", [Flip(0.5), Grayscale(0.2), Blur(0.5, kernel=3), Solarize(0.2)])
def test_every_operation_happens_as_often_as_it_should(op):
    batch = np.repeat(images(1, height=8, width=8), 400, axis=0)
    found = made({"image": batch}, (View(size=8, crop=WHOLE, ops=(op,)),), loop=True)[0][:, 0]
    changed = np.abs(np.asarray(found) - batch / 255).max(axis=(1, 2, 3)) > 1e-3
    # A blur of width .1 to .25 changes nothing that is seen.
    assert abs(changed.mean() - op.prob) < 4 * (op.prob * (1 - op.prob) / 400) ** 0.5 + 0.03


def test_rotated_views_are_quarter_turns_as_often_as_asked():
    batch = {"image": images(1, 1, 8, 8).repeat(600, axis=0)}
    plain, rotated = (
        np.asarray(made(batch, (View(size=8, crop=WHOLE, ops=ops),), loop=False)[0])
        for ops in ((), (Rotate(0.6),))
    )
    quarters = np.stack([np.rot90(plain[0, 0], k) for k in range(4)])
    same = np.abs(rotated - quarters).max(axis=(2, 3, 4)) < 1e-5
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


# Boxes.


def test_boxes_say_which_part_of_the_image_each_view_shows_mirrored_ones_too():
    batch = {"image": images(8, height=16, width=12)}
    view = View(size=8, ops=(Flip(),), boxes=True)
    viewed = jax.jit(lambda k, b: views.add_views(k, b, (view, dataclasses.replace(view, size=6))))(
        KEY, batch
    )
    boxes = np.asarray(viewed["boxes"])
    assert boxes.shape == (8, 2, 4)
    mirrored = boxes[..., 1] > boxes[..., 3]
    assert 0 < mirrored.sum() < 16
    for i in range(8):
        for v, size in enumerate((8, 6)):
            top, left, bottom, right = boxes[i, v]
            box = Box(*(int(n) for n in (top, min(left, right), bottom - top, abs(right - left))))
            pixels = jnp.asarray(batch["image"][i], jnp.float32) / 255
            crop = np.clip(crop_resize(pixels, box, size=size, interpolation="bicubic"), 0, 1)
            expected = crop[:, ::-1] if mirrored[i, v] else crop
            np.testing.assert_allclose(viewed["views"][v][i, 0], expected, atol=1e-5)


def test_boxes_of_crops_from_the_host_are_mirrored_on_the_device():
    wanted = (dataclasses.replace(FULL, boxes=True), FULL)
    image = images(1, height=16, width=12)[0]
    crops = [host.host_crops(np.random.default_rng(i), image, wanted) for i in range(6)]
    batch = {
        "crops": tuple(np.stack(group) for group in zip(*crops, strict=True)),
        "boxes": np.stack([host.host_boxes(np.random.default_rng(i), image, wanted) for i in range(6)]),
    }
    viewed = views.add_views(KEY, batch, wanted)
    found, before = np.asarray(viewed["boxes"]), batch["boxes"]
    mirrored = found[..., 1] > found[..., 3]
    assert 0 < mirrored.sum() < 12
    np.testing.assert_array_equal(np.where(mirrored[..., None], found[..., [0, 3, 2, 1]], found), before)
    for i in range(6):
        top, left, bottom, right = before[i, 0].astype(int)
        crop = host.host_crop(
            image, Box(top, left, bottom - top, right - left), size=8, interpolation="bicubic"
        )
        np.testing.assert_array_equal(crop, batch["crops"][0][i, 0])
    # The same numbers decide about the pixels: only the flip is left of the operations.
    flips = views.add_views(KEY, batch, tuple(View(size=8, ops=(Flip(),), boxes=True) for _ in wanted))
    np.testing.assert_array_equal(flips["boxes"], found)
    pixels = batch["crops"][0] / np.float32(255)
    expected = np.where(mirrored[..., None, None, None], pixels[..., ::-1, :], pixels)
    np.testing.assert_allclose(flips["views"][0], expected, atol=1e-6)


def test_boxes_of_a_part_of_the_batch_are_those_of_the_batch():
    view, batch = dataclasses.replace(FULL, boxes=True), {"image": images(6)}
    every = views.make_boxes(KEY, batch, (view, view))
    part = views.make_boxes(KEY, {"image": batch["image"][2:4]}, (view, view), positions=jnp.arange(2, 4))
    np.testing.assert_array_equal(part, every[2:4])


def test_boxes_that_nobody_asks_for_are_not_computed_and_rotated_views_have_none():
    batch = {"image": images(2)}
    assert "boxes" not in views.add_views(KEY, batch, (FULL,))
    with pytest.raises(ValueError, match=r"rotate_prob=0\.5"):
        views.add_views(KEY, batch, (View(size=8, ops=(Rotate(),), boxes=True),))
    with pytest.raises(ValueError, match="'image' or 'boxes'"):
        views.make_boxes(KEY, {"crops": (np.zeros((2, 1, 8, 8, 3), np.uint8),)}, (FULL,))


def extract_pixels(pixels):
    rows = {"label": np.zeros(2, int), "index": np.arange(2), "mask": np.ones(2, bool)}
    return extract(lambda x: x.reshape(2, -1), [{"image": pixels, **rows}], view=FULL)


TAKE_IMAGES = {
    "make_views of images": lambda x: views.make_views(KEY, {"image": x}, (FULL,)),
    "make_views of crops": lambda x: views.make_views(KEY, {"crops": (x[:, None],)}, (FULL,)),
    "add_views": lambda x: views.add_views(KEY, {"image": x}, (FULL,)),
    "normalize_for_evaluation": lambda x: views.normalize_for_evaluation(x, FULL),
    "extract": extract_pixels,
}


@pytest.mark.parametrize("call", TAKE_IMAGES)
@pytest.mark.parametrize(
    ("low", "high", "hint"),
    [
        (0, 255, "images / 255"),
        (-1, 1, r"\(images \+ 1\) / 2"),
        (np.nan, 1, "allowed is floats"),
        (0, 9e9, "allowed is floats"),
    ],
)
def test_float_images_far_outside_of_their_range_are_refused_where_they_are_handed_over(
    call, low, high, hint
):
    """They were clipped: 68 % of the pixels of views were 1, while evaluation saw 255."""
    pixels = np.linspace(low, high, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    for array in (pixels, jnp.asarray(pixels)):
        with pytest.raises(ValueError, match=hint):
            TAKE_IMAGES[call](array)


def test_what_overshoots_a_little_passes():
    """As bicubic crops of the host do."""
    crops = np.linspace(-0.12, 1.12, 2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 1, 4, 4, 3)
    (made,) = views.make_views(KEY, {"crops": (crops,)}, (View(size=4),))
    assert float(made.min()) == 0 and float(made.max()) == 1


def test_one_image_without_a_batch_axis_is_refused_in_one_line():
    image, view = np.zeros([8, 8, 3], np.uint8), View(size=8)
    with pytest.raises(ValueError, match=r"batch\['image'\]\.shape=\(8, 8, 3\): allowed is \[b, h, w, c\]"):
        views.make_views(KEY, {"image": image}, (view,))
