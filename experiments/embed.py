"""Features of any images, by a pretrained encoder.

    python -m experiments.embed --workdir=runs/first --source=folder:photos --out=photos.npz
    python -m experiments.embed --encoder=hf:facebook/dinov2-small --source=folder:photos --out=photos.npz --tokens

Writes ``features`` (float32 ``[n, d]``), ``file_name``, ``label`` (-1: none) and its ``class_name``, to
``.npz`` or ``.parquet``. ``--tokens`` adds ``patches``, the features of the patches of a ViT or of the last map of a
convolutional network (float32 ``[n, rows * columns, d]``), and ``grid``, their rows and columns. Unreadable images are named
and left out: ``index`` is the position of a row in the source.
"""

from pathlib import Path

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.embed import embed_images
from ssl_jax.cli.encoders import parse_encoders

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_ENCODER = flags.DEFINE_string(
    "encoder", None, "In place of a run: a file of weights, hf:OWNER/NAME or timm:NAME."
)
_SIZE = flags.DEFINE_integer(
    "size", None, "Of --encoder: side of the images in pixels; default: as its file says.", lower_bound=1
)
_TOKENS = flags.DEFINE_bool("tokens", False, "Write the features of patches too.")
_SOURCE = flags.DEFINE_string(
    "source", None, "Images: folder:PATH, parquet:PATH, tfds:NAME, embedded, fashion_mnist."
)
_SPLIT = flags.DEFINE_string("split", "train", "Split of the source.")
_OUT = flags.DEFINE_string("out", None, "File to write, .npz or .parquet.")
_STEP = flags.DEFINE_string(
    "step",
    "latest",
    "Checkpoint: latest, best (by the online kNN, or as the config says) or a number of steps.",
)
_BATCH = flags.DEFINE_integer("batch_size", 256, "Images at a time.", lower_bound=1)
_CORRUPT = flags.DEFINE_float(
    "max_corrupt_fraction",
    None,
    "Share of unreadable images above which nothing is written; default: that of the run.",
)


def main() -> None:
    """Embed the images of ``--source``."""
    if _ENCODER.value is not None and _WORKDIR.value is not None:
        raise ValueError("--workdir and --encoder: allowed is one of them")
    if _ENCODER.value is None and _SIZE.value is not None:
        raise ValueError(f"--size={_SIZE.value}: allowed with --encoder only")
    if _ENCODER.value is not None and _STEP.value != "latest":
        raise ValueError(f"--step={_STEP.value}: allowed with --workdir only")
    name: Path | str
    if _ENCODER.value is None:
        name = launch.require_path("workdir", _WORKDIR.value, "DIR")
    else:
        (name,) = parse_encoders("encoder", [launch.require_flag("encoder", _ENCODER.value, "FILE")])
    embed_images(
        name,
        launch.require_flag("source", _SOURCE.value, "folder:PATH"),
        launch.require_path("out", _OUT.value, "FILE.npz"),
        split=_SPLIT.value,
        step=_STEP.value,
        batch_size=_BATCH.value,
        max_corrupt_fraction=_CORRUPT.value,
        tokens=_TOKENS.value,
        size=_SIZE.value,
    )


if __name__ == "__main__":
    launch.run(main)
