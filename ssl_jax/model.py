"""A pretrained encoder for use: ``ssl_jax.load("runs/first").embed("photos/")``."""

import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from ssl_jax.augment.host import prepare_for_evaluation
from ssl_jax.augment.views import View, normalize_for_evaluation
from ssl_jax.config import build
from ssl_jax.config.options import SMALL
from ssl_jax.core import check
from ssl_jax.core.bucket import is_bucket, to_path
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Params, State
from ssl_jax.core.version import LAYOUT_KEY
from ssl_jax.data.given_images import read_given
from ssl_jax.data.values import AS_STORED, Values
from ssl_jax.evaluate.dense.features import patch_features
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.interop.pretrained import load_pretrained
from ssl_jax.models.network import Network
from ssl_jax.models.serialize import FORMAT, load_encoder
from ssl_jax.report.attention import has_attention, last_attention
from ssl_jax.report.patches import patch_clusters, patch_colors, patch_similarity
from ssl_jax.train.workdir import CONFIG

ENCODER = "encoder.safetensors"
"""The file of ``experiments.export``."""
Prepare = Callable[[np.ndarray], np.ndarray]


class Model:
    """An encoder with its weights and with what becomes of an image before it; from :func:`load`.

    Every method takes images as people have them (:func:`ssl_jax.data.given_images.read_given`): a path, a folder, an image
    of Pillow, an array ``[h, w]``, ``[h, w, c]`` or ``[n, h, w, c]`` of uint8, uint16 or floats in [0, 1], or a list or
    generator of single ones, of mixed sizes too. The results always have a first axis, of the images in their order: one image
    gives one row. Images are read, prepared and encoded ``batch_size`` at a time: only the results grow with their number.

    Args:
      network: encoder, from ``models.build``.
      params: its params.
      state: its state.
      preprocessing: what becomes of an image.
      provenance: where the weights come from, for people.
      channels: of an image as the encoder takes it.
      prepare: function from an image ``[h, w, c]`` of uint8, uint16 or float32 in [0, 1] to one of the size of the input and
        the same dtype, which is normalised afterwards; ``None``: ``preprocessing.apply``, which normalises too.
      values: how stored values are read where the caller does not say.

    Attributes:
      network, params, state, preprocessing, provenance: as above.
      channels: of an image as the encoder takes it; others are converted where that is defined (gray, colour, transparency).
      features: numbers that :meth:`embed` gives for an image.
    """

    def __init__(
        self,
        network: Network,
        params: Params,
        state: State,
        *,
        preprocessing: Preprocessing,
        channels: int,
        provenance: Mapping[str, Any],
        prepare: Prepare | None = None,
        values: Values = AS_STORED,
    ):
        self.network, self.params, self.state = network, params, state
        self.preprocessing, self.provenance = preprocessing, dict(provenance)
        self.channels, self.features = channels, network.features
        self._prepare, self._values = prepare, values
        self._compiled: dict[str, Callable[[Params, State, np.ndarray], Array]] = {}

    def __repr__(self) -> str:
        name = self.network.config.get("name", "encoder")
        facts = ", ".join(f"{key}={value}" for key, value in self.provenance.items() if value is not None)
        kept = "" if self._prepare is None else "; images of this size are not resized"
        return (
            f"Model({name}: {self.features} features of images with {self.channels} "
            f"channel{'s' * (self.channels > 1)}; {self.preprocessing}{kept}; {facts})"
        )

    def embed(self, images: Any, **options: Any) -> np.ndarray:
        """Compute the features of images.

        Args:
          images: see the class.
          **options: ``batch_size`` (64); ``axes``, layout of an array, such as ``nchw``; ``max_value`` or ``percentiles``, how
            values without a known range are read (:class:`ssl_jax.data.values.Values`).

        Returns:
          float32 ``[n, features]``.

        Raises:
          ValueError: no image, one that cannot be read, or values of which it is not known which is white; names it.
        """
        return self._apply("features", images, **options)

    def patches(self, images: Any, **options: Any) -> np.ndarray:
        """Compute the features of the patches of images: a ViT's patch tokens after its last normalisation, a CNN's last map.

        Args:
          images: see the class.
          **options: as of :meth:`embed`.

        Returns:
          float32 ``[n, rows, columns, d]``; row 0 is the top.

        Raises:
          ValueError: an encoder without any, or as of :meth:`embed`.
        """
        return self._apply("patches", images, **options)

    def attention(self, images: Any, **options: Any) -> np.ndarray:
        """Compute where a ViT looks: for each head of the last block, how much its features take from each patch.

        The row of the class token where that gives the features, else the mean over the patches' rows; over patches only, so
        that a map sums to at most 1 (:func:`ssl_jax.report.attention.head_maps`).

        Args:
          images: see the class.
          **options: as of :meth:`embed`.

        Returns:
          float32 ``[n, heads, rows, columns]``.

        Raises:
          ValueError: an encoder without attention, or as of :meth:`embed`.
        """
        if not has_attention(self.network):
            name = self.network.config.get("name", "encoder")
            raise ValueError(
                f"{name} has no attention: allowed is a ViT; patches() gives its map of features"
            )
        return self._apply("attention", images, **options)

    def patch_colors(self, images: Any, **options: Any) -> np.ndarray:
        """Color the patches of images by principal components of their features: first the foreground, then three of its own.

        The components are fitted to the patches of all images together, so that a color means the same in each.

        Args:
          images: see the class.
          **options: as of :meth:`embed`.

        Returns:
          float64 ``[n, rows, columns, 4]``: red, green, blue and opacity in [0, 1]; 0 opacity is background.

        Raises:
          ValueError: as of :meth:`patches`, or patches that are all alike; :func:`ssl_jax.report.patches.patch_colors`.
        """
        return patch_colors(self.patches(images, **options))

    def patch_similarity(self, images: Any, patch: tuple[int, int, int], **options: Any) -> np.ndarray:
        """Compute the cosine of the features of every patch with those of one patch.

        Args:
          images: see the class.
          patch: image, row and column of the patch.
          **options: as of :meth:`embed`.

        Returns:
          float64 ``[n, rows, columns]``.

        Raises:
          ValueError: as of :meth:`patches`, or a patch that is not there.
        """
        return patch_similarity(self.patches(images, **options), patch)

    def patch_clusters(self, images: Any, clusters: int = 6, **options: Any) -> np.ndarray:
        """Cluster the patches of all images together by spherical k-means of their features.

        Args:
          images: see the class.
          clusters: number of clusters.
          **options: as of :meth:`embed`.

        Returns:
          Cluster of each patch, integers ``[n, rows, columns]``, 0 for the largest cluster.

        Raises:
          ValueError: as of :meth:`patches`, or a number of clusters out of range.
        """
        return patch_clusters(self.patches(images, **options), clusters)

    def _apply(
        self,
        output: str,
        images: Any,
        *,
        batch_size: int = 64,
        axes: str | None = None,
        max_value: float | None = None,
        percentiles: tuple[float, float] | None = None,
    ) -> np.ndarray:
        check.require(batch_size >= 1, "batch_size", batch_size, "an integer of 1 or more")
        given = max_value is not None or percentiles is not None
        values = Values(max_value, percentiles, self._values.max_image_mib) if given else self._values
        prepared = map(self._to_input, read_given(images, channels=self.channels, values=values, axes=axes))
        results: list[np.ndarray] = []
        late: tuple[Any, int] | None = None
        for batch, count in _batches(prepared, batch_size):
            encoded = self._compute(output)(self.params, self.state, batch), count
            if late is not None:
                results.append(
                    np.asarray(late[0])[: late[1]]
                )  # one batch late: read while the device computes
            late = encoded
        if late is None:
            raise ValueError("images: there is none")
        results.append(np.asarray(late[0])[: late[1]])
        return np.concatenate(results)

    def _to_input(self, image: np.ndarray) -> np.ndarray:
        return self.preprocessing.apply(image) if self._prepare is None else self._prepare(image)

    def _compute(self, output: str) -> Callable[[Params, State, np.ndarray], Array]:
        if output not in self._compiled:
            self._compiled[output] = self._compile(output)
        return self._compiled[output]

    def _compile(self, output: str) -> Callable[[Params, State, np.ndarray], Array]:
        network = self.network
        view = View(mean=self.preprocessing.mean, std=self.preprocessing.std)
        normalized = self._prepare is None

        @jax.jit
        def compute(params: Params, state: State, images: Array) -> Array:
            inputs = images if normalized else normalize_for_evaluation(images, view)
            if output == "features":
                return at_least_float32(network.apply(params, state, inputs, train=False)[0])
            if output == "attention":
                return last_attention(network, params, state, inputs)
            return patch_features(network, params, state, inputs)

        return compute


def _batches(prepared: Iterator[np.ndarray], batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Stack images, and fill up to a power of two or ``batch_size``, so that few sizes are compiled."""
    while rows := list(itertools.islice(prepared, batch_size)):
        if len({row.dtype for row in rows}) > 1:
            rows = [_to_float(row) for row in rows]
        count = len(rows)
        filled = min(1 << (count - 1).bit_length(), batch_size)
        yield np.stack([*rows, *[rows[-1]] * (filled - count)]), count


def _to_float(image: np.ndarray) -> np.ndarray:
    if image.dtype.kind == "f":
        return image
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def load(name: str | os.PathLike[str], *, step: str | int = "latest") -> Model:
    """Load an encoder for use.

    Args:
      name: folder of a run (its encoder, with the evaluation's preprocessing); a folder or file that ``experiments.export``
        wrote, both also of a bucket, ``gs://bucket/run``; or whatever :func:`ssl_jax.interop.pretrained.load_pretrained`
        takes: a file, ``hf:owner/name[@revision]``, ``timm:name``.
      step: of a run: ``latest``, ``best`` (by the online kNN) or a number of steps.

    Raises:
      ValueError: there is no such run, file or model, or one that is not understood; says why.

    >>> import tempfile, jax, jax.numpy as jnp, numpy as np
    >>> from ssl_jax import models
    >>> from ssl_jax.models.serialize import save_encoder
    >>> network = models.build("vit_micro", width=16, depth=1, heads=2, patch=4, image_size=8)
    >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> facts = {"image_shape": [8, 8, 3], "mean": [0.5], "std": [0.5]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_encoder(f"{folder}/encoder.safetensors", network, *variables, metadata=facts)
    ...     model = load(folder)
    >>> images = np.zeros((5, 20, 30, 3), np.uint8)
    >>> model.embed(images).shape, model.patches(images[0]).shape, model.attention(images[0]).shape
    ((5, 16), (1, 2, 2, 16), (1, 2, 2, 2))
    """
    text = os.fspath(name)
    check.require(bool(text), "name", text, "a folder, a file, hf:owner/name or timm:name")
    folder = to_path(text).expanduser()
    if is_run(folder):
        return _of_run(folder, str(step))
    check.require(str(step) == "latest", "step", step, f"latest: {text!r} is no folder of a run")
    file = folder / ENCODER if folder.is_dir() else folder
    if is_bucket(file):
        return _of_bucket(file)
    if _is_export(file):
        return _of_export(file)
    return _of_others(str(folder) if folder.exists() else text)


def _of_bucket(file: Path) -> Model:
    check.require(file.is_file(), "name", str(file), f"a run, or a folder with {ENCODER}: there is none")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        copy.write_bytes(file.read_bytes())
        check.require(_is_export(copy), "name", str(file), "what experiments.export wrote")
        return _of_export(copy)


def _of_others(name: str) -> Model:
    pretrained = load_pretrained(name)
    return Model(
        pretrained.network,
        pretrained.params,
        pretrained.state,
        preprocessing=pretrained.preprocessing,
        channels=len(pretrained.preprocessing.mean),
        provenance=pretrained.provenance,
    )


def is_run(folder: Path) -> bool:
    """Tell whether a folder is the workdir of a run; ``config.json`` is also what a model of the hub has."""
    try:
        return LAYOUT_KEY in json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return (folder / "checkpoints").is_dir()


def _of_run(folder: Path, step: str) -> Model:
    config, method, model = build.restore(folder, step)
    view, data = method.views[0], config["data"]
    crop_ratio = config["watch"]["evaluate"]["crop_ratio"]
    options = {
        name: data[name]
        for name in ("max_value", "percentiles", "max_image_mib")
        if data.get(name) is not None
    }
    facts = {"method": config["method"]["name"], "workdir": str(folder), "step": model.step}
    return _ours(
        (method.encoder, *method.encoder_variables(model.params, model.state)),
        view,
        crop_ratio,
        channels=int(data["channels"]),
        provenance=facts,
        values=Values(**options),
    )


def _is_export(file: Path) -> bool:
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (safetensors.SafetensorError, OSError):
        return False


def _of_export(file: Path) -> Model:
    network, params, state, metadata = load_encoder(file)
    said = metadata.get("preprocessing", metadata)
    if (
        metadata.get("step") == 0 and "resize" in said
    ):  # weights of others, converted: prepared as their authors do
        return _of_others(str(file))
    for name in ("image_shape", "mean", "std"):
        check.require(
            name in metadata, "name", str(file), f"a file of experiments.export; this one has no {name}"
        )
    side, _, channels = metadata["image_shape"]
    view = View(size=side, mean=tuple(metadata["mean"]), std=tuple(metadata["std"]))
    crop_ratio = said.get("crop_ratio", 1.0 if side <= SMALL else 0.875)
    facts = {"method": metadata.get("method"), "file": str(file), "step": metadata.get("step")}
    return _ours((network, params, state), view, crop_ratio, channels=channels, provenance=facts)


def _ours(
    encoder: tuple[Network, Params, State],
    view: View,
    crop_ratio: float,
    *,
    channels: int,
    provenance: Mapping[str, Any],
    values: Values = AS_STORED,
) -> Model:
    """Make the model of an encoder of this library, whose images are prepared as evaluation prepares them."""
    size = view.size

    def prepare(image: np.ndarray) -> np.ndarray:
        return prepare_for_evaluation(image, size, crop_ratio)

    network, params, state = encoder
    preprocessing = Preprocessing(
        (size, size), "short", crop_ratio, "bicubic", tuple(view.mean) or (0.0,), tuple(view.std) or (1.0,)
    )
    return Model(
        network,
        jax.tree.map(jnp.asarray, params),
        jax.tree.map(jnp.asarray, state),
        preprocessing=preprocessing,
        channels=channels,
        provenance=provenance,
        prepare=prepare,
        values=values,
    )
