"""The encoder of a run by itself, for use elsewhere: the body of ``experiments.export``."""

import json
from pathlib import Path

from ssl_jax.augment.color import normalize
from ssl_jax.config import build
from ssl_jax.core.files import write_atomically
from ssl_jax.core.types import Array
from ssl_jax.models.serialize import export_stablehlo, save_encoder


def export_encoder(workdir: Path, out: Path, *, step: str = "latest") -> None:
    """Write ``encoder.safetensors``, ``encoder.stablehlo`` and ``encoder.json``.

    Args:
      workdir: folder of the run.
      out: folder to write to; made if it is missing.
      step: checkpoint: ``latest``, ``best`` or a number of steps.
    """
    config, method, model = build.restore(workdir, step)
    view, channels = method.views[0], config["data"]["channels"]
    out.mkdir(parents=True, exist_ok=True)
    metadata = {
        "method": config["method"]["name"],
        "step": model.step,
        "image_shape": [view.size, view.size, channels],
        "mean": list(view.mean),
        "std": list(view.std),
        "features": method.encoder.features,
    }
    params, state = method.encoder_variables(model.params, model.state)
    save_encoder(out / "encoder.safetensors", method.encoder, params, state, metadata=metadata)

    def encode(images: Array) -> Array:
        return method.encode(model.params, model.state, normalize(images, mean=view.mean, std=view.std))

    export_stablehlo(out / "encoder.stablehlo", encode, (view.size, view.size, channels))
    write_atomically(out / "encoder.json", json.dumps(metadata, indent=2) + "\n")
    print(f"{out}: encoder.safetensors, encoder.stablehlo, encoder.json")
