"""Arrays from files: safetensors, npz and PyTorch's, told apart by what is in them, not by their names."""

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from ssl_jax.core.check import require, shorten
from ssl_jax.interop.family import Weights
from ssl_jax.interop.unwrap import HEADS, PARTS, WRAPPERS, unwrap

FOLDER_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
"""Files with weights that a folder of the hub has, the best first."""
FACTS = {
    "config": "config.json",
    "preprocessor": "preprocessor_config.json",
    "open_clip": "open_clip_config.json",
}
"""Files of such a folder that say what its weights are."""
POOL_KEY = "ssl_jax_pool"
"""Of ``config.json``: which features are meant, in an export to a library whose models only give the tokens."""
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64", "BOOL")
"""Types of a safetensors file that NumPy can hold."""
LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of what torch.save wrote before it wrote zip files: a pickled number."""
CONVERT = "where you trust it, torch.load it and save its state_dict with safetensors.torch.save_file"


def read_weights(name: str, *, part: str | None = None) -> Weights:
    """Read the arrays of a file, or of a folder as the Hugging Face hub has them.

    Formats: ``.safetensors``, also in shards; ``.npz``; what ``torch.save`` writes, which needs PyTorch. Nothing in a file is
    executed: of pickles only tensors, containers of Python and a few plain types are read. Files of PyTorch are mapped into
    memory, so that of several networks in one only that which is taken is read; memory holds each of its arrays once.

    Floats become float32: exact for float16 and bfloat16, rounded for float64. Integers stay. What is not an array is dropped.

    Args:
      name: path of the file or folder.
      part: network to take of several in a checkpoint, such as ``student``, see :func:`ssl_jax.interop.unwrap.unwrap`.

    Raises:
      ValueError: no such file, or one that cannot be read; says why and what to do.
      ImportError: a file of PyTorch without PyTorch.
    """
    path = Path(name)
    require(path.exists(), "name", name, "an existing file or folder, hf:owner/name or timm:name")
    files = _files(path)
    arrays: dict[str, np.ndarray] = {}
    header: Mapping[str, str] = {}
    for file in files:
        read, header = read_file(file)
        twice = sorted(set(arrays) & set(read))
        require(
            not twice,
            "name",
            name,
            f"shards that have each array once; {', '.join(twice[:1])} is there twice",
        )
        arrays |= read
    require(bool(arrays), "name", name, "a file with arrays; this one has none")
    unwrapped = unwrap(arrays, part=part, source=name)
    dtypes = Counter(str(array.dtype) for array in unwrapped.arrays.values() if _is_float(array))
    facts = {key: json_of(files[0].parent / file) for key, file in FACTS.items()} if _in_folder(path) else {}
    provenance = {
        "name": name,
        "file": str(files[0]),
        "sha256": file_hash(files),
        "dtype": ", ".join(
            f"{dtype} (rounded to float32)" if dtype == "float64" else dtype for dtype in dtypes
        ),
        **({"part": unwrapped.part} if unwrapped.part else {}),
    }
    arrays.clear()
    floats = {name: widen(unwrapped.arrays.pop(name)) for name in tuple(unwrapped.arrays)}
    return Weights(floats, describe(facts, header), provenance)


def describe(facts: Mapping[str, Any], header: Mapping[str, str]) -> dict[str, Any]:
    """Collect what a file and its folder say about the weights, see :class:`ssl_jax.interop.family.Weights`.

    >>> describe({"config": {"architecture": "resnet18", "pretrained_cfg": {"crop_pct": 0.9}}}, {})["pretrained_cfg"]
    {'architecture': 'resnet18', 'crop_pct': 0.9}
    """
    known = {key: value for key, value in {**facts, "header": dict(header)}.items() if value}
    config = known.get("config", {})
    if isinstance(config.get("pretrained_cfg"), Mapping):
        arguments = {"model_args": config["model_args"]} if config.get("model_args") else {}
        known["pretrained_cfg"] = {
            "architecture": config.get("architecture"),
            **arguments,
            **config["pretrained_cfg"],
        }
    return known


def widen(array: np.ndarray) -> np.ndarray:
    """Write floats as float32, in memory of their own; integers keep their type.

    >>> widen(np.ones(1, np.float16)).dtype, widen(np.ones(1, np.int64)).dtype
    (dtype('float32'), dtype('int64'))
    """
    dtype = np.float32 if _is_float(array) else array.dtype
    return np.array(array, dtype, copy=None if array.flags.owndata else True)


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def _in_folder(path: Path) -> bool:
    return path.is_dir() or path.name in FOLDER_WEIGHTS


def _files(path: Path) -> list[Path]:
    """List the files with the arrays of a folder, an index of shards, or the one file."""
    if path.is_dir():
        path = folder_weights(path)
    if path.name.endswith(".index.json"):
        shards = json_of(path).get("weight_map")
        require(isinstance(shards, Mapping) and bool(shards), "name", str(path), "an index with a weight_map")
        assert isinstance(shards, Mapping)
        names = sorted({str(value) for value in shards.values()})
        outside = [name for name in names if Path(name).name != name]
        require(not outside, "name", str(path), f"an index of files beside it, not {outside[:1]}")
        missing = [name for name in names if not (path.parent / name).is_file()]
        message = f"a folder with all {len(names)} shards; {', '.join(missing[:3])} is missing"
        require(not missing, "name", str(path.parent), message)
        return [path.parent / name for name in names]
    return [path]


def folder_weights(folder: Path) -> Path:
    """Find the file with the weights of a folder of the hub.

    Raises:
      ValueError: there is none, or there are several and none has a usual name.
    """
    for name in FOLDER_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".npz", ".pth", ".pt", ".bin"))
    some = ", ".join(path.name for path in found[:5])
    allowed = f"a folder with {FOLDER_WEIGHTS[0]} or one file with weights; this one has {some or 'none'}"
    require(len(found) == 1, "name", str(folder), f"{allowed}{'; give the name of one' if found else ''}")
    return found[0]


def json_of(path: Path) -> dict[str, Any]:
    """Read a JSON file; ``{}`` where there is none.

    Raises:
      ValueError: a file that is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {shorten(str(error))}") from error
    require(isinstance(value, dict), "file", str(path), "a JSON object")
    return dict(value)


def file_hash(files: list[Path]) -> str:
    """Return the SHA-256 of a file's bytes; of several, that of their hashes in this order, one a line."""
    hashes = []
    for path in files:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read_file(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """Read one file: its arrays by dotted name, with the names of containers, and the metadata of a safetensors file.

    Raises:
      ValueError: a file that cannot be read; says why.
      ImportError: a file of PyTorch without PyTorch.
    """
    size = path.stat().st_size
    require(size > 0, "file", str(path), "a file with weights; this one is empty")
    with path.open("rb") as file:
        start = file.read(512)
    if len(start) > 8 and start[8:9] == b"{" and start[7:8] == b"\0":
        return _read_safetensors(path, size, int.from_bytes(start[:8], "little"))
    if start.startswith(b"PK"):
        return _read_zip(path), {}
    if start.startswith(LEGACY_TORCH):
        return _read_torch(path, mmap=False), {}
    if start.startswith(b"\x80"):
        raise ValueError(
            f"{path} is a pickle, which is never executed: where you trust it, load it and save its arrays by name with "
            "numpy.savez or safetensors.numpy.save_file"
        )
    raise ValueError(f"{path} is no file with weights: {_what_it_is(start)}")


def _what_it_is(start: bytes) -> str:
    """Say what a file is that holds no weights, from its first bytes.

    >>> _what_it_is(b"<!DOCTYPE html><html>")
    'it is a web page (an error page saved by a download?)'
    """
    text = start.lstrip().lower()
    known = {
        b"<": "it is a web page (an error page saved by a download?)",
        b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself with git lfs pull",
        b"{": "it is JSON text",
        b"\x89hdf": "it is HDF5, of Keras or TensorFlow; convert its arrays to .npz or .safetensors",
        b"\x93numpy": "it is one array of NumPy (.npy), not a set of named arrays; save them as .npz",
        b"\x1f\x8b": "it is compressed by gzip: unpack it first",
        b"%pdf": "it is a PDF",
    }
    found = next((what for magic, what in known.items() if text.startswith(magic)), None)
    return found or "it begins like none of .safetensors, .npz and what torch.save writes"


def read_header(path: Path) -> Mapping[str, str]:
    """Return the metadata of a safetensors file; ``{}`` for all other files."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError):
        return {}


def _read_safetensors(path: Path, size: int, header: int) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    require(
        8 + header <= size, "file", str(path), "a whole .safetensors file; this one ends within its header"
    )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = tuple(file.keys())
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                allowed = f"a file with arrays of {', '.join(DTYPES)}; {name} is {dtype}"
                require(dtype in DTYPES, "file", str(path), allowed)
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no whole .safetensors file: {shorten(_one_line(error))}") from error


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is a zip file that was cut off or damaged; download it again") from error
    if any(name.endswith(".npy") for name in names):
        return _read_npz(path)
    if any(name.split("/")[1:2] == ["code"] or name.endswith("constants.pkl") for name in names):
        raise ValueError(
            f"{path} is a program of TorchScript, which is not run here: where you trust it, save "
            "torch.jit.load(file).state_dict() with safetensors.torch.save_file"
        )
    require(
        any(name.endswith("data.pkl") for name in names),
        "file",
        str(path),
        "a .npz or what torch.save writes",
    )
    return _read_torch(path, mmap=True)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            try:
                array = file[name]
            except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
                if "allow_pickle" in str(error):
                    raise ValueError(
                        f"{path}: {name} is a pickle of Python objects, which is not loaded; save it as plain arrays"
                    ) from error
                raise ValueError(f"{path}: {name} cannot be read: {shorten(_one_line(error))}") from error
            if array.dtype.kind == "V" and array.dtype.itemsize == 2 and not array.dtype.names:
                array = array.view(
                    ml_dtypes.bfloat16
                )  # NumPy writes the bytes of a bfloat16 and forgets its type
            arrays[name.replace("/", ".")] = array
    return arrays


def _read_torch(path: Path, *, mmap: bool) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"{path} is a file of PyTorch: pip install 'ssl-jax[torch]' to read it") from error
    try:
        with torch.serialization.safe_globals(_plain_types()):
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UnpicklingError as error:
        text = str(error)
        named = text.partition("GLOBAL ")[2].split(" ")[0]
        what = f"needs the code of {named}" if named else "is no plain checkpoint"
        raise ValueError(f"{path} {what}, and a pickle is never executed: {CONVERT}") from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} cannot be read by torch.load: {shorten(_one_line(error))}") from error
    if isinstance(tree, torch.Tensor):
        raise ValueError(f"{path} holds one tensor, not a set of named ones")
    require(isinstance(tree, Mapping), "file", str(path), "a state_dict or a checkpoint with one")
    if "param_groups" in tree:
        raise ValueError(f"{path} is the state of an optimizer; it has no network")
    return {
        name: _from_torch(tensor) for name, tensor in _tensors(_containers(tree, torch.Tensor), torch.Tensor)
    }


def _plain_types() -> list[Any]:
    """List types without behaviour that training scripts save beside their weights: options, numbers of NumPy."""
    import argparse
    import pathlib

    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return [
        argparse.Namespace,
        pathlib.PosixPath,
        pathlib.PurePosixPath,
        np.dtype,
        *kinds,
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
    ]


def _containers(tree: Mapping[Any, Any], tensor: type) -> Mapping[Any, Any]:
    """Keep of a checkpoint what can hold a network: known names, or else its one container; a ``state_dict`` stays as it is."""
    inside = {
        key: value
        for key, value in tree.items()
        if isinstance(value, Mapping) and any(_tensors(value, tensor))
    }
    known = (*PARTS, *WRAPPERS)
    if any(key in known for key in inside):
        return {key: value for key, value in tree.items() if key in known or key in HEADS}
    loose = any(isinstance(value, tensor) for value in tree.values())
    return next(iter(inside.values())) if len(inside) == 1 and not loose else tree


def _tensors(tree: Mapping[Any, Any], tensor: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _tensors(value, tensor, f"{prefix}{key}.")
        elif isinstance(value, tensor):
            yield f"{prefix}{key}", value


def _from_torch(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    return tensor.to_dense().numpy()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
