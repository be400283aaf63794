"""What encoders know of pixels: rows of segmentation for pixels, random encoders and runs, on one set with masks.

    python -m experiments.dense --source=parquet:../shared/data/camvid_240x180 --void=11 \\
        --random=mae:color64,short --random=simclr:color64,short --seeds=0,1,2 --runs=runs/results/color64/mae-0 \\
        --out=results/dense.jsonl

Measures raw pixels, the encoders of configs as they are drawn (``--random``, repeated), and those of runs (``--runs``,
repeated), by measures that need a target for each pixel, and adds a row for each to ``--out``. Rows that are there are not made
again: a command that was stopped goes on, ``--minutes`` ends in time. Prints the table. ``--masks``, ``--void``, ``--palette``,
``--mask_classes`` and ``--map_size`` are those of ``experiments.evaluate``, which measures one run by everything else too.
"""

from absl import flags

from ssl_jax.cli import launch, pixel_targets
from ssl_jax.cli.dense import measure_dense, tables_of

_SOURCE = flags.DEFINE_string("source", None, "Images with masks: parquet:, folder: or tfds:.")
_OUT = flags.DEFINE_string("out", None, "File of the rows.")
_RUNS = flags.DEFINE_multi_string("runs", [], "Folder of a run; may be repeated.")
_RANDOM = flags.DEFINE_multi_string(
    "random", [], "METHOD:ARGUMENTS of a config whose encoder is measured as it is drawn; may be repeated."
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of the random encoders.")
_MEASURES = flags.DEFINE_list("measures", ["segmentation"], "Measures that need a target for each pixel.")
_TRAIN = flags.DEFINE_string("train_split", "train", "Split that heads are fitted to.")
_TEST = flags.DEFINE_string("test_split", "test", "Split that is reported.")
_MINUTES = flags.DEFINE_float("minutes", None, "No encoder is begun after so many.", lower_bound=0)
_PIXELS = pixel_targets.define_flags()


def main() -> None:
    """Measure what is missing, and print the table."""
    source = launch.require_flag("source", _SOURCE.value, "parquet:PATH")
    out = launch.require_path("out", _OUT.value, "results/dense.jsonl", local=True)
    rows = measure_dense(
        source,
        out,
        runs=launch.parse_folders("runs", _RUNS.value),
        random=[spec for spec in _RANDOM.value if spec],
        seeds=launch.parse_seeds(_SEEDS.value),
        splits=(_TRAIN.value, _TEST.value),
        pixels=_PIXELS(),
        measures=_MEASURES.value,
        minutes=_MINUTES.value,
    )
    print(tables_of(rows))


if __name__ == "__main__":
    launch.run(main)
