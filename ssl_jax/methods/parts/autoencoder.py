"""The scaffolding of autoencoders: from features of an image, perhaps a corrupted one, a decoder makes the clean image."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ScalarLike

from ssl_jax.augment.color import normalize, unnormalize
from ssl_jax.augment.noise import CORRUPTIONS, corrupt
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import weighted_cross_entropy, weighted_mse
from ssl_jax.methods.method import Method, Reconstruction
from ssl_jax.models.generator import generator
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.models.perceptron import flat, mirror, tied

ERRORS = {"mse": weighted_mse, "cross_entropy": weighted_cross_entropy}


def pixel_range(view: View) -> dict[str, Any]:
    """The numbers between normalised pixels and those in [0, 1], for ``normalize`` and ``unnormalize``."""
    return {"mean": view.mean, "std": view.std}


def autoencoding_method(
    encoder: Network,
    *,
    views: tuple[View, ...],
    loss: str,
    tie: bool,
    decoder_channels: int,
    corruption: str = "none",
    level: ScalarLike = 0.0,
    corrupted_weight: ScalarLike = 1.0,
    clean_weight: ScalarLike = 1.0,
) -> Method:
    """A method that encodes an image after ``corruption`` and reconstructs the clean one.

    Args:
      encoder: the network to train; the decoder of :func:`ssl_jax.models.perceptron.mlp` is its mirror image, that of others
        :func:`ssl_jax.models.generator.generator` on their features.
      views: one view.
      loss: ``"mse"`` of normalised pixels, or ``"cross_entropy"`` of pixels in [0, 1].
      tie: the decoder's kernels are the encoder's, transposed; for a perceptron.
      decoder_channels: channels of the convolutional decoder at the side of the images.
      corruption: as in :func:`ssl_jax.augment.noise.corrupt`, of pixels in [0, 1].
      level: ν of the corruption.
      corrupted_weight: of the errors at numbers that the corruption touched.
      clean_weight: of the others.

    Returns:
      The method. Params: ``encoder``, ``decoder``, which is the biases only where kernels are tied.

    Raises:
      ValueError: an option outside its range, more than one view, tied kernels of an encoder that is no perceptron.
    """
    choice("loss", loss, ERRORS)
    choice("corruption", corruption, CORRUPTIONS)
    require(len(views) == 1, "views", len(views), "one view")
    name = encoder.config.get("name", "")
    dense = name == "mlp"
    require(dense or not tie, "tied", tie, f"False for the encoder {name!r}: kernels of 'mlp' can be tied")
    scale = pixel_range(views[0])

    def decoder_for(images: Array) -> Network:
        if dense:
            return mirror(encoder, flat(images.shape))
        size, channels = images.shape[2:]
        dtype = compute_dtype(encoder)
        return generator(size=size, channels=channels, width=decoder_channels, dtype=dtype)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, decoder_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        features = jnp.zeros((1, encoder.features))
        params["decoder"], state["decoder"] = decoder_for(images).init(decoder_key, features)
        if tie:
            params["decoder"] = {name: {"bias": layer["bias"]} for name, layer in params["decoder"].items()}
        return params, state

    def reconstructed(
        params: Params, state: State, images: Array, *, train: bool, key: Key | None = None
    ) -> tuple[Array, Array, State]:
        """Features and what the decoder makes of them: normalised pixels, or logits of pixels."""
        features, inner = encoder.apply(params["encoder"], state["encoder"], images, train=train, key=key)
        weights = tied(params["encoder"], params["decoder"]) if tie else params["decoder"]
        outputs, outer = decoder_for(images).apply(weights, state["decoder"], features, train=train)
        return features, outputs.reshape(images.shape), {"encoder": inner, "decoder": outer}

    def corrupted(key: Key, images: Array) -> tuple[Array, Array]:
        keys = jax.random.split(key, images.shape[0])
        pixels = unnormalize(images, **scale)
        seen, touched = jax.vmap(lambda k, x: corrupt(k, x, kind=corruption, level=level))(keys, pixels)
        return (images if corruption == "none" else normalize(seen, **scale)), touched

    def loss_of(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        noise_key, encoder_key = jax.random.split(key)
        seen, touched = corrupted(noise_key, images)
        features, outputs, state = reconstructed(params, state, seen, train=True, key=encoder_key)
        targets = images if loss == "mse" else unnormalize(images, **scale)
        weights = jnp.where(touched, corrupted_weight, clean_weight)
        value = ERRORS[loss](outputs, targets, weights)
        std = jnp.mean(jnp.std(jax.lax.stop_gradient(features), axis=0))
        return value, (state, {"feature_std": std, "corrupted": jnp.mean(1.0 * touched)})

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        seen, touched = corrupted(key, images)
        _, outputs, _ = reconstructed(params, state, seen, train=False)
        if loss == "cross_entropy":
            outputs = normalize(jax.nn.sigmoid(outputs), **scale)
        # Where nothing is corrupted nothing is copied either: all pixels come out of the features.
        masked = jnp.any(touched, axis=-1, keepdims=True) | (corruption == "none")
        return Reconstruction(images, outputs, masked)

    return Method(views, init, loss_of, encoder, reconstruct=reconstruct)
