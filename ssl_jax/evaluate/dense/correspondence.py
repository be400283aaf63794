"""Correspondence: whether patches of two views that show the same point are each other's nearest, without labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ssl_jax.augment.crop import RandomResizedCrop
from ssl_jax.augment.operations import ColorJitter, Flip
from ssl_jax.augment.views import View, make_boxes, make_views
from ssl_jax.core import check
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import take_evenly
from ssl_jax.evaluate.dense.features import patch_features
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject
from ssl_jax.train.features import AnyArray

IMAGES = 512
"""Test images at most of which two views are made."""
RADIUS = 0.125
"""Radius of the measure's main number, as a share of a view's side."""
RADII = (0.0625, RADIUS, 0.25)
"""All radii of the measure."""
CROP = RandomResizedCrop(area=(0.3, 1.0), ratio=(1.0, 1.0))
"""Crop of both views."""
CHANGES = (Flip(), ColorJitter(0.4, 0.4, 0.2, 0.1))
"""What is done to both views beside."""
_BATCH = 32


class Matches(NamedTuple):
    """How far from where they belong patches find their nearest patch, as shares of a view's side.

    Attributes:
      distance: ``[n, r, c]`` distance of the nearest patch's center from the point, NaN where the other view does not show it.
      least: ``[n, r, c]`` the same of the patch whose center is nearest to the point: what no encoder can be better than.
      chance: ``[n, r, c, radii]`` share of the other view's patches whose centers lie within each radius.
    """

    distance: Float[AnyArray, "n r c"]
    least: Float[AnyArray, "n r c"]
    chance: Float[AnyArray, "n r c radii"]


class CorrespondenceResult(NamedTuple):
    """Share of patches that are matched within a radius.

    Attributes:
      shares: share of the visible patches whose match lies within each radius.
      chance: the same expected of matches drawn at random.
      ceiling: the same of the best matches that the grid has.
      visible: share of the patches of the first views whose centers the second views show.
    """

    shares: tuple[float, ...]
    chance: tuple[float, ...]
    ceiling: tuple[float, ...]
    visible: float


def project_centers(
    boxes: Float[AnyArray, "n 2 4"], grid: tuple[int, int]
) -> tuple[Float[Array, "n r c 2"], Bool[Array, "n r c"]]:
    """Find where the centers of the first view's patches lie in the second view.

    Patch (i, j) of r x c has its center at ``(i + ½)/r`` of the view's height and ``(j + ½)/c`` of its width.

    Args:
      boxes: top, left, bottom, right of both views in pixels of the image, as :func:`ssl_jax.augment.views.make_boxes` gives
        them: left is the greater where a view is mirrored.
      grid: rows and columns of patches.

    Returns:
      Heights and widths as shares of the second view, and whether it shows the point.

    >>> boxes = np.array([[[0.0, 0.0, 4.0, 4.0], [0.0, 4.0, 4.0, 0.0]]])
    >>> points, visible = project_centers(boxes, (1, 2))
    >>> points.tolist(), visible.all().item()
    ([[[[0.5, 0.75], [0.5, 0.25]]]], True)
    """
    boxes = jnp.asarray(boxes, jnp.float32)[:, :, None, None]
    start, end = boxes[..., :2], boxes[..., 2:]
    points = start[:, 0] + _centers(grid) * (end[:, 0] - start[:, 0])
    points = (points - start[:, 1]) / (end[:, 1] - start[:, 1])
    return points, jnp.all((points >= 0) & (points <= 1), axis=-1)


def _centers(grid: tuple[int, int]) -> Array:
    """Heights and widths ``[r, c, 2]`` of the centers of patches, as shares of the view."""
    return jnp.stack(jnp.meshgrid(*((jnp.arange(n) + 0.5) / n for n in grid), indexing="ij"), axis=-1)


@jax.jit
def match_patches(
    first: Float[AnyArray, "n r c d"],
    second: Float[AnyArray, "n r c d"],
    boxes: Float[AnyArray, "n 2 4"],
    radii: Float[AnyArray, " radii"],
) -> Matches:
    """Match each patch of the first views with the patch of the second that has the greatest cosine; of equals the first.

    Args:
      first: patch features of one view of each image, of any length.
      second: of the other view.
      boxes: see :func:`project_centers`.
      radii: radii of ``chance``, as shares of the view's side.

    >>> same = np.eye(4, dtype=np.float32).reshape(1, 2, 2, 4)
    >>> boxes = np.tile([0.0, 0.0, 8.0, 8.0], (1, 2, 1))
    >>> match_patches(same, same, boxes, np.array([0.25])).distance.ravel().tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    n, rows, columns, _ = first.shape
    points, visible = project_centers(boxes, (rows, columns))
    centers = _centers((rows, columns)).reshape(-1, 2)

    def match(maps: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        queries, keys, places = (part.reshape(rows * columns, -1) for part in maps)
        nearest = jnp.argmax(normalize(queries) @ normalize(keys).T, axis=1)
        away = jnp.sqrt(jnp.sum((places[:, None] - centers) ** 2, axis=-1))
        chosen = jnp.take_along_axis(away, nearest[:, None], axis=1)[:, 0]
        within = jnp.mean(away[:, :, None] <= radii, axis=1)
        return chosen, jnp.min(away, axis=1), within

    shown = points.reshape(n, rows * columns, 2)
    distance, least, within = jax.lax.map(match, (jnp.asarray(first), jnp.asarray(second), shown))
    distance, least = (jnp.where(visible, part.reshape(visible.shape), jnp.nan) for part in (distance, least))
    return Matches(distance, least, within.reshape(*visible.shape, -1))


def correspondence(
    first: Float[AnyArray, "n r c d"],
    second: Float[AnyArray, "n r c d"],
    boxes: Float[AnyArray, "n 2 4"],
    *,
    radii: Sequence[float] = RADII,
) -> CorrespondenceResult:
    """Measure the share of patches that are matched within a radius of where they belong.

    ``share = |{p visible: ‖center(argmax_q cos(x_p, x'_q)) − T(p)‖ ≤ radius}| / |{p visible}|``, T the known transform of the
    first view to the second, distances as shares of the view's side. Every visible patch of every image counts alike.

    Args:
      first: patch features of one view of each image.
      second: of the other view.
      boxes: where both lie in the image, see :func:`project_centers`.
      radii: radii, each above 0.

    Raises:
      ValueError: a radius of 0 or less, or no visible patch.

    >>> same = np.eye(4, dtype=np.float32).reshape(1, 2, 2, 4)
    >>> found = correspondence(same, same, np.tile([0.0, 0.0, 8.0, 8.0], (1, 2, 1)), radii=(0.1,))
    >>> found.shares, found.chance, found.ceiling, found.visible
    ((1.0,), (0.25,), (1.0,), 1.0)
    """
    check.require(bool(radii) and min(radii) > 0, "radii", radii, "numbers above 0")
    return summarize_matches([match_patches(first, second, boxes, jnp.asarray(radii, jnp.float32))], radii)


def summarize_matches(parts: Sequence[Matches], radii: Sequence[float]) -> CorrespondenceResult:
    """Count the matches within each radius.

    Args:
      parts: of images; all with the same radii.
      radii: the radii.

    Raises:
      ValueError: no visible patch.

    >>> row = np.array([[[0.1, np.nan]]])
    >>> summarize_matches([Matches(row, row, np.zeros((1, 1, 2, 1)))], (0.2,)).shares
    (1.0,)
    """
    distance, least = (
        np.concatenate([np.asarray(part[field], np.float64).ravel() for part in parts]) for field in (0, 1)
    )
    chance = np.concatenate([np.asarray(part.chance, np.float64).reshape(-1, len(radii)) for part in parts])
    visible = np.isfinite(distance)
    if not visible.any():
        raise ValueError("views: no patch of a first view lies in the second")
    limits = np.asarray(radii, np.float32)[:, None]
    shares, ceiling = ((part[visible] <= limits).mean(axis=1) for part in (distance, least))
    columns = (shares, chance[visible].mean(axis=0), ceiling)
    within, expected, best = (tuple(float(share) for share in column) for column in columns)
    return CorrespondenceResult(within, expected, best, float(visible.mean()))


def _measure(subject: Subject) -> Row:
    """Two views of at most ``IMAGES`` test images, always the same ones, at the size of the candidate's own view."""
    method = subject.encoder.method
    own = method.views[0]
    view = View(size=own.size, crop=CROP, ops=CHANGES, mean=own.mean, std=own.std)
    source = take_evenly(subject.sources[1], IMAGES)
    limits = jnp.asarray(RADII, jnp.float32)

    @jax.jit
    def compute(params: Any, state: Any, images: Array, positions: Array) -> Matches:
        key, batch = jax.random.key(0), {"image": images}
        (views,) = make_views(key, batch, (view, view), positions=positions)
        boxes = make_boxes(key, batch, (view, view), positions=positions)
        variables = method.encoder_variables(params, state)
        maps = patch_features(method.encoder, *variables, views.reshape(-1, *views.shape[2:]))
        maps = maps.reshape(*views.shape[:2], *maps.shape[1:])
        return match_patches(maps[:, 0], maps[:, 1], boxes, limits)

    given: dict[str, Any] = {"size": own.size, "crop_ratio": subject.options.crop_ratio}
    given["max_corrupt_fraction"] = subject.options.max_corrupt_fraction
    parts = []
    with epoch(source, batch_size=min(_BATCH, len(source)), **given) as batches:
        for batch in batches:
            arrays = batch["image"], np.maximum(batch["index"], 0)
            found = compute(subject.encoder.params, subject.encoder.state, *arrays)
            parts.append(Matches(*(np.asarray(part)[batch["mask"]] for part in found)))
    found = summarize_matches(parts, RADII)
    by_radius = {
        name: dict(zip(map(str, RADII), values, strict=True))
        for name, values in zip(("share", "chance", "ceiling"), found[:3], strict=True)
    }
    facts = {"visible": found.visible, "images": sum(len(part.distance) for part in parts)}
    return {"correspondence": found.shares[RADII.index(RADIUS)], "correspondence_radii": by_radius | facts}


MEASURE = Measure(
    "correspondence",
    frozenset({"encoder"}),
    (Column("correspondence", "correspondence", "patches matched between two views"),),
    _measure,
)
