"""Tiles of images, and what puzzles ask of them: which neighbour, which permutation."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, ScalarLike, Shaped

from ssl_jax.augment.chromatic import drop_colors, project_colors
from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key
from ssl_jax.ops.patches import normalize_patches

FORMS = ("center", "all")
OBJECTIVES = ("max_avg", "max_min")
FILTERS = ("box", "linear", "cubic", "lanczos3")
EMPTY = 0.01
"""Added to a tile's variance before it is divided by its root: tiles of one colour stay near 0 instead of becoming noise."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How square tiles lie in an image, in pixels.

    The grid of ``grid`` x ``grid`` cells of ``tile + gap + jitter + channel_jitter`` pixels starts anywhere in the image where
    it fits; a tile starts 0 to ``jitter`` pixels below and right of the corner of its cell, each of its channels 0 to
    ``channel_jitter`` further. So tiles never overlap, and those of neighbouring cells are ``gap`` pixels apart or more.

    Attributes:
      grid: cells a side, 2 or more.
      tile: side of a tile.
      gap: least distance between tiles.
      jitter: greatest shift of a tile.
      channel_jitter: greatest further shift of a channel by itself.

    >>> Layout(grid=3, tile=64, jitter=21).footprint
    255
    """

    grid: int
    tile: int
    gap: int = 0
    jitter: int = 0
    channel_jitter: int = 0

    def __post_init__(self) -> None:
        check.require(self.grid >= 2, "grid", self.grid, "2 or more cells a side")
        check.require(self.tile >= 1, "tile", self.tile, "1 or more pixels")
        for name in ("gap", "jitter", "channel_jitter"):
            check.require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more pixels")

    @property
    def pitch(self) -> int:
        """Side of a cell."""
        return self.tile + self.gap + self.jitter + self.channel_jitter

    @property
    def footprint(self) -> int:
        """Side of the smallest image in which the tiles fit."""
        return self.grid * self.pitch - self.gap

    def require_room(self, name: str, height: int, width: int) -> None:
        """Refuse an image in which the tiles would overlap or stick out.

        Args:
          name: name of the argument that says how large the image is.
          height: height of the image.
          width: width of the image.

        Raises:
          ValueError: it is too small; names the tiles that do not fit.
        """
        kind = f"{self.grid} x {self.grid} tiles of {self.tile} pixels"
        shifts = f"gap={self.gap}, jitter={self.jitter}, channel_jitter={self.channel_jitter}"
        check.require(
            min(height, width) >= self.footprint,
            name,
            f"{height} x {width} pixels",
            f"{self.footprint} or more a side: {kind} with {shifts} would overlap or reach outside",
        )


@dataclasses.dataclass(frozen=True)
class PatchGrid:
    """How square patches that overlap lie in an image, in pixels: the first in its corner, the others a stride apart.

    What is left over at the right and at the bottom is not in a patch.

    Attributes:
      side: side of a patch.
      stride: distance of neighbouring patches, such as half of the side.
      jitter: of each patch a square with sides shorter by so much is kept, at a random place in it, and moved to its middle;
        around it is 0.

    >>> PatchGrid(side=64, stride=32).count(256)
    7
    """

    side: int
    stride: int
    jitter: int = 0

    def __post_init__(self) -> None:
        check.require(self.side >= 1, "side", self.side, "1 or more pixels")
        check.require(self.stride >= 1, "stride", self.stride, "1 or more pixels")
        inside = 0 <= self.jitter < self.side
        check.require(
            inside, "jitter", self.jitter, f"0 to {self.side - 1} pixels, less than the side of a patch"
        )

    def count(self, size: int) -> int:
        """Count the patches along a side of so many pixels.

        Raises:
          ValueError: there is no room for one.
        """
        check.require(size >= self.side, "side", self.side, f"at most the {size} pixels of the image")
        return (size - self.side) // self.stride + 1


def cut_patches(
    key: Key, images: Float[Array, "b h w c"], layout: PatchGrid, *, drop: bool = False
) -> Float[Array, "b n t t c"]:
    """Cut images into patches that may overlap.

    Args:
      key: used once, for the jitter and for the channels that stay.
      images: ``[b, h, w, c]``, normalised.
      layout: where they lie, see :class:`PatchGrid`.
      drop: keep one channel of each patch (:func:`ssl_jax.augment.chromatic.drop_colors`), before it is jittered.

    Returns:
      ``[b, rows · columns, side, side, c]`` in raster order, float32 or wider.

    Raises:
      ValueError: images that are too small.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> cut_patches(jax.random.key(0), image, PatchGrid(side=2, stride=1))[0, 3, ..., 0].tolist()
      [[4.0, 5.0], [7.0, 8.0]]

    Reference: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, section 3.2.
    """
    images = numerics.at_least_float32(images)
    tops, lefts = (range(0, layout.count(n) * layout.stride, layout.stride) for n in images.shape[1:3])
    side = layout.side
    patches = jnp.stack([images[:, y : y + side, x : x + side] for y in tops for x in lefts], axis=1)
    if not (drop or layout.jitter):
        return patches
    kept = side - layout.jitter
    before = layout.jitter // 2
    around = (before, layout.jitter - before)

    def one(key: Key, patch: Array) -> Array:
        drop_key, place_key = jax.random.split(key)
        if drop:
            patch = drop_colors(drop_key, patch)
        if not layout.jitter:
            return patch
        corner = jax.random.randint(place_key, (2,), 0, layout.jitter + 1)
        square = jax.lax.dynamic_slice(patch, (*corner, 0), (kept, kept, patch.shape[-1]))
        return jnp.pad(square, (around, around, (0, 0)))

    def of_image(key: Key, cut: Array) -> Array:
        return jax.vmap(one)(jax.random.split(key, len(cut)), cut)

    return jax.vmap(of_image)(jax.random.split(key, len(images)), patches)


def cut_tiles(key: Key, image: Shaped[Array, "h w c"], layout: Layout) -> Shaped[Array, "n t t c"]:
    """Cut tiles of one image at random places.

    Args:
      key: used once.
      image: ``[h, w, c]``, any dtype.
      layout: arrangement of the tiles, see :class:`Layout`.

    Returns:
      ``[grid², tile, tile, c]``, cells in raster order.

    Raises:
      ValueError: an image that is too small.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> image = jnp.arange(16).reshape(4, 4, 1)
      >>> cut_tiles(jax.random.key(0), image, Layout(grid=2, tile=2))[1, ..., 0].tolist()
      [[2, 3], [6, 7]]
    """
    height, width, channels = image.shape
    layout.require_room("image", height, width)
    cells = np.array(list(np.ndindex(layout.grid, layout.grid)))
    count, room = len(cells), np.array([height, width]) - layout.footprint
    # One call for all numbers of an image.
    uniforms = jax.random.uniform(key, (1 + count * (1 + channels), 2), jnp.float32)
    below = lambda part, most: jnp.floor(part * (most + 1)).astype(jnp.int32)  # noqa: E731
    origin = below(uniforms[0], room)
    corners = origin + layout.pitch * cells + below(uniforms[1 : 1 + count], layout.jitter)
    size = (layout.tile, layout.tile)
    if not layout.channel_jitter:
        return jax.vmap(lambda at: jax.lax.dynamic_slice(image, (*at, 0), (*size, channels)))(corners)
    shifts = below(uniforms[1 + count :], layout.channel_jitter).reshape(count, channels, 2)
    cut = jax.vmap(lambda plane, at: jax.lax.dynamic_slice(plane, at, size), in_axes=(2, 0), out_axes=2)
    return jax.vmap(lambda at: cut(image, at))(corners[:, None] + shifts)


def make_tiles(
    key: Key,
    images: Float[Array, "b h w c"],
    layout: Layout,
    *,
    projection: ScalarLike = 0.0,
    drop: bool = False,
    normalize: bool = True,
) -> Float[Array, "b n t t c"]:
    """Cut the tiles of a batch, without what lets a network solve a puzzle by colour fringes and brightness.

    In this order: colours of an image projected or not; tiles cut; all but one channel of each tile dropped; each tile
    standardised, ``(x − mean) / √(var + 0.01)`` over its pixels and channels.

    Args:
      key: split, one key an image.
      images: ``[b, h, w, c]``, normalised.
      layout: arrangement of the tiles.
      projection: probability that an image loses its colours between magenta and green
        (:func:`ssl_jax.augment.chromatic.project_colors`). May be traced.
      drop: drop colours (:func:`ssl_jax.augment.chromatic.drop_colors`).
      normalize: standardise.

    Returns:
      ``[b, grid², tile, tile, c]`` float32 or wider.

    Raises:
      ValueError: images that are too small.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images = jax.random.normal(jax.random.key(1), (2, 9, 9, 3))
      >>> make_tiles(jax.random.key(0), images, Layout(grid=3, tile=2, jitter=1)).shape
      (2, 9, 2, 2, 3)
    """

    def one(key: Key, image: Array) -> Array:
        project_key, cut_key, drop_key = jax.random.split(key, 3)
        projected = jax.random.bernoulli(project_key, projection)
        image = jnp.where(projected, project_colors(image), image)
        tiles = cut_tiles(cut_key, image, layout)
        if drop:
            tiles = jax.vmap(drop_colors)(jax.random.split(drop_key, len(tiles)), tiles)
        return tiles

    images = numerics.at_least_float32(images)
    tiles = jax.vmap(one)(jax.random.split(key, len(images)), images)
    if not normalize:
        return tiles
    return normalize_patches(tiles.reshape(*tiles.shape[:2], -1), epsilon=EMPTY).reshape(tiles.shape)


def neighbor_pairs(grid: int, *, form: str = "center") -> Int[np.ndarray, "n 3"]:
    """List pairs of cells that touch, by a side or a corner, and where the second lies from the first.

    Args:
      grid: cells a side.
      form: ``"center"``: of 3 x 3 cells the middle one with each of the others; ``"all"``: each cell with each of its
        neighbours, in both orders.

    Returns:
      Rows ``(first, second, direction)``: places of the cells in raster order, and 0 to 7 for up left, up, up right, left,
      right, down left, down, down right.

    Raises:
      ValueError: an unknown form, or a grid that has no such pairs.

    Example:
      >>> neighbor_pairs(2, form="all")[:3].tolist()
      [[0, 1, 4], [0, 2, 6], [0, 3, 7]]

    References: Doersch et al. 2015; cdoersch/deepcontext (``"all"``); mmselfsup (``"center"``).
    """
    check.choice("form", form, FORMS)
    if form == "center":
        check.require(grid == 3, "grid", grid, "3: a centre with eight neighbours; or form='all'")
    check.require(grid >= 2, "grid", grid, "2 or more")
    steps = [step for step in itertools.product((-1, 0, 1), repeat=2) if step != (0, 0)]
    cells = [(1, 1)] if form == "center" else list(np.ndindex(grid, grid))
    rows = [
        (y * grid + x, (y + down) * grid + x + right, direction)
        for y, x in cells
        for direction, (down, right) in enumerate(steps)
        if 0 <= y + down < grid and 0 <= x + right < grid
    ]
    return np.array(rows, np.int32)


@functools.cache
def permutations(
    count: int, *, tiles: int = 9, objective: str = "max_avg", seed: int = 0
) -> Int[np.ndarray, "count tiles"]:
    """Choose permutations far from each other, greedily from all.

    The first is random. Each further one has the greatest Hamming distance (in how many places two differ) to those chosen so
    far, the mean of the distances or the least; of equally far ones the first in lexicographic order is taken.

    Args:
      count: number of permutations, 1 to ``tiles!``.
      tiles: length of a permutation, 2 to 9.
      objective: ``"max_avg"`` or ``"max_min"``.
      seed: seed of the first permutation.

    Returns:
      ``[count, tiles]``, read-only: row p puts tile ``p[i]`` in place i. No two are the same, so any two differ in 2 places or
      more.

    Raises:
      ValueError: more than there are, or an option outside its range.

    Example:
      >>> chosen = permutations(3, tiles=3)
      >>> int((chosen[0] != chosen[1]).sum()), int((chosen[1] != chosen[2]).sum())
      (3, 3)

    References: Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016,
    algorithm 1; vissl's ``generate_jigsaw_permutations.py`` (both objectives).
    """
    check.choice("objective", objective, OBJECTIVES)
    check.require(2 <= tiles <= 9, "tiles", tiles, "2 to 9: all permutations are compared")
    most = math.factorial(tiles)
    check.require(1 <= count <= most, "count", count, f"1 to {tiles}! = {most}")
    pool = np.array(list(itertools.permutations(range(tiles))), np.int8).T.copy()
    chosen = [int(np.random.default_rng(seed).integers(most))]
    taken = np.zeros(most, bool)
    score = np.zeros(most, np.int32) if objective == "max_avg" else np.full(most, tiles, np.int32)
    while len(chosen) < count:
        taken[chosen[-1]] = True
        distance = np.sum(pool != pool[:, chosen[-1], None], axis=0, dtype=np.int32)
        score = score + distance if objective == "max_avg" else np.minimum(score, distance)
        chosen.append(int(np.argmax(np.where(taken, -1, score))))
    table = pool.T[chosen].astype(np.int32)
    table.flags.writeable = False
    return table


def halve(
    key: Key, images: Float[Array, "b h w c"], *, filters: tuple[str, ...] = FILTERS
) -> Float[Array, "b h2 w2 c"]:
    """Halve the side of images, each through a filter drawn for it.

    A fixed filter leaves a trace by which a network can tell a shrunk image from a piece of a larger one.

    Args:
      key: used once.
      images: ``[b, h, w, c]``, h and w even.
      filters: filters of which one is drawn an image: ``"box"``, the mean of 2 x 2 pixels, or antialiased ``"linear"``,
        ``"cubic"``, ``"lanczos3"``.

    Returns:
      ``[b, h/2, w/2, c]``.

    Raises:
      ValueError: an odd side, no filter or an unknown one.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> halve(jax.random.key(0), jnp.arange(4.0).reshape(1, 2, 2, 1), filters=("box",)).item()
      1.5

    Reference: Noroozi et al., "Representation Learning by Learning to Count", ICCV 2017 (the filters are from memory).
    """
    batch, height, width = images.shape[:3]
    even = height % 2 == 0 and width % 2 == 0
    check.require(even, "images", f"{height} x {width} pixels", "even sides, to be halved")
    check.require(len(filters) >= 1, "filters", filters, f"one or more of {FILTERS}")
    drawn = jax.random.randint(key, (batch,), 0, len(filters))
    rows, columns = (jnp.asarray(_halving(side, filters), images.dtype)[drawn] for side in (height, width))
    precision = jax.lax.Precision.HIGHEST
    return jnp.einsum("bih,bhwc,bjw->bijc", rows, images, columns, precision=precision)


def _halving(side: int, filters: tuple[str, ...]) -> Array:
    """Matrices ``[filter, side/2, side]``."""

    def matrix(name: str) -> Array:
        check.choice("filters", name, FILTERS)
        if name == "box":
            return jnp.repeat(jnp.eye(side // 2), 2, axis=1) / 2
        return jax.image.resize(jnp.eye(side), (side // 2, side), name, antialias=True)

    return jnp.stack([matrix(name) for name in filters])


def rotate(images: Shaped[Array | np.ndarray, "n h w c"]) -> Shaped[Array, "n 4 h w c"]:
    """Turn square images by 0, 90, 180 and 270 degrees, counter-clockwise.

    Args:
      images: any type; h = w.

    Returns:
      All four of each image, the image itself first.

    Raises:
      ValueError: images that are not square.

    >>> import numpy as np
    >>> rotate(np.arange(4).reshape(1, 2, 2, 1))[0, :, 0, :, 0].tolist()  # the first rows
    [[0, 1], [1, 3], [3, 2], [2, 0]]
    """
    height, width = images.shape[1:3]
    check.require(height == width, "images", f"{height} x {width} pixels", "square images")
    return jnp.stack([jnp.rot90(jnp.asarray(images), turns, axes=(1, 2)) for turns in range(4)], axis=1)
