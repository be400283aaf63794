"""What a pretrained encoder is worth: probes on frozen features, beside baselines measured by the same code.

    python -m experiments.evaluate --workdir=runs/first
    python -m experiments.evaluate --workdir=runs/first --beside=runs/supervised --measures=all

Prints a table in which the encoder stands beside raw pixels, their principal components, its own random initialisation and
the encoders of other runs (``--beside``), and writes ``evaluation.json`` into the workdir. Measures: knn, linear, ridge,
logistic, few, retrieval (on features), rotation (a proxy without labels), health (rank, spectrum, spread), layers (each
layer and pooling), finetune (1 % and 10 % of the labels). A classifier that the method has learnt is measured too, and for
methods that cluster their training images a table has purity, mutual information with the classes and the share of images
whose cluster changed in the last refresh.
"""

from absl import flags

from ssl_jax.cli import launch, processes
from ssl_jax.cli.evaluate import BASELINES, evaluate_run

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)
_SOURCE = flags.DEFINE_string("source", None, "Images to evaluate on; default: those of the run.")
_TRAIN = flags.DEFINE_string("train_split", None, "Split that fits the probes; default: as the config says.")
_TEST = flags.DEFINE_string("test_split", None, "Split that is reported; default: as the config says.")
_BESIDE = flags.DEFINE_multi_string(
    "beside", [], "Folder of another run whose encoder is measured too; may be repeated."
)
_MEASURES = flags.DEFINE_list("measures", None, "Measures, or all; default: as the config says.")
_BASELINES = flags.DEFINE_list(
    "baselines", list(BASELINES), "What to measure beside it, of pixels, pca and random."
)
_CORRUPT = flags.DEFINE_float(
    "max_corrupt_fraction", None, "Share of unreadable images above which it ends; default: that of the run."
)
_CLUSTER = processes.define_flags()


def main() -> None:
    """Evaluate the run in ``--workdir``."""
    workdir = launch.require_path("workdir", _WORKDIR.value, "DIR")
    with processes.distributed(_CLUSTER()):
        evaluate_run(
            workdir,
            step=_STEP.value,
            source=_SOURCE.value,
            splits=(_TRAIN.value, _TEST.value),
            beside=launch.parse_folders("beside", _BESIDE.value),
            measures=_MEASURES.value,
            baselines=_BASELINES.value,
            max_corrupt_fraction=_CORRUPT.value,
        )


if __name__ == "__main__":
    launch.run(main)
