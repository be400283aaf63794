"""The encoder by itself, for use elsewhere.

    python -m experiments.export --workdir=runs/first --out=exported

Leaves in the folder ``encoder.safetensors`` (weights by path, the architecture in its metadata; read by
``ssl_jax.models.serialize.load_encoder``) and ``encoder.stablehlo``, a program that needs nothing but jax:

    features = jax.export.deserialize(bytearray(open("encoder.stablehlo", "rb").read())).call(images)

``images`` is float32 ``[n, size, size, channels]`` in [0, 1], for any n; the program normalises by itself.
"""

import json
from pathlib import Path

from absl import flags

from ssl_jax.augment.color import normalize
from ssl_jax.cli import launch
from ssl_jax.config import build
from ssl_jax.core.files import write_atomically
from ssl_jax.core.types import Array
from ssl_jax.models.serialize import export_stablehlo, save_encoder

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_OUT = flags.DEFINE_string("out", None, "Folder to write to; made if it is missing.")
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)


def main() -> None:
    """Export the encoder of ``--workdir`` to ``--out``."""
    workdir = Path(launch.require_flag("workdir", _WORKDIR.value, "DIR"))
    out = Path(launch.require_flag("out", _OUT.value, "FOLDER"))
    config, method, model = build.restore(workdir, _STEP.value)
    view, channels = method.views[0], config["data"]["channels"]
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "method": config["method"]["name"],
        "step": model.step,
        "image_shape": [view.size, view.size, channels],
        "mean": list(view.mean),
        "std": list(view.std),
        "features": method.encoder.features,
    }
    params, state = method.encoder_variables(model.params, model.state)
    save_encoder(out / "encoder.safetensors", method.encoder, params, state, metadata=facts)

    def encode(images: Array) -> Array:
        return method.encode(model.params, model.state, normalize(images, mean=view.mean, std=view.std))

    export_stablehlo(out / "encoder.stablehlo", encode, (view.size, view.size, channels))
    write_atomically(out / "encoder.json", json.dumps(facts, indent=2) + "\n")
    print(f"{out}: encoder.safetensors, encoder.stablehlo, encoder.json")


if __name__ == "__main__":
    launch.run(main)
