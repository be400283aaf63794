"""Clips: frames in their order, of which training sees windows. Folders of frames, and garments that move.

To everything that looks at single images, a source of clips is a source of frames. Training batches go through it clip by clip
(``batches.py``) and say of every frame which clip it is from and when.
"""

import collections
import functools
import itertools
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ssl_jax.core import check
from ssl_jax.data.fashion_mnist import open_embedded
from ssl_jax.data.files import printable
from ssl_jax.data.folder import FolderSource, all_notes, shared_classes
from ssl_jax.data.labels import labels_of
from ssl_jax.data.listing import Listing, find_splits, list_files
from ssl_jax.data.sources import Element, Source, Subset, parse_split, slice_bounds
from ssl_jax.data.stores import is_url, redact
from ssl_jax.data.values import MAX_IMAGE_MIB, Values

MOVING = "moving"
LENGTH, CANVAS = 32, 40
"""Frames of a moving clip, and their side in pixels."""


class Clips:
    """A source of frames that come in clips.

    A training batch is made of windows: of each clip, ``window`` frames that are ``stride`` apart, from a random place on. An
    epoch has one window of each clip.

    Args:
      frames: the frames, one clip after the other.
      lengths: frames of each clip; they sum to the length of ``frames``.
      window: frames of a clip that come together, 1 or more.
      stride: frames from one of them to the next, 1 or more.
      name: name for people; None: the name of ``frames``.

    Attributes:
      frames: as above.
      clips: ``[n]`` int32, the clip of each frame.
      times: ``[n]`` int32, its place in the clip, from 0.
      lengths, window: as above.
      notes: what was found at opening the frames, one sentence each.

    Raises:
      ValueError: lengths that do not fit, a window or stride below 1, a clip that is shorter than a window; names it.

    >>> from ssl_jax.data.sources import ArraySource
    >>> clips = Clips(ArraySource(np.zeros([7, 2, 2], np.uint8)), [3, 4], window=2, stride=2)
    >>> clips.times.tolist(), clips.window_of(1, 0.99).tolist()
    ([0, 1, 2, 0, 1, 2, 3], [4, 6])
    """

    def __init__(
        self,
        frames: Source,
        lengths: Sequence[int] | np.ndarray,
        *,
        window: int,
        stride: int,
        name: str | None = None,
    ):
        for option, value in (("window", window), ("stride", stride)):
            check.require(value >= 1, option, value, "an integer of 1 or more")
        self.lengths = np.asarray(lengths, np.int64)
        fit = len(self.lengths) > 0 and int(self.lengths.sum()) == len(frames)
        check.require(
            fit, "lengths", int(self.lengths.sum()), f"one clip or more, {len(frames)} frames in all"
        )
        self._starts = np.cumsum(self.lengths) - self.lengths
        self.frames, self._stride, self.window = frames, stride, window
        self._span = (window - 1) * stride + 1
        self.name = frames.name if name is None else name
        self.shape, self.channels, self.dtype = frames.shape, frames.channels, frames.dtype
        self.classes = frames.classes
        self.notes: tuple[str, ...] = getattr(frames, "notes", ())
        self.splits: tuple[str, ...] = getattr(frames, "splits", ())
        self.clips = np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)
        self.times = (np.arange(len(frames)) - self._starts[self.clips]).astype(np.int32)
        short = np.flatnonzero(self.lengths < self._span)
        if len(short):
            first = frames.file_name(int(self._starts[short[0]]))
            raise ValueError(
                f"{self.name}: {len(short)} of {len(self.lengths)} clips are shorter than the {self._span} frames of "
                f"window={window} and stride={stride}; the one that begins with {first} has {self.lengths[short[0]]}"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int, /) -> Element:
        return self.frames[index]

    def file_name(self, index: int, /) -> str:
        return self.frames.file_name(index)

    @property
    def labels(self) -> np.ndarray:
        """Label of each frame, -1 where there is none; frames are read only where they have no table of labels."""
        return labels_of(self.frames)

    def window_of(self, clip: int, draw: float) -> np.ndarray:
        """Indices ``[window]`` of frames of a clip, from a place on that ``draw`` in [0, 1) says."""
        starts = int(self.lengths[clip]) - self._span + 1
        return self._starts[clip] + int(draw * starts) + self._stride * np.arange(self.window)

    def part(self, split: str) -> "Clips":
        """The clips that the brackets of ``split`` ask for, whole ones, at even distances; all where there are none.

        Raises:
          ValueError: the part is empty.
        """
        _, first, last = parse_split(split)
        if first is None and last is None:
            return self
        count = len(self.lengths)
        start, stop = slice_bounds(count, first, last)
        if start >= stop:
            raise ValueError(f"split={split!r} has no clip: the whole of {self.name} has {count}")
        # Folders list the clips class by class: a part takes some of every stretch, and two parts never the same.
        order = np.argsort(np.arange(count) * 0.6180339887498949 % 1.0, kind="stable")
        chosen = np.sort(order[start:stop])
        frames = np.flatnonzero(np.isin(self.clips, chosen))
        return Clips(
            Subset(self.frames, frames),
            self.lengths[chosen],
            window=self.window,
            stride=self._stride,
            name=f"{self.name}[{first or ''}:{last or ''}]",
        )


def open_frames(
    location: str | os.PathLike[str],
    split: str = "train",
    *,
    window: int = 16,
    stride: int = 1,
    channels: int | None = None,
    dtype: str | None = None,
    splits: Collection[str] = (),
    max_value: float | None = None,
    percentiles: tuple[float, float] | None = None,
    max_image_mib: float = MAX_IMAGE_MIB,
) -> Clips:
    """Open clips: a folder a clip, its image files the frames in their natural order; or ``moving``, which is made here.

    Every folder with image files in it is a clip, at any depth. Frames are sorted by :func:`natural_key`: 2 before 10, with and
    without leading zeros. Numbers that are missing, twice there or negative are said in ``notes``. Splits are
    sub-folders as in :func:`ssl_jax.data.folder.open_folder`. Frames in ``class/clip/frame`` have the class of their clip,
    those in ``clip/frame`` none; all splits share one table of classes. ``moving`` is :class:`Moving`.

    Args:
      location: the folder that holds the clips, or ``moving``.
      split: split, or part of one, counted in clips.
      window: frames of a clip that come together in a training batch.
      stride: frames from one of them to the next.
      channels: channels of the frames, as in ``open_folder``; ``moving`` has 1.
      dtype: likewise; ``moving`` has uint8.
      splits: names of splits beside the usual ones, as in ``open_folder``.
      max_value, percentiles, max_image_mib: as in ``open_folder``; ``moving`` has values of its own.

    Raises:
      ValueError: no such folder or split, a folder of a clip without frames, a clip shorter than a window, no frame that can be
        read.

    >>> clips = open_frames("moving", "test[:10]", window=4)
    >>> len(clips), clips.shape, len(clips.lengths)
    (320, (40, 40, 1), 10)
    """
    values = Values(max_value, percentiles, max_image_mib)
    if str(location) == MOVING:
        given = {"channels": channels, "dtype": dtype, "max_value": max_value, "percentiles": percentiles}
        for name, value in given.items():
            check.require(
                value in (None, {"channels": 1, "dtype": "uint8"}.get(name)),
                name,
                value,
                "None: they are given",
            )
        moving = Moving(parse_split(split)[0])
        lengths = [LENGTH] * (len(moving) // LENGTH)
        return Clips(moving, lengths, window=window, stride=stride).part(split)
    if is_url(location):
        raise ValueError(
            f"frames={redact(str(location))!r}: allowed is a folder of this machine: copy the clips here first (gcloud storage "
            "cp -r, aws s3 sync, wget -r); folder: reads single images from URLs"
        )
    root = Path(location).expanduser()
    check.require(root.is_dir(), "frames", str(location), "a folder with a folder for each clip, or moving")
    layout = find_splits(root, parse_split(split)[0], splits=splits, kind="frames")
    start = layout.start
    listing = list_files(root, start, beside=layout.beside)
    table = shared_classes(root, layout, listing, depth=2)
    _check_clips(root, start, listing, table.classes)
    if not listing.names:
        raise ValueError(f"frames:{root / start} has no frame in any clip")
    # By folder first: a plain sort of the paths would let clip-2/ divide what lies in clip/.
    names = sorted(listing.names, key=_in_order)
    clips = [list(group) for _, group in itertools.groupby(names, key=os.path.dirname)]
    source = FolderSource(
        root,
        names,
        start=start,
        ignored=listing.counts,
        classes=table.classes,
        depth=2,
        notes=(*all_notes(root, layout, listing, table), *describe_order(clips)),
        channels=channels,
        dtype=dtype,
        values=values,
    )
    source.splits = layout.splits
    lengths = [len(clip) for clip in clips]
    name = f"frames:{root / start}"
    return Clips(source, lengths, window=window, stride=stride, name=name).part(split)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return the key by which frames are sorted: digits are compared as numbers, the text around them regardless of case.

    A minus is a sign where the name or a part of it after ``_``, ``=`` or a blank begins with it (``-1``, ``t_-1``), else it
    divides (``shot-1``). Names of the same numbers, such as 7 and 07, are in the order of their text.

    Args:
      name: name of a file, without its folder.

    >>> sorted(["10.png", "9.png", "-1.png", "a2.png", "A10.png"], key=natural_key)
    ['-1.png', '9.png', '10.png', 'a2.png', 'A10.png']
    """
    stem, suffix = os.path.splitext(name)
    parts: list[str | int] = [
        int(part) if odd else part.casefold()
        for part, odd in zip(_NUMBER.split(stem), itertools.cycle((0, 1)), strict=False)
    ]
    return parts, stem + suffix


_NUMBER = re.compile(r"((?:(?:^|(?<=[_= ]))-)?[0-9]+)")
_DECIMALS = re.compile(r"(?<=[0-9])\.([0-9]+)")


def _in_order(name: str) -> tuple[str, tuple[list[str | int], str]]:
    folder, file = os.path.split(name)
    return folder, natural_key(file)


def describe_order(clips: Sequence[Sequence[str]]) -> list[str]:
    """Say what is odd about the order of frames: numbers that are missing, twice there or negative, names without numbers.

    Args:
      clips: names of the frames of each clip, in their order.

    >>> describe_order([["a/1.png", "a/2.png", "a/4.png"]])
    ['1 frame is missing in 1 of 1 clips, by the numbers in the names, such as between a/2.png and a/4.png']
    """
    found: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    for clip in clips:
        for kind, count, example in _oddities(clip):
            found[kind].append((count, example))
    notes = []
    for kind, text in _ORDER.items():
        if kind in found:
            count, example = sum(count for count, _ in found[kind]), found[kind][0][1]
            are = "frame is" if count == 1 else "frames are"
            notes.append(
                text.format(
                    count=count, are=are, clips=f"{len(found[kind])} of {len(clips)} clips", example=example
                )
            )
    return notes


_ORDER = {
    "missing": "{count} {are} missing in {clips}, by the numbers in the names, such as between {example}",
    "twice": "warning: a number stands twice in {clips}, such as {example}: these are in the order of their text",
    "negative": "numbers are negative in {clips}, such as {example}: these come before 0, the lowest first",
    "several": "several numbers of a name vary in {clips}, such as {example}: they are compared from left to right",
    "patterns": "warning: names differ in more than their numbers in {clips}, such as {example}: they are in the order of the "
    "text, then of the numbers",
    "decimal": "warning: decimals have different lengths in {clips}, such as {example}: their parts are compared as whole "
    "numbers, 5 before 15",
}


def _oddities(clip: Sequence[str]) -> list[tuple[str, int, str]]:
    """Kind, count and example of each oddity in the names of a clip that are in their order."""
    files = [os.path.basename(name) for name in clip]
    keys = [natural_key(file)[0] for file in files]
    shown = [printable(name) for name in clip]
    pairs = list(itertools.pairwise(range(len(clip))))
    odd: list[tuple[str, int, str]] = []
    equal = [i for i, j in pairs if keys[i] == keys[j]]
    if equal:
        odd.append(("twice", len(equal), f"{shown[equal[0]]} and {shown[equal[0] + 1]}"))
    other = [i for i, j in pairs if keys[i][::2] != keys[j][::2]]
    if other:
        odd.append(("patterns", len(other), f"{shown[other[0]]} and {shown[other[0] + 1]}"))
    negative = [i for i, key in enumerate(keys) if any(number < 0 for number in key[1::2])]  # type: ignore[operator]
    if negative:
        odd.append(("negative", len(negative), shown[negative[0]]))
    if other or len(clip) < 2:
        return odd
    numbers = np.array([[int(number) for number in key[1::2]] for key in keys], object)
    varying = [k for k in range(numbers.shape[1]) if len(set(numbers[:, k].tolist())) > 1]
    decimals = [_DECIMALS.findall(os.path.splitext(file)[0]) for file in files]
    if len({tuple(map(len, parts)) for parts in decimals}) > 1:
        odd.append(("decimal", 1, f"{shown[0]} and {shown[-1]}"))
    elif len(varying) > 1:
        odd.append(("several", 1, f"{shown[0]} and {shown[-1]}"))
    elif varying:
        odd += _gaps(numbers[:, varying[0]].tolist(), shown)
    return odd


def _gaps(numbers: Sequence[int], shown: Sequence[str]) -> list[tuple[str, int, str]]:
    """The frames that are missing where most numbers are one step apart."""
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    often, step = max((count, -s) for s, count in collections.Counter(steps).items() if s > 0)
    step = -step
    wide = [i for i, s in enumerate(steps) if s > step]
    if not wide or 2 * often < len(steps):
        return []
    missing = sum(-(-steps[i] // step) - 1 for i in wide)
    return [("missing", missing, f"{shown[wide[0]]} and {shown[wide[0] + 1]}")]


def _check_clips(root: Path, start: str, listing: Listing, classes: Sequence[str]) -> None:
    """Raise where a folder without sub-folders has no image; a class that only another split has may be empty."""
    holds = {os.path.dirname(name) for name in listing.names}
    for folder in listing.leaves:
        if folder in holds or (folder and folder.removeprefix(f"{start}/") in classes):
            continue
        files = listing.others.get(folder, 0)
        found = f"has no frame, but {files} other files" if files else "is empty"
        raise ValueError(
            f"the clip {printable(str(root / folder))} {found}: remove it, or put its frames there"
        )


class Moving:
    """Frames of clips in which one of the shipped garments moves over a black canvas and bounces off its sides.

    Clip k shows image k of the split, 28 x 28 pixels on 40 x 40, over 32 frames; it starts anywhere and moves by up to 3 pixels
    a frame and axis, both drawn from a generator with the seed k. A frame is a function of its index alone and is made when it
    is read. Its label is that of the image.

    Args:
      split: ``train`` (10,000 clips) or ``test`` (2,000).

    >>> frames = Moving("test")
    >>> len(frames), frames[40]["image"].shape, frames.file_name(40)
    (64000, (40, 40, 1), 'moving/test/000001/08')

    Reference: Srivastava et al., "Unsupervised Learning of Video Representations using LSTMs", ICML 2015, section 4.1 (Moving
    MNIST), which has two digits of MNIST on 64 x 64 pixels and 20 frames.
    """

    def __init__(self, split: str = "train"):
        self._garments = open_embedded(split)
        self.name = f"frames:{MOVING}/{split}"
        self.shape: tuple[int, int, int] | None = (CANVAS, CANVAS, 1)
        self.channels, self.dtype, self.classes = 1, "uint8", self._garments.classes

    @property
    def labels(self) -> np.ndarray:
        """Label of each frame."""
        return np.repeat(labels_of(self._garments), LENGTH)

    def __len__(self) -> int:
        return LENGTH * len(self._garments)

    def __getitem__(self, index: int, /) -> Element:
        clip, time = divmod(index, LENGTH)
        garment = self._garments[clip]
        side = garment["image"].shape[0]
        row, column = _path(clip, CANVAS - side)[time]
        frame = np.zeros((CANVAS, CANVAS, 1), np.uint8)
        frame[row : row + side, column : column + side] = garment["image"]
        return {"image": frame, "label": garment["label"]}

    def file_name(self, index: int, /) -> str:
        clip, time = divmod(index, LENGTH)
        return f"{self.name.removeprefix('frames:')}/{clip:06d}/{time:02d}"


@functools.lru_cache(maxsize=64)
def _path(seed: int, room: int) -> np.ndarray:
    """Corners ``[LENGTH, 2]`` of a square that moves evenly and is reflected at 0 and at ``room``."""
    rng = np.random.Generator(np.random.Philox(seed))
    start, step = rng.uniform(0, room, 2), rng.uniform(-3, 3, 2)
    unfolded = start + step * np.arange(LENGTH)[:, None]
    return np.rint(room - np.abs(unfolded % (2 * room) - room)).astype(int)
