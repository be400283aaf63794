"""Denoising autoencoder (Vincent et al., ICML 2008): the clean image is made from the features of a corrupted one."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.noise import CORRUPTIONS
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import Method, Reconstruction
from ssl_jax.methods.parts.autoencoder import Autoencoder, corrupt_images, feature_std
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
      corruption: kind of noise on pixels in [0, 1], before they are normalised: ``"masking"``, ``"gaussian"``,
        ``"salt_and_pepper"`` or ``"none"``; see :func:`ssl_jax.augment.noise.corrupt`.
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
    choice("corruption", corruption, CORRUPTIONS)
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    networks = Autoencoder(encoder, views[0], loss, tied, decoder_channels)
    networks.check()

    def compute_loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        x = batch["views"][0][:, 0]
        noise_key, encoder_key = jax.random.split(key)
        corrupted, touched = corrupt_images(noise_key, x, views[0], kind=corruption, level=level)
        features, outputs, state = networks.apply(params, state, corrupted, train=True, key=encoder_key)
        value = networks.error(outputs, x, jnp.where(touched, corrupted_weight, clean_weight))
        return value, (state, {"feature_std": feature_std(features), "corrupted": jnp.mean(1.0 * touched)})

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        corrupted, touched = corrupt_images(key, images, views[0], kind=corruption, level=level)
        _, outputs, _ = networks.apply(params, state, corrupted)
        # Where nothing is corrupted nothing is copied either: all pixels come out of the features.
        masked = jnp.any(touched, axis=-1, keepdims=True) | (corruption == "none")
        return Reconstruction(images, networks.decoded(outputs), masked)

    return Method(views, networks.init, compute_loss, encoder, reconstruct=reconstruct)
