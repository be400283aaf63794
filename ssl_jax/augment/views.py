"""What views a method asks for (`View`, plain data) and how they are made, on the device and on the host."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from ssl_jax.augment import color
from ssl_jax.augment.crop import Box, RandomResizedCrop, box_corners
from ssl_jax.augment.operations import (
    Blur,
    ColorJitter,
    Draw,
    Flip,
    Grayscale,
    Number,
    Operation,
    Solarize,
    draw_operation,
)
from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Batch, Key

Kind = TypeVar("Kind", bound=Operation)

FIXED: dict[type[Operation], tuple[int, ...]] = {
    Flip: (0,),
    Grayscale: (1,),
    Blur: (2, 4),
    Solarize: (3,),
    ColorJitter: (13, *range(5, 13)),
}
"""Positions of the numbers of an operation among those of its view, the same whatever else the view does: leaving one operation
out changes no other one, nor the crop. Numbers of other operations follow in the order of the view, then those of the crop."""


@dataclasses.dataclass(frozen=True)
class View:
    """One view of an image, as data: a crop, operations in the order of ``ops``, clipping to [0, 1], normalisation.

    Attributes:
      size: side of the square output in pixels.
      crop: which part of the image it shows.
      ops: what is done to the crop, see `ssl_jax.augment.operations`.
      mean: subtracted at the end: one number, or one a channel; ``()`` for none.
      std: divided by at the end: as many numbers as ``mean``.
      boxes: True asks for the box of the view in the image as well, see `make_boxes`.

    Example:
      >>> view = View(size=32, ops=(Flip(), Blur(prob=0.1)))
      >>> view.find(Blur).prob, view.find(Grayscale)
      (0.1, None)
    """

    size: int = 224
    crop: RandomResizedCrop = dataclasses.field(default_factory=RandomResizedCrop)
    ops: tuple[Operation, ...] = ()
    mean: tuple[Number, ...] = ()
    std: tuple[Number, ...] = ()
    boxes: bool = False

    def __post_init__(self) -> None:
        check.require(self.size >= 1, "size", self.size, "1 or more pixels")
        check.require(len(self.mean) == len(self.std), "std", self.std, "as many numbers as mean")
        check.require(all(s > 0 for s in self.std), "std", self.std, "positive numbers")

    def find(self, kind: type[Kind]) -> Kind | None:
        """Return the first operation of a kind, None where there is none."""
        return next((op for op in self.ops if isinstance(op, kind)), None)


def groups(views: tuple[View, ...]) -> tuple[tuple[int, ...], ...]:
    """List the indices of the views of each size, sizes in order of first appearance; each size makes one array.

    >>> groups((View(size=224), View(size=96), View(size=224)))
    ((0, 2), (1,))
    """
    sizes = dict.fromkeys(view.size for view in views)
    return tuple(tuple(i for i, view in enumerate(views) if view.size == size) for size in sizes)


def positions_of_numbers(ops: tuple[Operation, ...]) -> tuple[list[tuple[int, ...]], int]:
    """Return the positions of each operation's uniform numbers in the vector of its view, and where the crop's begin.

    >>> positions_of_numbers((Flip(), Blur(), Flip()))
    ([(0,), (2, 4), (14,)], 15)
    """
    end = sum(len(positions) for positions in FIXED.values())
    layout: list[tuple[int, ...]] = []
    for op in ops:
        positions = FIXED.get(type(op), ())
        if not positions or positions in layout:
            positions = tuple(range(end, end + op.draws))
            end += op.draws
        layout.append(positions)
    return layout, end


class ViewDraw(NamedTuple):
    """What is drawn of a view for one image: its box, None where it is cropped already, and its operations."""

    box: Box | None
    ops: tuple[Draw, ...]


def _draw(key: Key, view: View, shape: tuple[int, ...] | None) -> ViewDraw:
    """Draw a view of an image of a shape ``(h, w, ...)``, None for a crop."""
    # One call for all numbers of a view: each call of the generator takes about a second to compile.
    positions, end = positions_of_numbers(view.ops)
    count = end if shape is None else end + view.crop.draws
    uniforms = jax.random.uniform(key, (count,), dtype=jnp.float32)
    box = None if shape is None else view.crop.choose(uniforms[end:], *shape[:2])
    draws = (
        draw_operation(op, jnp.stack([uniforms[i] for i in numbers]))
        for op, numbers in zip(view.ops, positions, strict=True)
    )
    return ViewDraw(box, tuple(draws))


def _apply(draw: ViewDraw, image: Array, view: View) -> Array:
    """Make a view of an image, or of its crop, from what was drawn."""
    if draw.box is not None:
        image = view.crop.apply(image, draw.box, view.size)
    planes = jnp.clip(jnp.moveaxis(at_least_float32(image), -1, 0), 0.0, 1.0)
    for op, drawn in zip(view.ops, draw.ops, strict=True):
        planes = op.apply_drawn(planes, drawn)
    return color.normalize(jnp.clip(jnp.moveaxis(planes, 0, -1), 0.0, 1.0), mean=view.mean, std=view.std)


def finish(key: Key, image: Float[Array, "s s c"], view: View) -> Float[Array, "s s c"]:
    """Do everything of a view but its crop: its operations, clipping, normalisation.

    Args:
      key: used once.
      image: a crop ``[s, s, c]`` in [0, 1]; bicubic overshoot is clipped.
      view: the view to make.

    Returns:
      ``[s, s, c]``, at least float32; in [0, 1] before normalisation.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> view = View(size=4, mean=(0.5,), std=(0.25,))
      >>> finish(jax.random.key(0), jnp.ones((4, 4, 3)), view)[0, 0].tolist()
      [2.0, 2.0, 2.0]
    """
    return _apply(_draw(key, view, None), image, view)


def augment(key: Key, image: Float[Array, "h w c"], view: View) -> Float[Array, "size size c"]:
    """Make one random view of one image: a crop, then `finish`.

    Args:
      key: used once.
      image: ``[h, w, c]`` in [0, 1], any number of channels.
      view: the view to make.

    Returns:
      ``[view.size, view.size, c]``, at least float32.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> augment(jax.random.key(0), jnp.ones((8, 6, 3)), View(size=4, ops=(Flip(),))).shape
      (4, 4, 3)

    Reference: Chen et al. 2020 (SimCLR), appendix A; Grill et al. 2020 (BYOL), appendix B. The crop is
    clipped to [0, 1] before the colours, as 8-bit pipelines do.
    """
    return _apply(_draw(key, view, image.shape), image, view)


@functools.partial(jax.jit, static_argnames=("view", "cropped", "loop"))
def _views_of_one_kind(
    keys: Array, source: Array, view: View, *, cropped: bool, loop: bool | None
) -> Float[Array, "b v s s c"]:
    """Make views ``[b, v, ...]`` of one kind, from keys ``[b, v]`` and images, or crops, of the same views.

    The random numbers of the whole batch are drawn at once, outside the loop: one image at a time they would
    cost as much as the pixels of a small image. By itself under ``jit``, so that equal views are traced once in a process.
    """
    height, width, channels = source.shape[-3:]

    def draw(key: Key) -> ViewDraw:
        return _draw(key, view, None if cropped else (height, width))

    def apply(drawn: ViewDraw, x: Array) -> Array:
        return _apply(drawn, color.to_float(x), view)

    def vectorized(draws: ViewDraw, x: Array) -> Array:
        return jax.vmap(apply)(draws, x)

    def looped(draws: ViewDraw, x: Array) -> Array:
        return jax.lax.map(lambda args: apply(*args), (draws, x))

    pixels = source if cropped else jnp.broadcast_to(source[:, None], (*keys.shape, height, width, channels))
    inputs = jax.vmap(draw)(keys.reshape(-1)), pixels.reshape(-1, height, width, channels)
    if loop is None:
        flat = jax.lax.platform_dependent(*inputs, cpu=looped, default=vectorized)
    else:
        flat = looped(*inputs) if loop else vectorized(*inputs)
    return flat.reshape(*keys.shape, view.size, view.size, channels)


def make_views(
    key: Key,
    batch: Batch,
    views: tuple[View, ...],
    *,
    positions: Int[Array, " b"] | None = None,
    loop: bool | None = None,
) -> tuple[Float[Array, "b v s s c"], ...]:
    """Make all views of a batch: one array for each size, sizes in order of first appearance (see `groups`).

    The key of view v of example i is ``fold_in(fold_in(key, i), v)``: what becomes of an example depends on
    its position in the global batch and on nothing else, neither on the other examples nor on the number of
    devices.

    Args:
      key: used once.
      batch: with ``crops``, a tuple of ``[b, v, s, s, c]`` as `ssl_jax.augment.host.host_crops` makes them, only `finish` is
        applied; else ``image`` ``[b, h, w, c]`` is cropped here. uint8, uint16 or float in [0, 1].
      views: the views to make.
      positions: int ``[b]``, where in the global batch the examples stand, for a part of it; None: 0, 1, ...
      loop: True goes through the examples one after another, so that an operation that was not drawn costs
        nothing and one image fits in the cache; False does all at once, where an operation is computed for
        every example and then selected. None loops on CPU only. The results agree to float rounding. Several
        CPU devices or processes that share a batch should say False: the loop is not divided among them.

    Returns:
      ``[b, v, s, s, c]`` for each size, float32.

    Raises:
      ValueError: neither ``crops`` nor ``image``, crops that do not match the views, images of another rank, or floats far
        outside of [0, 1].

    Example:
      >>> import jax, numpy as np
      >>> batch = {"image": np.zeros((2, 8, 8, 3), np.uint8)}
      >>> views = (View(size=4), View(size=2), View(size=4))
      >>> [x.shape for x in make_views(jax.random.key(0), batch, views)]
      [(2, 2, 4, 4, 3), (2, 1, 2, 2, 3)]
    """
    check.require(isinstance(batch, Mapping), "batch", type(batch).__name__, "a dict with 'image' or 'crops'")
    cropped = "crops" in batch
    check.require(cropped or "image" in batch, "batch", sorted(batch), "a dict with 'image' or 'crops'")
    sources = _checked_crops(batch["crops"], views) if cropped else (jnp.asarray(batch["image"]),)
    if not cropped:
        _require_images(sources[0], "batch['image']")
    for source in sources:
        color.require_unit_range(source, "batch['crops']" if cropped else "batch['image']")
    positions = jnp.arange(sources[0].shape[0]) if positions is None else positions
    keys = _view_keys(key, positions, len(views))
    made = []
    for group, indices in enumerate(groups(views)):
        parts, order = [], []
        for view in dict.fromkeys(views[i] for i in indices):
            chosen = [column for column, i in enumerate(indices) if views[i] == view]
            source = sources[group][:, np.array(chosen)] if cropped else sources[0]
            view_keys = keys[:, np.array([indices[column] for column in chosen])]
            parts.append(_views_of_one_kind(view_keys, source, view, cropped=cropped, loop=loop))
            order += chosen
        joined = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        made.append(joined if order == sorted(order) else joined[:, np.argsort(order)])
    return tuple(made)


def _view_keys(key: Key, positions: Int[Array, " b"], count: int) -> Key:
    """Return keys ``[b, count]`` of the views of the examples at these positions of the global batch."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(positions)
    return jax.vmap(lambda k: jax.vmap(lambda v: jax.random.fold_in(k, v))(jnp.arange(count)))(keys)


def make_boxes(
    key: Key, batch: Batch, views: tuple[View, ...], *, positions: Int[Array, " b"] | None = None
) -> Float[Array, "b v 4"]:
    """Return where in its image each view lies that `make_views` makes of the same key, batch and positions.

    Args:
      key: used once, but for `make_views`.
      batch: with ``image`` ``[b, h, w, c]``, or with ``boxes`` ``[b, v, 4]`` of the crops, as
        `ssl_jax.augment.host.host_boxes` makes them.
      views: the views to make.
      positions: as in `make_views`.

    Returns:
      ``[b, v, 4]``: top, left, bottom, right in pixels of the source image; mirrored views have the greater number on the
      left, so that pixel (i, j) of a view of size s shows the point ``(top + (i + ½)/s · (bottom − top), left + (j + ½)/s ·
      (right − left))`` in any case.

    Raises:
      ValueError: neither ``image`` nor ``boxes``, or a view that is rotated.

    Example:
      >>> import jax, numpy as np
      >>> batch = {"image": np.zeros((1, 8, 6, 3), np.uint8)}
      >>> view = View(size=4, crop=RandomResizedCrop(area=(1.0, 1.0)), ops=(Flip(prob=1.0),))
      >>> make_boxes(jax.random.key(0), batch, (view,)).tolist()
      [[[0.0, 6.0, 8.0, 0.0]]]
    """
    cropped = "boxes" in batch
    check.require(cropped or "image" in batch, "batch", sorted(batch), "a dict with 'image' or 'boxes'")
    source = jnp.asarray(batch["boxes" if cropped else "image"])
    positions = jnp.arange(source.shape[0]) if positions is None else positions
    keys = _view_keys(key, positions, len(views))

    def moved(key: Key, corners: Array, view: View) -> Array:
        draw = _draw(key, view, None if cropped else source.shape[1:])
        corners = corners if draw.box is None else jnp.stack(box_corners(draw.box)).astype(jnp.float32)
        for op, drawn in zip(view.ops, draw.ops, strict=True):
            corners = jnp.where(drawn.applied, op.move(corners), corners)
        return corners

    none = jnp.zeros((source.shape[0], len(views), 4), jnp.float32)
    before = source if cropped else none
    each = [
        jax.vmap(functools.partial(moved, view=view))(keys[:, v], before[:, v])
        for v, view in enumerate(views)
    ]
    return jnp.stack(each, axis=1)


def add_views(
    key: Key,
    batch: Batch,
    views: tuple[View, ...],
    *,
    positions: Int[Array, " b"] | None = None,
    loop: bool | None = None,
) -> Batch:
    """Add to a batch its ``views``, see `make_views`, and its ``boxes``, see `add_boxes`.

    >>> import jax, numpy as np
    >>> batch = {"image": np.zeros((2, 8, 8, 3), np.uint8)}
    >>> viewed = add_views(jax.random.key(0), batch, (View(size=4), View(size=4, boxes=True)))
    >>> viewed["views"][0].shape, viewed["boxes"].shape
    ((2, 2, 4, 4, 3), (2, 2, 4))
    """
    made = make_views(key, batch, views, positions=positions, loop=loop)
    return {**add_boxes(key, batch, views, positions=positions), "views": made}


def add_boxes(
    key: Key, batch: Batch, views: tuple[View, ...], *, positions: Int[Array, " b"] | None = None
) -> Batch:
    """Add to a batch the ``boxes`` of all its views, see `make_boxes`, where one of them asks for its box.

    >>> import jax, numpy as np
    >>> batch = {"image": np.zeros((2, 8, 8, 3), np.uint8)}
    >>> sorted(add_boxes(jax.random.key(0), batch, (View(size=4),)))
    ['image']
    """
    if not asks_for_boxes(views):
        return batch
    return {**batch, "boxes": make_boxes(key, batch, views, positions=positions)}


def asks_for_boxes(views: tuple[View, ...]) -> bool:
    """Tell whether any of the views asks for its box in the image; all of them then get one.

    >>> asks_for_boxes((View(), View(boxes=True)))
    True
    """
    return any(view.boxes for view in views)


def _checked_crops(crops: Any, views: tuple[View, ...]) -> tuple[Array, ...]:
    """Return crops as arrays, one ``[b, v, s, s, c]`` for each size of the views."""
    crops = tuple(jnp.asarray(x) for x in crops)
    shapes = tuple(x.shape[1:4] for x in crops)
    wanted = tuple((len(g), views[g[0]].size, views[g[0]].size) for g in groups(views))
    check.require(shapes == wanted, "batch['crops'] [views, size, size]", shapes, f"{wanted} for these views")
    return crops


def _require_images(images: Array | np.ndarray, name: str) -> None:
    allowed = "[b, h, w, c]; one image without the first axis is images[None]"
    check.require(images.ndim == 4, f"{name}.shape", images.shape, allowed)


def normalize_for_evaluation(
    images: Shaped[Array | np.ndarray, "b h w c"], view: View
) -> Float[Array, "b h w c"]:
    """Prepare images for the encoder at evaluation: floats in [0, 1], normalised as the view is, nothing random.

    Args:
      images: ``[b, h, w, c]``; uint8, uint16 or float in [0, 1].
      view: view with the mean and std.

    Returns:
      ``[b, h, w, c]``, at least float32.

    Raises:
      ValueError: another dtype or rank, or floats far outside of [0, 1].

    Example:
      >>> import numpy as np
      >>> view = View(mean=(0.5,), std=(0.5,))
      >>> normalize_for_evaluation(np.full((1, 1, 1, 3), 255, np.uint8), view).tolist()
      [[[[1.0, 1.0, 1.0]]]]
    """
    _require_images(images, "images")
    color.require_unit_range(images)
    return color.normalize(color.to_float(images), mean=view.mean, std=view.std)


def without_effect(views: tuple[View, ...], channels: int) -> tuple[str, ...]:
    """List the options of color that do nothing to images of so many channels.

    Hues are those of three channels. One channel has no saturation, and is gray.

    >>> without_effect((View(ops=(ColorJitter(), Grayscale())),), 13)
    ('jitter.hue',)
    >>> without_effect((View(ops=(ColorJitter(hue=0.0), Grayscale())),), 1)
    ('jitter.saturation', 'grayscale_prob')
    """
    jitters = [jitter for jitter in (view.find(ColorJitter) for view in views) if jitter is not None]
    idle = {
        "jitter.hue": channels != 3 and any(jitter.hue > 0 for jitter in jitters),
        "jitter.saturation": channels == 1 and any(jitter.saturation > 0 for jitter in jitters),
        "grayscale_prob": channels == 1 and any(view.find(Grayscale) is not None for view in views),
    }
    return tuple(option for option, nothing in idle.items() if nothing)
