"""Weights by name: those of the Hugging Face hub, which stay in its cache, and those of timm."""

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.core.check import did_you_mean, require, shorten
from ssl_jax.interop.family import Weights
from ssl_jax.interop.unwrap import unwrap
from ssl_jax.interop.weights import FACTS, FOLDER_WEIGHTS, read_weights, widen

INSTEAD = (
    "on a machine with network run `hf download {repository} --local-dir=FOLDER`, bring the folder here and give its path; "
    "or set HF_HOME to a cache that has it"
)
SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".tar")


class HubName(NamedTuple):
    """Parts of ``hf:owner/name[/file][@revision]``.

    Attributes:
      repository: ``owner/name``.
      file: path of a file in it, ``""`` for its usual weights.
      revision: branch, tag or commit; ``None`` for the newest.
    """

    repository: str
    file: str
    revision: str | None


def parse_hub_name(name: str) -> HubName:
    """Take a name of the hub apart.

    Raises:
      ValueError: not of the form ``hf:owner/name[/file][@revision]``.

    >>> parse_hub_name("hf:facebook/dinov2-small@main")
    HubName(repository='facebook/dinov2-small', file='', revision='main')
    """
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)(?:@([\w./-]+))?", name)
    require(
        match is not None,
        "name",
        name,
        "of the form hf:owner/name, hf:owner/name@revision or hf:owner/name/file",
    )
    assert match is not None
    return HubName(match[1], match[2].lstrip("/"), match[3])


def read_from_hub(name: str, *, part: str | None = None) -> Weights:
    """Read weights of the Hugging Face hub; only the files that are needed are loaded, into its cache.

    Where the hub cannot be reached, or ``HF_HUB_OFFLINE`` is set, the cache is read.

    Args:
      name: ``hf:owner/name``, with ``@revision`` for a branch, tag or commit and ``/file`` for one file of several.
      part: see :func:`ssl_jax.interop.weights.read_weights`.

    Returns:
      The weights; their provenance has the commit, ``revision``.

    Raises:
      ValueError: no such repository or revision, one that asks for a login, or no network and nothing in the cache; says what
        to do.
      ImportError: huggingface_hub is missing.
    """
    parsed = parse_hub_name(name)
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(f"{name}: pip install 'ssl-jax[hub]' to load from the Hugging Face hub") from error
    from huggingface_hub import errors

    try:
        folder = _download(huggingface_hub, parsed)
    except errors.GatedRepoError as error:
        page = f"https://huggingface.co/{parsed.repository}"
        message = f"{name} asks for a login: accept its terms at {page}, then run `hf auth login`"
        raise ValueError(message) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{name}: the repository has no revision {parsed.revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        message = f"{name}: there is no such repository, or it is private and `hf auth login` was not run"
        raise ValueError(message) from error
    # Whatever else stands between here and the hub: no network, a proxy, a timeout, HF_HUB_OFFLINE.
    except _network_errors() as error:
        found = _cached(huggingface_hub, parsed)
        if found is None:
            raise ValueError(
                f"{name} is not in the cache of the Hugging Face hub, and the hub cannot be reached ({_reason(error)}): "
                f"{INSTEAD.format(repository=parsed.repository)}"
            ) from error
        folder = found
    path = folder / parsed.file if parsed.file else folder
    require(path.exists(), "name", name, f"a file of {parsed.repository}")
    weights = read_weights(str(path), part=part)
    return weights._replace(provenance={**weights.provenance, "name": name, "revision": folder.name})


def _download(hub: Any, name: HubName) -> Path:
    """Load the files that are needed and return the folder of the commit in the cache."""
    exact = re.fullmatch(r"[0-9a-f]{40}", name.revision or "")
    folder = _cached(hub, name) if exact else None
    if folder is not None:
        return folder  # a commit does not change
    info = hub.HfApi().model_info(name.repository, revision=name.revision)
    files = files_to_load([file.rfilename for file in info.siblings or ()], name)
    return Path(hub.snapshot_download(name.repository, revision=info.sha, allow_patterns=files))


def _network_errors() -> tuple[type[Exception], ...]:
    """List what a request raises that gets no answer.

    The library of requests beneath huggingface_hub differs by its version; what one raises is not always an OSError.
    """
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return (OSError,)
    own = ("builtins", "huggingface_hub")
    return OSError, *(kind for kind in HfHubHTTPError.__mro__ if kind.__module__.split(".")[0] not in own)


def _cached(hub: Any, name: HubName) -> Path | None:
    """Find a commit in the cache that has weights."""
    with contextlib.suppress(OSError, ValueError):
        folder = Path(hub.snapshot_download(name.repository, revision=name.revision, local_files_only=True))
        if files_to_load([path.relative_to(folder).as_posix() for path in folder.rglob("*")], name):
            return folder
    return None


def files_to_load(files: Sequence[str], name: HubName) -> list[str]:
    """List what of a repository is to be loaded: one set of weights and the facts about them.

    Raises:
      ValueError: no weights, or several files of which none has a usual name; lists them.

    >>> files = ["README.md", "config.json", "model.safetensors", "pytorch_model.bin"]
    >>> files_to_load(files, parse_hub_name("hf:owner/name"))
    ['config.json', 'model.safetensors']
    """
    facts = [file for file in FACTS.values() if file in files]
    if name.file:
        message = f"a file of {name.repository}: {', '.join(f for f in files if f.endswith(SUFFIXES)) or 'it has no weights'}"
        require(name.file in files, "file", name.file, message)
        return [*facts, name.file]
    usual = next((file for file in FOLDER_WEIGHTS if file in files), None)
    if usual is None:
        found = [file for file in files if file.endswith(SUFFIXES) and "/" not in file]
        some = ", ".join(found[:6]) or "none"
        allowed = f"a repository with {FOLDER_WEIGHTS[0]}, or hf:{name.repository}/FILE for one of its files: {some}"
        require(len(found) == 1, "name", f"hf:{name.repository}", allowed)
        return [*facts, found[0]]
    if usual.endswith(".index.json"):
        ending = Path(usual.removesuffix(".index.json")).suffix
        return [*facts, usual, *(file for file in files if re.search(rf"-\d+-of-\d+\{ending}$", file))]
    return [*facts, usual]


def _reason(error: BaseException) -> str:
    return shorten(" ".join(f"{type(error).__name__}: {error}".split()))


def read_from_timm(name: str, *, part: str | None = None) -> Weights:
    """Read pretrained weights of timm, which loads and caches them itself.

    Args:
      name: ``timm:model``, such as ``timm:vit_small_patch14_dinov2.lvd142m``.
      part: see :func:`ssl_jax.interop.weights.read_weights`.

    Returns:
      The weights; their ``sha256`` is that of names and arrays in the order of the names.

    Raises:
      ValueError: timm has no such model or no weights of it, or cannot load them; says what to do.
      ImportError: timm is missing.
    """
    model_name = name.removeprefix("timm:")
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name}: pip install 'ssl-jax[timm]' to load models of timm") from error
    except RuntimeError as error:  # torch and torchvision of different builds
        raise ValueError(f"{name}: timm cannot be imported here ({_reason(error)})") from error
    known = {*timm.list_pretrained(), *timm.list_models(pretrained=True)}
    if model_name not in known:
        message = f"timm {timm.__version__} has no weights of that name"
        raise ValueError(f"{name}: {message}; {_nearest(model_name, known)}")
    failures: tuple[type[Exception], ...] = (RuntimeError, *_network_errors())
    try:
        model = timm.create_model(model_name, pretrained=True)
    except failures as error:
        repository = f"timm/{model_name}"
        raise ValueError(
            f"{name} cannot be loaded by timm ({_reason(error)}): {INSTEAD.format(repository=repository)}"
        ) from error
    tensors = {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}
    unwrapped = unwrap(tensors, part=part, source=name)
    arrays = {key: widen(np.asarray(array)) for key, array in unwrapped.arrays.items()}
    config: Mapping[str, Any] = dict(model.pretrained_cfg)
    architecture = str(config.get("architecture") or model_name.split(".")[0])
    metadata = {
        "pretrained_cfg": {**config, "architecture": architecture},
        "config": {"architecture": architecture, "model_args": _arguments(model)},
    }
    provenance = {
        "name": name,
        "sha256": hash_arrays(arrays),
        "dtype": ", ".join(dict.fromkeys(str(a.dtype) for a in tensors.values() if a.dtype.kind == "f")),
        "timm": timm.__version__,
        **{key: config[key] for key in ("hf_hub_id", "url", "license") if config.get(key)},
    }
    return Weights(arrays, metadata, provenance)


def _arguments(model: Any) -> dict[str, Any]:
    """List what shapes do not say of a ViT of timm, by the names of its arguments."""
    attention = next((module for module in model.modules() if hasattr(module, "num_heads")), None)
    known = {
        "num_heads": getattr(attention, "num_heads", None),
        "global_pool": getattr(model, "global_pool", None),
    }
    return {key: value for key, value in known.items() if isinstance(value, (int, str)) and value != ""}


def _nearest(name: str, names: set[str]) -> str:
    near = did_you_mean(name, names).partition("allowed:")[0].strip()
    return near or "timm.list_pretrained() lists those there are"


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of names and bytes of arrays, in the order of the names.

    >>> hash_arrays({"a": np.zeros(2, np.float32)})[:8]
    '50edc262'
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
