"""Input made to do harm is refused with a clear error: bombs, lies, ways out of a folder, pickles, code in options."""

import ast
import gzip
import json
import os
import pickle
import shutil
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import simclr
from ssl_jax import models
from ssl_jax.config import build
from ssl_jax.config.overrides import apply_overrides
from ssl_jax.core.version import LAYOUT, LAYOUT_KEY
from ssl_jax.data.decode import decode
from ssl_jax.data.fashion_mnist import EMBEDDED
from ssl_jax.data.folder import open_folder
from ssl_jax.data.idx import read_idx
from ssl_jax.data.sources import CorruptImage
from ssl_jax.data.tfds import open_tfds
from ssl_jax.models.serialize import FORMAT, load_encoder, save_encoder
from ssl_jax.train import storage
from ssl_jax.train.checkpoint import Checkpoints, NoUsableCheckpointError, restore_model
from ssl_jax.train.dump import read_dump, write_dump
from ssl_jax.train.workdir import read_config
from ssl_jax.train.writers import JsonlWriter, read_jsonl
from tests.data.images import encode
from tests.train.test_checkpoint import abstract, make_state

ROOT = Path(__file__).parent.parent
GRAY = np.full((6, 7), 99, np.uint8)


def tiff_in_one_tile(tile: int, photometric: int) -> bytes:
    """10 x 10 pixels of three channels, in a deflated tile of any size."""
    data = zlib.compress(bytes(tile * tile * 3), 9)
    tags = {256: 10, 257: 10, 259: 8, 262: photometric, 277: 3, 284: 1, 322: tile, 323: tile}
    tags |= {258: [8] * 3, 324: 8, 325: len(data)}
    start = 8 + len(data)
    extra = start + 2 + 12 * len(tags) + 4
    table = b""
    for tag, value in sorted(tags.items()):
        count, value = (3, extra) if isinstance(value, list) else (1, value)
        table += struct.pack("<HHII", tag, 4, count, value)
    head = b"II" + struct.pack("<HI", 42, start)
    return head + data + struct.pack("<H", len(tags)) + table + bytes(4) + struct.pack("<3I", 8, 8, 8)


# Bombs and lies (more in tests/data/test_decode.py)


@pytest.mark.parametrize("photometric", [1, 2])
def test_a_tile_that_inflates_far_beyond_its_image_is_refused(photometric):
    """Pillow decodes such a file: 750 kB became 750 MB."""
    small = decode(tiff_in_one_tile(64, photometric), name="x", channels=3, dtype="uint8")
    assert small.shape == (10, 10, 3) and not small.any()
    with pytest.raises(CorruptImage, match="block of 5000 x 5000 pixels in an image of 10 x 10"):
        decode(tiff_in_one_tile(5000, photometric), name="x", channels=3, dtype="uint8")


def test_a_gzipped_set_is_not_inflated_beyond_what_its_head_says(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    head = b"\0\0\x08\3" + struct.pack(">3I", 2, 3, 4)
    path.write_bytes(gzip.compress(head + bytes(24)))
    assert read_idx(path).shape == (2, 3, 4)
    path.write_bytes(gzip.compress(head + bytes(2**26)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="more bytes of pixels or labels where its head says 24"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    for shape in ((2**16, 2**16, 2**16), (2**32 - 1,) * 3):
        path.write_bytes(gzip.compress(b"\0\0\x08\3" + struct.pack(">3I", *shape)))
        with pytest.raises(ValueError, match=r"its head says .* bytes, allowed are"):
            read_idx(path)


def test_a_tiff_that_lies_about_lengths_reserves_no_memory():
    data = tiff_in_one_tile(64, 1).replace(
        struct.pack("<HHI", 325, 4, 1), struct.pack("<HHI", 325, 4, 1)[:-4] + struct.pack("<I", 1)
    )
    where = data.index(struct.pack("<HHI", 325, 4, 1)) + 8
    lying = data[:where] + struct.pack("<I", 2**32 - 1) + data[where + 4 :]
    tracemalloc.start()
    with pytest.raises(CorruptImage, match="truncated"):
        decode(lying, name="x", channels=3, dtype="uint8")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


# Ways out of a folder


def test_a_split_cannot_lead_out_of_its_folder(tmp_path):
    for name in ("inside", "outside"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "a.png").write_bytes(encode(GRAY))
    for split in ("../outside", "../outside/train", str(tmp_path / "outside"), "train/../../outside/train"):
        with pytest.raises(ValueError, match=r"split='.*': folder:.* has train; give one of these"):
            open_folder(tmp_path / "inside", split)


def test_pipes_and_devices_in_a_folder_are_not_read(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(GRAY))
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    source = open_folder(tmp_path)
    for index in (1, 2):
        with pytest.raises(CorruptImage, match="not a regular file"):
            source[index]


def test_a_name_cannot_write_on_the_terminal(tmp_path):
    (tmp_path / "a\x1b[2J\nerror: all is lost.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(encode(GRAY))
    source = open_folder(tmp_path)
    assert source.file_name(0) == "a\\x1b[2J\\nerror: all is lost.png"
    with pytest.raises(CorruptImage) as caught:
        source[0]
    assert str(caught.value).isprintable()


# Code in data


FORBIDDEN = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "torch"}
LOADERS = {
    "np": ("load", "fromfile"),
    "numpy": ("load", "fromfile"),
    "jnp": ("load", "fromfile"),
    "torch": ("load",),
}
SAFE = {"load": {"np": ("allow_pickle", False), "torch": ("weights_only", True)}}
"""Arguments with which a loader executes nothing."""
FILES_OF_TORCH = ROOT / "ssl_jax/interop"
"""Where files of PyTorch are read, and models of PyTorch written: no other module needs it."""


def is_safe(function, keywords):
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        return False
    name, value = SAFE.get(function.attr, {}).get(function.value.id, ("", None))
    return bool(name) and {k.arg: getattr(k.value, "value", None) for k in keywords}.get(name) is value


def unsafe_parts(path, text):
    tree = ast.parse(text)
    safe = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names = [node.func.id] if node.func.id in FORBIDDEN else []
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            only_error = [alias.name for alias in node.names] == ["UnpicklingError"]
            names = [name for name in modules if name and name.split(".")[0] in MODULES and not only_error]
            if FILES_OF_TORCH in path.parents:
                names = [name for name in names if name.split(".")[0] != "torch"]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            is_load = node.attr in LOADERS.get(node.value.id, ()) and node not in safe
            names = [f"{node.value.id}.{node.attr}"] if is_load else []
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
            names = [] if getattr(node.value, "value", None) is False else [node.arg]
        if isinstance(node, ast.Call) and is_safe(node.func, node.keywords):
            safe.add(node.func)  # walked after the call
        yield from ((getattr(node, "lineno", 0), name) for name in names)


def test_nothing_in_the_code_unpickles_or_evaluates():
    files = [p for folder in ("ssl_jax", "experiments", "configs") for p in (ROOT / folder).rglob("*.py")]
    assert [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in files
        for line, name in unsafe_parts(path, path.read_text())
    ] == []


@pytest.mark.parametrize(
    "line, unsafe",
    [
        ("np.load(f)", ["np.load"]),
        ("np.load(f, allow_pickle=True)", ["np.load", "allow_pickle"]),
        ("np.load(f, allow_pickle=False)", []),
        ("torch.load(f)", ["torch.load"]),
        ("torch.load(f, weights_only=False)", ["torch.load"]),
        ("torch.load(f, weights_only=True)", []),
        ("import torch", []),
        ("import pickle", ["pickle"]),
        ("from pickle import UnpicklingError", []),
        ("from pickle import UnpicklingError, loads", ["pickle"]),
        ("eval(x)", ["eval"]),
    ],
)
def test_what_executes_a_file_is_found_in_the_code(line, unsafe):
    assert [name for _, name in unsafe_parts(FILES_OF_TORCH / "x.py", line)] == unsafe


def test_torch_is_imported_by_the_files_about_checkpoints_only():
    assert [name for _, name in unsafe_parts(ROOT / "ssl_jax/train/x.py", "import torch")] == ["torch"]


HEARD: list[str] | None = None


def _listen(event, arguments):
    if HEARD is not None and event == "pickle.find_class":
        HEARD.append(str(arguments))


sys.addaudithook(_listen)


@pytest.fixture
def unpickled():
    """What Python says was unpickled, whoever did it."""
    global HEARD
    HEARD = []
    pickle.loads(pickle.dumps(Path("x")))
    assert HEARD, "the hook hears"
    HEARD.clear()
    yield HEARD
    HEARD = None


def test_checkpoints_dumps_and_encoders_are_read_without_unpickling(tmp_path, unpickled):
    state = make_state(step=20)
    with Checkpoints(tmp_path / "run", every=20, metadata={}) as checkpoints:
        checkpoints.save(20, state)
    with Checkpoints(tmp_path / "run", every=20, metadata={}) as checkpoints:
        checkpoints.restore(abstract(state))
    restore_model(tmp_path / "run")
    batch = {"image": np.zeros((2, 3), np.uint8)}
    read_dump(write_dump(tmp_path, state=state, batch=batch, metrics={}), abstract(state))
    network = models.build("convnet", widths=(4,), grid=1)
    save_encoder(
        tmp_path / "e.safetensors", network, *network.init(jax.random.key(0), jax.numpy.zeros((1, 8, 8, 3)))
    )
    load_encoder(tmp_path / "e.safetensors")
    assert unpickled == []


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickles_in_the_place_of_files_are_not_unpickled(tmp_path):
    trap, folder = tmp_path / "sprung", tmp_path / "images"
    folder.mkdir()
    payload = np.array([[Trap(trap)]], dtype=object)
    np.savez(tmp_path / "x.npz", image=payload)
    shutil.move(tmp_path / "x.npz", folder / "a.npy")
    np.save(folder / "b.npy", payload, allow_pickle=True)
    (folder / "c.npy").write_bytes(pickle.dumps(payload))
    (folder / "d.png").write_bytes(encode(GRAY))
    source = open_folder(folder)
    for index in range(3):
        with pytest.raises(CorruptImage):
            source[index]
    with Checkpoints(tmp_path / "run", every=20, metadata={}) as checkpoints:
        checkpoints.save(20, make_state())
    (tmp_path / "run" / "20" / "manifest" / "manifest.json").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(NoUsableCheckpointError, match="cannot be read"):
        restore_model(tmp_path / "run")
    (tmp_path / "e.safetensors").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises((ValueError, OSError, Exception), match=r"(?i)header|invalid"):
        load_encoder(tmp_path / "e.safetensors")
    assert not trap.exists()


def test_a_set_that_names_a_module_to_import_is_refused(tmp_path):
    """TFDS would import it, and so run it."""
    copy = tmp_path / "set"
    shutil.copytree(EMBEDDED, copy)
    assert len(open_tfds(str(copy), "train")) == 10_000
    (tmp_path / "trap_of_a_set.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    path = copy / "features.json"
    text = path.read_text()
    assert "tensorflow_datasets.core.features" in text
    for old in set(json.loads(text)) & {"pythonClassName"}:
        path.write_text(json.dumps({**json.loads(text), old: "trap_of_a_set.Image"}))
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(ValueError, match=r"names the class 'trap_of_a_set\.Image'"):
            open_tfds(str(copy), "train")
    finally:
        sys.path.remove(str(tmp_path))
    assert not (tmp_path / "sprung").exists() and "trap_of_a_set" not in sys.modules


def test_records_of_a_damaged_truncated_or_removed_file_are_corrupt_images(tmp_path):
    copy = tmp_path / "set"
    shutil.copytree(EMBEDDED, copy)
    source, gone = open_tfds(str(copy), "train"), open_tfds(str(copy), "train")
    (file,) = copy.glob("*-train.array_record*")
    assert source[0]["image"].shape == (28, 28, 1)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(CorruptImage, match="00009999"):
        source[9999]
    file.unlink()
    with pytest.raises(CorruptImage, match="No such file"):
        gone[0]


# Code in options


CODE = "__import__('pathlib').Path({path!r}).touch()"


def leaves(config, path=()):
    for name, value in config.items():
        yield from leaves(value, (*path, name)) if hasattr(value, "items") else [((*path, name), value)]


def test_no_option_is_evaluated(tmp_path):
    trap = tmp_path / "sprung"
    code = CODE.format(path=str(trap))
    kinds = set()
    for path, value in leaves(simclr.get_config("smoke")):
        if type(value) in kinds:
            continue
        kinds.add(type(value))
        for text in (code, f"({code},)", f"[{code}]", f"{{'a': {code}}}"):
            try:
                apply_overrides(simclr.get_config("smoke"), {".".join(path): text})
            except ValueError:
                continue
            assert isinstance(value, str | type(None)), f"{path} took {text}"
    assert {int, float, str, bool, tuple} <= kinds and not trap.exists()
    with pytest.raises(ValueError, match=r"config argument .* is unknown"):
        simclr.get_config(code.replace(",", ""))
    config = build.to_dict(simclr.get_config("smoke"))
    for part in ("method", "encoder"):
        for name in ("os", "os.path", "../../x", code):
            with pytest.raises(ValueError, match="is not one of the allowed values"):
                build.method({**config, part: {**config[part], "name": name}})
    assert not trap.exists()


# What a run reads of its own folder

FOREIGN = json.dumps({LAYOUT_KEY: LAYOUT, "a": 1})


@pytest.mark.parametrize("content", ["[1, 2]", "null", "[" * 100_000, "{" * 100, "\0\0\0", FOREIGN])
def test_a_configuration_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"cannot be read|is no configuration"):
        build.read_config(tmp_path)
    if content != FOREIGN:
        with pytest.raises(ValueError, match=r"cannot be read|is no configuration"):
            read_config(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"facts": 1, "items": {}},
        {"facts": {"step": 20}, "items": {"model": []}},
        {"facts": {"step": 20}, "items": {"model": {"params/w": {"shape": [-1], "dtype": "float32"}}}},
        {"facts": {"step": 20}, "items": {"model": {"params/w": {"shape": "x", "dtype": "float32"}}}},
    ],
)
def test_a_manifest_with_a_right_checksum_over_nonsense_is_damaged(tmp_path, content):
    path = tmp_path / "20" / "manifest" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"crc32": storage._checksum_of_json(content), **content}))
    with pytest.raises(NoUsableCheckpointError, match="is not the manifest"):
        restore_model(tmp_path)


def test_lines_that_are_no_records_are_left_out_with_a_warning(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + bytes(40) + b'\n[1]\n{"step": 2}\n{"step": 9}\n{"st')
    assert [record["step"] for record in read_jsonl(path)] == [1, 2, 9]
    with pytest.warns(UserWarning, match="left out 2 damaged lines"):
        JsonlWriter(path, resume_step=5).close()
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("config", ["", "[]", '{"name": "os"}', "{" * 9, '{"name": "convnet", "width": []}'])
def test_an_encoder_file_with_a_wrong_configuration_is_refused(tmp_path, config):
    header = {"format": FORMAT, "config": config, "metadata": "{}"}
    (tmp_path / "e.safetensors").write_bytes(safetensors.numpy.save({"params/w": np.zeros(1)}, header))
    with pytest.raises(ValueError, match=r"e\.safetensors"):
        load_encoder(tmp_path / "e.safetensors")
