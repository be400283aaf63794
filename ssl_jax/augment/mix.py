"""What training with labels does to images and their targets: mixtures of two, and erased rectangles."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, ScalarLike

from ssl_jax.core import check, numerics
from ssl_jax.core.types import Array, Key


def cutmix(
    key: Key, image: Float[Array, "h w c"], other: Float[Array, "h w c"]
) -> tuple[Float[Array, "h w c"], Float[Array, ""]]:
    """Replace a random rectangle of an image by the same rectangle of another one: CutMix.

    With λ ~ U(0, 1) the rectangle has the sides ``h √(1 − λ)`` and ``w √(1 − λ)``, rounded down to even pixels, and a
    centre that is uniform over the image; what lies outside is cut off. Targets are mixed in the same shares:
    ``share · y + (1 − share) · y'``.

    Args:
      key: used once.
      image: ``[h, w, c]``.
      other: ``[h, w, c]``.

    Returns:
      ``(mixed, share)``: the share in [0, 1] of pixels that are still those of ``image``, float32.

    Raises:
      ValueError: shapes that differ.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> mixed, share = cutmix(jax.random.key(0), jnp.ones((8, 8, 3)), jnp.zeros((8, 8, 3)))
      >>> bool(mixed.mean() == share)
      True

    Reference: Yun et al., "CutMix", ICCV 2019, eqs. 1 and 2, with α = 1.
    """
    check.require(other.shape == image.shape, "other.shape", other.shape, f"that of image, {image.shape}")
    side, *center = jax.random.uniform(key, (3,))

    def covered(size: int, position: Array) -> Array:
        half = jnp.floor(size * jnp.sqrt(1.0 - side)) // 2
        return jnp.abs(jnp.arange(size) + 0.5 - jnp.floor(position * size)) < half

    rows, columns = (covered(size, position) for size, position in zip(image.shape[:2], center, strict=True))
    cut = rows[:, None] & columns
    return jnp.where(cut[:, :, None], other, image), 1.0 - jnp.mean(cut.astype(jnp.float32))


def mixup(
    key: Key, image: Float[Array, "h w c"], other: Float[Array, "h w c"], *, alpha: ScalarLike = 0.8
) -> tuple[Float[Array, "h w c"], Float[Array, ""]]:
    """Take the weighted mean ``λ x + (1 − λ) x'`` of two images, λ ~ Beta(α, α).

    Args:
      key: used once.
      image: ``[h, w, c]``.
      other: ``[h, w, c]``.
      alpha: α > 0. May be traced.

    Returns:
      ``(mixed, λ)``; targets are mixed in the same shares.

    Raises:
      ValueError: shapes that differ.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> mixed, share = mixup(jax.random.key(0), jnp.ones((8, 8, 3)), jnp.zeros((8, 8, 3)))
      >>> bool(jnp.allclose(mixed, share))
      True

    Reference: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    check.require(other.shape == image.shape, "other.shape", other.shape, f"that of image, {image.shape}")
    share = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)
    return share * image + (1 - share) * other, share


def mix_batch(
    key: Key,
    images: Float[Array, "b h w c"],
    targets: Float[Array, "b k"],
    *,
    alpha: ScalarLike = 0.8,
    kinds: tuple[str, ...] = ("mixup", "cutmix"),
) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
    """Mix every image and its target with those of the image half a batch away.

    Args:
      key: used once; each image draws by itself.
      images: ``[b, h, w, c]``.
      targets: ``[b, k]`` distributions over classes.
      alpha: α of :func:`mixup`.
      kinds: ``"mixup"``, ``"cutmix"`` or both, of which each image then gets one or the other with probability 1/2.

    Returns:
      Mixed images and targets.

    Raises:
      ValueError: no kind, or an unknown one.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images, targets = jnp.eye(4).reshape(4, 2, 2, 1), jnp.eye(4)
      >>> mix_batch(jax.random.key(0), images, targets)[1].sum(axis=1).round(5).tolist()
      [1.0, 1.0, 1.0, 1.0]

    Reference: timm's ``Mixup`` in its mode "elem", where the partner is the image at the other end of the batch.
    """
    check.require(len(kinds) >= 1, "kinds", kinds, "one of 'mixup', 'cutmix' or both")
    for kind in kinds:
        check.choice("kinds", kind, ("mixup", "cutmix"))
    count = images.shape[0]
    half = count // 2
    others, other_targets = jnp.roll(images, half, axis=0), jnp.roll(targets, half, axis=0)

    def mix(key: Key, image: Array, other: Array) -> tuple[Array, Array]:
        which_key, key = jax.random.split(key)
        made = {
            "mixup": lambda: mixup(key, image, other, alpha=alpha),
            "cutmix": lambda: cutmix(key, image, other),
        }
        if len(kinds) == 1:
            return made[kinds[0]]()
        return jax.lax.cond(jax.random.bernoulli(which_key), made["mixup"], made["cutmix"])

    mixed, share = jax.vmap(mix)(jax.random.split(key, count), images, others)
    return mixed, share[:, None] * targets + (1 - share)[:, None] * other_targets


def erase(
    key: Key,
    image: Float[Array, "h w c"],
    *,
    probability: ScalarLike = 0.25,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Float[Array, "h w c"]:
    """Replace a rectangle of an image by noise from N(0, 1): random erasing.

    Its share of the image is uniform in ``area``, the logarithm of its height over its width in ``ratio``, its position
    uniform; what is larger than the image is cut to it.

    Args:
      key: used once.
      image: ``[h, w, c]``, normalised to mean 0 and deviation 1.
      probability: probability of erasing at all. May be traced.
      area: least and largest share, 0 < a₀ ≤ a₁ ≤ 1.
      ratio: least and largest height over width, above 0.

    Returns:
      ``[h, w, c]``.

    Raises:
      ValueError: a range that is none.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> bool((erase(jax.random.key(0), jnp.ones((8, 8, 1)), probability=0.0) == 1).all())
      True

    Reference: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020; timm's ``RandomErasing`` in its mode "pixel".
    """
    check.require(0 < area[0] <= area[1] <= 1, "area", area, "two shares in (0, 1], the smaller one first")
    check.require(0 < ratio[0] <= ratio[1], "ratio", ratio, "two numbers above 0, the smaller one first")
    draw_key, noise_key = jax.random.split(key)
    u = jax.random.uniform(draw_key, (5,))
    height, width = image.shape[:2]
    pixels = height * width * (area[0] + u[0] * (area[1] - area[0]))
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    shape = jnp.exp(log_low + u[1] * (log_high - log_low))
    rows = jnp.clip(jnp.round(jnp.sqrt(pixels * shape)), 1, height)
    columns = jnp.clip(jnp.round(jnp.sqrt(pixels / shape)), 1, width)
    top, left = jnp.floor(u[2] * (height - rows + 1)), jnp.floor(u[3] * (width - columns + 1))
    inside = numerics.rectangle((height, width), top, left, rows, columns)
    erased = (inside & (u[4] < probability))[..., None]
    return jnp.where(erased, jax.random.normal(noise_key, image.shape, image.dtype), image)
