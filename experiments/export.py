"""The encoder by itself, for use elsewhere.

    python -m experiments.export --workdir=runs/first --out=exported

Leaves in the folder ``encoder.safetensors`` (weights by path, the architecture in its metadata; read by
``ssl_jax.models.serialize.load_encoder``) and ``encoder.stablehlo``, a program that needs nothing but jax:

    features = jax.export.deserialize(bytearray(open("encoder.stablehlo", "rb").read())).call(images)

``images`` is float32 ``[n, size, size, channels]`` in [0, 1], for any n; the program normalises by itself.
"""

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.export import export_encoder

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_OUT = flags.DEFINE_string("out", None, "Folder to write to; made if it is missing.")
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)


def main() -> None:
    """Export the encoder of ``--workdir`` to ``--out``."""
    workdir = launch.require_path("workdir", _WORKDIR.value, "DIR")
    export_encoder(workdir, launch.require_path("out", _OUT.value, "FOLDER"), step=_STEP.value)


if __name__ == "__main__":
    launch.run(main)
