"""Denoising autoencoder (Vincent et al., ICML 2008): the clean image is made from the features of a corrupted one."""

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Array
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.autoencoder import autoencoding_method
from ssl_jax.models.network import Network


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    corruption: str = "masking",
    level: float | Array = 0.25,
    corrupted_weight: float | Array = 1.0,
    clean_weight: float | Array = 1.0,
    loss: str = "mse",
    tied: bool = False,
    decoder_channels: int = 32,
) -> Method:
    """Denoising autoencoder.

    With x̃ the image x after the corruption, f the encoder with its features, g a decoder and J what was corrupted::

        L = 1/n (α Σ_{i ∈ J} ℓ(g(f(x̃))_i, x_i) + β Σ_{i ∉ J} ℓ(g(f(x̃))_i, x_i))

    n numbers in the batch, ℓ the squared error or the cross-entropy. At ``level`` 0 it is the autoencoder.

    Args:
      encoder: the network to train; the decoder of ``mlp`` is its mirror image, that of others is convolutional.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      corruption: of pixels in [0, 1], before they are normalised: ``"masking"``, ``"gaussian"``, ``"salt_and_pepper"`` or
        ``"none"``; see :func:`ssl_jax.augment.noise.corrupt`.
      level: ν: the share of pixels, or the standard deviation. May be traced.
      corrupted_weight: α, 1 or more for emphasis; Gaussian noise corrupts every pixel. May be traced.
      clean_weight: β. May be traced.
      loss: ``"mse"`` of normalised pixels, or ``"cross_entropy"`` of pixels in [0, 1].
      tied: the decoder's kernels are the encoder's, transposed; for ``mlp``.
      decoder_channels: channels of the convolutional decoder at the side of the images, doubling with each halving.

    Returns:
      The method. Params: ``encoder``, ``decoder``. ``encode`` gives the encoder's features of clean images. Metrics:
      ``feature_std``, the standard deviation of the features over the batch; ``corrupted``, the share of J.

    Raises:
      ValueError: an unknown ``loss`` or ``corruption``, more than one view, ``tied`` with an encoder that is no perceptron.

    References: Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders (2008), sections 2.2 and
    2.3; Vincent et al., Stacked Denoising Autoencoders (2010), sections 3.3 (emphasis) and 3.5. Deviations: one network of any
    depth, not a stack (:mod:`ssl_jax.methods.generative.greedy`); each pixel is corrupted by itself, where a fixed number is
    drawn there.
    """
    views = presets.mae() if views is None else views
    return autoencoding_method(
        encoder,
        views=views,
        loss=loss,
        tie=tied,
        decoder_channels=decoder_channels,
        corruption=corruption,
        level=level,
        corrupted_weight=corrupted_weight,
        clean_weight=clean_weight,
    )
