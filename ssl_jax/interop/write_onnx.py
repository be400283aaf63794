"""Encoders as ONNX graphs, by torch's own exporter, checked by onnxruntime before they are handed out."""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_jax.augment.color import normalize
from ssl_jax.interop import snippets
from ssl_jax.interop.write_files import Encoder, Target, TorchModel, settled
from ssl_jax.interop.write_timm import build_timm, to_timm
from ssl_jax.interop.write_torchvision import build_torchvision, to_torchvision
from ssl_jax.interop.write_transformers import features_module, to_transformers
from ssl_jax.models.build import build

Make = Callable[[TorchModel, Encoder], Any]
ROUTES: Sequence[tuple[Callable[[Encoder], TorchModel], Make]] = (
    (to_timm, lambda model, encoder: build_timm(model)),
    (to_torchvision, lambda model, encoder: build_torchvision(model)),
    (to_transformers, features_module),
)
"""Torch models from which a graph can be made; the first that can express an encoder is taken."""
GRAPH = "model.onnx"
TOLERANCE = 1e-4
BATCHES = (1, 3)
MOST_BYTES = 2**30
"""Weights above this lie in a file beside the graph, as a message of protobuf cannot hold more than 2 GiB."""


def require_onnx(encoder: Encoder) -> None:
    """Refuse an encoder of which no graph can be made.

    Args:
      encoder: to be written.

    Raises:
      ValueError: no torch library has it; with the reasons of each.
      ImportError: a library that is needed is missing.
    """
    _express(encoder)
    _require_libraries()


def write_onnx(encoder: Encoder, folder: Path) -> str:
    """Write ``model.onnx``, and return how to use it.

    The graph takes ``images``, float32 ``[batch, channels, height, width]`` in [0, 1], for any batch, normalises them, and
    gives ``features [batch, d]``. onnxruntime has to give the features of the encoder to 1e-4 of the largest entry, of 1 and of
    3 random images.

    Args:
      encoder: to write.
      folder: of this export alone.

    Raises:
      RuntimeError: onnxruntime gives other features.
    """
    _require_libraries()
    import onnxruntime
    import torch

    encoder = settled(encoder)
    model, make = _express(encoder)
    preprocessing = encoder.preprocessing

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = make(model, encoder)
            for name in ("mean", "std"):
                values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32)
                self.register_buffer(name, values[:, None, None])

        def forward(self, images: Any) -> Any:
            return self.model((images - self.mean) / self.std)

    shape = (2, encoder.channels, *preprocessing.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Graph().eval(),
            (torch.zeros(shape),),
            folder / GRAPH,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            external_data=sum(array.nbytes for array in model.arrays.values()) > MOST_BYTES,
            dynamo=True,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
    _compare(encoder, lambda images: session.run(None, {"images": images})[0])
    return "\n".join(
        [
            "import numpy as np",
            "import onnxruntime",
            "from PIL import Image",
            "",
            f'session = onnxruntime.InferenceSession("{GRAPH}")',
            *snippets.unit_pixels(encoder),
            "# The graph normalises by itself.",
            'features, = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})',
            f"print(features.shape)  # (1, {encoder.network.features})",
        ]
    )


def _express(encoder: Encoder) -> tuple[TorchModel, Make]:
    reasons = []
    for express, make in ROUTES:
        try:
            return express(encoder), make
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(f"onnx graphs are made of torch models, and none fits: {'; '.join(reasons)}")


def _require_libraries() -> None:
    needed = ("torch", "onnx", "onnxscript", "onnxruntime")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"onnx graphs need {', '.join(missing)}: pip install 'ssl-jax[onnx]'")


def _compare(encoder: Encoder, run: Callable[[np.ndarray], np.ndarray]) -> None:
    network = build(**{**encoder.network.config, "dtype": "float32"})
    preprocessing = encoder.preprocessing
    for batch in BATCHES:
        shape = (batch, *preprocessing.size, encoder.channels)
        images = np.random.default_rng(batch).random(shape, np.float32)
        normal = normalize(jnp.asarray(images), mean=preprocessing.mean, std=preprocessing.std)
        expected = np.asarray(network.apply(encoder.params, encoder.state, normal)[0])
        found = run(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        error = np.abs(found - expected).max() / np.abs(expected).max()
        if not error <= TOLERANCE:
            raise RuntimeError(
                f"onnxruntime's features of {batch} images differ from the encoder's by {error:.1e} of the largest entry; "
                f"allowed is {TOLERANCE:.0e}. Nothing is written: please report versions of torch and onnxruntime"
            )


TARGET = Target(require_onnx, write_onnx)
