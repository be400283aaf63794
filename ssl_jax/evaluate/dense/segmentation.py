"""Semantic segmentation of frozen patch features: linear heads, nearest neighbors, clusters, the cut of one image."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.augment.views import View
from ssl_jax.core import check
from ssl_jax.core.types import Array, Key
from ssl_jax.data.masks import VOID, MaskSource
from ssl_jax.evaluate.dense import unsupervised
from ssl_jax.evaluate.dense.features import (
    ImageMap,
    MapEncoder,
    candidate_maps,
    cells_of_pixels,
    map_features,
    pixel_maps,
    upsample,
)
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.evaluate.dense.metrics import Scores, class_accuracy, class_iou, mean_iou, pixel_accuracy
from ssl_jax.evaluate.dense.retrieval import (
    NEIGHBORS,
    TEMPERATURE,
    Patches,
    collect_patches,
    patch_shares,
    retrieve,
)
from ssl_jax.evaluate.linear import hold_out
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject

LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""For 256 patches a step; those of patches that are standardised."""
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3)
MOMENTUM = 0.9
PIXEL_PATCH = 8
"""Side of the patches of the baseline of pixels."""


class LinearHead(NamedTuple):
    """A linear classifier of patches, and how it was chosen.

    Attributes:
      weights: ``[d, classes]``, of features as they are.
      bias: ``[classes]``.
      learning_rate, weight_decay: the best of the grid on held-out training images.
      validation: mean intersection over union that it had there.
      grid: the same of every head ``[learning rates, weight decays]``, 0 where one diverged.
      at_edge: those of ``learning_rate`` and ``weight_decay`` whose best value is at an end of the grid; nothing lies beyond a
        decay of 0.
    """

    weights: Float[np.ndarray, "d classes"]
    bias: Float[np.ndarray, " classes"]
    learning_rate: float
    weight_decay: float
    validation: float
    grid: Float[np.ndarray, "lr wd"]
    at_edge: tuple[str, ...]

    def scores(self, features: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n classes"]:
        """Compute the logits of patches."""
        return features @ self.weights + self.bias


def linear_head(
    patches: Patches,
    *,
    learning_rates: tuple[float, ...] = LEARNING_RATES,
    weight_decays: tuple[float, ...] = WEIGHT_DECAYS,
    epochs: int = 10,
    batch_size: int = 1024,
    holdout: float = 0.1,
    seed: int = 0,
) -> LinearHead:
    """Train softmax heads on patches by SGD, a whole grid in one program, and take the best on held-out images.

    The loss of a patch is ``− Σ_c s_c log p_c`` with s_c the share of its pixels of class c: the mean cross entropy of its
    pixels where the logits of a patch are those of all its pixels; void pixels count nothing. Features are standardised (mean
    0, variance 1 over the training patches). ``M ← .9 M + ∇ + λW;  W ← W − η_t M``, ``η_t = lr · B/256 · (1 + cos(π t/T))/2``;
    W starts at 0, the bias has no decay. All heads see the same minibatches.

    The best has the largest mean intersection over union of the pixels of the patches of a random ``holdout`` share of the
    training *images* (of equals the smallest learning rate, then the largest decay), and is trained again on all.

    Args:
      patches: training patches of two images or more.
      learning_rates: learning rates for 256 patches a step, each above 0.
      weight_decays: λ, each 0 or more.
      epochs: passes over the patches.
      batch_size: patches a step; at most those that are trained on.
      holdout: share in (0, 1) of the images that chooses.
      seed: seed of the held-out draw and of the order of patches.

    Raises:
      ValueError: a grid or a number out of range, patches of one image only.

    >>> features = np.tile(np.eye(2, dtype=np.float32), (40, 1))
    >>> patches = Patches(features, features, np.arange(80) // 8)
    >>> linear_head(patches, epochs=2, batch_size=8).validation
    1.0

    Reference: Siméoni et al., DINOv3 (2025), and Oquab et al., DINOv2 (2023), for a linear head on frozen patch features.
      Deviations: SGD on single patches where they train on crops of images with logits interpolated to pixels; no
      augmentation; no BatchNorm but the standardisation.
    """
    rates, decays = sorted(learning_rates), sorted(weight_decays)
    check.require(bool(rates) and rates[0] > 0, "learning_rates", learning_rates, "numbers above 0")
    check.require(bool(decays) and decays[0] >= 0, "weight_decays", weight_decays, "numbers of 0 or more")
    check.require(epochs >= 1, "epochs", epochs, "an integer of 1 or more")
    check.require(batch_size >= 1, "batch_size", batch_size, "an integer of 1 or more")
    images = np.unique(patches.images)
    chosen, _ = hold_out(len(images), holdout=holdout, seed=seed)
    held_out = np.isin(patches.images, images[chosen])
    mean, scale = _standardization(patches.features)
    features = (patches.features - mean) * scale
    cells = np.array([(rate, decay) for rate in rates for decay in reversed(decays)], np.float32)

    def fit(rows: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = min(batch_size, int(rows.sum()))
        scaled = jnp.asarray(cells * np.array([size / 256, 1], np.float32))
        arrays = jnp.asarray(features[rows]), jnp.asarray(patches.shares[rows])
        heads = _train(jax.random.key(seed), *arrays, scaled, epochs, size)
        return np.asarray(heads[0]), np.asarray(heads[1])

    weights, biases = fit(~held_out, cells)
    rest = Patches(features, patches.shares, patches.images).take(held_out)
    validation = np.array([_patch_miou(rest, *head) for head in zip(weights, biases, strict=True)])
    best = int(validation.argmax())
    (weight,), (bias,) = fit(np.ones(len(features), bool), cells[best : best + 1])
    rate, decay = rates[best // len(decays)], decays[::-1][best % len(decays)]
    rate_ends = len(rates) > 1 and best // len(decays) in (0, len(rates) - 1)
    decay_ends = len(decays) > 1 and decay > 0 and best % len(decays) in (0, len(decays) - 1)
    weight = weight * scale[:, None]
    return LinearHead(
        weight,
        bias - mean @ weight,
        rate,
        decay,
        float(validation[best]),
        validation.reshape(len(rates), len(decays))[:, ::-1],
        ("learning_rate",) * rate_ends + ("weight_decay",) * decay_ends,
    )


def _standardization(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and one over the deviation of features; 0 of a dimension that is constant up to rounding."""
    mean, deviation = features.mean(0, dtype=float), features.std(0, dtype=float)
    constant = deviation <= 8 * np.finfo(np.float32).eps * np.abs(mean)
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
    return mean.astype(np.float32), scale.astype(np.float32)


def _patch_miou(patches: Patches, weights: np.ndarray, bias: np.ndarray) -> float:
    """Mean intersection over union of the pixels of patches, each patch of one class; 0 of a head that diverged."""
    logits = patches.features @ weights + bias
    if not np.isfinite(logits).all():
        return 0.0
    predicted = np.eye(len(bias))[logits.argmax(1)]
    return mean_iou(patches.shares.T.astype(float) @ predicted)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _train(
    key: Key, features: Array, shares: Array, cells: Array, epochs: int, batch_size: int
) -> tuple[Array, Array]:
    """Train heads with ``cells [g, (rate, decay)]``: weights ``[g, d, classes]``, biases ``[g, classes]``."""
    examples, steps = len(features), len(features) // batch_size
    zero = (
        jnp.zeros((features.shape[1], shares.shape[1]), features.dtype),
        jnp.zeros(shares.shape[1], features.dtype),
    )

    def train(cell: Array) -> tuple[Array, Array]:
        def step(carry: Any, now: tuple[Array, Array]) -> tuple[Any, None]:
            (weights, bias), momentum = carry
            time, rows = now
            x, s = features[rows], shares[rows]
            p = jax.nn.softmax(x @ weights + bias, axis=-1)
            error = (jnp.sum(s, axis=-1, keepdims=True) * p - s) / batch_size
            gradient = (x.T @ error + cell[1] * weights, jnp.sum(error, axis=0))
            rate = cell[0] * 0.5 * (1 + jnp.cos(jnp.pi * time / (epochs * steps)))
            momentum = jax.tree.map(lambda m, g: MOMENTUM * m + g, momentum, gradient)
            head = jax.tree.map(lambda w, m: w - rate * m, (weights, bias), momentum)
            return (head, momentum), None

        def epoch(carry: Any, number: Array) -> tuple[Any, None]:
            order = jax.random.permutation(jax.random.fold_in(key, number), examples)
            times = (number * steps + jnp.arange(steps)).astype(features.dtype)
            rows = order[: steps * batch_size].reshape(steps, batch_size)
            return jax.lax.scan(step, carry, (times, rows))

        return jax.lax.scan(epoch, (zero, zero), jnp.arange(epochs))[0][0]

    return jax.vmap(train)(cells)


def predict_mask(
    scores: Float[np.ndarray, "rows columns classes"],
    shape: tuple[int, int],
    covered: tuple[float, float] = (1.0, 1.0),
) -> Int[np.ndarray, "h w"]:
    """Predict a class for each pixel: that of the largest score, after bilinear interpolation.

    Args:
      scores: of the patches.
      shape: height and width of the mask.
      covered: shares of rows and columns that show the image.

    >>> predict_mask(np.array([[[1.0, 0.0], [0.0, 1.0]]]), (1, 4)).tolist()
    [[0, 0, 1, 1]]
    """
    return upsample(scores, shape, covered).argmax(-1)


class SegmentationOptions(NamedTuple):
    """Options of :func:`segment`.

    Attributes:
      memory: training patches at most that are kept: what heads and clusters are fitted to.
      retrieval_memory: those of them at most that queries are compared with.
      neighbors: k of the retrieval; at most the patches of its memory.
      temperature: its temperature.
      clusters: number of clusters; ``None``: that of the classes.
      batch_size: images at a time.
      seed: seed of every draw.
      boundaries: whether the F of boundaries of the linear head is computed.
    """

    memory: int = 65_536
    retrieval_memory: int = 16_384
    neighbors: int = NEIGHBORS
    temperature: float = TEMPERATURE
    clusters: int | None = None
    batch_size: int = 16
    seed: int = 0
    boundaries: bool = True


DEFAULTS = SegmentationOptions()


def segment(
    encoder: MapEncoder,
    train: MaskSource,
    test: MaskSource,
    *,
    framing: Framing = Framing(),  # noqa: B008 (a tuple)
    options: SegmentationOptions = DEFAULTS,
) -> Row:
    """Measure how well frozen patch features tell the classes of pixels, in several ways, from one encoding of each image.

    Every mask is predicted and scored in the size in which it is stored. Training images give a bounded memory of patches
    (:func:`ssl_jax.evaluate.dense.retrieval.collect_patches`); test images come a batch at a time.

    Args:
      encoder: gives the maps.
      train: training images with masks: all that is fitted or chosen.
      test: test images with masks, each used once.
      framing: how images become inputs.
      options: sizes and seeds.

    Returns:
      By the name of each way the numbers of :meth:`ssl_jax.evaluate.dense.metrics.Scores.result`:

      * ``linear``: :func:`linear_head`, its logits interpolated; also ``chosen``;
      * ``retrieval``: :func:`ssl_jax.evaluate.dense.retrieval.retrieve`, the votes interpolated;
      * ``kmeans``: clusters of the training patches, matched to classes on the test images, patch by patch; sums over the
        set only;
      * ``ceiling``: the true shares of the classes of each patch, interpolated: what the size of the patches leaves possible;
      * ``majority``: the most frequent class of the training patches everywhere; sums over the set only;

      with two classes also ``cut``: mean over images of the intersection over union of class 1 and the foreground of
      :func:`ssl_jax.evaluate.dense.unsupervised.spectral_cut`; and ``facts``: grid of the first test image, patches, classes.

    Raises:
      ValueError: no pixel with a class, or an option out of range.
    """
    names = train.mask_classes if len(train.mask_classes) >= len(test.mask_classes) else test.mask_classes
    classes = len(names)
    check.require(classes >= 2, "mask classes", classes, "two or more: what is foreground needs --palette")
    given: dict[str, Any] = {"framing": framing, "batch_size": options.batch_size}
    patches = collect_patches(
        encoder, train, classes=classes, memory=options.memory, seed=options.seed, **given
    )
    head = linear_head(patches, seed=options.seed)
    rows = np.random.default_rng(options.seed).permutation(len(patches.features))
    bank = patches.take(np.sort(rows[: options.retrieval_memory]))
    voters = min(options.neighbors, len(bank.features))
    clusters = min(options.clusters or classes, len(patches.features))
    centroids = unsupervised.cluster_patches(patches.features, clusters, seed=options.seed)

    def votes(features: np.ndarray) -> np.ndarray:
        flat = features.reshape(-1, features.shape[-1])
        found = retrieve(flat, bank.features, bank.shares, k=voters, temperature=options.temperature)
        return np.asarray(found).reshape(*features.shape[:2], -1)

    ways: dict[str, Callable[[ImageMap], np.ndarray]] = {
        "linear": lambda found: head.scores(found.features),
        "retrieval": lambda found: votes(found.features),
        "ceiling": lambda found: patch_shares(
            found.element["target"], found.features.shape[:2], classes, found.covered
        ),
    }
    scores = {name: Scores(classes, boundaries=options.boundaries and name == "linear") for name in ways}
    counts = np.zeros((classes, clusters), np.int64)
    cuts: list[float] = []
    grid: tuple[int, ...] = ()
    for found in map_features(encoder, test, **given):
        target = found.element["target"]
        grid = found.features.shape[:2] if found.index == 0 else grid
        for name, score in ways.items():
            scores[name].add(predict_mask(score(found), target.shape, found.covered), target)
        counts += _cluster_counts(found, centroids, counts.shape)
        if classes == 2 and (target == 1).any():
            cuts.append(_cut_iou(found))
    majority = np.zeros((classes, classes), np.int64)
    majority[:, patches.shares.sum(0).argmax()] = scores["linear"].counts.sum(1)
    results: Row = {name: part.result() for name, part in scores.items()}
    results["linear"]["chosen"] = {
        name: getattr(head, name) for name in ("learning_rate", "weight_decay", "validation", "at_edge")
    }
    results["kmeans"] = _of_counts(unsupervised.matched_confusion(counts))
    results["majority"] = _of_counts(majority)
    if cuts:
        results["cut"] = {"iou": float(np.mean(cuts)), "images": len(cuts)}
    results["facts"] = {
        "grid": list(grid),
        "patches": len(patches.features),
        "memory": len(bank.features),
        "classes": list(names),
    }
    return results


def _of_counts(counts: np.ndarray) -> dict[str, Any]:
    """The numbers that follow from the pixels by true and predicted class alone."""
    return {
        "miou": mean_iou(counts),
        "miou_zero": mean_iou(counts, absent="zero"),
        "pixel_accuracy": pixel_accuracy(counts),
        "class_accuracy": class_accuracy(counts),
        "iou": [None if np.isnan(value) else float(value) for value in class_iou(counts)],
    }


def _spread(cells: np.ndarray, found: ImageMap) -> np.ndarray:
    """A value for each patch, at each pixel of the target."""
    shape = found.element["target"].shape
    rows = cells_of_pixels(cells.shape[0], shape[0], found.covered[0])
    columns = cells_of_pixels(cells.shape[1], shape[1], found.covered[1])
    return cells[rows[:, None], columns[None]]


def _cluster_counts(found: ImageMap, centroids: Array, shape: tuple[int, int]) -> np.ndarray:
    """Pixels of an image by class and cluster."""
    flat = found.features.reshape(-1, found.features.shape[-1])
    clusters = unsupervised.nearest_cluster(flat, centroids).reshape(found.features.shape[:2])
    target, labels = found.element["target"], _spread(clusters, found)
    keys = target[target != VOID] * shape[1] + labels[target != VOID]
    return np.bincount(keys, minlength=shape[0] * shape[1]).reshape(shape)


def _cut_iou(found: ImageMap) -> float:
    """Intersection over union of class 1 and the foreground of a spectral cut of an image."""
    target = found.element["target"]
    foreground = _spread(unsupervised.spectral_cut(found.features), found) & (target != VOID)
    return float((foreground & (target == 1)).sum() / (foreground | (target == 1)).sum())


def subject_maps(subject: Subject) -> MapEncoder:
    """Make the encoder of maps of a subject: of its candidate, or of pixels where it has none.

    Raises:
      ValueError: an encoder without features of patches.
    """
    targets = subject.targets
    channels = targets.sources[0].channels
    if subject.candidate is not None:
        return candidate_maps(subject.candidate, channels=channels, layers=targets.layers)
    view = View(mean=(0.5,) * channels, std=(0.5,) * channels)
    return pixel_maps(view, channels=channels, patch=PIXEL_PATCH)


def _measure(subject: Subject) -> Row:
    train, test = subject.targets.sources
    results = segment(subject_maps(subject), train, test, framing=subject.targets.framing)
    return segmentation_row(results)


def segmentation_row(results: Mapping[str, Any]) -> Row:
    """Put the numbers of :func:`segment` that tables show beside all of them."""
    row: Row = {f"miou_{name}": results[name]["miou"] for name in ("linear", "retrieval", "kmeans")}
    row["pixel_accuracy"] = results["linear"]["pixel_accuracy"]
    if "boundary_f" in results["linear"]:
        row["boundary_f"] = results["linear"]["boundary_f"]
    if "cut" in results:
        row["cut_iou"] = results["cut"]["iou"]
    return {**row, "segmentation": dict(results)}


MEASURE = Measure(
    "segmentation",
    frozenset({"pixel classes"}),
    (
        Column("miou_linear", "mIoU, linear", "mIoU of a linear head"),
        Column("miou_retrieval", "mIoU, retrieval", "mIoU by nearest patches"),
        Column("miou_kmeans", "mIoU, k-means", "mIoU of clusters"),
        Column("pixel_accuracy", "pixels right, linear", "pixels right of a linear head"),
        Column("boundary_f", "boundary F, linear", "F of the boundaries of a linear head"),
        Column("cut_iou", "IoU, cut", "IoU of the spectral cut"),
    ),
    _measure,
)
