"""What an encoder is worth without a label: every measure that reads none, and the score of the committed rule."""

import functools
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.augment.crop import RandomResizedCrop
from ssl_jax.augment.operations import Flip
from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array
from ssl_jax.data.sources import Source, Subset, take_evenly
from ssl_jax.evaluate import health
from ssl_jax.evaluate.label_free_rule import ORIENT, invalid_reason, read_rule
from ssl_jax.evaluate.measure import LEFT_OUT, Candidate, Column, Measure, Row, Subject
from ssl_jax.evaluate.rotation import IMAGES as ROTATED
from ssl_jax.evaluate.rotation import encode_rotations, rotation_proxy
from ssl_jax.methods.method import Method
from ssl_jax.ops.clustering_scores import normalized_mutual_information
from ssl_jax.ops.kmeans import assign, kmeans
from ssl_jax.train.features import AnyArray, Features, extract_source
from ssl_jax.train.sharding import batch_sharding_of
from ssl_jax.train.state import TrainState

logger = logging.getLogger(__name__)
CLUSTERS = 20
"""Clusters of the measures ``silhouette`` and ``agreement``, or a fifth of the images where these are few."""
CLUSTER_MEASURES = ("silhouette", "agreement")
BATCH = 256
LEAST_IMAGES = 30
"""Images below which a run has no score while it goes."""
KEY = "label_free"
VALUES = "label_free_values"
SCALAR = "online/label_free"
"""Scalar of :class:`OnlineLabelFree`, by which checkpoints are ranked where the config says so."""


def silhouette(features: Float[AnyArray, "n d"], clusters: Int[AnyArray, " n"]) -> float:
    """Compute the mean silhouette of points in clusters, by cosine distance ``1 − cos``.

    ``s_i = (b_i − a_i) / max(a_i, b_i)``: a_i the mean distance to the other points of its cluster, b_i the smallest mean
    distance to the points of another cluster; 0 for a point alone in its cluster.

    Args:
      features: points, any float type.
      clusters: cluster of each, 0 or more.

    Returns:
      A number in [-1, 1]; NaN for fewer than two clusters.

    >>> points = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> silhouette(points, np.array([0, 0, 1, 1]))
    1.0

    Reference: Rousseeuw, Silhouettes (1987).
    """
    x = np.asarray(features, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    names, numbers = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2:
        return math.nan
    members = np.eye(len(names))[numbers]
    sizes = members.sum(axis=0)
    sums = np.maximum(1.0 - x @ x.T, 0.0) @ members
    own = sums[np.arange(len(x)), numbers] / np.maximum(sizes[numbers] - 1, 1)
    others = np.where(members > 0, np.inf, sums / sizes).min(axis=1)
    widest = np.maximum(own, others)
    scores = np.where(
        (sizes[numbers] > 1) & (widest > 0), (others - own) / np.where(widest > 0, widest, 1.0), 0.0
    )
    return float(scores.mean())


def cluster_scores(
    first: Float[AnyArray, "n d"], second: Float[AnyArray, "n d"], *, clusters: int = CLUSTERS, seed: int = 0
) -> dict[str, float]:
    """Cluster the features of one view of each image, and see how far apart the clusters are and whether another view agrees.

    Spherical k-means of the first views. ``silhouette`` is that of the first views, ``agreement`` the normalised mutual
    information of the clusters of the first views with the nearest centroids of the second.

    Args:
      first: features of the first views, any float type.
      second: features of the second views of the same images.
      clusters: number of clusters; at most a fifth of the images, at least 2.
      seed: seed of the start of k-means.

    Raises:
      ValueError: fewer than two images.

    >>> points = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    >>> cluster_scores(points, points, clusters=4)["agreement"]
    1.0

    Reference: silhouettes of clusters rank encoders in Lowe et al., An Empirical Study into Clustering of Unseen Datasets with
      Self-Supervised Encoders (2024); agreement under a change of the data is the stability of Ben-Hur et al. (2002).
    """
    check.require(len(first) >= 2, "first", f"{len(first)} images", "two images or more")
    count = max(min(clusters, len(first) // 5), 2)
    x, y = (normalize(jnp.asarray(part, jnp.float32)) for part in (first, second))
    found = _cluster(jax.random.key(seed), x, count)
    return {
        "silhouette": silhouette(x, found.labels),
        "agreement": normalized_mutual_information(
            np.asarray(found.labels), np.asarray(assign(y, found.centroids)[0])
        ),
    }


_cluster = jax.jit(functools.partial(kmeans, iterations=20, spherical=True), static_argnums=2)


def common_view(view: View) -> View:
    """Take the size and normalisation of a view, with a crop of 30 % to all of the image and a flip, whatever the method's is.

    >>> common_view(View(size=8)).crop.area
    (0.3, 1.0)
    """
    return View(view.size, RandomResizedCrop(area=(0.3, 1.0)), (Flip(),), view.mean, view.std)


class LabelFree:
    """Measures without labels of an encoder: images and views are drawn once, and are the same for all weights.

    Args:
      names: names of :data:`ssl_jax.evaluate.label_free_rule.ORIENT`.
      method: method that gives ``encode`` and the view.
      sources: images that the rotation probe is fitted to; others, of which everything is measured.
      images: images at most whose spectrum and clusters are measured.
      rotated: images at most of both sources that are rotated.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.

    Raises:
      ValueError: an unknown measure, or fewer than two images that can be read.
    """

    def __init__(
        self,
        names: Iterable[str],
        method: Method,
        sources: tuple[Source, Source],
        *,
        images: int = health.IMAGES,
        rotated: tuple[int, int] = ROTATED,
        crop_ratio: float = 1.0,
    ) -> None:
        self._names = {check.choice("measures", name, ORIENT) for name in names}
        self._method = method
        self._encode, self._encode_rotations = jax.jit(method.encode), encode_rotations(method)
        self._rotated = tuple(
            take_evenly(source, count) for source, count in zip(sources, rotated, strict=True)
        )
        clusters = self._names & set(CLUSTER_MEASURES)
        spectra = self._names - clusters - {"rotation"}
        view = method.views[0]
        self._views, self._common = (
            self._draw(sources[1], each, images, crop_ratio) if wanted else None
            for each, wanted in ((view, spectra), (common_view(view), clusters))
        )

    def __call__(
        self, params: Any, state: Any, encode_source: Callable[[Source, Callable[..., Any]], Features]
    ) -> dict[str, float]:
        """Measure the encoder with these weights.

        Args:
          params: parameters of the method.
          state: state of the method.
          encode_source: ``(source, encode) -> features`` with these weights.

        Returns:
          Values by name, without those that are not finite.
        """
        found: dict[str, float] = {}
        if "rotation" in self._names:
            train, test = (
                encode_source(source, self._encode_rotations).features.reshape(
                    -1, 4, self._method.encoder.features
                )
                for source in self._rotated
            )
            found["rotation"] = rotation_proxy(train, test).accuracy
        if self._views is not None:
            features = jnp.stack(self._features(params, state, self._views), axis=1)
            found |= {name: float(value) for name, value in health.measure_health(features).items()}
        if self._common is not None:
            found |= cluster_scores(*self._features(params, state, self._common))
        return {name: value for name, value in found.items() if name in self._names and math.isfinite(value)}

    def _draw(self, source: Source, view: View, images: int, crop_ratio: float) -> np.ndarray:
        views = health.draw_two_views(source, view, images=images, crop_ratio=crop_ratio)
        readable = views.shape[1]
        check.require(readable >= 2, "source", f"{readable} images that can be read", "two or more")
        return views

    def _features(self, params: Any, state: Any, views: np.ndarray) -> list[Array]:
        """Features of both views, in parts of equal size but for the last."""
        return [
            jnp.concatenate(
                [self._encode(params, state, each[i : i + BATCH]) for i in range(0, len(each), BATCH)]
            )
            for each in views
        ]


def method_name(candidate: Candidate) -> str:
    """Name the method of a candidate that is the encoder of a run; another one has its own name.

    >>> candidate = Candidate("simclr, 9 steps", "encoder", None, {}, {})
    >>> method_name(candidate)
    'simclr'
    """
    return candidate.name.partition(",")[0]


def _measure(subject: Subject) -> Row:
    candidate, rule = subject.encoder, read_rule()
    if len(subject.sources[1]) < 2:
        raise ValueError("one test image: measures without labels need two")
    measures = LabelFree(ORIENT, candidate.method, subject.sources, crop_ratio=subject.options.crop_ratio)
    values = measures(candidate.params, candidate.state, subject.encode)
    if reason := invalid_reason(method_name(candidate), rule.measures):
        return {VALUES: values, LEFT_OUT: {KEY: reason}}
    share = rule.share(values)
    if not math.isfinite(share):
        missing = [name for name in rule.measures if name not in values]
        return {
            VALUES: values,
            LEFT_OUT: {KEY: f"not measured: {', '.join(missing)}, of which the rule is made"},
        }
    return {KEY: share, VALUES: values}


MEASURE = Measure(
    KEY, frozenset({"encoder"}), (Column(KEY, "label-free score", "label-free score"),), _measure
)


class OnlineLabelFree:
    """The score of the committed rule while a run goes, on training images, without labels.

    Scalar: ``online/label_free``, in [0, 1], see :meth:`ssl_jax.evaluate.label_free_rule.Rule.share`. Images are taken at even
    distances from the source; a rotation probe is fitted to two thirds of them, and everything is measured on the others.
    The images and their views are the same at every call, and nothing is kept between calls. Of too few images, and of methods
    for which the rule means nothing, there is no scalar, which is said at the start.

    Args:
      method: method that gives ``encode`` and the views.
      source: training images.
      every: number of steps between calls.
      method_name: name of the method.
      images: number of images, 30 or more.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.

    Raises:
      ValueError: a number below what is needed.
    """

    def __init__(
        self,
        method: Method,
        source: Source,
        *,
        every: int,
        method_name: str,
        images: int = 1500,
        crop_ratio: float = 1.0,
    ) -> None:
        check.require(every >= 1, "every", every, "an integer of 1 or more")
        check.require(images >= LEAST_IMAGES, "images", images, f"an integer of {LEAST_IMAGES} or more")
        self.every, self.name = every, "score without labels"
        self._method, self._rule, self._crop_ratio = method, read_rule(), crop_ratio
        chosen = take_evenly(source, images).indices
        measured = np.arange(len(chosen)) % 3 == 1
        parts = (Subset(source, chosen[~measured]), Subset(source, chosen[measured]))
        few = f"{len(chosen)} images, and it takes {LEAST_IMAGES}" if len(chosen) < LEAST_IMAGES else ""
        self._reason = few or invalid_reason(method_name, self._rule.measures)
        if self._reason:
            logger.warning("no %s: %s", SCALAR, self._reason)
            return
        self._measures = LabelFree(self._rule.measures, method, parts, images=256, crop_ratio=crop_ratio)

    def __call__(self, step: int, state: TrainState) -> Mapping[str, float]:
        """Measure the encoder that ``state`` gives."""
        del step
        if self._reason:
            return {}
        variables = (state.params, state.state)

        def encode_source(source: Source, encode: Callable[..., Any]) -> Features:
            return extract_source(
                encode,
                source,
                view=self._method.views[0],
                variables=variables,
                sharding=batch_sharding_of(state),
                batch_size=250,
                crop_ratio=self._crop_ratio,
                max_corrupt_fraction=1.0,
            )

        share = self._rule.share(self._measures(*variables, encode_source))
        return {SCALAR: share} if math.isfinite(share) else {}
