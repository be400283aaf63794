"""Layers whose weights have spectral norm 1, and the discriminator that is made of them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32, normalize
from ssl_jax.core.types import Array
from ssl_jax.models.generator import map_sides
from ssl_jax.models.network import Network, from_linen

SLOPE = 0.2


def spectral_step(
    kernel: Float[Array, "*rows k"], u: Float[Array, " k"]
) -> tuple[Float[Array, ""], Float[Array, " k"]]:
    """Do one power iteration towards the largest singular value of a kernel, whose axes but the last are rows of W.

    ``v = W u / ‖W u‖,  u ← Wᵀ v / ‖Wᵀ v‖,  σ = vᵀ W u``

    Args:
      kernel: kernel of a dense layer ``[in, k]`` or a convolution ``[h, w, in, k]``, float32 or wider.
      u: the right singular vector as far as it is known.

    Returns:
      ``(σ, u)``: σ has a gradient to the kernel, ``v uᵀ``; u has none.

    >>> import jax.numpy as jnp
    >>> float(spectral_step(jnp.diag(jnp.array([3.0, 2.0])), jnp.array([1.0, 0.0]))[0])
    3.0

    Reference: Miyato et al., Spectral Normalization for Generative Adversarial Networks (ICLR 2018), section 2.1, algorithm 1.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)
    v = normalize(fixed @ jax.lax.stop_gradient(u))
    u = normalize(v @ fixed)
    return v @ matrix @ u, u


class SpectralLayer(nn.Module):
    """A dense layer, or with ``side`` a convolution of stride 2, with weights ``W / σ(W)``.

    σ is estimated by one power iteration a call in training, which starts from the last one's vector, kept with the batch
    statistics; in evaluation that vector is read only.
    """

    width: int
    side: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        window = (self.side, self.side) if self.side else ()
        shape = (*window, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        start = lambda: jnp.full((self.width,), self.width**-0.5, jnp.float32)  # noqa: E731
        vector = self.variable("batch_stats", "u", start)
        sigma, u = spectral_step(kernel, vector.value)
        if train and not self.is_initializing():
            vector.value = u
        # Weights that are all 0 stay so.
        kernel = (kernel / jnp.where(sigma > 0, sigma, 1.0)).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.side:
            numbers = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)
        else:
            y = x @ kernel
        return y + bias.astype(self.dtype)


class Discriminator(nn.Module):
    """See :func:`discriminator`."""

    width: int
    hidden_dim: int
    dtype: Any

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool, code: Float[Array, "b d"] | None = None
    ) -> Float[Array, " b"]:
        def layer(x: Array, width: int, name: str, side: int = 0) -> Array:
            return SpectralLayer(width, side, self.dtype, name=name)(x, train=train)

        def leaky(x: Array) -> Array:
            return nn.leaky_relu(x, SLOPE)

        x = images
        for i in range(len(map_sides(images.shape[1])) - 1):
            x = leaky(layer(x, self.width * 2 ** min(i, 3), f"conv_{i}", 4))
        x = x.reshape(x.shape[0], -1)
        if code is not None:
            seen = leaky(layer(code, self.hidden_dim, "code"))
            x = jnp.concatenate([x, seen], axis=-1)
            x = leaky(layer(x, self.hidden_dim, "joint"))
        return at_least_float32(layer(x, 1, "score")[:, 0])


def discriminator(*, width: int, hidden_dim: int, dtype: str = "float32") -> Network:
    """Build a network that scores images, or images with codes: convolutions of spectral norm 1 and leaky ReLU.

    ``[conv 4x4 / 2 → leaky ReLU 0.2]`` down to at most 4 pixels, channels doubling up to ``8 · width``; with a code its dense
    layer joins there, and one more dense layer sees both; then one number an image.

    Args:
      width: channels after the first convolution.
      hidden_dim: width of the dense layers on codes.
      dtype: compute dtype; params and what is kept of the power iteration are float32.

    Returns:
      ``Network`` from square images ``[b, s, s, c]`` to logits ``[b]`` float32. Option of init and apply: ``code``, ``[b, d]``.

    >>> import jax, jax.numpy as jnp
    >>> network, images, codes = discriminator(width=4, hidden_dim=8), jnp.ones((2, 14, 14, 1)), jnp.ones((2, 5))
    >>> params, state = network.init(jax.random.key(0), images, code=codes)
    >>> network.apply(params, state, images, code=codes, train=True)[0].shape
    (2,)

    References: Radford et al., DCGAN (2016); Miyato et al. 2018. Normalisation of weights takes the place of BatchNorm.
    """
    check.require(
        min(width, hidden_dim) >= 1, "width, hidden_dim", (width, hidden_dim), "integers of 1 or more"
    )
    return from_linen(Discriminator(width, hidden_dim, jnp.dtype(dtype)), features=1)
