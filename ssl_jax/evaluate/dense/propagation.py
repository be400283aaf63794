"""Label propagation in videos by frozen features, as DINO does it, with J and F as DAVIS defines them."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, ScalarLike

from ssl_jax.core import check
from ssl_jax.core.numerics import normalize, top_k
from ssl_jax.core.types import Array
from ssl_jax.data.labels import labels_of
from ssl_jax.data.masks import VOID, MaskSource
from ssl_jax.evaluate.dense.boundary import TOLERANCE, boundary_scores
from ssl_jax.evaluate.dense.features import MapEncoder, map_features, upsample
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.evaluate.dense.segmentation import subject_maps
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject
from ssl_jax.train.features import AnyArray


@dataclasses.dataclass(frozen=True)
class Propagation:
    """Where a patch looks for its label.

    Attributes:
      neighbors: k, the most similar patches that vote, of all frames looked at together.
      context: n, frames before the target that are looked at beside the first.
      radius: greatest distance in rows, and in columns, of a patch that votes; ``None``: any.
      temperature: τ of the votes' weights ``exp(cos/τ)``.
    """

    neighbors: int = 5
    context: int = 7
    radius: int | None = 12
    temperature: float = 0.1

    def __post_init__(self) -> None:
        check.require(self.neighbors >= 1, "neighbors", self.neighbors, "an integer of 1 or more")
        check.require(self.context >= 0, "context", self.context, "an integer of 0 or more")
        whole = self.radius is None or self.radius >= 0
        check.require(whole, "radius", self.radius, "an integer of 0 or more, or None")
        check.positive("temperature", self.temperature)


def propagate_labels(
    features: Iterable[Float[AnyArray, "_ _ d"]],
    labels: Float[AnyArray, "r c k"],
    options: Propagation = Propagation(),
) -> Iterator[Float[np.ndarray, "r c k"]]:
    """Carry the labels of a video's first frame through the others by the similarity of patches.

    Patch p of frame t takes ``y_p = Σ_q w_pq y_q / Σ_q w_pq`` with ``w_pq = exp(cos(x_p, x_q)/τ)`` over those patches q of
    frames 0 and t−n, ..., t−1 that are within the radius of p and whose cosine is not less than the k-th greatest of them.
    Of equals at that border all vote. Labels stay soft: what a patch took is passed on as it is.

    Memory does not grow with the length of the video: n + 1 frames are kept, and similarities are computed for one row of
    patches at a time.

    Args:
      features: patch features of each frame, the first frame included; of any length (they are normalized here).
      labels: soft labels of the first frame's patches, such as shares of the objects, background included.
      options: k, n, radius and τ.

    Yields:
      Labels of frames 1, 2, ...: float32, in the range of ``labels``.

    Raises:
      ValueError: no frame, or one with another grid than ``labels``.

    >>> still = np.eye(4, dtype=np.float32).reshape(1, 4, 4)
    >>> first = np.array([[[1.0], [0.0], [0.0], [1.0]]], np.float32)
    >>> [labels.ravel().round(3).tolist() for labels in propagate_labels([still, still], first, Propagation(neighbors=1))]
    [[1.0, 0.0, 0.0, 1.0]]

    Reference: Caron et al., DINO (2021), section 4.2.2, eval_video_segmentation.py; Jabri et al., Space-Time Correspondence as
      a Contrastive Random Walk (2020), whose protocol it is.
    """
    labels = jnp.asarray(labels, jnp.float32)
    reach = max(labels.shape[:2]) if options.radius is None else options.radius
    given = {"neighbors": options.neighbors, "radius": reach, "temperature": options.temperature}
    time, context = -1, (jnp.zeros(0), jnp.zeros(0))
    present = np.zeros(options.context + 1, bool)
    for time, frame in enumerate(features):
        allowed = f"the grid of the labels, {labels.shape[:2]}"
        check.require(frame.shape[:2] == labels.shape[:2], f"features[{time}]", frame.shape[:2], allowed)
        target, slot = normalize(jnp.asarray(frame, jnp.float32)), 0
        if time == 0:
            kept = len(present)
            context = jnp.zeros((kept, *target.shape)), jnp.zeros((kept, *labels.shape))
        else:
            labels = _propagate(target, *context, jnp.asarray(present), **given)
            yield np.asarray(labels)
            if not options.context:
                continue
            slot = 1 + (time - 1) % options.context
        context = context[0].at[slot].set(target), context[1].at[slot].set(labels)
        present[slot] = True
    check.require(time >= 0, "features", "nothing", "one frame or more")


@functools.partial(jax.jit, static_argnames=("neighbors", "radius"))
def _propagate(
    target: Array,
    features: Array,
    labels: Array,
    present: Array,
    *,
    neighbors: int,
    radius: int,
    temperature: ScalarLike,
) -> Array:
    """Label a target [r, c, d] from frames [m, r, c, d] with labels [m, r, c, k], of which ``present`` [m] count."""
    rows, columns = target.shape[:2]
    reach = min(radius, rows - 1)
    span, margin = 2 * reach + 1, ((0, 0), (reach, reach), (0, 0), (0, 0))
    features, labels = jnp.pad(features, margin), jnp.pad(labels, margin)
    column = jnp.arange(columns)
    near = jnp.abs(column[:, None] - column) <= radius

    def label_row(row: Array) -> Array:
        window = jax.lax.dynamic_slice_in_dim(features, row, span, axis=1)
        votes = jax.lax.dynamic_slice_in_dim(labels, row, span, axis=1)
        source = row - reach + jnp.arange(span)
        inside = present[:, None] & (source >= 0) & (source < rows)
        counts = inside[None, :, :, None] & near[:, None, None, :]
        cosine = jnp.einsum("cd,mywd->cmyw", target[row], window)
        cosine = jnp.where(counts, cosine, -jnp.inf).reshape(columns, -1)
        best, _ = top_k(cosine, min(neighbors, cosine.shape[1]))
        weights = jnp.where(cosine >= best[:, -1:], jnp.exp((cosine - best[:, :1]) / temperature), 0.0)
        return weights @ votes.reshape(cosine.shape[1], -1) / jnp.sum(weights, axis=1, keepdims=True)

    return jax.lax.map(label_row, jnp.arange(rows))


def labels_of_mask(
    mask: Int[np.ndarray, "h w"],
    objects: Sequence[int],
    grid: tuple[int, int],
    covered: tuple[float, float] = (1.0, 1.0),
) -> Float[np.ndarray, "r c k"]:
    """Give each patch the object at its center, one-hot; channel 0 is the background, all that is none of the objects.

    Args:
      mask: an object's number in each of its pixels.
      objects: numbers of the k − 1 objects.
      grid: rows and columns of patches.
      covered: shares of rows and columns that show the image; patches beyond take what the nearest pixel has.

    >>> labels_of_mask(np.array([[0, 0, 7, 7]] * 4), (7,), (1, 2)).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    row, column = (
        np.minimum(((np.arange(n) + 0.5) / n / share * side).astype(int), side - 1)
        for n, share, side in zip(grid, covered, mask.shape, strict=True)
    )
    small = mask[row[:, None], column]
    chosen = np.stack([small == number for number in objects], axis=-1)
    return np.concatenate([~chosen.any(axis=-1, keepdims=True), chosen], axis=-1).astype(np.float32)


def mask_of_labels(
    labels: Float[np.ndarray, "r c k"],
    objects: Sequence[int],
    shape: tuple[int, int],
    covered: tuple[float, float] = (1.0, 1.0),
) -> Int[np.ndarray, "h w"]:
    """Turn soft labels of patches into a mask: enlarged bilinearly, each channel stretched to [0, 1], the greatest wins.

    The least value of a channel over the image becomes 0 and the greatest 1, where that is above 0, as in DINO's code; that
    takes the greatest at the size that the encoder saw, and resizes the mask from there by the nearest pixel.

    Args:
      labels: soft labels; channel 0 is the background.
      objects: numbers of the objects of channels 1, ....
      shape: height and width of the mask.
      covered: shares of rows and columns that show the image.

    >>> labels = np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32)
    >>> mask_of_labels(labels, (7,), (1, 4)).tolist()
    [[0, 0, 7, 7]]
    """
    large = upsample(labels, shape, covered)
    least, greatest = large.min(axis=(0, 1)), large.max(axis=(0, 1))
    stretched = (greatest > 0) & (greatest > least)
    large = np.where(stretched, (large - least) / np.where(stretched, greatest - least, 1), large)
    return np.array([0, *objects])[large.argmax(axis=-1)]


def objects_of(mask: np.ndarray) -> tuple[int, ...]:
    """List the objects of a mask: the numbers above 0, which is the background; numbers below are void.

    >>> objects_of(np.array([[0, 2, 1, -1]]))
    (1, 2)
    """
    return tuple(int(number) for number in np.unique(mask) if number > 0)


def region_similarity(
    predicted: Bool[np.ndarray, "h w"],
    target: Bool[np.ndarray, "h w"],
    *,
    void: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Compute J, the intersection of two masks over their union; 1 where both are empty.

    Args:
      predicted: mask of an object.
      target: mask that is right.
      void: pixels that do not count.

    >>> region_similarity(np.array([[True, True, False]]), np.array([[False, True, True]]))
    0.3333333333333333
    """
    counted = True if void is None else ~void
    union = int(np.sum((predicted | target) & counted))
    return int(np.sum(predicted & target & counted)) / union if union else 1.0


class VideoScores(NamedTuple):
    """J and F of objects in videos.

    Attributes:
      j: mean over objects of the mean over frames of J.
      f: the same of F.
      jf: mean of both.
      by_object: J and F ``[objects, 2]`` of each object, means over its frames.
    """

    j: float
    f: float
    jf: float
    by_object: Float[np.ndarray, "objects 2"]


def score_frame(
    predicted: Int[np.ndarray, "h w"],
    target: Int[np.ndarray, "h w"],
    objects: Sequence[int],
    *,
    tolerance: float = TOLERANCE,
) -> Float[np.ndarray, "objects 2"]:
    """Compute J and F of each object of a frame.

    Args:
      predicted: mask of numbers of objects.
      target: mask that is right; -1 is void.
      objects: numbers of the objects.
      tolerance: of the boundary, see :func:`ssl_jax.evaluate.dense.boundary.boundary_scores`.

    >>> score_frame(np.eye(4, dtype=int), np.eye(4, dtype=int), (1,)).tolist()
    [[1.0, 1.0]]
    """
    void, rows = target == VOID, []
    for number in objects:
        masks = predicted == number, target == number
        f = boundary_scores(*masks, tolerance=tolerance, void=void).f
        rows.append((region_similarity(*masks, void=void), f))
    return np.array(rows).reshape(-1, 2)


def average_frames(frames: Sequence[Float[np.ndarray, "objects 2"]]) -> Float[np.ndarray, "objects 2"]:
    """Average J and F of a video's objects over its frames but the first, whose mask is given, and the last.

    DAVIS's code leaves out the last too. A video of two frames is judged by its second.

    Args:
      frames: what :func:`score_frame` gave for frames 1, 2, ...

    Raises:
      ValueError: no frame.

    >>> average_frames([np.array([[1.0, 0.5]]), np.array([[0.0, 0.0]])]).tolist()
    [[1.0, 0.5]]

    Reference: Perazzi et al. (2016), section 4.1; Pont-Tuset et al., The 2017 DAVIS Challenge, whose code gives J = 1 for an
      object that is neither there nor predicted.
    """
    check.require(len(frames) >= 1, "frames", len(frames), "one frame or more after the first")
    return np.mean(frames[: max(len(frames) - 1, 1)], axis=0)


def average_videos(videos: Sequence[Float[np.ndarray, "_ 2"]]) -> VideoScores:
    """Average J and F over the objects of all videos: every object counts alike, as in DAVIS's code.

    Args:
      videos: what :func:`average_frames` gave for each.

    Raises:
      ValueError: no object in any.

    >>> average_videos([np.array([[1.0, 0.5]]), np.array([[0.0, 0.5]])])[:3]
    (0.5, 0.5, 0.5)
    """
    rows = np.concatenate([np.zeros((0, 2)), *videos])
    check.require(len(rows) > 0, "videos", "no object", "one object or more")
    j, f = rows.mean(axis=0).tolist()
    return VideoScores(j, f, (j + f) / 2, rows)


def clips_of(source: MaskSource) -> dict[str, Int[np.ndarray, " frames"]]:
    """List the frames of each video, in the order of the source.

    A source of clips (:class:`ssl_jax.data.frames.Clips`) says itself what belongs together; of others, frames of one label do.

    Raises:
      ValueError: no labels either.

    >>> from ssl_jax.data.sources import ArraySource
    >>> frames = ArraySource(np.zeros([4, 2, 2], np.uint8), [1, 0, 1, -1])
    >>> masks = MaskSource(frames, np.ones([4, 2, 2], np.uint8))
    >>> {name: indices.tolist() for name, indices in clips_of(masks).items()}
    {'0': [1], '1': [0, 2]}
    """
    known = getattr(source.images, "clips", None)
    numbers = labels_of(source.images) if known is None else np.asarray(known)
    found = [int(number) for number in np.unique(numbers) if number >= 0]
    if not found:
        raise ValueError(f"{source.name}: no image has a label, which says of which video a frame is")
    names = source.classes if known is None and source.classes else tuple(map(str, range(found[-1] + 1)))
    return {names[number]: np.flatnonzero(numbers == number) for number in found}


class VideoResult(NamedTuple):
    """J and F ``[objects, 2]`` of a video, of what was propagated and of what the grid allows.

    Attributes:
      propagated: of the masks that were propagated.
      ceiling: of the right masks, taken to the grid of patches and back.
    """

    propagated: Float[np.ndarray, "objects 2"]
    ceiling: Float[np.ndarray, "objects 2"]


def propagate_video(
    encoder: MapEncoder,
    source: MaskSource,
    indices: Int[np.ndarray, " frames"],
    *,
    framing: Framing = Framing(),  # noqa: B008 (a tuple)
    options: Propagation = Propagation(),
    tolerance: float = TOLERANCE,
) -> VideoResult:
    """Propagate the masks of a video's first frame, and compare with those of the others.

    Args:
      encoder: gives the maps of frames.
      source: frames with masks: 0 is the background, other numbers are objects.
      indices: positions of the frames, in their order.
      framing: how frames become inputs.
      options: k, n, radius and τ.
      tolerance: of boundaries.

    Raises:
      ValueError: one frame only, one that cannot be read, or frames of different sizes.
    """
    maps = map_features(
        encoder, source, framing=framing, batch_size=1, indices=indices.tolist(), max_corrupt_fraction=0.0
    )
    first = next(maps, None)
    if first is None or len(indices) < 2:
        raise ValueError(f"{source.name}: a video of {len(indices)} frames, allowed are two or more")
    objects = objects_of(first.element["target"])
    grid, covered = first.features.shape[:2], first.covered
    targets: list[np.ndarray] = []

    def frames() -> Iterator[np.ndarray]:
        yield first.features
        for found in maps:
            targets.append(found.element["target"])
            yield found.features

    if not objects:
        return VideoResult(np.zeros((0, 2)), np.zeros((0, 2)))
    propagated: list[np.ndarray] = []
    ceiling: list[np.ndarray] = []
    start = labels_of_mask(first.element["target"], objects, grid, covered)
    for labels in propagate_labels(frames(), start, options):
        target = targets.pop()
        best = labels_of_mask(target, objects, grid, covered)
        for scores, found in ((propagated, labels), (ceiling, best)):
            mask = mask_of_labels(found, objects, target.shape, covered)
            scores.append(score_frame(mask, target, objects, tolerance=tolerance))
    return VideoResult(average_frames(propagated), average_frames(ceiling))


def _measure(subject: Subject) -> Row:
    """Propagate in the videos of the test images; nothing is fitted."""
    source, options = subject.targets.sources[1], Propagation()
    encoder, framing = subject_maps(subject), subject.targets.framing
    videos = {
        name: propagate_video(encoder, source, indices, framing=framing, options=options)
        for name, indices in clips_of(source).items()
    }
    found, ceiling = (average_videos([video[part] for video in videos.values()]) for part in (0, 1))
    by_video = {
        name: dict(zip(("j", "f"), video.propagated.mean(axis=0).tolist(), strict=True))
        for name, video in videos.items()
        if len(video.propagated)
    }
    facts = {
        "objects": len(found.by_object),
        "ceiling": dict(zip(("j", "f", "jf"), ceiling[:3], strict=True)),
        "videos": by_video,
        "options": dataclasses.asdict(options),
    }
    return {"video_jf": found.jf, "video_j": found.j, "video_f": found.f, "propagation": facts}


MEASURE = Measure(
    "propagation",
    frozenset({"pixel classes"}),
    (
        Column("video_jf", "J&F", "J and F of propagated masks"),
        Column("video_j", "J", "J of propagated masks"),
        Column("video_f", "F", "F of propagated masks"),
    ),
    _measure,
)
