"""Random operations of a view after its crop: one class each, with its parameters, its random numbers and what it does.

To add one is to write one class here or anywhere else::

    @dataclasses.dataclass(frozen=True)
    class Invert(Operation):
        option = "invert"
        draws = 1
        prob: Number = 0.5

        def apply(self, planes, chosen):
            return 1.0 - planes

It can stand in ``View(ops=...)``, and every preset has the option ``invert_prob``, 0 where it is not given.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.augment import blur, color, jitter
from ssl_jax.core import check
from ssl_jax.core.types import Array, Key

Number = int | float
Pair = tuple[Number, Number]


OPERATIONS: dict[str, type["Operation"]] = {}
"""All operations by their ``option``, in the order in which presets apply them: that of their definition."""


class Draw(NamedTuple):
    """What is drawn of an operation for one image: whether it is applied, and what its `Operation.choose` returned."""

    applied: Any
    chosen: Any


class Operation:
    """A random operation of a view, as data: a frozen dataclass with a field ``prob``.

    It may change pixels of planes ``[c, h, w]`` in [0, 1]. The pixels are clipped to [0, 1] at the end of a view.

    Attributes:
      option: name of its options in presets: the field ``sigma`` of ``blur`` is the option ``blur_sigma``.
      draws: how many uniform numbers it takes for an image; the first one decides whether it is applied.
      nested: True makes all fields one option, a mapping, ``None`` where the operation is left out.
      prob: probability of being applied to an image.
    """

    option: ClassVar[str]
    draws: ClassVar[int]
    nested: ClassVar[bool] = False
    prob: Number

    def __init_subclass__(cls) -> None:
        OPERATIONS[cls.option] = cls

    def __post_init__(self) -> None:
        self.require(0 <= self.prob <= 1, "prob", "a probability, 0 to 1")

    def require(self, condition: bool, field: str, allowed: str) -> None:
        """Raise a ValueError that names the option of a field unless ``condition`` holds."""
        name = f"{self.option}.{field}" if self.nested else f"{self.option}_{field}"
        check.require(condition, name, getattr(self, field), allowed)

    def choose(self, uniforms: Float[Array, " draws"]) -> Any:
        """Return what `apply` needs, from uniform numbers in [0, 1); called for a whole batch under ``vmap``."""
        del uniforms
        return ()

    def apply(self, planes: Float[Array, "c h w"], chosen: Any) -> Float[Array, "c h w"]:
        """Return the changed planes; called only where the first number is below ``prob``."""
        raise NotImplementedError

    def apply_drawn(self, planes: Float[Array, "c h w"], draw: Draw) -> Float[Array, "c h w"]:
        """Return the changed planes where the operation was drawn, the planes as they are elsewhere."""
        return jax.lax.cond(draw.applied, lambda x: self.apply(x, draw.chosen), lambda x: x, planes)

    def move(self, corners: Float[Array, " 4"]) -> Float[Array, " 4"]:
        """Return the corners of a view after the operation; see `ssl_jax.augment.views.make_boxes`."""
        return corners

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """Apply the operation to one image ``[h, w, c]``, with its probability."""
        draw = draw_operation(self, jax.random.uniform(key, (self.draws,), dtype=jnp.float32))
        return color.on_planes(self.apply_drawn, image, draw)


def draw_operation(operation: Operation, uniforms: Float[Array, " draws"]) -> Draw:
    """Draw an operation from its uniform numbers.

    >>> import jax.numpy as jnp
    >>> bool(draw_operation(Flip(0.5), jnp.array([0.25])).applied)
    True
    """
    return Draw(uniforms[0] < operation.prob, operation.choose(uniforms))


@dataclasses.dataclass(frozen=True)
class Flip(Operation):
    """Mirror left and right.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> Flip(prob=1.0)(jax.random.key(0), jnp.array([[[1.0], [2.0]]]))[..., 0].tolist()
      [[2.0, 1.0]]
    """

    option = "flip"
    draws = 1
    prob: Number = 0.5

    def apply(self, planes: Float[Array, "c h w"], chosen: Any) -> Float[Array, "c h w"]:
        """Return the mirror image."""
        del chosen
        return planes[:, :, ::-1]

    def move(self, corners: Float[Array, " 4"]) -> Float[Array, " 4"]:
        """Return the corners with left and right exchanged."""
        return corners[jnp.array([0, 3, 2, 1])]


@dataclasses.dataclass(frozen=True)
class Rotate(Operation):
    """Turn by 90, 180 or 270 degrees, each as likely: for images without an upright, as from satellites and microscopes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> image = jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]])
      >>> Rotate(prob=1.0)(jax.random.key(0), image)[..., 0].tolist() != image[..., 0].tolist()
      True
    """

    option = "rotate"
    draws = 1
    prob: Number = 0.5

    def choose(self, uniforms: Float[Array, " 1"]) -> Any:
        """Return the number of quarter turns but one, 0 to 2, from what the only number says below ``prob``."""
        return jnp.minimum(jnp.floor(3 * uniforms[0] / self.prob), 2).astype(jnp.int32)

    def apply(self, planes: Float[Array, "c h w"], chosen: Any) -> Float[Array, "c h w"]:
        """Return the turned planes."""
        quarters = [functools.partial(jnp.rot90, k=k, axes=(1, 2)) for k in (1, 2, 3)]
        return jax.lax.switch(chosen, quarters, planes)

    def move(self, corners: Float[Array, " 4"]) -> Float[Array, " 4"]:
        """Refuse: two corners do not say which way is up."""
        raise ValueError(
            f"rotate_prob={self.prob!r}: allowed is 0 where a method asks for the boxes of its views"
        )


@dataclasses.dataclass(frozen=True)
class ColorJitter(Operation):
    """Change brightness, contrast, saturation and hue in random order, each image its own.

    Factors ``f ~ U(max(0, 1 - s), 1 + s)`` for brightness, contrast and saturation with strength s; the hue turns by
    ``U(-hue, hue)``. Order uniform over the 24; pixels are clipped to [0, 1] after each. With other than three channels
    saturation blends with the mean of the channels and hue does nothing.

    Attributes:
      brightness: strength, 0 or more.
      contrast: strength, 0 or more.
      saturation: strength, 0 or more.
      hue: greatest turn, 0 to 0.5 of the circle of hues.
      prob: probability of jittering at all.
      additive_brightness: add ``U(-b, b)`` instead of multiplying (SimCLR version 1, BYOL).
      exact: False composes the four operations into one affine map of the colours, with the hue turned in YIQ space, and
        clips once: `ssl_jax.augment.jitter.composed_jitter_planes`, which is faster.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> image = jnp.linspace(0, 1, 12).reshape(2, 2, 3)
      >>> out = ColorJitter(0.4, 0.4, 0.4, 0.1)(jax.random.key(0), image)
      >>> out.shape, bool((out >= 0).all() & (out <= 1).all())
      ((2, 2, 3), True)

    Reference: Chen et al. 2020 (SimCLR), appendix A; ``torchvision.transforms.ColorJitter``. BYOL's code and
    SimCLR's take contrast's mean per channel; here it is torchvision's.
    """

    option = "jitter"
    draws = 9
    nested = True
    brightness: Number = 0.8
    contrast: Number = 0.8
    saturation: Number = 0.8
    hue: Number = 0.2
    prob: Number = 0.8
    additive_brightness: bool = False
    exact: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("brightness", "contrast", "saturation"):
            self.require(getattr(self, field) >= 0, field, "0 or more")
        self.require(0 <= self.hue <= 0.5, "hue", "0 to 0.5 turns")

    def choose(self, uniforms: Float[Array, " 9"]) -> tuple[Float[Array, " 4"], Any]:
        """Return factors and order, as `ssl_jax.augment.jitter.jitter_planes` takes them.

        >>> import jax.numpy as jnp
        >>> factors, order = ColorJitter(0.5, 0.5, 0.5, 0.1).choose(jnp.arange(9.0) / 10)
        >>> [round(float(f), 2) for f in factors], order.tolist()
        ([0.6, 0.7, 0.8, -0.02], [0, 1, 2, 3])
        """
        strengths = jnp.array([self.brightness, self.contrast, self.saturation, self.hue], jnp.float32)
        centers = jnp.array([1.0, 1.0, 1.0, 0.0])
        # Factors are never negative; with additive brightness the drawn number is a shift, which may be.
        free = jnp.array([self.additive_brightness, False, False, True])
        low = jnp.where(free, centers - strengths, jnp.maximum(centers - strengths, 0.0))
        factors = low + (centers + strengths - low) * uniforms[1:5]
        return factors, jnp.argsort(uniforms[5:9])

    def apply(self, planes: Float[Array, "c h w"], chosen: Any) -> Float[Array, "c h w"]:
        """Return the jittered planes."""
        factors, order = chosen
        function = jitter.jitter_planes if self.exact else jitter.composed_jitter_planes
        return function(
            planes, factors.astype(planes.dtype), order, additive_brightness=self.additive_brightness
        )


@dataclasses.dataclass(frozen=True)
class Grayscale(Operation):
    """Replace the colour by the gray value in every channel; see `ssl_jax.augment.color.grayscale`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> Grayscale(prob=1.0)(jax.random.key(0), jnp.array([[[0.0, 1.0]]])).tolist()
      [[[0.5, 0.5]]]
    """

    option = "grayscale"
    draws = 1
    prob: Number = 0.2

    def apply(self, planes: Float[Array, "c h w"], chosen: Any) -> Float[Array, "c h w"]:
        """Return gray planes."""
        del chosen
        return color.gray_planes(planes)

    def apply_drawn(self, planes: Float[Array, "c h w"], draw: Draw) -> Float[Array, "c h w"]:
        """Return one channel as it is: it is gray already."""
        return super().apply_drawn(planes, draw) if planes.shape[0] > 1 else planes


@dataclasses.dataclass(frozen=True)
class Blur(Operation):
    """Blur by a Gaussian with σ ~ U(sigma); see `ssl_jax.augment.blur.gaussian_blur`.

    Attributes:
      prob: probability of blurring an image.
      sigma: least and greatest width, pixels, positive.
      kernel: odd number of taps; None takes ``size // 10``, made odd (23 at 224 pixels).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> image = jnp.eye(4)[..., None]
      >>> bool((Blur(prob=0.0, kernel=3)(jax.random.key(0), image) == image).all())
      True
    """

    option = "blur"
    draws = 2
    prob: Number = 0.5
    sigma: Pair = (0.1, 2.0)
    kernel: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.sigma
        self.require(0 < low <= high, "sigma", "0 < least <= greatest")
        self.require(self.kernel is None or self.kernel % 2 == 1, "kernel", "an odd number of taps, or None")

    def taps(self, size: int) -> int:
        """Return the number of taps for images of ``size`` pixels.

        >>> Blur().taps(224), Blur().taps(32), Blur(kernel=5).taps(32)
        (23, 3, 5)
        """
        return self.kernel or 2 * (size // 10 // 2) + 1

    def choose(self, uniforms: Float[Array, " 2"]) -> Any:
        """Return the width."""
        low, high = self.sigma
        return low + (high - low) * uniforms[1]

    def apply(self, planes: Float[Array, "c h w"], chosen: Any) -> Float[Array, "c h w"]:
        """Return the blurred planes."""
        return blur.gaussian_blur_planes(planes, chosen, kernel=self.taps(planes.shape[-1]))


@dataclasses.dataclass(frozen=True)
class Solarize(Operation):
    """Invert the pixels at or above ``threshold``; see `ssl_jax.augment.color.solarize`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> Solarize(prob=1.0)(jax.random.key(0), jnp.array([[[0.25], [1.0]]]))[..., 0].tolist()
      [[0.25, 0.0]]
    """

    option = "solarize"
    draws = 1
    prob: Number = 0.2
    threshold: Number = 0.5

    def apply(self, planes: Float[Array, "c h w"], chosen: Any) -> Float[Array, "c h w"]:
        """Return the solarized planes."""
        del chosen
        return color.solarize(planes, threshold=self.threshold)
