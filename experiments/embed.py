"""Features of any images, by a pretrained encoder.

    python -m experiments.embed --workdir=runs/first --source=folder:photos --out=photos.npz

Writes ``features`` (float32 ``[n, d]``), ``file_name``, ``label`` (-1: none) and its ``class_name``, to
``.npz`` or ``.parquet``. Unreadable images are named and left out: ``index`` is the position of a row in the source.
"""

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.embed import embed_images

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
    "max_corrupt_fraction",
    None,
    "Share of unreadable images above which nothing is written; default: that of the run.",
)


def main() -> None:
    """Embed the images of ``--source``."""
    embed_images(
        launch.require_path("workdir", _WORKDIR.value, "DIR"),
        launch.require_flag("source", _SOURCE.value, "folder:PATH"),
        launch.require_path("out", _OUT.value, "FILE.npz"),
        split=_SPLIT.value,
        step=_STEP.value,
        batch_size=_BATCH.value,
        max_corrupt_fraction=_CORRUPT.value,
    )


if __name__ == "__main__":
    launch.run(main)
