"""Features of any images, by a pretrained encoder.

    python -m experiments.embed --workdir=runs/first --source=folder:photos --out=photos.npz

Writes ``features`` (float32 ``[n, d]``), ``file_name`` and ``label`` (-1: none), to ``.npz`` or ``.parquet``. Unreadable images
are named and left out.
"""

import io
from pathlib import Path

import numpy as np
from absl import flags

from ssl_jax.cli import launch
from ssl_jax.config import build
from ssl_jax.core.check import choice
from ssl_jax.core.files import write_atomically
from ssl_jax.data.loader import epoch
from ssl_jax.train.features import extract

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SOURCE = flags.DEFINE_string(
    "source", None, "Images: folder:PATH, parquet:PATH, tfds:NAME, embedded, fashion_mnist."
)
_SPLIT = flags.DEFINE_string("split", "train", "Split of the source.")
_OUT = flags.DEFINE_string("out", None, "File to write, .npz or .parquet.")
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)
_BATCH = flags.DEFINE_integer("batch_size", 256, "Images at a time.", lower_bound=1)
_CORRUPT = flags.DEFINE_float(
    "max_corrupt_fraction", 1.0, "Share of unreadable images above which nothing is written."
)


def main() -> None:
    """Embed the images of ``--source``."""
    workdir = Path(launch.require_flag("workdir", _WORKDIR.value, "DIR"))
    spec = launch.require_flag("source", _SOURCE.value, "folder:PATH")
    out = Path(launch.require_flag("out", _OUT.value, "FILE.npz"))
    choice("out", out.suffix, (".npz", ".parquet"))
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"out={str(out)!r}: its folder does not exist")
    config, method, model = build.restore(workdir, _STEP.value)
    source = build.open_images(config, spec, _SPLIT.value)
    view, ratio = method.views[0], config["watch"]["evaluate"]["crop_ratio"]
    options = {
        "batch_size": _BATCH.value,
        "size": view.size,
        "crop_ratio": ratio,
        "max_corrupt_fraction": _CORRUPT.value,
    }
    with epoch(source, **options) as batches:
        found = extract(method.encode, batches, view=view, variables=(model.params, model.state))
        corrupt = len(batches.corrupt)
    names = [source.file_name(int(i)) for i in found.index]
    write_atomically(out, npz(found, names) if out.suffix == ".npz" else parquet(found, names))
    left_out = f", {corrupt} unreadable left out" if corrupt else ""
    print(f"{len(names)} x {found.features.shape[1]} features in {out}{left_out}")


def npz(found, names: list[str]) -> bytes:
    """Arrays ``features``, ``file_name``, ``label``; no pickles."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, features=found.features, file_name=np.array(names), label=found.labels)
    return buffer.getvalue()


def parquet(found, names: list[str]) -> bytes:
    """Columns ``file_name``, ``label``, ``features`` (a list of float32)."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "writing .parquet needs pyarrow: pip install 'ssl-jax[parquet]', or write .npz"
        ) from error
    width = found.features.shape[1]
    rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(found.features.ravel()), width)
    columns = {"file_name": names, "label": pyarrow.array(found.labels), "features": rows}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


if __name__ == "__main__":
    launch.run(main)
