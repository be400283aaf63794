"""Clips: frames in their order, of which training sees windows. Folders of frames, and garments that move.

To everything that looks at single images, a source of clips is a source of frames. Training batches go through it clip by clip
(``batches.py``) and say of every frame which clip it is from and when.
"""

import functools
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_jax.core import check
from ssl_jax.data.fashion_mnist import open_embedded
from ssl_jax.data.folder import FolderSource, list_images, split_folder
from ssl_jax.data.sources import Element, Source, Subset, parse_split, slice_bounds

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
      clips: ``[n]`` int32, the clip of each frame.
      times: ``[n]`` int32, its place in the clip, from 0.
      lengths, window: as above.

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
        self._frames, self._stride, self.window = frames, stride, window
        self._span = (window - 1) * stride + 1
        self.name = frames.name if name is None else name
        self.shape, self.channels, self.dtype = frames.shape, frames.channels, frames.dtype
        self.classes = frames.classes
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
        return len(self._frames)

    def __getitem__(self, index: int, /) -> Element:
        return self._frames[index]

    def file_name(self, index: int, /) -> str:
        return self._frames.file_name(index)

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
            Subset(self._frames, frames),
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
) -> Clips:
    """Open clips: a folder a clip, its image files the frames in the order of their names; or ``moving``, which is made here.

    Every folder with image files in it is a clip, at any depth. Numbers in names need leading zeros (``0007.png``). Splits are
    sub-folders as in :func:`ssl_jax.data.folder.open_folder`. Frames in ``class/clip/frame`` have the class of their clip,
    those in ``clip/frame`` none. ``moving`` is :class:`Moving`.

    Args:
      location: the folder that holds the clips, or ``moving``.
      split: split, or part of one, counted in clips.
      window: frames of a clip that come together in a training batch.
      stride: frames from one of them to the next.
      channels: channels of the frames, as in ``open_folder``; ``moving`` has 1.
      dtype: likewise; ``moving`` has uint8.

    Raises:
      ValueError: no such folder or split, a folder of a clip without frames, a clip shorter than a window, no frame that can be
        read.

    >>> clips = open_frames("moving", "test[:10]", window=4)
    >>> len(clips), clips.shape, len(clips.lengths)
    (320, (40, 40, 1), 10)
    """
    if str(location) == MOVING:
        given = {"channels": channels, "dtype": dtype}
        for name, value in given.items():
            check.require(
                value in (None, {"channels": 1, "dtype": "uint8"}[name]), name, value, "None: they are given"
            )
        moving = Moving(parse_split(split)[0])
        lengths = [LENGTH] * (len(moving) // LENGTH)
        return Clips(moving, lengths, window=window, stride=stride).part(split)
    root = Path(location).expanduser()
    check.require(root.is_dir(), "frames", str(location), "a folder with a folder for each clip, or moving")
    start = split_folder(root, parse_split(split)[0])
    names, ignored = list_images(root, start)
    _check_clips(root / start)
    if not names:
        raise ValueError(f"frames:{root / start} has no frame in any clip")
    # By folder first: a plain sort of the paths would let clip-2/ divide what lies in clip/.
    names.sort(key=os.path.split)
    lengths = [len(list(group)) for _, group in itertools.groupby(names, key=os.path.dirname)]
    source = FolderSource(root, names, start=start, ignored=ignored, channels=channels, dtype=dtype)
    depths = {len(Path(name).relative_to(start).parts) for name in names}
    if min(depths) < 3:
        source.classes, source.labels = (), np.full(len(names), -1, np.int32)
    name = f"frames:{root / start}"
    return Clips(source, lengths, window=window, stride=stride, name=name).part(split)


def _check_clips(top: Path) -> None:
    """Raise where a folder without sub-folders has no image."""
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        if not folders and not list_images(Path(folder))[0]:
            found = f"{len(files)} other files" if files else "nothing"
            raise ValueError(
                f"the clip {folder} has no frame, but {found}: remove it, or put its frames there"
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
