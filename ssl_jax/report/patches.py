"""What an encoder makes of the patches of images, as pictures: components as colors, likeness to one patch, clusters."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from ssl_jax.core import check
from ssl_jax.ops.kmeans import kmeans
from ssl_jax.report import figures, pictures
from ssl_jax.report.page import Section, figure, picture

PALETTE = np.array(
    [
        [39, 121, 167],
        [209, 27, 110],
        [188, 125, 11],
        [140, 121, 242],
        [91, 95, 8],
        [81, 181, 225],
        [241, 143, 142],
        [80, 19, 145],
        [114, 6, 55],
        [14, 22, 224],
    ],
    np.uint8,
)
"""Colors of clusters; those beyond begin again."""
STARTS = 8
"""Starts of k-means, of which the best is kept."""
NUMBERS = 64
"""Numbers a patch that a page keeps for likenesses."""


class PatchComponents(NamedTuple):
    """Principal components of patches, fitted once, so that a color means the same in every image.

    Attributes:
      mean: mean of all patches at unit length, ``[d]``.
      first: first component, ``[d]``, of unit length; it points to the foreground.
      threshold: coordinate along ``first`` above which a patch is foreground.
      center: mean of the foreground, ``[d]``.
      axes: first three components of the foreground, ``[3, d]``, zeros where there are fewer.
      low: coordinate of the foreground that is drawn as 0, for each axis.
      high: coordinate that is drawn as 1.
    """

    mean: np.ndarray
    first: np.ndarray
    threshold: float
    center: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray


def fit_patch_components(features: Float[np.ndarray, "n h w d"]) -> PatchComponents:
    """Find the components whose coordinates are drawn as colors: the first one cuts out the foreground, three more color it.

    Patches are taken at unit length. The first principal component of all of them is split where the variance between both
    sides is greatest (Otsu); the side with the smaller share of the border of the images is the foreground. The three
    components of the foreground alone are scaled from its 1st to its 99th percentile. The sign of each component is that
    which makes its largest entry positive, so that the same patches give the same colors.

    Args:
      features: features of patches; ``Model.patches`` or :func:`ssl_jax.evaluate.dense.features.patch_features` give them.

    Raises:
      ValueError: fewer than two patches, or patches that are all alike.

    >>> features = np.zeros((1, 4, 4, 2)) + [1.0, 0.0]
    >>> features[0, 1:3, 1:3] = [0.0, 1.0]
    >>> fitted = fit_patch_components(features)
    >>> (first_component(features, fitted) > fitted.threshold).sum()
    np.int64(4)

    Reference: Oquab et al., DINOv2 (2023), section 7.4, for the two steps; Otsu, A threshold selection method (1979).
      Deviations: there the threshold is set by eye, and features are not brought to unit length.
    """
    check.require(features.ndim == 4, "features.shape", features.shape, "[n, rows, columns, d]")
    x = unit_patches(features)
    mean = x.mean(axis=(0, 1, 2))
    flat = x.reshape(-1, x.shape[-1]) - mean
    if len(flat) < 2 or np.abs(flat).max() < 1e-6:
        raise ValueError("all patches have the same features: there is nothing to color")
    first = _axes(flat, 1)[0]
    along = (x - mean) @ first
    threshold = otsu_threshold(along.ravel())
    border = np.ones(along.shape[1:3], bool)
    border[1:-1, 1:-1] = False
    inside = along > threshold
    # Share of the border patches on each side, against the share of the other patches where there are any.
    on_border, elsewhere = inside[:, border].mean(), inside[:, ~border].mean() if (~border).any() else 0.5
    if on_border > elsewhere:
        first, threshold, along = -first, -threshold, -along
    foreground = flat[along.ravel() > threshold]
    center = foreground.mean(axis=0)
    axes = _axes(foreground - center, 3)
    low, high = np.percentile((foreground - center) @ axes.T, [1, 99], axis=0)
    return PatchComponents(mean, first, threshold, center, axes, low, high)


def first_component(
    features: Float[np.ndarray, "n h w d"], fitted: PatchComponents
) -> Float[np.ndarray, "n h w"]:
    """Compute the coordinate of each patch along the first component; above ``fitted.threshold`` it is foreground."""
    return (unit_patches(features) - fitted.mean) @ fitted.first


def patch_colors(
    features: Float[np.ndarray, "n h w d"], fitted: PatchComponents | None = None
) -> Float[np.ndarray, "n h w 4"]:
    """Color patches by three principal components of the foreground; alike patches get like colors, in all images.

    Args:
      features: features of patches.
      fitted: components to draw; ``None``: those of these patches. Other images get the same colors by the same components.

    Returns:
      Red, green, blue and opacity in [0, 1]; opacity is 1 in the foreground, 0 elsewhere.

    Raises:
      ValueError: see :func:`fit_patch_components`.

    >>> patch_colors(np.random.default_rng(0).normal(size=(2, 4, 4, 8))).shape
    (2, 4, 4, 4)
    """
    fitted = fit_patch_components(features) if fitted is None else fitted
    moved = unit_patches(features) - fitted.mean
    along = moved @ fitted.first
    coordinates = (moved - fitted.center) @ fitted.axes.T
    span = fitted.high - fitted.low
    colors = np.where(span > 1e-9, (coordinates - fitted.low) / np.maximum(span, 1e-9), 0.5)
    opacity = along[..., None] > fitted.threshold
    return np.concatenate([np.clip(colors, 0.0, 1.0), opacity], axis=-1)


def otsu_threshold(values: Float[np.ndarray, " n"]) -> float:
    """Find the threshold that splits numbers into two groups with the greatest variance between them.

    Maximises ``n₁ n₂ (m₁ − m₂)²``, sizes and means of the numbers up to the threshold and above it, over all splits of the
    sorted numbers; the threshold lies halfway between two neighbors. Exact, where the usual algorithm takes a histogram.

    Args:
      values: two numbers or more, not all equal.

    >>> otsu_threshold(np.array([0.0, 1.0, 9.0, 10.0]))
    5.0

    Reference: Otsu, A threshold selection method from gray-level histograms (1979).
    """
    ordered = np.sort(np.asarray(values, np.float64))
    below = np.arange(1, len(ordered))
    above = len(ordered) - below
    sums = np.cumsum(ordered)
    between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between[ordered[1:] == ordered[:-1]] = -1.0
    split = int(np.argmax(between))
    return float((ordered[split] + ordered[split + 1]) / 2)


def patch_similarity(
    features: Float[np.ndarray, "n h w d"], patch: tuple[int, int, int]
) -> Float[np.ndarray, "n h w"]:
    """Compute the cosine of every patch's features with those of one patch.

    Args:
      features: features of patches.
      patch: image, row and column of the patch to compare with.

    Raises:
      ValueError: a patch that is not there.

    >>> patch_similarity(np.eye(4).reshape(1, 2, 2, 4), (0, 1, 0))[0].tolist()
    [[0.0, 0.0], [1.0, 0.0]]
    """
    shape = features.shape[:3]
    inside = len(patch) == 3 and all(0 <= at < size for at, size in zip(patch, shape, strict=True))
    check.require(inside, "patch", patch, f"image, row and column below {tuple(shape)}")
    x = unit_patches(features)
    return x @ x[patch]


def patch_clusters(
    features: Float[np.ndarray, "n h w d"], clusters: int = 6, *, seed: int = 0
) -> Int[np.ndarray, "n h w"]:
    """Cluster the patches of all images together by k-means on the sphere, the best of :data:`STARTS` starts.

    Args:
      features: features of patches.
      clusters: number of clusters, 1 to the number of patches.
      seed: seed of the start.

    Returns:
      Cluster of each patch, 0 for the largest cluster.

    Raises:
      ValueError: a number of clusters out of range.

    >>> patch_clusters(np.eye(2)[[0, 0, 0, 1]].reshape(1, 2, 2, 2), 2)[0].tolist()
    [[0, 0], [0, 1]]
    """
    check.require(features.ndim == 4, "features.shape", features.shape, "[n, rows, columns, d]")
    points = unit_patches(features).reshape(-1, features.shape[-1])
    allowed = f"a number from 1 to that of the patches, {len(points)}"
    check.require(1 <= clusters <= len(points), "clusters", clusters, allowed)
    rows = jnp.asarray(points, jnp.float32)
    fit = jax.jit(jax.vmap(lambda key: kmeans(key, rows, clusters, spherical=True)))
    found = fit(jax.random.split(jax.random.key(seed), STARTS))
    labels = np.asarray(found.labels)[int(np.argmin(found.inertia))]
    order = np.argsort(-np.bincount(labels, minlength=clusters), kind="stable")
    return np.argsort(order)[labels].reshape(features.shape[:3])


def paint_clusters(labels: Int[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape 3"]:
    """Give each cluster its color, uint8.

    >>> paint_clusters(np.array([[0, 10]]))[0].tolist()
    [[39, 121, 167], [39, 121, 167]]
    """
    return PALETTE[np.asarray(labels) % len(PALETTE)]


def unit_patches(features: Float[np.ndarray, "n h w d"]) -> Float[np.ndarray, "n h w d"]:
    """Scale features of patches to unit length, float64; those of length 0 stay 0."""
    x = np.asarray(features, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _axes(centered: np.ndarray, count: int) -> np.ndarray:
    """Find the first principal axes [count, d] of rows with mean 0, zeros where there are fewer, the largest entry positive."""
    variances, axes = np.linalg.eigh(centered.T @ centered)
    found = np.where(variances > 1e-12 * max(variances[-1], 1e-30), axes, 0.0)[:, ::-1][:, :count].T
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    signed = np.where(largest < 0, -found, found)
    return np.pad(signed, ((0, count - len(signed)), (0, 0)))


def patch_section(
    images: Shaped[np.ndarray, "n s s c"],
    features: Float[np.ndarray, "n h w d"],
    *,
    more: Float[np.ndarray, "m h w d"] | None = None,
    clusters: int = 6,
) -> Section:
    """Show images with their components, clusters, and the likeness of all patches to one that the reader chooses.

    Args:
      images: images as :func:`ssl_jax.report.pictures.visible` takes them.
      features: features of their patches.
      more: features of the patches of further images, which help to fit components and clusters and are not drawn.
      clusters: number of clusters; fewer where there are not as many patches.

    Raises:
      ValueError: one patch an image, or patches that are all alike.
    """
    n, rows, columns, _ = features.shape
    if rows * columns < 2:
        raise ValueError("the encoder gives one patch an image: there is no map to draw")
    every = features if more is None else np.concatenate([features, more])
    fitted = fit_patch_components(every)
    components, colors = first_component(features, fitted), patch_colors(features, fitted)
    labels = patch_clusters(every, min(clusters, len(every) * rows * columns))[:n]
    low, high = np.percentile(components, [1, 99])
    strips = []
    for i, image in enumerate(images):
        drawn = (
            (image, "input"),
            (pictures.heat(components[i], low=low, high=high), "first"),
            ((255 * colors[i] + 0.5).astype(np.uint8), "foreground"),
            (paint_clusters(labels[i]), "clusters"),
        )
        tiles = "".join(
            figures.tile(array, name, 74, "query" if name == "input" else "", f"{name}, image {i + 1}")
            for array, name in drawn
        )
        strips.append(f'<div class="strip">{tiles}</div>')
    lead = (
        f"Features of {rows} x {columns} patches an image, at unit length; components and clusters are fitted to "
        f"{len(every)} images together, so that a color means the same in all. First: the first principal component, light on "
        "the side that touches the border less. Foreground: that side, three components of it alone as red, green and blue. A "
        "picture says what is alike to the encoder, not what it is good for: that the evaluation measures."
    )
    return Section("Patches", figures.flow(strips) + _likeness(images, features), lead)


def _likeness(images: np.ndarray, features: np.ndarray) -> str:
    """Pictures of the cosines with one patch; the page's script draws them for another one."""
    n, rows, columns, _ = features.shape
    start = (0, rows // 2, columns // 2)
    codes, scale, error = encode_patches(features)
    cosines = patch_similarity(features, start)
    low, high = float(cosines.min()), float(cosines.max())
    scenes = []
    for i, image in enumerate(images):
        scene = picture(pictures.data_uri(image), f"image {i + 1}", width=134)
        answer = pictures.data_uri(pictures.heat(cosines[i], low=low, high=high))
        below = picture(answer, f"cosines with the chosen patch, image {i + 1}", width=134, kind="answer")
        label = f"Image {i + 1}: arrow keys move the chosen patch"
        scenes.append(
            f'<div><div class="scene" tabindex="0" role="group" aria-label="{label}">{scene}</div>{below}</div>'
        )
    data = figures.json_text(
        {
            "codes": base64.b64encode(codes.tobytes()).decode(),
            "scale": scale,
            "shape": [n, rows, columns, codes.shape[1]],
            "start": start,
            "heat": (255 * pictures.HEAT).round().astype(int).tolist(),
        }
    )
    said = describe_similarity(start, low, high)
    inner = (
        f'<div data-patches><div class="scenes">{"".join(scenes)}</div><p class="note" role="status">{said}</p>'
        f'<script type="application/json">{data}</script></div>'
    )
    exact = f" The page computes with {codes.shape[1]} numbers a patch, which is off by {error:.1g} at most."
    note = "Click or tap a patch of an image, or move it by arrow keys." + (exact if error >= 0.005 else "")
    return figure(inner, "Cosine with one patch, in all images", note=note)


def describe_similarity(patch: Sequence[int], low: float, high: float) -> str:
    """Say which patch is compared and what the ends of the scale are; the page's script says the same.

    >>> describe_similarity((0, 3, 4), 0.1, 1.0)
    'Row 4, column 5 of image 1: cosines from 0.10 (dark) to 1.00 (light).'
    """
    image, row, column = (at + 1 for at in patch)
    return (
        f"Row {row}, column {column} of image {image}: cosines from {low:.2f} (dark) to {high:.2f} (light)."
    )


def encode_patches(
    features: Float[np.ndarray, "n h w d"], *, numbers: int = NUMBERS
) -> tuple[Shaped[np.ndarray, "p k"], float, float]:
    """Shorten the features of patches to few bytes from which their cosines can be computed.

    The rows at unit length are projected on their first k right singular vectors, which keep the inner products best, and
    rounded to int8: ``cosine(i, j) ≈ scale² · codes_i · codes_j``.

    Args:
      features: features of patches.
      numbers: k at most; never more than d or the number of patches.

    Returns:
      ``(codes, scale, error)``: int8, row by row; the scale; the largest error of a cosine, of 256 patches with all.

    >>> codes, scale, error = encode_patches(np.eye(4).reshape(1, 2, 2, 4))
    >>> codes.shape, round(scale**2 * int(codes[0].astype(int) @ codes[0]), 2), error < 0.02
    ((4, 4), 1.0, True)
    """
    x = unit_patches(features).reshape(-1, features.shape[-1])
    k = min(numbers, *x.shape)
    _, axes = np.linalg.eigh(x.T @ x)
    coordinates = x @ axes[:, ::-1][:, :k]
    scale = max(float(np.abs(coordinates).max()) / 127, 1e-12)
    codes = np.rint(coordinates / scale).astype(np.int8)
    some = np.unique(np.linspace(0, len(x) - 1, 256).astype(int))
    approximate = scale**2 * codes[some].astype(np.float64) @ codes.T.astype(np.float64)
    return codes, scale, float(np.abs(approximate - x[some] @ x.T).max())
