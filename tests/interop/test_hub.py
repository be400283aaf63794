"""Weights by name, without a network: a cache as huggingface_hub lays it out, and answers of the hub made by hand."""

import importlib
import types

import numpy as np
import pytest
import safetensors.numpy

from ssl_jax.interop import hub
from ssl_jax.interop.hub import files_to_load, parse_hub_name, read_from_hub, read_from_timm

huggingface_hub = pytest.importorskip("huggingface_hub")
COMMIT, OTHER = "a" * 40, "b" * 40
ARRAYS = {"cls_token": np.ones((1, 1, 4), np.float32), "norm.bias": np.arange(4, dtype=np.float32)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub; no test reaches the network."""

    def refuse(*arguments, **options):
        raise OSError("no network in tests")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    original = huggingface_hub.snapshot_download

    def download(*arguments, **options):
        return original(*arguments, cache_dir=tmp_path, **{**options, "local_files_only": True})

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return tmp_path


def put(cache, repository="owner/name", commit=COMMIT, revision="main", value=1.0, **texts):
    """Write a snapshot into the cache: ``models--owner--name/{refs,snapshots}``."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    arrays = {name: array * value for name, array in ARRAYS.items()}
    safetensors.numpy.save_file(arrays, snapshot / "model.safetensors")
    for name, text in texts.items():
        (snapshot / f"{name}.json").write_text(text)
    return snapshot


def answer(monkeypatch, files, commit=COMMIT):
    """Let the hub answer with the files of a repository."""
    siblings = [types.SimpleNamespace(rfilename=file) for file in files]
    asked = []

    def model_info(api, repository, *, revision=None):
        asked.append((repository, revision))
        return types.SimpleNamespace(siblings=siblings, sha=commit)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    return asked


def refuse_with(monkeypatch, error):
    def model_info(api, repository, *, revision=None):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


def test_without_network_the_cache_is_read_and_its_commit_recorded(cache):
    put(cache, config='{"hidden_size": 4}', preprocessor_config='{"size": 32}')
    weights = read_from_hub("hf:owner/name")
    np.testing.assert_array_equal(weights.arrays["norm.bias"], ARRAYS["norm.bias"])
    assert weights.metadata == {"config": {"hidden_size": 4}, "preprocessor": {"size": 32}}
    assert weights.provenance["revision"] == COMMIT
    assert weights.provenance["name"] == "hf:owner/name"
    assert len(weights.provenance["sha256"]) == 64


def test_a_branch_and_a_commit_are_those_that_are_asked_for(cache):
    put(cache)
    put(cache, commit=OTHER, revision="v2", value=2.0)
    for revision, factor in (("main", 1), ("v2", 2), (COMMIT, 1), (OTHER, 2)):
        weights = read_from_hub(f"hf:owner/name@{revision}")
        np.testing.assert_array_equal(weights.arrays["norm.bias"], factor * ARRAYS["norm.bias"])
        assert weights.provenance["revision"] == (OTHER if factor == 2 else COMMIT)


def test_a_commit_in_the_cache_asks_no_one(cache, monkeypatch):
    put(cache)
    refuse_with(monkeypatch, AssertionError("the hub was asked"))
    read_from_hub(f"hf:owner/name@{COMMIT}")


def test_with_network_the_commit_of_the_answer_is_taken(cache, monkeypatch):
    put(cache)
    put(cache, commit=OTHER, revision="other", value=2.0)
    asked = answer(monkeypatch, ["model.safetensors", "README.md"], OTHER)
    assert read_from_hub("hf:owner/name@v3").provenance["revision"] == OTHER
    assert asked == [("owner/name", "v3")]


def test_nothing_in_the_cache_says_what_to_do_instead(cache):
    with pytest.raises(ValueError) as caught:
        read_from_hub("hf:owner/name")
    text = str(caught.value)
    assert "\n" not in text
    assert "hub cannot be reached (OSError: no network in tests)" in text
    assert "`hf download owner/name --local-dir=FOLDER`" in text
    assert "HF_HOME" in text
    assert not list(cache.rglob("*.incomplete"))


def test_a_cache_without_weights_counts_as_none(cache):
    (put(cache) / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="is not in the cache"):
        read_from_hub("hf:owner/name")


def test_the_offline_switch_of_the_hub_is_said(cache, monkeypatch):
    from huggingface_hub.errors import OfflineModeIsEnabled

    refuse_with(monkeypatch, OfflineModeIsEnabled("HF_HUB_OFFLINE is set"))
    with pytest.raises(ValueError, match="OfflineModeIsEnabled: HF_HUB_OFFLINE is set"):
        read_from_hub("hf:owner/name")


def test_a_name_that_the_network_does_not_resolve_is_no_network(cache, monkeypatch):
    bases = huggingface_hub.errors.HfHubHTTPError.__mro__
    library = next(kind.__module__ for kind in bases if kind.__name__ == "HTTPError")
    error = importlib.import_module(library.split(".")[0]).ConnectError
    refuse_with(monkeypatch, error("[Errno -2] Name or service not known"))
    with pytest.raises(ValueError, match=r"ConnectError: \[Errno -2\] Name or service not known"):
        read_from_hub("hf:owner/name")
    put(cache)
    assert read_from_hub("hf:owner/name").provenance["revision"] == COMMIT


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            "GatedRepoError",
            r"accept its terms at https://huggingface\.co/owner/name, then run `hf auth login`",
        ),
        ("RevisionNotFoundError", "the repository has no revision 'v9'"),
        ("RepositoryNotFoundError", "there is no such repository, or it is private"),
    ],
)
def test_answers_of_the_hub_are_one_line(cache, monkeypatch, kind, says):
    error = getattr(huggingface_hub.errors, kind)
    refuse_with(monkeypatch, error.__new__(error))
    with pytest.raises(ValueError, match=says) as caught:
        read_from_hub("hf:owner/name@v9")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hf:", "hf:name", "hf:owner/name@", "hf:owner/../x y", "hf:/owner/name"])
def test_names_of_another_form(name):
    with pytest.raises(ValueError, match=r"of the form hf:owner/name"):
        parse_hub_name(name)


def test_only_what_is_needed_is_loaded():
    name = parse_hub_name("hf:owner/name")
    shards = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    files = ["config.json", "model.safetensors.index.json", *shards, "pytorch_model.bin", "tf_model.h5"]
    assert files_to_load(files, name) == ["config.json", "model.safetensors.index.json", *shards]
    assert files_to_load(["pytorch_model.bin", "flax_model.msgpack"], name) == ["pytorch_model.bin"]
    assert files_to_load(["README.md", "vit.npz"], name) == ["vit.npz"]
    one = parse_hub_name("hf:owner/name/folder/b.npz@v1")
    assert files_to_load(["a.npz", "folder/b.npz"], one) == ["folder/b.npz"]
    with pytest.raises(ValueError, match=r"hf:owner/name/FILE for one of its files: a\.npz, b\.npz"):
        files_to_load(["a.npz", "b.npz"], name)
    with pytest.raises(ValueError, match=r"file='c\.npz': allowed is a file of owner/name: a\.npz"):
        files_to_load(["a.npz"], parse_hub_name("hf:owner/name/c.npz"))


def test_one_file_of_several_is_loaded(cache):
    snapshot = put(cache)
    np.savez(snapshot / "other.npz", **{"params/norm/bias": np.full(4, 9, np.float32)})
    weights = read_from_hub("hf:owner/name/other.npz")
    np.testing.assert_array_equal(weights.arrays["norm.bias"], np.full(4, 9))


def test_a_missing_package_is_named_by_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"hf:a/b: pip install 'ssl-jax\[hub\]'"):
        read_from_hub("hf:a/b")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"timm:resnet18: pip install 'ssl-jax\[timm\]'"):
        read_from_timm("timm:resnet18")


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_models_of_timm(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name, pretrained=False))
    weights = read_from_timm("timm:resnet10t.c3_in1k")
    assert "conv1.0.weight" in weights.arrays
    assert weights.metadata["pretrained_cfg"]["architecture"] == "resnet10t"
    assert weights.metadata["pretrained_cfg"]["crop_pct"] > 0.8
    assert len(weights.provenance["sha256"]) == 64
    assert weights.provenance["hf_hub_id"]
    vit = read_from_timm("timm:test_vit.r160_in1k").metadata["config"]
    assert vit == {"architecture": "test_vit", "model_args": {"num_heads": 2, "global_pool": "token"}}
    with pytest.raises(ValueError, match=r"has no weights of that name; did you mean 'resnet10t\.c3_in1k'\?"):
        read_from_timm("timm:resnet10t.c3_in1")


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_models_of_timm_without_network(monkeypatch):
    timm = pytest.importorskip("timm")

    def fail(name, pretrained):
        raise OSError("cannot find the file on the hub\nand it is not in the cache")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match="cannot be loaded by timm") as caught:
        read_from_timm("timm:resnet10t.c3_in1k")
    assert "\n" not in str(caught.value)
    assert "hf download timm/resnet10t.c3_in1k" in str(caught.value)


def test_the_hash_of_arrays_follows_names_and_values():
    given = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}
    assert hub.hash_arrays(given) == hub.hash_arrays(dict(reversed(given.items())))
    assert hub.hash_arrays(given) != hub.hash_arrays({"a": given["b"], "b": given["a"]})
