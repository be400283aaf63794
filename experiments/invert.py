"""What features keep of an image and what they leave free: decoders back to pixels, of backbone and projector side by side.

    python -m experiments.invert --workdir=runs/first
    python -m experiments.invert --workdir=runs/first --read=backbone,projector,patches --steps=5000
    python -m experiments.invert --encoder=hf:facebook/dinov2-small --source=folder:photos

Trains two decoders on each of what is read (``--kinds``): ``deterministic``, which gives back the mean of all images with these
features, and ``flow``, a small network trained by flow matching that draws such images: what differs between samples is what
the features do not say. Prints how much of the pixels of test images comes back, how much varies freely, and which
transformations of an image can be read off (no labels needed); writes ``inversion.json`` and the picture ``inversion.png`` into
``inversion/`` of the run, or ``--out``. The same command goes on where it was stopped.
"""

from typing import Any

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.encoders import parse_encoders
from ssl_jax.cli.invert import Wanted, invert_encoder, invert_run
from ssl_jax.evaluate.inversion import DEFAULT, KINDS, Training
from ssl_jax.ops.ode import SOLVERS

_SHOWN = Wanted()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_ENCODER = flags.DEFINE_string(
    "encoder", None, "In place of a run: a file of weights, hf:OWNER/NAME or timm:NAME; needs --source."
)
_SIZE = flags.DEFINE_integer(
    "size", None, "Of --encoder: side of the images in pixels; default: as its file says.", lower_bound=1
)
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)
_OUT = flags.DEFINE_string("out", None, "Folder to write; default: inversion in that of the run.")
_SOURCE = flags.DEFINE_string("source", None, "Images; default: those of the run.")
_TRAIN = flags.DEFINE_string(
    "train_split", None, "Split that trains the decoders; default: as the config says."
)
_TEST = flags.DEFINE_string("test_split", None, "Split that is reported; default: as the config says.")
_READ = flags.DEFINE_list(
    "read", None, "What is read, of backbone, projector and patches; default: the first two, where there are."
)
_KINDS = flags.DEFINE_list("kinds", list(KINDS), "Decoders, of deterministic and flow.")
_STEPS = flags.DEFINE_integer("steps", DEFAULT.steps, "Updates of each decoder.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch_size", DEFAULT.batch_size, "Images a step.", lower_bound=1)
_RATE = flags.DEFINE_float("learning_rate", DEFAULT.learning_rate, "Highest learning rate.")
_WIDTH = flags.DEFINE_integer(
    "width", DEFAULT.width, "Channels of decoders at the side of the images.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", DEFAULT.seed, "Seed of weights, order and noise.", lower_bound=0)
_IMAGES = flags.DEFINE_integer("images", _SHOWN.images, "Test images in the picture.", lower_bound=2)
_SAMPLES = flags.DEFINE_integer("samples", _SHOWN.samples, "Samples for each of them.", lower_bound=2)
_SOLVER = flags.DEFINE_enum("solver", _SHOWN.solver, list(SOLVERS), "Solver of the flow.")
_SOLVER_STEPS = flags.DEFINE_integer("solver_steps", _SHOWN.solver_steps, "Its steps.", lower_bound=1)
_CORRUPT = flags.DEFINE_float(
    "max_corrupt_fraction", None, "Share of unreadable images above which it ends; default: that of the run."
)


def main() -> None:
    """Invert the run in ``--workdir``, or the encoder ``--encoder``."""
    given: dict[str, Any] = {
        "out": None if _OUT.value is None else launch.require_path("out", _OUT.value, "DIR", local=True),
        "splits": (_TRAIN.value, _TEST.value),
        "training": Training(_STEPS.value, _BATCH.value, _RATE.value, _WIDTH.value, _SEED.value),
        "wanted": Wanted(
            None if _READ.value is None else tuple(_READ.value),
            tuple(_KINDS.value),
            _IMAGES.value,
            _SAMPLES.value,
            _SOLVER.value,
            _SOLVER_STEPS.value,
        ),
        "max_corrupt_fraction": _CORRUPT.value,
    }
    if _ENCODER.value is not None:
        if _WORKDIR.value is not None:
            raise ValueError("--workdir and --encoder: allowed is one of them")
        if _STEP.value != "latest":
            raise ValueError(f"--step={_STEP.value}: allowed with --workdir only")
        (name,) = parse_encoders("encoder", [launch.require_flag("encoder", _ENCODER.value, "FILE")])
        source = launch.require_flag("source", _SOURCE.value, "folder:PATH")
        invert_encoder(name, source, size=_SIZE.value, **given)
        return
    if _SIZE.value is not None:
        raise ValueError(f"--size={_SIZE.value}: allowed with --encoder only")
    workdir = launch.require_path("workdir", _WORKDIR.value, "DIR", local=_OUT.value is None)
    invert_run(workdir, step=_STEP.value, source=_SOURCE.value, **given)


if __name__ == "__main__":
    launch.run(main)
