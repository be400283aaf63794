"""What a pretrained encoder is worth: probes on frozen features, beside baselines measured by the same code.

    python -m experiments.evaluate --workdir=runs/first
    python -m experiments.evaluate --workdir=runs/first --beside=runs/supervised --measures=all
    python -m experiments.evaluate --encoder=hf:facebook/dinov2-small --source=folder:photos

Prints a table in which the encoder stands beside raw pixels, their principal components, its own random initialisation, the
weights that it started from, and other encoders (``--beside``: folders of runs, or names as for ``--encoder``), and writes
``evaluation.json`` into the workdir. ``--encoder`` measures weights without a run, in the size and normalisation that their
file asks for, and writes ``evaluation-NAME.json`` here, or ``--out``. Measures: knn, linear, ridge, logistic, few, retrieval
(on features), rotation (a proxy without labels), label_free (the score of everything that needs no label), health (rank,
spectrum, spread), invariance (how far features move when images are changed, and whether the change can be read off), layers
(each layer and pooling), attentive (one query over the tokens of several layers), finetune (1 % and 10 % of the labels),
correspondence (patches of two views, without labels), segmentation (classes of pixels, of images with masks: ``--masks``,
``--void``), propagation (masks through videos: frames with masks, a label for each video), regression (a number for each pixel:
``--pixel_values``). A classifier that the method has learnt is measured too, and for methods that cluster their training images
a table has purity, mutual information with the classes and the share of images whose cluster changed in the last refresh.
"""

from typing import Any

from absl import flags

from ssl_jax.cli import launch, pixel_targets, processes
from ssl_jax.cli.encoders import parse_encoders
from ssl_jax.cli.evaluate import BASELINES, evaluate_encoder, evaluate_run

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_ENCODER = flags.DEFINE_string(
    "encoder", None, "In place of a run: a file of weights, hf:OWNER/NAME or timm:NAME; needs --source."
)
_SIZE = flags.DEFINE_integer(
    "size", None, "Of --encoder: side of the images in pixels; default: as its file says.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "Of --encoder: file to write; default: evaluation-NAME.json here.")
_STEP = flags.DEFINE_string(
    "step",
    "latest",
    "Checkpoint: latest, best (by the online kNN, or as the config says) or a number of steps.",
)
_SOURCE = flags.DEFINE_string("source", None, "Images to evaluate on; default: those of the run.")
_TRAIN = flags.DEFINE_string("train_split", None, "Split that fits the probes; default: as the config says.")
_TEST = flags.DEFINE_string("test_split", None, "Split that is reported; default: as the config says.")
_BESIDE = flags.DEFINE_multi_string(
    "beside", [], "Folder of another run, or name of an encoder, that is measured too; may be repeated."
)
_MEASURES = flags.DEFINE_list("measures", None, "Measures, or all; default: as the config says.")
_BASELINES = flags.DEFINE_list(
    "baselines", list(BASELINES), "What to measure beside it, of pixels, pca, random and start."
)
_CORRUPT = flags.DEFINE_float(
    "max_corrupt_fraction", None, "Share of unreadable images above which it ends; default: that of the run."
)
_PIXELS = pixel_targets.define_flags()
_CLUSTER = processes.define_flags()


def main() -> None:
    """Evaluate the run in ``--workdir``, or the encoder ``--encoder``."""
    given: dict[str, Any] = {
        "splits": (_TRAIN.value, _TEST.value),
        "beside": parse_encoders("beside", _BESIDE.value),
        "measures": _MEASURES.value,
        "baselines": _BASELINES.value,
        "max_corrupt_fraction": _CORRUPT.value,
        "pixels": _PIXELS(),
    }
    if _ENCODER.value is not None:
        if _WORKDIR.value is not None:
            raise ValueError("--workdir and --encoder: allowed is one of them; --beside takes further ones")
        if _STEP.value != "latest":
            raise ValueError(f"--step={_STEP.value}: allowed with --workdir only")
        (name,) = parse_encoders("encoder", [launch.require_flag("encoder", _ENCODER.value, "FILE")])
        source = launch.require_flag("source", _SOURCE.value, "folder:PATH")
        out = None if _OUT.value is None else launch.require_path("out", _OUT.value, "FILE.json")
        with processes.distributed(_CLUSTER()):
            evaluate_encoder(name, source, out=out, size=_SIZE.value, **given)
        return
    workdir = launch.require_path("workdir", _WORKDIR.value, "DIR")
    for flag in (_SIZE, _OUT):
        if flag.value is not None:
            raise ValueError(f"--{flag.name}={flag.value}: allowed with --encoder only")
    with processes.distributed(_CLUSTER()):
        evaluate_run(workdir, step=_STEP.value, source=_SOURCE.value, **given)


if __name__ == "__main__":
    launch.run(main)
