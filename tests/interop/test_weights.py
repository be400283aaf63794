"""Arrays from files: safetensors, npz, PyTorch's, whole, in shards and in folders of the hub."""

import hashlib
import json
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax.interop.weights import read_weights

RNG = np.random.default_rng(0)
ARRAYS = {
    "cls_token": RNG.standard_normal((1, 1, 4)).astype(np.float32),
    "norm.weight": RNG.standard_normal(4).astype(np.float32),
    "bn1.num_batches_tracked": np.array(7),
}


def assert_equal(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == (np.float32 if array.dtype.kind == "f" else array.dtype)


def test_safetensors(tmp_path):
    file = tmp_path / "any.name"
    safetensors.numpy.save_file(ARRAYS, file, metadata={"format": "pt"})
    weights = read_weights(str(file))
    assert_equal(weights.arrays, ARRAYS)
    assert weights.metadata == {"header": {"format": "pt"}}
    assert weights.provenance == {
        "name": str(file),
        "file": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "dtype": "float32",
    }


def test_narrow_and_wide_floats_become_float32(tmp_path):
    dtypes = {"a": np.float16, "b": ml_dtypes.bfloat16, "c": np.float64, "d": np.float32}
    given = {name: RNG.standard_normal((3, 2)).astype(dtype) for name, dtype in dtypes.items()} | {
        "n": np.arange(3)
    }
    safetensors.numpy.save_file(given, tmp_path / "a.safetensors")
    weights = read_weights(str(tmp_path / "a.safetensors"))
    for name, array in given.items():
        assert weights.arrays[name].dtype == (np.int64 if name == "n" else np.float32)
        np.testing.assert_array_equal(weights.arrays[name], array.astype(weights.arrays[name].dtype))
    assert sorted(weights.provenance["dtype"].split(", ")) == [
        "bfloat16",
        "float16",
        "float32",
        "float64 (rounded to float32)",
    ]


def test_npz_with_the_names_of_flax(tmp_path):
    kernel = RNG.standard_normal((2, 2, 3, 4)).astype(np.float32)
    short = RNG.standard_normal(4).astype(ml_dtypes.bfloat16)
    np.savez(
        tmp_path / "vit.npz", **{"params/embedding/kernel": kernel, "params/embedding/bias": short.view("V2")}
    )
    weights = read_weights(str(tmp_path / "vit.npz"))
    np.testing.assert_array_equal(weights.arrays["embedding.kernel"], kernel)
    np.testing.assert_array_equal(weights.arrays["embedding.bias"], short.astype(np.float32))
    assert weights.provenance["dtype"] == "float32, bfloat16"


def write_shards(folder, shards):
    names = {}
    for k, arrays in enumerate(shards, 1):
        file = f"model-{k:05}-of-{len(shards):05}.safetensors"
        safetensors.numpy.save_file(arrays, folder / file)
        names |= dict.fromkeys(arrays, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def test_shards_and_the_facts_of_their_folder(tmp_path):
    first, second = ({name: ARRAYS[name] for name in names} for names in (("cls_token",), ("norm.weight",)))
    write_shards(tmp_path, (first, second))
    (tmp_path / "config.json").write_text('{"hidden_size": 4}')
    (tmp_path / "preprocessor_config.json").write_text('{"size": 32}')
    weights = read_weights(str(tmp_path))
    assert_equal(weights.arrays, first | second)
    assert weights.metadata == {"config": {"hidden_size": 4}, "preprocessor": {"size": 32}}
    assert len(weights.provenance["sha256"]) == 64
    by_index = read_weights(str(tmp_path / "model.safetensors.index.json"))
    assert by_index.provenance["sha256"] == weights.provenance["sha256"]
    assert by_index.metadata == weights.metadata
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"with all 2 shards; model-00002-of-00002\.safetensors is missing"):
        read_weights(str(tmp_path))


def test_an_index_does_not_leave_its_folder(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(ValueError, match="an index of files beside it"):
        read_weights(str(folder))


def test_a_folder_with_one_file_of_any_name_and_one_with_several(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "mine.safetensors")
    assert_equal(read_weights(str(tmp_path)).arrays, ARRAYS)
    np.savez(tmp_path / "other.npz", **ARRAYS)
    with pytest.raises(ValueError, match=r"this one has mine\.safetensors, other\.npz; give the name of one"):
        read_weights(str(tmp_path))


def test_the_folder_of_a_timm_model(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "model.safetensors")
    config = {"architecture": "vit_tiny", "model_args": {"depth": 2}, "pretrained_cfg": {"crop_pct": 0.9}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    metadata = read_weights(str(tmp_path / "model.safetensors")).metadata
    assert metadata["config"] == config
    assert metadata["pretrained_cfg"] == {
        "architecture": "vit_tiny",
        "model_args": {"depth": 2},
        "crop_pct": 0.9,
    }


def test_memory_holds_what_was_read_and_not_the_file(tmp_path):
    file = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(ARRAYS, file)
    weights = read_weights(str(file))
    safetensors.numpy.save_file({name: np.zeros_like(array) for name, array in ARRAYS.items()}, file)
    assert_equal(weights.arrays, ARRAYS)


@pytest.mark.long
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_training_checkpoint_of_torch(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    import argparse
    import pathlib

    torch.manual_seed(0)
    model = torch.nn.Sequential(OrderedDict(conv1=torch.nn.Conv2d(3, 4, 2), bn1=torch.nn.BatchNorm2d(4)))
    other = {f"module.{name}": tensor + 1 for name, tensor in model.state_dict().items()}
    half = {f"module.{name}": tensor.bfloat16() for name, tensor in model.state_dict().items()}
    checkpoint = {
        "teacher": half,
        "student": other,
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs")),
        "best": np.float64(0.5),
        "notes": {"who": "me"},
    }
    file = tmp_path / "checkpoint.pth"
    torch.save(checkpoint, file, _use_new_zipfile_serialization=zipped)
    weights = read_weights(str(file))
    assert weights.provenance["part"] == "teacher"
    assert weights.provenance["dtype"] == "bfloat16"
    assert sorted(weights.arrays) == sorted(model.state_dict())
    for name, tensor in model.state_dict().items():
        found = weights.arrays[name]
        np.testing.assert_array_equal(found, tensor.bfloat16().float().numpy(), strict=True)
    student = read_weights(str(file), part="student").arrays
    np.testing.assert_array_equal(student["conv1.weight"], model.state_dict()["conv1.weight"].numpy() + 1)
    file.write_bytes(b"gone")
    assert student["conv1.weight"].flags.owndata


@pytest.mark.long
def test_tensors_of_every_kind(tmp_path):
    torch = pytest.importorskip("torch")
    given = {
        "half": torch.randn(3).half(),
        "double": torch.randn(3).double(),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "turned": torch.randn(2, 3).T,
        "eighth": torch.randn(4).to(torch.float8_e4m3fn),
        "long": torch.arange(3),
        "yes": torch.tensor([True]),
        "text": "not an array",
    }
    torch.save({"unknown_container": given, "epoch": 1}, tmp_path / "a.pt")
    found = read_weights(str(tmp_path / "a.pt")).arrays
    assert sorted(found) == sorted(set(given) - {"text"})
    for name, array in found.items():
        expected = given[name].detach()
        expected = expected.float() if expected.is_floating_point() else expected
        np.testing.assert_array_equal(array, expected.numpy(), strict=True)


@pytest.mark.long
def test_the_folder_of_an_older_hub_model(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(
        {name: torch.from_numpy(np.array(array)) for name, array in ARRAYS.items()},
        tmp_path / "pytorch_model.bin",
    )
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    weights = read_weights(str(tmp_path))
    assert_equal(weights.arrays, ARRAYS)
    assert weights.metadata["config"] == {"model_type": "vit"}
