"""What views a method asks for (`View`, plain data) and how they are made, on the device and on the host."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from ssl_jax.augment import blur, color, crop, host
from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Batch, Key

Number = int | float
Pair = tuple[Number, Number]


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Colour jitter of a view, as data; see `ssl_jax.augment.color.color_jitter`.

    Attributes:
      brightness: strength b >= 0; the factor is drawn from U(max(0, 1 - b), 1 + b).
      contrast: strength, as for brightness.
      saturation: strength, as for brightness.
      hue: largest shift in turns of the hue circle, 0 to 0.5.
      probability: of jittering the view at all.
      additive_brightness: add U(-b, b) instead of multiplying (BYOL, SimCLR version 1).
      exact: True clips after each operation and turns the hue in HSV space; False composes the four
        operations into one affine map of the colours, with the hue turned in YIQ space, and clips once
        (faster).
    """

    brightness: Number = 0.8
    contrast: Number = 0.8
    saturation: Number = 0.8
    hue: Number = 0.2
    probability: Number = 0.8
    additive_brightness: bool = False
    exact: bool = True

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            check.require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        check.require(0 <= self.hue <= 0.5, "hue", self.hue, "0 to 0.5 turns")
        check.require(0 <= self.probability <= 1, "probability", self.probability, "0 to 1")


@dataclasses.dataclass(frozen=True)
class View:
    """One view of an image, as data: hashable; `view_from` reads back what ``dataclasses.asdict`` wrote.

    The operations are applied in this order: crop, flip, turn, jitter, gray, blur, solarize; then the pixels are clipped to
    [0, 1] and normalised.

    Attributes:
      size: of the square output, pixels.
      area: least and greatest share of the image that the crop covers, in (0, 1].
      ratio: least and greatest width / height of the crop.
      interpolation: ``bilinear`` or ``bicubic`` resampling.
      antialias: whether shrinking averages over the pixels in between.
      flip_prob: probability of mirroring left and right.
      jitter: colour jitter, None for none.
      grayscale_prob: probability of losing the colour.
      blur_prob: probability of a Gaussian blur.
      blur_sigma: least and greatest width of the blur, pixels.
      blur_kernel: odd number of taps; None takes ``size // 10``, made odd (23 at 224 pixels).
      solarize_prob: probability of inverting the pixels at or above ``solarize_threshold``.
      solarize_threshold: on the scale of 0 to 1.
      rotate_prob: probability of turning by 90, 180 or 270 degrees, each as likely: for images without an upright, as from
        satellites and microscopes.
      mean: subtracted at the end: one number, or one a channel; ``()`` for none.
      std: divided by at the end: as many numbers as ``mean``.
    """

    size: int = 224
    area: Pair = (0.08, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    antialias: bool = True
    flip_prob: Number = 0.5
    jitter: Jitter | None = Jitter()
    grayscale_prob: Number = 0.2
    blur_prob: Number = 0.5
    blur_sigma: Pair = (0.1, 2.0)
    blur_kernel: int | None = None
    solarize_prob: Number = 0.0
    solarize_threshold: Number = 0.5
    rotate_prob: Number = 0.0
    mean: tuple[Number, ...] = ()
    std: tuple[Number, ...] = ()

    def __post_init__(self) -> None:
        check.require(self.size >= 1, "size", self.size, "1 or more pixels")
        check.require(0 < self.area[0] <= self.area[1] <= 1, "area", self.area, "0 < least <= greatest <= 1")
        check.require(0 < self.ratio[0] <= self.ratio[1], "ratio", self.ratio, "0 < least <= greatest")
        check.choice("interpolation", self.interpolation, crop.INTERPOLATIONS)
        for name in ("flip_prob", "grayscale_prob", "blur_prob", "solarize_prob", "rotate_prob"):
            check.require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability, 0 to 1")
        low, high = self.blur_sigma
        check.require(0 < low <= high, "blur_sigma", self.blur_sigma, "0 < least <= greatest")
        odd = self.blur_kernel is None or self.blur_kernel % 2 == 1
        check.require(odd, "blur_kernel", self.blur_kernel, "an odd number of taps, or None")
        check.require(len(self.mean) == len(self.std), "std", self.std, "as many numbers as mean")
        check.require(all(s > 0 for s in self.std), "std", self.std, "positive numbers")


def tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `View` with lists, as JSON writes tuples, made tuples again.

    >>> tuples({"size": 8, "area": [0.2, 1.0]})
    {'size': 8, 'area': (0.2, 1.0)}
    """
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def view_from(data: Mapping[str, Any]) -> View:
    """A `View` from what ``dataclasses.asdict``, perhaps by way of JSON, made of one.

    >>> import dataclasses, json
    >>> view = View(size=32)
    >>> view_from(json.loads(json.dumps(dataclasses.asdict(view)))) == view
    True
    """
    fields = tuples(data)
    if isinstance(fields.get("jitter"), Mapping):
        fields["jitter"] = Jitter(**fields["jitter"])
    return View(**fields)


def blur_taps(view: View) -> int:
    """Number of taps of a view's blur.

    >>> blur_taps(View(size=224)), blur_taps(View(size=32)), blur_taps(View(size=32, blur_kernel=5))
    (23, 3, 5)
    """
    return view.blur_kernel or 2 * (view.size // 10 // 2) + 1


def groups(views: tuple[View, ...]) -> tuple[tuple[int, ...], ...]:
    """Indices of the views of each size, sizes in order of first appearance; each size makes one array.

    >>> groups((View(size=224), View(size=96), View(size=224)))
    ((0, 2), (1,))
    """
    sizes = dict.fromkeys(view.size for view in views)
    return tuple(tuple(i for i, view in enumerate(views) if view.size == size) for size in sizes)


class Draw(NamedTuple):
    """The random numbers of one view but for its box."""

    flip: Any
    jitter: color.JitterDraw | None
    gray: Any
    blur: Any
    sigma: Any
    solarize: Any
    turns: Any


def _numbers(view: View) -> int:
    """How many uniform numbers `_draw` needs: a turn needs one more, the draws of other views do not depend on it."""
    return 15 if view.rotate_prob else 14


def _draw(uniforms: Array, view: View) -> Draw:
    """From `_numbers` uniform numbers."""
    jitter = None
    if view.jitter is not None:
        options = dataclasses.asdict(view.jitter)
        del options["exact"]
        jitter = color.draw_jitter(uniforms[5:14], **options)
    low, high = view.blur_sigma
    flip, gray, blurred, solarize = uniforms[:4] < jnp.array(
        [view.flip_prob, view.grayscale_prob, view.blur_prob, view.solarize_prob]
    )
    turns = None
    if view.rotate_prob:
        third = jnp.minimum(jnp.floor(3 * uniforms[14] / view.rotate_prob), 2).astype(jnp.int32)
        turns = jnp.where(uniforms[14] < view.rotate_prob, 1 + third, 0)
    return Draw(flip, jitter, gray, blurred, low + (high - low) * uniforms[4], solarize, turns)


def _where(drawn: Any, probability: float, function: Callable[[Array], Array], x: Array) -> Array:
    """The function of ``x`` where drawn; nothing is computed for the probability 0."""
    return jax.lax.cond(drawn, function, lambda y: y, x) if probability else x


def _apply(draw: Draw, image: Array, view: View) -> Array:
    """A view from its crop and its random numbers."""
    planes = jnp.clip(jnp.moveaxis(at_least_float32(image), -1, 0), 0.0, 1.0)
    planes = _where(draw.flip, view.flip_prob, lambda x: x[:, :, ::-1], planes)
    if view.rotate_prob:
        quarters = [functools.partial(jnp.rot90, k=k, axes=(1, 2)) for k in range(4)]
        planes = jax.lax.switch(draw.turns, quarters, planes)
    if view.jitter is not None and draw.jitter is not None:
        additive, exact = view.jitter.additive_brightness, view.jitter.exact
        planes = color.apply_jitter(planes, draw.jitter, additive_brightness=additive, exact=exact)
    if planes.shape[0] > 1:
        planes = _where(draw.gray, view.grayscale_prob, color.gray_planes, planes)
    blurred = functools.partial(blur.gaussian_blur_planes, sigma=draw.sigma, kernel=blur_taps(view))
    planes = _where(draw.blur, view.blur_prob, blurred, planes)
    solarized = functools.partial(color.solarize, threshold=view.solarize_threshold)
    planes = _where(draw.solarize, view.solarize_prob, solarized, planes)
    return color.normalize(jnp.clip(jnp.moveaxis(planes, 0, -1), 0.0, 1.0), mean=view.mean, std=view.std)


def finish(key: Key, image: Float[Array, "s s c"], view: View) -> Float[Array, "s s c"]:
    """Everything of a view but its crop: flip, turn, jitter, gray, blur, solarize, clip, normalise.

    Args:
      key: used once.
      image: a crop ``[s, s, c]`` in [0, 1]; bicubic overshoot is clipped.
      view: what to do.

    Returns:
      ``[s, s, c]``, at least float32; in [0, 1] before normalisation.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> view = View(size=4, flip_prob=0.0, jitter=None, grayscale_prob=0.0, blur_prob=0.0, mean=(0.5,), std=(0.25,))
      >>> finish(jax.random.key(0), jnp.ones((4, 4, 3)), view)[0, 0].tolist()
      [2.0, 2.0, 2.0]
    """
    return _apply(_draw_without_box(key, view), image, view)


def augment(key: Key, image: Float[Array, "h w c"], view: View) -> Float[Array, "size size c"]:
    """One random view of one image: a random resized crop, then `finish`.

    Args:
      key: used once.
      image: ``[h, w, c]`` in [0, 1], any number of channels.
      view: what to do.

    Returns:
      ``[view.size, view.size, c]``, at least float32.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> augment(jax.random.key(0), jnp.ones((8, 6, 3)), View(size=4, blur_prob=0.0)).shape
      (4, 4, 3)

    Reference: Chen et al. 2020 (SimCLR), appendix A; Grill et al. 2020 (BYOL), appendix B. The crop is
    clipped to [0, 1] before the colours, as 8-bit pipelines do.
    """
    box, draw = _draw_all(key, image.shape[0], image.shape[1], view)
    return _apply(draw, _crop(image, box, view), view)


def _draw_without_box(key: Key, view: View) -> Draw:
    return _draw(jax.random.uniform(key, (_numbers(view),), dtype=jnp.float32), view)


def _draw_all(key: Key, height: int, width: int, view: View) -> tuple[crop.Box, Draw]:
    # One call for all numbers of a view: each call of the generator takes about a second to compile.
    own = _numbers(view)
    uniforms = jax.random.uniform(key, (own + 4 * crop.TRIES,), dtype=jnp.float32)
    tries = uniforms[own:].reshape(crop.TRIES, 4)
    box = crop.sample_box(tries, height, width, area=view.area, ratio=view.ratio)
    return box, _draw(uniforms[:own], view)


def _crop(image: Array, box: crop.Box, view: View) -> Array:
    return crop.crop_resize(
        image, box, size=view.size, interpolation=view.interpolation, antialias=view.antialias
    )


@functools.partial(jax.jit, static_argnames=("view", "cropped", "loop"))
def _views_of_one_kind(
    keys: Array, source: Array, view: View, *, cropped: bool, loop: bool | None
) -> Float[Array, "b v s s c"]:
    """Views ``[b, v, ...]`` of one kind, from keys ``[b, v]`` and images, or crops, of the same views.

    The random numbers of the whole batch are drawn at once, outside the loop: one image at a time they would
    cost as much as the pixels of a small image. By itself under ``jit``, so that equal views are traced once in a process.
    """
    height, width, channels = source.shape[-3:]

    def draw(key: Key) -> Any:
        return _draw_without_box(key, view) if cropped else _draw_all(key, height, width, view)

    def apply(drawn: Any, x: Array) -> Array:
        x = color.to_float(x)
        return _apply(drawn, x, view) if cropped else _apply(drawn[1], _crop(x, drawn[0], view), view)

    def vectorized(draws: Any, x: Array) -> Array:
        return jax.vmap(apply)(draws, x)

    def looped(draws: Any, x: Array) -> Array:
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
    """All views of a batch: one array for each size, sizes in order of first appearance (see `groups`).

    The key of view v of example i is ``fold_in(fold_in(key, i), v)``: what becomes of an example depends on
    its place in the global batch and on nothing else, neither on the other examples nor on the number of
    devices.

    Args:
      key: used once.
      batch: with ``crops``, a tuple of ``[b, v, s, s, c]`` as `host_crops` makes them, only `finish` is
        applied; else ``image`` ``[b, h, w, c]`` is cropped here. uint8, uint16 or float in [0, 1].
      views: which views.
      positions: int ``[b]``, where in the global batch the examples stand, for a part of it; None: 0, 1, ...
      loop: True goes through the examples one after another, so that an operation that was not drawn costs
        nothing and one image fits in the cache; False does all at once, where an operation is computed for
        every example and then selected. None loops on CPU only. The results agree to float rounding. Several
        CPU devices or processes that share a batch should say False: the loop is not divided among them.

    Returns:
      ``[b, v, s, s, c]`` for each size, float32.

    Raises:
      ValueError: neither ``crops`` nor ``image``, or crops that do not match the views.

    Example:
      >>> import jax, numpy as np
      >>> batch = {"image": np.zeros((2, 8, 8, 3), np.uint8)}
      >>> views = (View(size=4, blur_prob=0.0), View(size=2, blur_prob=0.0), View(size=4, blur_prob=0.0))
      >>> [x.shape for x in make_views(jax.random.key(0), batch, views)]
      [(2, 2, 4, 4, 3), (2, 1, 2, 2, 3)]
    """
    cropped = "crops" in batch
    check.require(cropped or "image" in batch, "batch", sorted(batch), "a dict with 'image' or 'crops'")
    sources = _checked_crops(batch["crops"], views) if cropped else (jnp.asarray(batch["image"]),)
    positions = jnp.arange(sources[0].shape[0]) if positions is None else positions
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(positions)
    keys = jax.vmap(lambda k: jax.vmap(lambda v: jax.random.fold_in(k, v))(jnp.arange(len(views))))(keys)
    made = []
    for group, indices in enumerate(groups(views)):
        parts, order = [], []
        for view in dict.fromkeys(views[i] for i in indices):
            chosen = [place for place, i in enumerate(indices) if views[i] == view]
            source = sources[group][:, np.array(chosen)] if cropped else sources[0]
            own_keys = keys[:, np.array([indices[place] for place in chosen])]
            parts.append(_views_of_one_kind(own_keys, source, view, cropped=cropped, loop=loop))
            order += chosen
        joined = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        made.append(joined if order == sorted(order) else joined[:, np.argsort(order)])
    return tuple(made)


def _checked_crops(crops: Any, views: tuple[View, ...]) -> tuple[Array, ...]:
    """Crops as arrays, one ``[b, v, s, s, c]`` for each size of the views."""
    crops = tuple(jnp.asarray(x) for x in crops)
    found = tuple(x.shape[1:4] for x in crops)
    wanted = tuple((len(g), views[g[0]].size, views[g[0]].size) for g in groups(views))
    check.require(found == wanted, "batch['crops'] [views, size, size]", found, f"{wanted} for these views")
    return crops


def host_crops(
    rng: np.random.Generator, image: Shaped[np.ndarray, "h w c"], views: tuple[View, ...]
) -> tuple[Shaped[np.ndarray, "v s s c"], ...]:
    """The crops of one image, made on the host: for images that vary in size, or to send less to the device.

    The boxes have the same distribution as those of `augment` (one implementation, `crop.sample_box`).

    Args:
      rng: advanced by 40 numbers a view, whatever they turn out to be.
      image: ``[h, w, c]``; uint8, uint16 or float.
      views: which views; ``antialias`` is on whatever they say.

    Returns:
      ``[v, s, s, c]`` for each size, in the grouping of `groups`; the dtypes of `host.host_crop`.

    Example:
      >>> import numpy as np
      >>> image = np.zeros((8, 6, 3), np.uint8)
      >>> [x.shape for x in host_crops(np.random.default_rng(0), image, (View(size=4), View(size=2)))]
      [(1, 4, 4, 3), (1, 2, 2, 3)]
    """
    height, width = image.shape[:2]
    crops: list[np.ndarray] = []
    for view in views:
        uniforms = rng.random((crop.TRIES, 4), dtype=np.float32)
        box = crop.sample_box(uniforms, height, width, area=view.area, ratio=view.ratio, xp=np)
        crops.append(host.host_crop(image, box, size=view.size, interpolation=view.interpolation))
    return tuple(np.stack([crops[i] for i in indices]) for indices in groups(views))


def normalize_for_evaluation(
    images: Shaped[Array | np.ndarray, "b h w c"], view: View
) -> Float[Array, "b h w c"]:
    """Images for the encoder at evaluation: floats in [0, 1], normalised as the view is, nothing random.

    Args:
      images: ``[b, h, w, c]``; uint8, uint16 or float.
      view: whose mean and std are used.

    Returns:
      ``[b, h, w, c]``, at least float32.

    Example:
      >>> import numpy as np
      >>> view = View(mean=(0.5,), std=(0.5,))
      >>> normalize_for_evaluation(np.full((1, 1, 1, 3), 255, np.uint8), view).tolist()
      [[[[1.0, 1.0, 1.0]]]]
    """
    return color.normalize(color.to_float(images), mean=view.mean, std=view.std)
