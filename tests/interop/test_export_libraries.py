"""Exports to timm, torchvision, transformers and ONNX: the lines of use give our features, and the files are read back."""

import numpy as np
import pytest

from ssl_jax.interop import load_pretrained, write_onnx, write_timm, write_torchvision, write_transformers
from tests.interop.exported import (
    VIT,
    assert_same_arrays,
    difference,
    draw_picture,
    random_encoder,
    run_use,
)

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]
NEEDED = {
    "timm": ("timm",),
    "torchvision": ("torchvision",),
    "transformers": ("transformers", "torchvision"),
    "onnx": ("timm", "onnx", "onnxscript", "onnxruntime"),
}
TARGETS = {
    "timm": write_timm.TARGET,
    "torchvision": write_torchvision.TARGET,
    "transformers": write_transformers.TARGET,
    "onnx": write_onnx.TARGET,
}
CONVNEXT = {"depths": (1, 1, 2, 1), "widths": (8, 16, 16, 32), "size": 64}
ROTARY = {
    **VIT,
    "position": "rope",
    "registers": 2,
    "norm_epsilon": 1e-5,
    "layer_scale": 0.1,
    "key_bias": False,
}
RELATIVE = {**VIT, "position": "relative", "layer_scale": 0.1}
LIMITS = {"onnx": 1e-4}
ENCODERS = {
    "vit": ("vit_micro", VIT),
    "vit, mean, no bias": ("vit_micro", {**VIT, "pool": "mean", "qkv_bias": False, "channels": 1}),
    "vit, registers": ("vit_micro", {**VIT, "registers": 2, "layer_scale": 0.1}),
    "vit, gated": (
        "vit_micro",
        {**VIT, "mlp": "swiglu", "mlp_ratio": 5.5, "layer_scale": 0.1, "pool": "mean"},
    ),
    "vit, sincos": ("vit_micro", {**VIT, "position": "sincos", "class_token": False, "pool": "mean"}),
    "vit, clip": ("vit_micro", {**VIT, "pre_norm": True, "norm_epsilon": 1e-5, "mlp": "quick_gelu"}),
    "vit, fc_norm": ("vit_micro", {**VIT, "pool": "mean", "fc_norm": True, "mlp": "gelu_tanh"}),
    "vit, 5 channels, other size": ("vit_micro", {**VIT, "image_size": 56, "channels": 5}),
    "resnet18": ("resnet18", {"size": 48}),
    "resnet18, small, gray": ("resnet18", {"stem": "small", "channels": 1}),
    "resnet18, narrow": ("resnet18", {"width": 0.25, "size": 48}),
    "resnet50": ("resnet50", {"size": 48}),
    "vit, siglip": ("vit_micro", {**VIT, "class_token": False, "pool": "map", "mlp": "gelu_tanh"}),
    "vit, keys without bias": ("vit_micro", {**VIT, "key_bias": False, "qk_norm": True}),
    "vit, rotary": ("vit_micro", ROTARY),
    "vit, rotary, gated": (
        "vit_micro",
        {**ROTARY, "mlp": "swiglu", "mlp_ratio": 5.5, "registers": 0, "pool": "mean", "rope_base": 50.0},
    ),
    "vit, relative": ("vit_micro", {**RELATIVE, "pool": "mean", "fc_norm": True, "relative_per_block": True}),
    "vit, relative, shared": ("vit_micro", {**RELATIVE, "pool": "cls"}),
    "convnext": ("convnext_tiny", CONVNEXT),
    "convnext v2": ("convnext_tiny", {**CONVNEXT, "grn": True, "layer_scale": None, "channels": 1}),
    "convnext, dinov3": ("convnext_tiny", {**CONVNEXT, "norm_tokens": True}),
}
CASES = [
    ("vit", ("timm", "torchvision", "transformers", "onnx")),
    ("vit, mean, no bias", ("timm", "transformers")),
    ("vit, registers", ("timm", "transformers")),
    ("vit, gated", ("timm", "transformers")),
    ("vit, sincos", ("timm", "transformers")),
    ("vit, clip", ("timm", "transformers")),
    ("vit, siglip", ("timm", "transformers")),
    ("vit, keys without bias", ("timm",)),
    ("vit, rotary", ("timm", "transformers")),
    ("vit, rotary, gated", ("timm", "transformers")),
    ("vit, relative", ("timm", "transformers")),
    ("vit, relative, shared", ("timm", "transformers")),
    ("resnet18, narrow", ("onnx",)),
    ("convnext", ("timm", "torchvision", "transformers", "onnx")),
    ("convnext v2", ("timm", "transformers")),
    ("convnext, dinov3", ("timm", "transformers")),
    ("vit, fc_norm", ("timm",)),
    ("vit, 5 channels, other size", ("timm", "transformers")),
    ("resnet18", ("timm", "torchvision")),
    ("resnet18, small, gray", ("torchvision",)),
    ("resnet50", ("transformers",)),
]


def encoder_named(name):
    builder, options = ENCODERS[name]
    return random_encoder(builder, **options)


@pytest.mark.parametrize(
    ("name", "library"), [(name, library) for name, libraries in CASES for library in libraries]
)
def test_the_lines_of_use_give_the_features_of_the_encoder(name, library, tmp_path):
    for module in ("torch", *NEEDED[library]):
        pytest.importorskip(module)
    encoder = encoder_named(name)
    TARGETS[library].check(encoder)
    code = TARGETS[library].write(encoder, tmp_path)
    expected = draw_picture(encoder, tmp_path)
    assert difference(run_use(code, tmp_path), expected) < LIMITS.get(library, 1e-5)
    assert len(code.splitlines()) <= 18
    if library in ("timm", "transformers"):
        loaded = load_pretrained(str(tmp_path))
        assert loaded.preprocessing.size == encoder.preprocessing.size
        np.testing.assert_allclose(loaded.preprocessing.mean, encoder.preprocessing.mean)
        images = np.random.default_rng(0).standard_normal((2, 32, 32, encoder.channels)).astype(np.float32)
        ours, again = (e.network.apply(e.params, e.state, images)[0] for e in (encoder, loaded))
        assert difference(np.asarray(again), np.asarray(ours)) < 1e-6
        assert_same_arrays(loaded, encoder)
