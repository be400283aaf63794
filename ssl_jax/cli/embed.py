"""Features of any images, as a file: the body of ``experiments.embed``."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.core.check import choice
from ssl_jax.core.files import require_folder, write_atomically
from ssl_jax.evaluate.measure import class_name
from ssl_jax.train.features import Features, extract_source


def embed_images(
    workdir: Path,
    source: str,
    out: Path,
    *,
    split: str = "train",
    step: str = "latest",
    batch_size: int = 256,
    max_corrupt_fraction: float | None = None,
) -> None:
    """Encode images by the encoder of a run and write their features.

    Args:
      workdir: folder of the run.
      source: images, as :func:`ssl_jax.data.open.open_source` takes them.
      out: file to write, ``.npz`` or ``.parquet``.
      split: split of the source.
      step: checkpoint: ``latest``, ``best`` or a number of steps.
      batch_size: images at a time.
      max_corrupt_fraction: share of unreadable images above which nothing is written; ``None``: as the config says.

    Raises:
      ValueError: a file of another kind, or what the run or the source finds wrong.
    """
    choice("out", out.suffix, (".npz", ".parquet"))
    require_folder("out", out)
    config, method, model = build.restore(workdir, step)
    config = build.with_corrupt_fraction(config, max_corrupt_fraction)
    images = open_images(config, source, split)
    view, crop_ratio = method.views[0], config["watch"]["evaluate"]["crop_ratio"]
    encoded = extract_source(
        method.encode,
        images,
        view=view,
        variables=(model.params, model.state),
        batch_size=batch_size,
        crop_ratio=crop_ratio,
        max_corrupt_fraction=config["data"]["max_corrupt_fraction"],
    )
    corrupt = len(images) - len(encoded.index)
    names = [images.file_name(int(i)) for i in encoded.index]
    pack = to_npz if out.suffix == ".npz" else to_parquet
    write_atomically(out, pack(encoded, names, images.classes))
    left_out = f", {corrupt} unreadable left out" if corrupt else ""
    print(f"{len(names)} x {encoded.features.shape[1]} features in {out}{left_out}")


def to_npz(encoded: Features, names: list[str], classes: Sequence[str]) -> bytes:
    """Pack features as arrays ``features``, ``file_name``, ``index``, ``label``, ``class_name``; no pickles."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        features=encoded.features,
        file_name=np.array(names),
        index=encoded.index,
        label=encoded.labels,
        class_name=np.array(class_names(encoded.labels, classes)),
    )
    return buffer.getvalue()


def to_parquet(encoded: Features, names: list[str], classes: Sequence[str]) -> bytes:
    """Pack features as columns ``file_name``, ``index``, ``label``, ``class_name``, ``features`` (a list of float32).

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
    width = encoded.features.shape[1]
    rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(encoded.features.ravel()), width)
    columns = {
        "file_name": names,
        "index": pyarrow.array(encoded.index),
        "label": pyarrow.array(encoded.labels),
        "class_name": class_names(encoded.labels, classes),
        "features": rows,
    }
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def class_names(labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Name the class of each label; "" where there is none.

    >>> class_names(np.array([1, -1, 0]), ("cat", "dog"))
    ['dog', '', 'cat']
    """
    return [class_name(int(label), classes) if label >= 0 else "" for label in labels]
