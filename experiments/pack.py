"""Images of any source as shards, without duplicates and balanced where it is asked for.

    python -m experiments.pack --source=folder:photos --out=shards
    python -m experiments.pack --source=folder:photos --out=shards --format=parquet --shorter_side=256 --threads=8
    python -m experiments.pack --source=folder:photos --out=gs://my-images/shards
    python -m experiments.pack --source=folder:photos --out=shards --dedup=near --encoder=timm:vit_small_patch14_dinov2
    python -m experiments.pack --source=folder:photos --out=shards --select=10000 --workdir=runs/first

``--format``: ``tar`` (WebDataset's convention, read by tar:), ``parquet`` (Hugging Face's, parquet:) or ``array_record``
(TensorFlow Datasets', tfds:). The order of the source is kept, and so are the bytes of its images, unless ``--shorter_side``
makes larger ones smaller. Run again with the same flags it goes on where it was interrupted, and checks what is there by its
SHA-256. ``--dedup=exact`` leaves out images with the bytes of another, ``near`` those with features close to another's too, and
shows them on a page. ``--balance=K`` takes images evenly from K clusters of features. ``--select=N`` takes N images: far from
each other (``--selection=k_center``), evenly from clusters of clusters (``hierarchical``), or from those of ``--balance``.
"""

import os

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.encoders import parse_encoders
from ssl_jax.cli.pack import DEDUP, SELECTIONS, Curation, Encoder, pack_images, parse_levels
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.pack import FORMATS, SHARD_MIB, Shards
from ssl_jax.data.stored_image import CHECKS, Encoding

_SOURCE = flags.DEFINE_string(
    "source", None, "Images: folder:PATH, tar:SHARDS, parquet:PATH, tfds:NAME, embedded, fashion_mnist."
)
_SPLIT = flags.DEFINE_string(
    "split", "train", "Split of the source; run again for another, with the same --out."
)
_OUT = flags.DEFINE_string("out", None, "Folder of the shards, or gs://bucket/folder, s3://bucket/folder.")
_FORMAT = flags.DEFINE_enum("format", "tar", FORMATS, "Format of the shards.")
_MIB = flags.DEFINE_float("shard_mib", SHARD_MIB, "MiB of a shard, about.", lower_bound=0.001)
_IMAGES = flags.DEFINE_integer(
    "shard_images", None, "Images of a shard, in place of --shard_mib.", lower_bound=1
)
_SIDE = flags.DEFINE_integer(
    "shorter_side", None, "Resize larger images so that their shorter side has so many pixels.", lower_bound=1
)
_QUALITY = flags.DEFINE_integer(
    "quality", 95, "Of JPEG files that are resized.", lower_bound=1, upper_bound=100
)
_VERIFY = flags.DEFINE_enum(
    "verify", "decode", CHECKS, "Look for damaged images by decoding them, or by their headers only."
)
_THREADS = flags.DEFINE_integer("threads", None, "Images at a time; default: the cores.", lower_bound=1)
_DEDUP = flags.DEFINE_enum("dedup", "none", DEDUP, "Duplicates that are left out.")
_THRESHOLD = flags.DEFINE_float(
    "threshold",
    0.95,
    "Cosine of features from which on images are near duplicates; the page of a first run shows where to put it.",
    lower_bound=-1.0,
    upper_bound=1.0,
)
_BALANCE = flags.DEFINE_integer(
    "balance",
    None,
    "Clusters from which images are taken evenly, of each at most the median size.",
    lower_bound=1,
)
_SELECT = flags.DEFINE_integer("select", None, "Images to take.", lower_bound=1)
_SELECTION = flags.DEFINE_enum("selection", "k_center", SELECTIONS, "How --select chooses.")
_LEVELS = flags.DEFINE_list(
    "levels", [], "Of --selection=hierarchical: numbers of clusters, such as 10000,1000,100."
)
_SHUFFLE = flags.DEFINE_bool(
    "shuffle", False, "Put the images in a random order, for readers that go from shard to shard."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of clusters, draws and --shuffle.", lower_bound=0)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run whose features are compared.")
_ENCODER = flags.DEFINE_string(
    "encoder", None, "In place of a run: a file of weights, hf:OWNER/NAME or timm:NAME."
)
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint of --workdir: latest, best or a number of steps.")
_SIZE = flags.DEFINE_integer(
    "size", None, "Of --encoder: side of the images in pixels; default: as its file says.", lower_bound=1
)
_BATCH = flags.DEFINE_integer("batch_size", 256, "Images at a time of the encoder.", lower_bound=1)
_CORRUPT = flags.DEFINE_float(
    "max_corrupt_fraction",
    MAX_CORRUPT_FRACTION,
    "Share of unreadable images above which the packing fails.",
)


def main() -> None:
    """Pack the images of ``--source``."""
    if _ENCODER.value is not None and _WORKDIR.value is not None:
        raise ValueError("--workdir and --encoder: allowed is one of them")
    encoder = None
    if _WORKDIR.value is not None:
        folder = launch.require_path("workdir", _WORKDIR.value, "DIR")
        encoder = Encoder(folder, _STEP.value, None, _BATCH.value)
    elif _ENCODER.value is not None:
        (name,) = parse_encoders("encoder", [_ENCODER.value])
        encoder = Encoder(name, size=_SIZE.value, batch_size=_BATCH.value)
    pack_images(
        launch.require_flag("source", _SOURCE.value, "folder:PATH"),
        launch.require_path("out", _OUT.value, "DIR"),
        Shards(
            _FORMAT.value, _MIB.value, _IMAGES.value, Encoding(_SIDE.value, _QUALITY.value, _VERIFY.value)
        ),
        Curation(
            dedup=_DEDUP.value,
            threshold=_THRESHOLD.value,
            balance=_BALANCE.value,
            select=_SELECT.value,
            selection=_SELECTION.value,
            levels=parse_levels(_LEVELS.value),
            shuffle=_SHUFFLE.value,
            seed=_SEED.value,
        ),
        split=_SPLIT.value,
        encoder=encoder,
        threads=_THREADS.value or len(os.sched_getaffinity(0)),
        max_corrupt_fraction=_CORRUPT.value,
    )


if __name__ == "__main__":
    launch.run(main)
