"""Pictures to inputs: what timm and transformers write is read, applied and written back."""

import math

import numpy as np
import pytest
from PIL import Image

from ssl_jax.augment.host import center_crop_resize
from ssl_jax.interop.preprocessing import (
    FAMILY_DEFAULTS,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    preprocessing_from_timm,
    preprocessing_from_transformers,
    preprocessing_of,
)

SHAPES = ((40, 40), (48, 64), (65, 47), (33, 34), (30, 300), (300, 30), (20, 21), (256, 341))


def picture(height, width, channels=3, seed=0):
    """Smooth shapes, edges and noise: what resizing changes most."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = 127 + 100 * np.sin(rows[..., None] / 5 + np.arange(channels)) * np.cos(columns[..., None] / 7)
    edges = ((rows // 9 + columns // 11) % 2)[..., None] * 60
    noise = rng.integers(-20, 20, (height, width, channels))
    return np.clip(smooth + edges + noise, 0, 255).astype(np.uint8)


def levels(normalized, preprocessing):
    """Undo mean and std: numbers from 0 to 255."""
    return (normalized * np.array(preprocessing.std) + np.array(preprocessing.mean)) * 255


def test_the_keys_of_timm_are_read():
    given = {
        "input_size": (3, 240, 256),
        "crop_pct": 0.95,
        "crop_mode": "squash",
        "interpolation": "bilinear",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
    }
    read = preprocessing_from_timm(given)
    assert read == Preprocessing((240, 256), "squash", 0.95, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert read.target == (math.floor(240 / 0.95), math.floor(256 / 0.95))
    plain = preprocessing_from_timm({"input_size": [3, 224, 224]})
    assert plain == Preprocessing((224, 224), "short", 0.875, "bilinear", IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crop_mode": "tiles"}, "pretrained_cfg.crop_mode='tiles'"),
        ({"interpolation": "random"}, "pretrained_cfg.interpolation='random'"),
        ({"crop_pct": 1.5}, "pretrained_cfg.crop_pct=1.5: allowed is a number above 0 and at most 1"),
        ({"input_size": (224, 224)}, "pretrained_cfg.input_size=.* 3 positive numbers"),
        ({"mean": ("red", 1, 2)}, "pretrained_cfg.mean=.* 3 numbers"),
    ],
)
def test_a_value_that_is_not_understood_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        preprocessing_from_timm({"input_size": (3, 32, 32), **given})


def test_the_keys_of_transformers_are_read():
    bit = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    assert preprocessing_from_transformers(bit) == Preprocessing((224, 224), crop_down=True)
    vit = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 48}, "resample": 2}
    read = preprocessing_from_transformers(vit)
    assert read == Preprocessing((32, 48), "squash", 1.0, "bilinear", HALF, HALF, crop_down=True)
    convnext = {
        "image_processor_type": "ConvNextFeatureExtractor",
        "size": 224,
        "crop_pct": 0.9,
        "resample": 3,
    }
    assert preprocessing_from_transformers(convnext).target == (int(224 / 0.9),) * 2
    large = preprocessing_from_transformers({**convnext, "size": {"shortest_edge": 384}})
    assert (large.resize, large.target, large.size) == ("squash", (384, 384), (384, 384))
    old = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": 224,
        "crop_size": 224,
        "do_center_crop": True,
    }
    assert preprocessing_from_transformers(old)[:4] == ((224, 224), "short", 1.0, "bicubic")
    with pytest.raises(ValueError, match="resample=9"):
        preprocessing_from_transformers({**vit, "resample": 9})
    with pytest.raises(ValueError, match=r"crop_size=.*at most the size"):
        preprocessing_from_transformers({**bit, "size": {"shortest_edge": 64}})


def test_numbers_that_are_not_rescaled_or_normalised_are_read_so():
    plain = {"size": {"height": 4, "width": 4}, "resample": 2, "do_normalize": False}
    image = picture(4, 4)
    np.testing.assert_allclose(preprocessing_from_transformers(plain).apply(image), image / 255, atol=1e-6)
    raw = preprocessing_from_transformers({**plain, "do_rescale": False})
    np.testing.assert_allclose(raw.apply(image), image, atol=1e-3)
    both = preprocessing_from_transformers(
        {
            **plain,
            "rescale_factor": 1 / 127.5,
            "do_normalize": True,
            "image_mean": 1.0,
            "image_std": [1, 1, 1],
        }
    )
    np.testing.assert_allclose(both.apply(image), image / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("family", FAMILY_DEFAULTS)
def test_what_a_family_expects_is_written_and_read_back(family):
    expected = preprocessing_of({}, family=family)
    assert preprocessing_from_timm(expected.to_timm()) == expected
    read = preprocessing_from_transformers(expected.to_transformers())
    assert read._replace(
        crop_down=False, crop_ratio=expected.crop_ratio, mean=(), std=()
    ) == expected._replace(mean=(), std=())
    assert read.target == expected.target
    np.testing.assert_allclose((read.mean, read.std), (expected.mean, expected.std), rtol=1e-12)


def test_facts_beside_the_weights_count_more_than_the_family():
    timm = {"pretrained_cfg": {"input_size": (3, 96, 96), "crop_pct": 1.0, "interpolation": "bicubic"}}
    assert preprocessing_of(timm, family="clip").size == (96, 96)
    assert preprocessing_of({"preprocessor": {"size": 40}}, family="clip").resize == "squash"
    assert preprocessing_of({}, family="clip", size=(32, 48)).size == (32, 48)
    gray = preprocessing_of({}, family="dino", channels=1)
    assert gray.mean == (pytest.approx(sum(IMAGENET_MEAN) / 3),)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_evaluation_loader_makes_the_same_pixels_of_bicubic_short_sides(shape):
    preprocessing = Preprocessing((32, 32), crop_ratio=0.9)
    view, crop_ratio = preprocessing.as_view()
    image = picture(*shape)
    ours = center_crop_resize(image, view.size, ratio=crop_ratio)
    difference = np.abs(preprocessing.crop(image).astype(int) - ours)
    assert difference.max() <= (0 if max(shape) <= 4 * min(shape) else 4)


def test_a_line_of_pixels_is_not_resized_as_a_whole():
    line = picture(1, 60_000)
    whole = Preprocessing((24, 24), crop_ratio=1.0).crop(line)
    assert whole.shape == (24, 24, 3)
    assert np.abs(whole - line[:, 30_000].astype(float)).max() <= 100  # one pixel and its neighbours


def test_a_part_is_resized_as_in_the_whole(monkeypatch):
    wide, preprocessing = picture(30, 1500), Preprocessing((24, 24), crop_ratio=1.0, interpolation="bilinear")
    as_whole = preprocessing.crop(wide)
    monkeypatch.setattr("ssl_jax.interop.preprocessing.PIXELS", 0)
    assert np.abs(preprocessing.crop(wide).astype(int) - as_whole).max() <= 1


def test_images_of_every_kind_become_the_same_input():
    preprocessing = Preprocessing((16, 16), crop_ratio=1.0)
    image = picture(30, 20)
    expected = preprocessing.apply(image)
    np.testing.assert_array_equal(preprocessing.apply(Image.fromarray(image)), expected)
    bilinear = preprocessing._replace(interpolation="bilinear")
    for other in (image.astype(np.uint16) * np.uint16(257), image / 255):
        assert (
            np.abs(
                levels(bilinear.apply(other) - bilinear.apply(image), bilinear._replace(mean=(0.0,) * 3))
            ).max()
            < 1
        )
    opaque = np.concatenate([image, np.full((30, 20, 1), 255, np.uint8)], -1)
    np.testing.assert_array_equal(preprocessing.apply(Image.fromarray(opaque)), expected)
    gray = picture(30, 20, 1)
    as_rgb = preprocessing.apply(np.repeat(gray, 3, -1))
    np.testing.assert_array_equal(preprocessing.apply(gray), as_rgb)
    np.testing.assert_array_equal(preprocessing.apply(gray[..., 0]), as_rgb)
    np.testing.assert_array_equal(preprocessing.apply(Image.fromarray(gray[..., 0])), as_rgb)


def test_transparent_pixels_are_white_and_pictures_upright():
    preprocessing = Preprocessing((8, 8), crop_ratio=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    np.testing.assert_array_equal(preprocessing.apply(clear), np.ones((8, 8, 3)))
    image = picture(8, 8)
    turned = Image.fromarray(np.rot90(image, 1))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.info["exif"] = exif.tobytes()
    np.testing.assert_array_equal(preprocessing.crop(turned), np.rot90(np.rot90(image, 1), -1))


def test_many_channels_are_resized_one_by_one():
    preprocessing = Preprocessing((12, 12), crop_ratio=1.0, mean=(0.5,) * 5, std=(0.5,) * 5)
    image = picture(20, 30, 5)
    made = preprocessing.crop(image)
    for c in range(5):
        alone = preprocessing._replace(mean=(0.5,), std=(0.5,)).crop(image[..., c])
        assert np.abs(made[..., c : c + 1].astype(int) - alone).max() <= 1


@pytest.mark.parametrize(
    "image", ["cat.png", np.zeros((2, 3, 4, 5), np.uint8), np.zeros((4, 4, 3), np.int64)]
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ValueError, match=r"image=.*: allowed is a picture of PIL"):
        Preprocessing((8, 8)).apply(image)


def test_what_transformers_cannot_say_is_refused():
    with pytest.raises(ValueError, match="resize='border': allowed is short or squash"):
        Preprocessing((8, 8), "border").to_transformers()
    with pytest.raises(ValueError, match="a square in transformers"):
        Preprocessing((8, 16)).to_transformers()
    with pytest.raises(ValueError, match="a square: views are"):
        Preprocessing((8, 16)).as_view()


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (33, 33), (24, 40)])
def test_pixels_equal_those_of_timm(mode, interpolation, size):
    pytest.importorskip("torchvision")
    create = pytest.importorskip("timm.data").create_transform
    for pct in (0.875, 0.9, 1.0):
        preprocessing = preprocessing_from_timm(
            {"input_size": (3, *size), "crop_pct": pct, "crop_mode": mode, "interpolation": interpolation}
        )
        transform = create(
            input_size=(3, *size),
            crop_pct=pct,
            crop_mode=mode,
            interpolation=interpolation,
            is_training=False,
        )
        for shape in SHAPES:
            image = picture(*shape)
            theirs = transform(Image.fromarray(image)).numpy().transpose(1, 2, 0)
            np.testing.assert_allclose(
                preprocessing.apply(image), theirs, rtol=0, atol=2e-6, err_msg=str(shape)
            )


PROCESSORS = {
    "bit": ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
    "clip": ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    "vit": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "siglip": ("SiglipImageProcessor", {"size": {"height": 24, "width": 40}}),
    "deit": (
        "DeiTImageProcessor",
        {"size": {"height": 37, "width": 37}, "crop_size": {"height": 32, "width": 32}},
    ),
    "beit": ("BeitImageProcessor", {"size": {"height": 32, "width": 32}, "do_center_crop": False}),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}}),
    "dinov3": ("DINOv3ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
}


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("backend", ["torchvision", "pil"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_within_a_level_of_those_of_transformers(name, backend):
    pytest.importorskip("torchvision")
    transformers = pytest.importorskip("transformers")
    kind, options = PROCESSORS[name]
    kind = kind if backend == "torchvision" else f"{kind}Pil"
    if not hasattr(transformers, kind):
        pytest.skip(f"transformers has no {kind}")
    inexact = backend == "torchvision"  # its bicubic filter of uint8 tensors has weights of 16 bits
    for resample in (2, 3) if name != "dinov3" else (2,):
        processor = getattr(transformers, kind)(**options, resample=resample)
        preprocessing = preprocessing_from_transformers(processor.to_dict())
        for shape in SHAPES:
            image = picture(*shape)
            theirs = processor(images=Image.fromarray(image), return_tensors="np")["pixel_values"][0]
            theirs = levels(np.transpose(theirs, (1, 2, 0)), preprocessing)
            difference = np.abs(levels(preprocessing.apply(image), preprocessing) - theirs)
            assert np.mean(difference > 1.01) <= (0.01 if inexact and resample == 3 else 0), (
                shape,
                resample,
            )
            assert difference.max() <= (3.01 if inexact and resample == 3 else 1.01 if inexact else 1e-3), (
                shape
            )


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "preprocessing", [Preprocessing((32, 32)), Preprocessing((24, 40), "squash", 1.0, "bilinear")]
)
def test_what_is_written_for_transformers_is_what_it_does(preprocessing, tmp_path):
    transformers = pytest.importorskip("transformers")
    import json

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessing.to_transformers()))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    for shape in ((48, 64), (40, 41)):
        image = picture(*shape)
        theirs = processor(images=Image.fromarray(image), return_tensors="np")["pixel_values"][0]
        ours = preprocessing._replace(crop_down=True).apply(image)
        assert (
            np.abs(levels(ours - theirs.transpose(1, 2, 0), preprocessing._replace(mean=(0.0,) * 3))).max()
            <= 1.01
        )
