"""The encoder by itself, for use elsewhere.

    python -m experiments.export --workdir=runs/first --out=exported
    python -m experiments.export --workdir=runs/first --out=exported --to=timm,transformers,onnx --license=cc-by-4.0
    python -m experiments.export --encoder=hf:facebook/dinov2-small --out=exported --to=ssl_jax,onnx

Formats (``--to``), all of them or nothing is written:

* ``ssl_jax``: ``encoder.safetensors``, weights by path with the architecture in its metadata; ``load_pretrained`` reads it.
* ``stablehlo``: ``encoder.stablehlo``, a program that needs nothing but jax.
* ``timm``, ``torchvision``, ``transformers``, ``onnx``: each a folder of its own in ``--out``. What the library cannot express
  is refused with the reason.

Each says in ``README.md`` what the encoder is, how good it was found to be, and how to use it, and in ``encoder.json`` the
same for programs. ``--workdir`` exports the weights that evaluation uses: the student's, or the average of them where the
method's authors evaluate that (DINO, I-JEPA); the last line says which.
"""

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.export import DEFAULT, FORMATS, export_encoder, export_pretrained
from ssl_jax.core.check import require
from ssl_jax.interop.model_card import NO_LICENSE

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_ENCODER = flags.DEFINE_string(
    "encoder", None, "Weights of others in place of a run: a file, hf:owner/name or timm:name."
)
_OUT = flags.DEFINE_string("out", None, "Folder to write to; made if it is missing.")
_STEP = flags.DEFINE_string(
    "step",
    "latest",
    "Checkpoint: latest, best (by the online kNN, or as the config says) or a number of steps.",
)
_TO = flags.DEFINE_list("to", list(DEFAULT), f"Formats, of {', '.join(FORMATS)}.")
_LICENSE = flags.DEFINE_string(
    "license", NO_LICENSE, "Licence of the weights for the model card, as the Hugging Face hub names it."
)


def main() -> None:
    """Export the encoder of ``--workdir`` or ``--encoder`` to ``--out``."""
    formats, license = _TO.value, _LICENSE.value
    if _ENCODER.value:
        given = [name for name, flag in (("workdir", _WORKDIR), ("step", _STEP)) if flag.present]
        require(not given, "encoder", _ENCODER.value, f"one of --encoder and --{' and --'.join(given)}")
        out = launch.require_path("out", _OUT.value, "FOLDER")
        export_pretrained(_ENCODER.value, out, formats=formats, license=license)
        return
    workdir = launch.require_path("workdir", _WORKDIR.value, "DIR")
    out = launch.require_path("out", _OUT.value, "FOLDER")
    export_encoder(workdir, out, step=_STEP.value, formats=formats, license=license)


if __name__ == "__main__":
    launch.run(main)
