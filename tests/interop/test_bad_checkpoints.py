"""What is no checkpoint, or not one that is known: one line that says why, nothing executed, nothing written."""

import re
import sys
import time

import jax
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax import models
from ssl_jax.interop import beit, convnext, load_pretrained, resnet, timm_vit
from ssl_jax.interop.family import Weights, recognize
from ssl_jax.interop.pretrained import FAMILIES
from ssl_jax.models.serialize import save_encoder
from ssl_jax.models.torch_names_vit import vit_to_torch

NETWORK = models.build("vit_micro", width=32, depth=3, heads=2, patch=8, image_size=16)
VARIABLES = NETWORK.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
ARRAYS = {name: np.asarray(array) for name, array in vit_to_torch(*VARIABLES, NETWORK).items()}


@pytest.fixture
def folder(tmp_path):
    """Folder in which a failed reading leaves nothing."""
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".tmp", ".part", "evil"))]


def message(file, **options):
    with pytest.raises(ValueError) as caught:
        load_pretrained(str(file), **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


def save(folder, arrays, name="a.safetensors"):
    safetensors.numpy.save_file(arrays, folder / name)
    return folder / name


def test_the_file_itself_is_fine(folder):
    loaded = load_pretrained(str(save(folder, ARRAYS)), heads=2, pool=NETWORK.config["pool"])
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    ours, theirs = (n.apply(p, s, images)[0] for n, p, s in ((NETWORK, *VARIABLES), loaded[:3]))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("empty.pth", b"", "this one is empty"),
        ("page.pth", b"<!DOCTYPE html><html><body>404</body></html>", "it is a web page"),
        ("page.safetensors", b"\n <html></html>", "it is a web page"),
        ("pointer.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        ("answer.pth", b'{"error": "not found"}', "it is JSON text"),
        ("keras.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "it is HDF5"),
        ("one.npy", b"\x93NUMPY\x01\x00" + bytes(100), "it is one array of NumPy"),
        ("packed.gz", b"\x1f\x8b\x08" + bytes(50), "compressed by gzip"),
        ("noise.pth", bytes(range(200, 256)) * 9, "begins like none of .safetensors, .npz"),
        ("pickle.pkl", b"\x80\x04\x95" + bytes(40), "is a pickle, which is never executed"),
        ("short.zip", b"PK\x03\x04" + bytes(40), "cut off or damaged"),
    ],
)
def test_what_is_no_file_with_weights(folder, name, data, says):
    (folder / name).write_bytes(data)
    text = message(folder / name)
    assert says in text
    assert name in text


def test_a_file_that_is_not_there_and_folders_without_weights(folder):
    assert "allowed is an existing file or folder, hf:owner/name or timm:name" in message(folder / "no.pth")
    assert "this one has none" in message(folder)
    (folder / "config.json").write_text("{")
    save(folder, ARRAYS, "model.safetensors")
    assert "config.json is not JSON" in message(folder)


def test_files_that_were_cut_off(folder):
    data = save(folder, ARRAYS).read_bytes()
    for length in (9, 300, len(data) // 2, len(data) - 1):
        (folder / "cut.safetensors").write_bytes(data[:length])
        assert "whole .safetensors file" in message(folder / "cut.safetensors")
    np.savez(folder / "a.npz", **ARRAYS)
    data = (folder / "a.npz").read_bytes()
    for length in (200, len(data) // 2, len(data) - 10):
        (folder / "cut.npz").write_bytes(data[:length])
        assert "cut off or damaged" in message(folder / "cut.npz")
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 255
    (folder / "bad.npz").write_bytes(damaged)
    assert "cannot be read" in message(folder / "bad.npz")


def test_damaged_headers_of_safetensors(folder):
    for header in (b'{"a": 3}', b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 99]}}', b"{" * 40):
        data = len(header).to_bytes(8, "little") + header + bytes(16)
        (folder / "a.safetensors").write_bytes(data)
        assert "whole .safetensors file" in message(folder / "a.safetensors")
    eighth = b'{"w": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}}'
    (folder / "a.safetensors").write_bytes(len(eighth).to_bytes(8, "little") + eighth + bytes(16))
    assert "w is F8_E4M3" in message(folder / "a.safetensors")
    (folder / "none.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert "this one has none" in message(folder / "none.safetensors")


def test_objects_in_npz_are_not_unpickled(folder):
    class Evil:
        def __reduce__(self):
            return (open, (str(folder / "evil"), "w"))

    np.savez(folder / "a.npz", weights=np.array([Evil()], dtype=object))
    assert "weights is a pickle of Python objects, which is not loaded" in message(folder / "a.npz")


def test_other_architectures_name_the_nearest_family(folder):
    swin = {
        "patch_embed.proj.weight": np.zeros((4, 3, 4, 4), np.float32),
        "layers.0.blocks.0.attn.qkv.weight": np.zeros((12, 4), np.float32),
        "layers.0.blocks.0.attn.relative_position_bias_table": np.zeros((9, 2), np.float32),
        "layers.0.downsample.reduction.weight": np.zeros((8, 16), np.float32),
    }
    text = message(save(folder, swin))
    assert "no family of checkpoints fits its 4 arrays; the nearest is" in text
    assert "layers.0." in text
    assert "ViT" in text
    language = {
        "model.embed_tokens.weight": np.zeros((9, 4), np.float32),
        "model.layers.0.self_attn.q_proj.weight": np.zeros((4, 4), np.float32),
        "lm_head.weight": np.zeros((9, 4), np.float32),
    }
    text = message(save(folder, language))
    assert (
        "no family of checkpoints has one of its 3 names, such as lm_head.weight, embed_tokens.weight" in text
    )
    assert "has one of its 1 names, such as x" in message(save(folder, {"x": np.zeros(3, np.float32)}))


def test_of_families_in_two_sets_of_names_the_nearer_one_is_compared(folder):
    block, kernel = "encoder.layer.0.", np.zeros((4, 4), np.float32)
    deit = {
        "embeddings.cls_token": np.zeros((1, 1, 4), np.float32),
        "embeddings.distillation_token": np.zeros((1, 1, 4), np.float32),
        "embeddings.position_embeddings": np.zeros((1, 6, 4), np.float32),
        "embeddings.patch_embeddings.projection.weight": np.zeros((4, 3, 4, 4), np.float32),
        f"{block}layernorm_before.weight": np.zeros(4, np.float32),
        **{f"{block}attention.attention.{part}.weight": kernel for part in ("query", "key", "value")},
    }
    text = message(save(folder, deit))
    assert text.endswith(
        "transformers ViT, but the file has embeddings.distillation_token, which that family does not"
    )


@pytest.mark.parametrize(
    ("family", "architecture", "arguments", "says"),
    [
        (resnet, "resnetaa50", {}, "architecture='resnetaa50': allowed is one without blurred"),
        (resnet, "resnetblur18", {}, "architecture='resnetblur18'"),
        (resnet, "resnet18", {"output_stride": 8, "in_chans": 1}, "model_args={'output_stride': 8}"),
        (resnet, "resnet18", {"act_layer": "gelu"}, "model_args={'act_layer': 'gelu'}"),
        (beit, "eva02_tiny_patch14_224", {}, "EVA-02 rotates positions"),
        (timm_vit, "vit_pe_core_tiny_patch16_384", {}, "does not rotate positions"),
        (convnext, "convnext_tiny", {"act_layer": "silu"}, "act_layer='silu': allowed is 'gelu'"),
        (convnext, "test_convnext", {}, "act_layer='gelu_tanh'"),
    ],
)
def test_architectures_with_the_names_of_others_and_another_arithmetic(family, architecture, arguments, says):
    config = {"architecture": architecture, "model_args": arguments}
    first = {
        resnet: resnet.convert,
        beit: beit.convert_microsoft,
        timm_vit: timm_vit.convert,
        convnext: convnext.convert_timm,
    }
    with pytest.raises(ValueError, match=re.escape(says)):
        first[family](Weights({}, {"config": config}, {}))


def test_positions_that_rotate_unseen_are_told_by_the_arrays_beside_them(folder):
    attention = {
        **ARRAYS,
        "norm_pre.weight": np.zeros(32, np.float32),
        "attn_pool.latent": np.zeros((1, 1, 32), np.float32),
    }
    assert "the Perception Encoder's" in message(save(folder, attention))
    gated = {name: array for name, array in ARRAYS.items() if not name.endswith("qkv.bias")}
    for i in range(3):
        gated[f"blocks.{i}.mlp.fc2.weight"] = np.zeros((32, 64), np.float32)
        gated |= {f"blocks.{i}.attn.{part}_bias": np.zeros(32, np.float32) for part in "qv"}
    assert "gates are EVA-02's" in message(save(folder, gated))


def test_an_extra_array_is_named(folder):
    text = message(save(folder, {**ARRAYS, "blocks.0.adapter.weight": np.zeros((2, 2), np.float32)}), heads=2)
    assert "blocks.0.adapter.weight" in text


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("blocks.1.", "blocks=[0, 2]: allowed is all blocks; missing: [1]"),
        ("blocks.2.mlp.fc1", ""),
        ("blocks.0.norm1.bias", ""),
        ("norm.", ""),
    ],
)
def test_missing_arrays_are_named(folder, lost, says):
    given = {name: array for name, array in ARRAYS.items() if not name.startswith(lost)}
    text = message(save(folder, given), heads=2)
    assert (says or lost.rstrip(".")) in text


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blocks.1.mlp.fc1.weight", (128, 31)),
        ("blocks.2.attn.proj.bias", (31,)),
        ("pos_embed", (1, 5, 31)),
        ("norm.weight", (33,)),
    ],
)
def test_an_array_of_another_shape_is_named(folder, name, shape):
    text = message(save(folder, {**ARRAYS, name: np.zeros(shape, np.float32)}), heads=2)
    assert name.split(".")[-1] in text or name in text
    assert str(shape[-1]) in text


@pytest.mark.parametrize(
    ("name", "shape"),
    [("patch_embed.proj.weight", (32, 192)), ("pos_embed", (5, 32)), ("blocks.0.mlp.fc1.weight", (128,))],
)
def test_an_array_with_other_axes_is_named_with_those_it_should_have(folder, name, shape):
    text = message(save(folder, {**ARRAYS, name: np.zeros(shape, np.float32)}), heads=2)
    assert f"{name}={shape}: allowed is the shape [" in text


def test_heads_are_a_number(folder):
    assert "heads='2': allowed is a divisor of 32" in message(save(folder, ARRAYS), heads="2")


def test_an_option_that_the_encoder_does_not_have(folder):
    file = save(folder, ARRAYS)
    assert "did you mean 'heads'" in message(file, head=2)
    assert "heads" in message(file, heads=5)


def test_a_part_of_a_file_with_one_network(folder):
    assert "has no part 'student': the file has one network" in message(f"{save(folder, ARRAYS)}#student")


def test_our_own_files_are_read_as_what_they_are(folder):
    facts = {"method": "dino", "image_shape": [16, 16, 3], "mean": [0.5], "std": [0.25], "step": 3}
    save_encoder(folder / "encoder.safetensors", NETWORK, *VARIABLES, metadata=facts)
    for name in (folder, folder / "encoder.safetensors"):
        loaded = load_pretrained(str(name))
        assert loaded.network.config == NETWORK.config
        assert loaded.provenance["method"] == "dino"
        assert loaded.provenance["family"] == "ssl_jax"
        assert loaded.preprocessing.mean == (0.5,) * 3
        jax.tree.map(np.testing.assert_array_equal, loaded.params, VARIABLES[0])
    assert "it has one network and no parts" in message(f"{folder}#student")
    assert "files of ssl_jax say what they are" in message(folder, heads=2)


def test_torch_that_is_missing_is_named_by_its_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with (folder / "a.pth").open("wb") as file:
        np.savez(file, **{"archive/data.pkl": np.zeros(1)})
    (folder / "b.pth").write_bytes(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + bytes(20))
    with pytest.raises(
        ImportError, match=r"b\.pth is a file of PyTorch: pip install 'ssl-jax\[torch\]' to read it"
    ):
        load_pretrained(str(folder / "b.pth"))


def test_a_thousand_names_are_recognised_at_once():
    names = {name: array for name, array in ARRAYS.items() if not name.startswith("blocks.")}
    block = {name: array for name, array in ARRAYS.items() if name.startswith("blocks.0.")}
    many = names | {
        name.replace("blocks.0.", f"blocks.{k}."): array for k in range(84) for name, array in block.items()
    }
    recognize(many, FAMILIES, source="warm")
    start = time.process_time()
    recognize(many, FAMILIES, source="many")
    with pytest.raises(ValueError, match="no family"):
        recognize({f"decoder.{name}": array for name, array in many.items()}, FAMILIES, source="foreign")
    assert len(many) > 1000
    assert time.process_time() - start < 0.6  # 0.2 s for each, with room for a busy machine


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pickles_of_torch_that_would_execute(folder):
    torch = pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return (open, (str(folder / "evil"), "w"))

    for zipped in (True, False):
        torch.save({"model": Evil()}, folder / "a.pth", _use_new_zipfile_serialization=zipped)
        text = message(folder / "a.pth")
        assert "needs the code of" in text
        assert "a pickle is never executed" in text
        assert "safetensors" in text
    torch.save(torch.nn.Linear(2, 2), folder / "b.pth")
    assert "needs the code of torch.nn.modules.linear.Linear" in message(folder / "b.pth")
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(folder / "c.pt")
    assert "a program of TorchScript, which is not run here" in message(folder / "c.pt")


@pytest.mark.long
def test_files_of_torch_without_a_network(folder):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(2, 2)
    torch.save(torch.optim.SGD(layer.parameters(), lr=0.1).state_dict(), folder / "a.pth")
    assert "the state of an optimizer" in message(folder / "a.pth")
    torch.save(torch.ones(3), folder / "b.pth")
    assert "one tensor" in message(folder / "b.pth")
    torch.save([1, 2], folder / "c.pth")
    assert "a state_dict" in message(folder / "c.pth")
    torch.save({"epoch": 3}, folder / "d.pth")
    assert "this one has none" in message(folder / "d.pth")
    torch.save(layer.state_dict(), folder / "e.pth")
    data = (folder / "e.pth").read_bytes()
    (folder / "f.pth").write_bytes(data[: len(data) - 200])
    assert "cut off or damaged" in message(folder / "f.pth")
    torch.save(layer.state_dict(), folder / "g.pth", _use_new_zipfile_serialization=False)
    data = (folder / "g.pth").read_bytes()
    (folder / "h.pth").write_bytes(data[:-8])
    assert "cannot be read by torch.load" in message(folder / "h.pth")
