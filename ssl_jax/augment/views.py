"""What views a method asks for (`View`, plain data) and how they are made, on the device and on the host."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ssl_jax.augment import blur, color, crop, host
from ssl_jax.core import check
from ssl_jax.core.types import Array, Batch, Key


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
      exact: True clips after each operation and shifts the hue in HSV space; False composes the four operations into one
        affine map of the colours with the hue as a rotation in YIQ space, and clips once (several times faster).
    """

    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    probability: float = 0.8
    additive_brightness: bool = False
    exact: bool = True

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            check.require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        check.require(0 <= self.hue <= 0.5, "hue", self.hue, "0 to 0.5 turns")
        check.require(0 <= self.probability <= 1, "probability", self.probability, "0 to 1")


@dataclasses.dataclass(frozen=True)
class View:
    """One view of an image, as data: hashable, and JSON-able through ``dataclasses.asdict``.

    The operations are applied in the order of the attributes: crop, flip, jitter, gray, blur, solarize; then the pixels are
    clipped to [0, 1] and normalised. Lists become tuples and a mapping becomes a `Jitter`, so that ``View(**data)`` reads
    back what ``asdict`` and JSON made of a view.

    Attributes:
      size: of the square output, pixels.
      area: least and greatest share of the image that the crop covers, in (0, 1].
      ratio: least and greatest width / height of the crop.
      method: ``bilinear`` or ``bicubic`` resampling.
      antialias: whether shrinking averages over the pixels in between.
      flip: probability of mirroring left and right.
      jitter: colour jitter, None for none.
      gray: probability of losing the colour.
      blur: probability of a Gaussian blur.
      blur_sigma: least and greatest width of the blur, pixels.
      blur_kernel: odd number of taps; None takes ``size // 10``, made odd (23 at 224 pixels).
      solarize: probability of inverting the pixels at or above ``solarize_threshold``.
      solarize_threshold: on the scale of 0 to 1.
      mean: subtracted at the end: one number, or one a channel; ``()`` for none.
      std: divided by at the end: as many numbers as ``mean``.
    """

    size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    method: str = "bicubic"
    antialias: bool = True
    flip: float = 0.5
    jitter: Jitter | None = Jitter()  # noqa: RUF009 (frozen, so a shared default is safe)
    gray: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int | None = None
    solarize: float = 0.0
    solarize_threshold: float = 0.5
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("area", "ratio", "blur_sigma", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.jitter, Mapping):
            object.__setattr__(self, "jitter", Jitter(**self.jitter))
        check.require(self.size >= 1, "size", self.size, "1 or more pixels")
        check.require(0 < self.area[0] <= self.area[1] <= 1, "area", self.area, "0 < least <= greatest <= 1")
        check.require(0 < self.ratio[0] <= self.ratio[1], "ratio", self.ratio, "0 < least <= greatest")
        check.choice("method", self.method, crop.METHODS)
        for name in ("flip", "gray", "blur", "solarize"):
            check.require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability, 0 to 1")
        low, high = self.blur_sigma
        check.require(0 < low <= high, "blur_sigma", self.blur_sigma, "0 < least <= greatest")
        odd = self.blur_kernel is None or self.blur_kernel % 2 == 1
        check.require(odd, "blur_kernel", self.blur_kernel, "an odd number of taps, or None")
        check.require(len(self.mean) == len(self.std), "std", self.std, "as many numbers as mean")
        check.require(all(s > 0 for s in self.std), "std", self.std, "positive numbers")


def blur_taps(view: View) -> int:
    """Number of taps of a view's blur.

    >>> blur_taps(View(size=224)), blur_taps(View(size=32)), blur_taps(View(size=32, blur_kernel=5))
    (23, 3, 5)
    """
    return view.blur_kernel or 2 * (view.size // 10 // 2) + 1


def groups(views: tuple[View, ...]) -> tuple[tuple[int, ...], ...]:
    """Indices of the views of each size, sizes in order of first appearance: one array of views is made for each.

    >>> groups((View(size=224), View(size=96), View(size=224)))
    ((0, 2), (1,))
    """
    sizes = dict.fromkeys(view.size for view in views)
    return tuple(tuple(i for i, view in enumerate(views) if view.size == size) for size in sizes)


def finish(key: Key, image: Float[Array, "s s c"], view: View) -> Float[Array, "s s c"]:
    """Everything but the crop: flip, jitter, gray, blur, solarize, clip, normalise."""
    keys = jax.random.split(key, 5)
    image = crop.random_flip(keys[0], image, probability=view.flip)
    if view.jitter is not None:
        image = color.color_jitter(keys[1], image, **dataclasses.asdict(view.jitter))
    if view.gray:
        image = jnp.where(jax.random.bernoulli(keys[2], view.gray), color.grayscale(image), image)
    if view.blur:
        image = blur.random_blur(
            keys[3], image, probability=view.blur, sigma=view.blur_sigma, kernel=blur_taps(view)
        )
    if view.solarize:
        inverted = color.solarize(image, threshold=view.solarize_threshold)
        image = jnp.where(jax.random.bernoulli(keys[4], view.solarize), inverted, image)
    return color.normalize(jnp.clip(image, 0.0, 1.0), mean=view.mean, std=view.std)


def augment(key: Key, image: Float[Array, "h w c"], view: View) -> Float[Array, "{view.size} {view.size} c"]:
    """One random view of one image."""
    key_box, key_finish = jax.random.split(key)
    box = crop.random_box(key_box, image.shape[0], image.shape[1], area=view.area, ratio=view.ratio)
    cropped = crop.crop_resize(image, box, size=view.size, method=view.method, antialias=view.antialias)
    return finish(key_finish, jnp.clip(cropped, 0.0, 1.0), view)


def make_views(key: Key, batch: Batch, views: tuple[View, ...]) -> tuple[Float[Array, "b v s s c"], ...]:
    """All views of a batch: one array for each size, in order of first appearance."""
    made = []
    for group, indices in enumerate(groups(views)):
        arrays = []
        for position, index in enumerate(indices):
            source = batch["crops"][group][:, position] if "crops" in batch else batch["image"]
            one = finish if "crops" in batch else augment
            keys = jax.vmap(lambda i, n=index: jax.random.fold_in(jax.random.fold_in(key, i), n))(
                jnp.arange(len(source))
            )
            arrays.append(
                jax.vmap(lambda k, x, f=one, v=views[index]: f(k, color.to_float(x), v))(keys, source)
            )
        made.append(jnp.stack(arrays, axis=1))
    return tuple(made)


def host_crops(
    rng: np.random.Generator, image: np.ndarray, views: tuple[View, ...]
) -> tuple[np.ndarray, ...]:
    """The crops of one image, made on the host: one array ``[views, size, size, c]`` for each size, dtype as it came."""
    height, width = image.shape[:2]
    crops: list[Any] = []
    for view in views:
        uniforms = rng.random((crop.TRIES, 4), dtype=np.float32)
        box = crop.sample_box(uniforms, height, width, area=view.area, ratio=view.ratio, xp=np)
        crops.append(host.host_crop(image, box, size=view.size, method=view.method))
    return tuple(np.stack([crops[i] for i in indices]) for indices in groups(views))


def normalize_for_evaluation(
    images: Shaped[Array | np.ndarray, "b h w c"], view: View
) -> Float[Array, "b h w c"]:
    """Images for the encoder at evaluation: floats in [0, 1], normalised as the view is, nothing random."""
    return color.normalize(color.to_float(images), mean=view.mean, std=view.std)
