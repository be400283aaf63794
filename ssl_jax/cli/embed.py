"""Features of any images, as a file: the body of ``experiments.embed``."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.cli.encoders import config_without_run, describe_encoder, load_encoder
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.core.check import choice
from ssl_jax.core.files import require_folder, write_atomically
from ssl_jax.core.types import Array, Params, State
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.dense.features import patch_features
from ssl_jax.evaluate.measure import class_name
from ssl_jax.methods.method import Method
from ssl_jax.train.features import Features, extract_source


class Embedder(NamedTuple):
    """What turns images into features.

    Attributes:
      method: gives the encoder, and in its first view size and normalisation.
      variables: params and state of the method.
      crop_ratio: share of each side that the central crop keeps.
      config: says how images are opened.
    """

    method: Method
    variables: tuple[Params, State]
    crop_ratio: float
    config: build.Config


class Tokens(NamedTuple):
    """Features of patches.

    Attributes:
      patches: float32 ``[n, rows * columns, d]``, row by row from the top left.
      grid: rows and columns.
    """

    patches: np.ndarray
    grid: tuple[int, int]


def embed_images(
    name: Path | str,
    source: str,
    out: Path,
    *,
    split: str = "train",
    step: str = "latest",
    batch_size: int = 256,
    max_corrupt_fraction: float | None = None,
    tokens: bool = False,
    size: int | None = None,
) -> None:
    """Encode images by the encoder of a run, or by one that is loaded by its name, and write their features.

    Args:
      name: folder of the run (a path), or name of an encoder (a text), see :func:`ssl_jax.interop.load_pretrained`.
      source: images, as :func:`ssl_jax.data.open.open_source` takes them.
      out: file to write, ``.npz`` or ``.parquet``.
      split: split of the source.
      step: checkpoint of a run: ``latest``, ``best`` or a number of steps.
      batch_size: images at a time.
      max_corrupt_fraction: share of unreadable images above which nothing is written; ``None``: as the config says.
      tokens: whether the features of patches are written too.
      size: side of the images in pixels, for an encoder by its name; ``None``: that of its file.

    Raises:
      ValueError: a file of another kind, or what the run, the encoder or the source finds wrong.
    """
    choice("out", out.suffix, (".npz", ".parquet"))
    require_folder("out", out)
    embedder, images = open_embedder(
        name, source, split=split, step=step, size=size, max_corrupt_fraction=max_corrupt_fraction
    )
    encoded, found = encode_images(embedder, images, tokens=tokens, batch_size=batch_size)
    corrupt = len(images) - len(encoded.index)
    names = [images.file_name(int(i)) for i in encoded.index]
    pack = to_npz if out.suffix == ".npz" else to_parquet
    write_atomically(out, pack(encoded, names, images.classes, found))
    left_out = f", {corrupt} unreadable left out" if corrupt else ""
    of_patches = ""
    if found is not None:
        rows, columns = found.grid
        of_patches = f" and {rows} x {columns} patches of {found.patches.shape[2]} each"
    print(f"{len(names)} x {encoded.features.shape[1]} features{of_patches} in {out}{left_out}")


def open_embedder(
    name: Path | str,
    source: str,
    *,
    split: str = "train",
    step: str = "latest",
    size: int | None = None,
    max_corrupt_fraction: float | None = None,
) -> tuple[Embedder, Source]:
    """Load the encoder of a run, or one by its name, and open images as it sees them.

    Args:
      name, source, split, step, size, max_corrupt_fraction: as of :func:`embed_images`.

    Raises:
      ValueError: what the run, the encoder or the source finds wrong.
    """
    if isinstance(name, Path):
        config, method, model = build.restore(name, step)
        variables, ratio = (model.params, model.state), config["watch"]["evaluate"]["crop_ratio"]
        images = open_images(config, source, split)
    else:
        config = config_without_run(source, (split, split), None)
        images = open_images(config, source, split)
        encoder = load_encoder(name, images, size=size)
        print(describe_encoder(encoder), flush=True)
        method, params, state = encoder.candidate[2:5]
        variables, ratio, images = (params, state), 1.0, encoder.candidate.see(images)
    config = build.with_corrupt_fraction(config, max_corrupt_fraction)
    return Embedder(method, variables, ratio, config), images


def encode_images(
    embedder: Embedder, images: Source, *, tokens: bool, batch_size: int
) -> tuple[Features, Tokens | None]:
    """Compute the features of images, and with ``tokens`` those of their patches.

    Raises:
      ValueError: an encoder without features of patches, or what the source finds wrong.
    """
    method = embedder.method
    view = method.views[0]
    image = jax.ShapeDtypeStruct((1, view.size, view.size, images.channels), np.float32)

    def encode_patches(params: Params, state: State, images: Array) -> Array:
        return patch_features(method.encoder, *method.encoder_variables(params, state), images)

    def encode_both(params: Params, state: State, images: Array) -> Array:
        patches = encode_patches(params, state, images)
        features = method.encode(params, state, images)
        return jnp.concatenate([features, patches.reshape(len(patches), -1)], axis=1)

    if tokens:
        _, rows, columns, dims = jax.eval_shape(encode_patches, *embedder.variables, image).shape
    encoded = extract_source(
        encode_both if tokens else method.encode,
        images,
        view=view,
        variables=embedder.variables,
        batch_size=batch_size,
        crop_ratio=embedder.crop_ratio,
        max_corrupt_fraction=embedder.config["data"]["max_corrupt_fraction"],
    )
    if not tokens:
        return encoded, None
    width = encoded.features.shape[1] - rows * columns * dims
    patches = encoded.features[:, width:].reshape(-1, rows * columns, dims)
    return encoded._replace(features=encoded.features[:, :width]), Tokens(patches, (rows, columns))


def to_npz(
    encoded: Features, names: list[str], classes: Sequence[str], tokens: Tokens | None = None
) -> bytes:
    """Pack features as arrays ``features``, ``file_name``, ``index``, ``label``, ``class_name``; no pickles.

    With tokens also ``patches`` ``[n, rows * columns, d]`` and ``grid``, the rows and columns.
    """
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "features": encoded.features,
        "file_name": np.array(names),
        "index": encoded.index,
        "label": encoded.labels,
        "class_name": np.array(class_names(encoded.labels, classes)),
    }
    if tokens is not None:
        arrays |= {"patches": tokens.patches, "grid": np.array(tokens.grid)}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def to_parquet(
    encoded: Features, names: list[str], classes: Sequence[str], tokens: Tokens | None = None
) -> bytes:
    """Pack features as columns ``file_name``, ``index``, ``label``, ``class_name``, ``features`` (a list of float32).

    With tokens also ``patches``, a list of such lists, and ``grid``, the rows and columns.

    Raises:
      ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "writing .parquet needs pyarrow: pip install 'ssl-jax[parquet]', or write .npz"
        ) from error

    def lists(values: Any, length: int) -> Any:
        return pyarrow.FixedSizeListArray.from_arrays(values, length)

    columns = {
        "file_name": names,
        "index": pyarrow.array(encoded.index),
        "label": pyarrow.array(encoded.labels),
        "class_name": class_names(encoded.labels, classes),
        "features": lists(pyarrow.array(encoded.features.ravel()), encoded.features.shape[1]),
    }
    if tokens is not None:
        count, positions, dims = tokens.patches.shape
        columns["patches"] = lists(lists(pyarrow.array(tokens.patches.ravel()), dims), positions)
        columns["grid"] = lists(pyarrow.array(np.tile(np.array(tokens.grid, np.int32), count)), 2)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def class_names(labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Name the class of each label; "" where there is none.

    >>> class_names(np.array([1, -1, 0]), ("cat", "dog"))
    ['dog', '', 'cat']
    """
    return [class_name(int(label), classes) if label >= 0 else "" for label in labels]
