"""What other libraries cannot express is refused with the reason; what an encoder computes from options becomes arrays."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax import models
from ssl_jax.core import trees
from ssl_jax.interop import snippets, write_onnx, write_timm, write_torchvision, write_transformers
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.interop.write_files import Encoder, encoder_of, settled
from tests.interop.exported import VIT, difference, random_encoder

TARGETS = {
    "timm": write_timm.TARGET,
    "torchvision": write_torchvision.TARGET,
    "transformers": write_transformers.TARGET,
    "onnx": write_onnx.TARGET,
}
CONVNEXT = {"depths": (1, 1, 1, 1), "widths": (4, 4, 4, 8)}


@pytest.mark.parametrize(
    ("library", "name", "options", "message"),
    [
        ("timm", "convnet", {}, "timm has no convnet: export it to ssl_jax or stablehlo"),
        (
            "timm",
            "resnet18",
            {"stem": "small"},
            "timm has no resnet18 with stem='small': allowed is 'imagenet'",
        ),
        ("timm", "resnet18", {"width": 2.0}, r"with width=2.0: allowed is 1.0"),
        ("timm", "resnet18", {"norm": "group"}, "with norm='group': allowed is 'batch'"),
        ("timm", "resnet18", {"sobel": True}, "with sobel=True: allowed is False"),
        ("timm", "vit_micro", {"norm_epsilon": 1e-12}, "with norm_epsilon=1e-12: allowed is 1e-06 or 1e-05"),
        ("timm", "vit_micro", {"patch_bias": False}, "with patch_bias=False: allowed is None or True"),
        ("timm", "convnext_tiny", {**CONVNEXT, "stem_patch": 2}, "stem_patch=2"),
        ("torchvision", "resnet50", {"width": 2.0}, "torchvision has no resnet50 with width=2.0"),
        ("torchvision", "vit_micro", {"registers": 2}, "with registers=2: allowed is 0"),
        ("torchvision", "vit_micro", {"pool": "mean"}, "with pool='mean': allowed is 'cls'"),
        ("torchvision", "vit_micro", {"qkv_bias": False}, "with qkv_bias=False: allowed is True"),
        ("torchvision", "convnext_tiny", {**CONVNEXT, "grn": True}, "with grn=True: allowed is False"),
        ("transformers", "vit_micro", {"fc_norm": True}, "with fc_norm=True: allowed is False"),
        ("transformers", "vit_micro", {"qk_norm": True}, "with qk_norm=True: allowed is False"),
        ("transformers", "convnet", {}, "transformers has no convnet"),
        (
            "onnx",
            "convnet",
            {},
            "onnx graphs are made of torch models, and none fits: timm has no convnet",
        ),
    ],
)
def test_what_a_library_cannot_express_is_refused_with_the_reason(library, name, options, message):
    encoder = Encoder(models.build(name, **options), {}, {}, Preprocessing((32, 32)))
    with pytest.raises(ValueError, match=message) as caught:
        TARGETS[library].check(encoder)
    assert "\n" not in str(caught.value)


def test_libraries_that_are_missing_are_named_before_anything_is_written(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "onnx" in name else found(name, *rest)
    )
    encoder = random_encoder("vit_micro", **VIT)
    with pytest.raises(
        ImportError, match=r"need .*onnx, onnxscript, onnxruntime: pip install 'ssl-jax\[onnx\]'"
    ):
        write_onnx.TARGET.check(encoder)


def test_torchvision_s_transformers_know_three_channels_only():
    encoder = Encoder(models.build("vit_micro"), {}, {}, Preprocessing((32, 32), mean=(0.5,), std=(0.5,)))
    with pytest.raises(ValueError, match="channels=1: allowed is 3 with torchvision"):
        write_torchvision.to_torchvision(encoder)


def test_sizes_without_whole_patches_are_refused():
    encoder = random_encoder("vit_micro", size=36, **VIT)
    with pytest.raises(ValueError, match=r"preprocessing.size=\(36, 36\): allowed is a square"):
        settled(encoder)
    relative = random_encoder("vit_micro", **{**VIT, "position": "relative"})
    with pytest.raises(ValueError, match="that of the relative positions"):
        settled(relative._replace(preprocessing=Preprocessing((64, 64))))


@pytest.mark.parametrize(
    "options",
    [{"image_size": 56}, {"image_size": 48, "position": "sincos"}, {"key_bias": False, "qk_norm": True}],
)
def test_arrays_stand_in_for_options(options):
    encoder = random_encoder("vit_micro", **{**VIT, **options})
    plain = settled(encoder)
    assert plain.network.config["image_size"] == 32 and plain.network.config["key_bias"]
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    before, after = (e.network.apply(e.params, e.state, images)[0] for e in (encoder, plain))
    assert difference(np.asarray(after), np.asarray(before)) < 1e-5


def test_lora_is_merged():
    network = models.build("vit_micro", **VIT, lora_rank=2)
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    params = trees.map_with_path(
        lambda _, x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32), params
    )
    encoder = encoder_of(network, params, state, Preprocessing((32, 32)))
    assert not any("lora" in name for name in encoder.network.config)
    images = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
    merged = encoder.network.apply(encoder.params, encoder.state, images)[0]
    assert difference(np.asarray(merged), np.asarray(network.apply(params, state, images)[0])) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop_ratio": 0.9, "interpolation": "bilinear", "crop_down": True},
        {"resize": "squash"},
        {"resize": "squash", "crop_ratio": 1.0},
        {"resize": "border", "crop_ratio": 1.0},
        {"size": (24, 40)},
    ],
)
def test_the_lines_of_use_make_the_pixels_that_the_encoder_sees(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = random_encoder("vit_micro", **VIT)
    preprocessing = encoder.preprocessing._replace(**{"crop_ratio": 0.875, **options})
    lines = "\n".join(snippets.unit_pixels(encoder._replace(preprocessing=preprocessing)))
    for height, width in ((32, 32), (75, 51), (51, 76), (20, 10), (33, 200)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save("photo.png")
        names = {"np": np, "Image": Image}
        exec(lines, names)
        np.testing.assert_array_equal(names["pixels"], preprocessing.crop(pixels) / np.float32(255))
