"""Boxes and resampling against torchvision's and PIL's numbers, and against bounds."""

import math
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax.augment import crop, host
from ssl_jax.augment.views import View
from tests.golden_files import assert_close, golden

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
G = golden("augment")
IMAGE = np.moveaxis(G["in__img"], 0, -1)
IMAGE_U8 = np.moveaxis(G["in__img_u8"], 0, -1)
BOXES = [crop.Box(*(int(n) for n in row)) for row in G["in__boxes"]]


def dense_crop(image, box, size, interpolation):
    """Independent oracle: weights of the antialiased filter over the box for each output pixel."""

    def kernel(x):
        x = abs(x)
        if interpolation == "bilinear":
            return max(0.0, 1 - x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    def matrix(length):
        scale = length / size
        stretch = max(scale, 1.0)
        rows = [[kernel((j + 0.5 - (i + 0.5) * scale) / stretch) for j in range(length)] for i in range(size)]
        rows = np.array(rows)
        return rows / rows.sum(1, keepdims=True)

    part = image[box.top : box.top + box.height, box.left : box.left + box.width]
    return np.einsum("yh,hwc,xw->yxc", matrix(box.height), part, matrix(box.width))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", crop.INTERPOLATIONS)
def test_crop_resize_equals_torchvision_in_both_precisions(interpolation, antialias):
    for x64, tolerance in ((False, 1e-5), (True, 1e-8)):
        with jax.enable_x64(x64):
            image = jnp.asarray(IMAGE, jnp.float64 if x64 else jnp.float32)
            resize = jax.jit(
                lambda box, image: crop.crop_resize(
                    image, crop.Box(*box), size=32, interpolation=interpolation, antialias=antialias
                )
            )
            for i, box in enumerate(BOXES):
                expected = G[f"tv_crop{i}_{interpolation}_{'aa' if antialias else 'noaa'}__out__y"]
                found = np.moveaxis(np.asarray(resize(jnp.array(box), image)), -1, 0)
                assert_close(found, expected, tolerance=tolerance)


@pytest.mark.long
@pytest.mark.parametrize("size", [5, 16, 48])
def test_crop_resize_equals_a_dense_oracle_where_windows_and_blocks_do_not_divide_evenly(size):
    for interpolation in crop.INTERPOLATIONS:
        found = crop.crop_resize(
            jnp.asarray(IMAGE, jnp.float32), BOXES[1], size=size, interpolation=interpolation
        )
        assert_close(found, dense_crop(IMAGE, BOXES[1], size, interpolation), tolerance=1e-5)


def test_crop_resize_of_a_box_of_its_own_size_is_the_box():
    image = jnp.asarray(IMAGE, jnp.float32)
    for interpolation in crop.INTERPOLATIONS:
        found = crop.crop_resize(image, crop.Box(3, 5, 16, 16), size=16, interpolation=interpolation)
        np.testing.assert_allclose(found, image[3:19, 5:21], atol=1e-6)


def test_crop_resize_reads_nothing_outside_the_box_and_sends_no_gradient_there():
    image = jnp.asarray(IMAGE[:20, :20], jnp.float32)
    box = crop.Box(4, 6, 9, 7)
    gradient = jax.grad(lambda x: crop.crop_resize(x, box, size=8, interpolation="bicubic").sum())(image)
    outside = np.ones((20, 20), bool)
    outside[4:13, 6:13] = False
    assert not np.asarray(gradient)[outside].any()
    np.testing.assert_allclose(gradient.sum(), 8 * 8 * 3, rtol=1e-5)


def test_crop_resize_is_the_same_jitted_mapped_and_one_by_one():
    image = jnp.asarray(IMAGE, jnp.float32)
    boxes = crop.Box(*jnp.array([list(b) for b in BOXES]).T)
    together = jax.jit(jax.vmap(lambda box: crop.crop_resize(image, box, size=8)))(boxes)
    for i, box in enumerate(BOXES):
        np.testing.assert_allclose(together[i], crop.crop_resize(image, box, size=8), atol=1e-6)


def test_crop_resize_computes_bfloat16_images_in_float32():
    image = jnp.asarray(IMAGE, jnp.bfloat16)
    found = crop.crop_resize(image, BOXES[1], size=8)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, crop.crop_resize(image.astype(jnp.float32), BOXES[1], size=8), atol=1e-6
    )


def test_unknown_interpolation_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"interpolation='cubic'.*bicubic"):
        crop.crop_resize(jnp.zeros((4, 4, 1)), crop.Box(0, 0, 4, 4), size=2, interpolation="cubic")


@pytest.mark.parametrize(("height", "width"), [(32, 32), (480, 640), (33, 7)])
def test_box_is_the_same_on_host_and_device_bit_for_bit(height, width):
    uniforms = np.random.default_rng(0).random((600, 10, 4), dtype=np.float32)
    uniforms[:2, :] = [[[0.0]], [[1 - 2.0**-24]]]
    options = {"area": AREA, "ratio": RATIO}
    device = jax.jit(jax.vmap(lambda u: crop.sample_box(u, height, width, **options)))(uniforms)
    on_host = [crop.sample_box(u, height, width, **options, xp=np) for u in uniforms]
    np.testing.assert_array_equal(np.stack(device, axis=1), np.array(on_host))


def test_boxes_lie_inside_with_areas_and_ratios_within_bounds_and_the_right_mean():
    keys = jax.random.split(jax.random.key(1), 4000)
    random_crop = crop.RandomResizedCrop(area=(0.1, 0.4), ratio=RATIO)
    boxes = jax.vmap(lambda k: random_crop.choose(jax.random.uniform(k, (random_crop.draws,)), 240, 240))(
        keys
    )
    top, left, height, width = (np.asarray(x) for x in boxes)
    assert (top >= 0).all() and (left >= 0).all() and (height > 0).all() and (width > 0).all()
    assert (top + height <= 240).all() and (left + width <= 240).all()
    area, ratio = height * width / 240**2, width / height
    # Sides are rounded to whole pixels: half a pixel on sides of 65 and more.
    assert area.min() >= 0.1 * (1 - 0.5 / 65) ** 2 and area.max() <= 0.4 * (1 + 0.5 / 65) ** 2
    assert ratio.min() >= RATIO[0] * (1 - 0.5 / 65) ** 2 and ratio.max() <= RATIO[1] * (1 + 0.5 / 65) ** 2
    # Means of U(.1, .4) and of the log ratio, within 4 standard errors; positions reach both ends.
    assert abs(area.mean() - 0.25) < 4 * 0.3 / 12**0.5 / 4000**0.5
    assert abs(np.log(ratio).mean()) < 4 * np.log(16 / 9) / 12**0.5 / 4000**0.5
    assert top.min() == 0 and (top + height).max() == 240


def test_box_follows_the_plain_float64_formula_up_to_rounding_at_half_pixels():
    uniforms = np.random.default_rng(2).random((500, 1, 4), dtype=np.float32)
    for u in uniforms:
        area = (AREA[0] + float(u[0, 0]) * (AREA[1] - AREA[0])) * 100 * 120
        ratio = np.exp(np.log(RATIO[0]) + float(u[0, 1]) * np.log(RATIO[1] / RATIO[0]))
        width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if min(abs(width % 1 - 0.5), abs(height % 1 - 0.5)) < 1e-3:
            continue
        width, height = round(width), round(height)
        if width > 120 or height > 100:
            continue
        expected = (int(u[0, 2] * (100 - height + 1)), int(u[0, 3] * (120 - width + 1)), height, width)
        assert tuple(crop.sample_box(u, 100, 120, area=AREA, ratio=RATIO, xp=np)) == expected


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (30, 30, (0, 0, 30, 30)),
        (10, 90, (0, 38, 10, 13)),
        (90, 10, (38, 0, 13, 10)),
        (12, 14, (0, 0, 12, 14)),
    ],
)
def test_no_fitting_try_falls_back_to_the_largest_centred_box(height, width, expected):
    # The largest area at the most extreme ratio never fits.
    uniforms = np.full((10, 4), 1 - 2.0**-24, np.float32)
    box = crop.sample_box(uniforms, height, width, area=(1.0, 1.0), ratio=RATIO, xp=np)
    assert tuple(int(n) for n in box) == expected


def test_first_fitting_try_counts():
    uniforms = np.full((10, 4), 1 - 2.0**-24, np.float32)
    uniforms[3] = [0.2, 0.5, 0.0, 0.0]
    uniforms[4] = [0.1, 0.5, 0.9, 0.9]
    box = crop.sample_box(uniforms, 32, 32, area=AREA, ratio=RATIO, xp=np)
    assert tuple(box) == tuple(crop.sample_box(uniforms[3:4], 32, 32, area=AREA, ratio=RATIO, xp=np))
    assert tuple(box)[:2] == (0, 0)


# Host twins.


@pytest.mark.parametrize("interpolation", crop.INTERPOLATIONS)
def test_host_crop_of_uint8_equals_pil_exactly(interpolation):
    for i, box in enumerate(BOXES):
        found = host.host_crop(IMAGE_U8, box, size=32, interpolation=interpolation)
        np.testing.assert_array_equal(found, G[f"pil_crop{i}_{interpolation}__out__y"])


@pytest.mark.parametrize("interpolation", crop.INTERPOLATIONS)
def test_device_crop_is_within_one_level_of_pil_but_where_bicubic_overshoot_is_clipped_between_passes(
    interpolation,
):
    image = jnp.asarray(IMAGE, jnp.float32)
    resize = jax.jit(
        lambda box: crop.crop_resize(image, crop.Box(*box), size=32, interpolation=interpolation)
    )
    for i, box in enumerate(BOXES):
        levels = np.clip(resize(jnp.array(box)), 0, 1) * 255
        difference = np.abs(levels - G[f"pil_crop{i}_{interpolation}__out__y"])
        # PIL rounds and clips after each of the two passes; only hard edges, enlarged, show it.
        assert difference.max() <= (1.0 if interpolation == "bilinear" else 8.1)
        assert (difference > 1.0).mean() <= 0.006


@pytest.mark.parametrize("interpolation", crop.INTERPOLATIONS)
def test_device_crop_agrees_with_the_host_for_every_dtype(interpolation):
    box, image = BOXES[3], jnp.asarray(IMAGE, jnp.float32)
    device = np.asarray(crop.crop_resize(image, box, size=32, interpolation=interpolation))
    pixels = {
        "uint8": IMAGE_U8,
        "uint16": np.rint(IMAGE * 65535).astype(np.uint16),
        "float32": IMAGE.astype(np.float32),
    }
    for name, levels, tolerance in (("uint8", 255, 1.1 / 255), ("uint16", 65535, 2e-5), ("float32", 1, 1e-5)):
        found = host.host_crop(pixels[name], box, size=32, interpolation=interpolation)
        assert found.dtype == name
        reference = device if name == "float32" else np.clip(device, 0, 1)
        np.testing.assert_allclose(found / levels, reference, atol=tolerance)


def test_host_crop_takes_any_number_of_channels():
    five = np.concatenate([IMAGE_U8, IMAGE_U8[..., :2]], axis=-1)
    found = host.host_crop(five, BOXES[1], size=16, interpolation="bicubic")
    three = host.host_crop(IMAGE_U8, BOXES[1], size=16, interpolation="bicubic")
    assert found.dtype == np.uint8 and found.shape == (16, 16, 5)
    assert np.abs(found[..., :3].astype(int) - three).max() <= 1
    one = host.host_crop(IMAGE_U8[..., :1], BOXES[1], size=16, interpolation="bicubic")
    np.testing.assert_array_equal(one, three[..., :1])


def test_evaluation_crop_keeps_an_image_of_the_right_size_and_centres_others():
    square = IMAGE_U8[:32, :32]
    np.testing.assert_array_equal(host.center_crop_resize(square, 32), square)
    bright = np.zeros((40, 80, 1), np.uint8)
    bright[:, 20:60] = 200
    assert (host.center_crop_resize(bright, 20) >= 180).mean() > 0.9
    assert host.center_crop_resize(IMAGE_U8, 24, ratio=0.875).shape == (24, 24, 3)
    with pytest.raises(ValueError, match=r"ratio=0\.0"):
        host.center_crop_resize(IMAGE_U8, 24, ratio=0.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("area", (0.0, 1.0)), ("area", (0.5, 0.2)), ("ratio", (2.0, 1.0)), ("interpolation", "cubic")],
)
def test_a_crop_out_of_range_is_an_error_that_names_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        crop.RandomResizedCrop(**{field: value})


# Hostile ratios of the sides.

THIN = [(1, 10_000), (10_000, 1), (2, 65_535), (65_535, 2), (1, 1), (1, 30_000), (7, 29)]


@pytest.mark.parametrize("shape", THIN)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_evaluation_crop_takes_memory_by_its_input_and_output_whatever_the_ratio(
    monkeypatch, shape, dtype
):
    """1 x 10,000 pixels, 30 kB, took 4.8 GB and 12 s."""
    made = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *rest: made.append(size) or resize(self, size, *rest)
    )
    image = np.full((*shape, 3), 1 if dtype == "float32" else np.iinfo(dtype).max, dtype)
    tracemalloc.start()
    crops = [host.center_crop_resize(image, 64, ratio=0.875)]
    crops += host.host_crops(np.random.default_rng(0), image, (View(size=64), View(size=32)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [x.shape[-3:] for x in crops] == [(64, 64, 3), (64, 64, 3), (32, 32, 3)]
    for crop_of_one_colour in crops:
        np.testing.assert_allclose(crop_of_one_colour, image.max(), rtol=1e-5)
    assert all(width * height <= 4 * 73**2 + 73 for width, height in made) and len(made) == 3 * (
        dtype == "uint8"
    )
    assert peak < 2**21


@pytest.mark.parametrize("interpolation", crop.INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(11, 60), (64, 9), (7, 100)])
def test_the_centre_of_a_long_image_is_that_of_the_image_resized_as_a_whole(
    monkeypatch, shape, interpolation
):
    floats = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    for image, tolerance in ((np.rint(255 * floats).astype(np.uint8), 1), (floats, 1e-5)):
        found = host.center_crop_resize(image, 24, ratio=0.75, interpolation=interpolation)
        with monkeypatch.context() as patch:
            patch.setattr(host, "LONG", 1000)
            whole = host.center_crop_resize(image, 24, ratio=0.75, interpolation=interpolation)
        assert np.abs(found.astype(float) - whole).max() <= tolerance


def largest_intermediate(shape):
    """Numbers in the largest array that a crop of an image on the device goes through."""
    traced = jax.make_jaxpr(lambda x, top: crop.crop_resize(x, crop.Box(top, 0, 1, 1), size=224))(
        jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    )
    sizes, jaxprs = [], [traced.jaxpr]
    while jaxprs:
        for equation in jaxprs.pop().eqns:
            sizes += [math.prod(variable.aval.shape) for variable in equation.outvars]
            jaxprs += [p.jaxpr for p in equation.params.values() if hasattr(p, "jaxpr")]
    return max(sizes)


def test_a_crop_on_the_device_takes_no_more_memory_than_of_a_photograph_of_as_many_pixels():
    photograph = largest_intermediate((100, 100, 3))
    for shape in ((1, 10_000, 3), (10_000, 1, 3), (25, 400, 3), (400, 25, 3)):
        assert largest_intermediate(shape) <= 4 * photograph


@pytest.mark.parametrize("shape", [(6, 60, 3), (60, 6, 3)])
def test_crops_of_long_images_on_device_and_host_agree(shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    box = crop.Box(0, shape[1] // 3, min(5, shape[0]), min(5, shape[1] // 3))
    found = crop.crop_resize(jnp.asarray(image), box, size=8)
    np.testing.assert_allclose(found, host.host_crop(image, box, size=8), atol=1e-5)


@pytest.mark.parametrize("ratio", [(0.1, 0.4), (3.0, 5.0)])
def test_a_box_has_a_pixel_at_least(ratio):
    for height, width in ((1, 1), (1, 50), (50, 1)):
        box = crop.sample_box(np.full((10, 4), 0.5, np.float32), height, width, area=AREA, ratio=ratio, xp=np)
        assert box.height >= 1 and box.width >= 1
