"""Networks of autoencoders, and their errors: from features of an image, perhaps corrupted, a decoder makes the clean image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, ScalarLike

from ssl_jax.augment.color import normalize, unnormalize
from ssl_jax.augment.noise import corrupt
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import compute_std
from ssl_jax.core.types import Array, Batch, Key, Params, State
from ssl_jax.losses.reconstruction import weighted_cross_entropy, weighted_mse
from ssl_jax.methods.method import Reconstruction
from ssl_jax.models.generator import generator
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.models.perceptron import count_pixels, mirror, tie_params

ERRORS = {"mse": weighted_mse, "cross_entropy": weighted_cross_entropy}
"""Errors ``(outputs, targets, weights) -> scalar`` by the option that names them."""


class Autoencoder(NamedTuple):
    """An encoder and its decoder, and what the decoder's outputs are compared with.

    Attributes:
      encoder: the network to train; the decoder of :func:`ssl_jax.models.perceptron.mlp` is its mirror image, that of others
        :func:`ssl_jax.models.generator.generator` on their features.
      view: whose normalisation the images have.
      loss: ``"mse"`` of normalised pixels, or ``"cross_entropy"`` of pixels in [0, 1]: the outputs are logits of them.
      tie: the decoder's kernels are the encoder's, transposed; for a perceptron.
      decoder_channels: channels of the convolutional decoder at the side of the images.
    """

    encoder: Network
    view: View
    loss: str
    tie: bool = False
    decoder_channels: int = 32

    def check(self) -> None:
        """Raise a ValueError unless the loss exists, and the kernels can be tied if they are to be."""
        choice("loss", self.loss, ERRORS)
        name = self.encoder.config.get("name", "")
        allowed = f"False for the encoder {name!r}: kernels of 'mlp' can be tied"
        require(name == "mlp" or not self.tie, "tied", self.tie, allowed)

    def decoder(self, images: Float[Array, "b h w c"]) -> Network:
        """Build the decoder for images of this shape."""
        if self.encoder.config.get("name") == "mlp":
            return mirror(self.encoder, count_pixels(images.shape))
        size, channels = images.shape[2:]
        dtype = compute_dtype(self.encoder)
        return generator(size=size, channels=channels, width=self.decoder_channels, dtype=dtype)

    def init(self, key: Key, batch: Batch) -> tuple[Params, State]:
        """Draw ``encoder`` and ``decoder``, which is the biases only where kernels are tied: a method's ``init``."""
        encoder_key, decoder_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = self.encoder.init(encoder_key, images)
        features = jnp.zeros((1, self.encoder.features))
        params["decoder"], state["decoder"] = self.decoder(images).init(decoder_key, features)
        if self.tie:
            params["decoder"] = {name: {"bias": layer["bias"]} for name, layer in params["decoder"].items()}
        return params, state

    def apply(
        self,
        params: Params,
        state: State,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        key: Key | None = None,
    ) -> tuple[Float[Array, "b f"], Float[Array, "b h w c"], State]:
        """Encode and decode images.

        Returns:
          ``(features, outputs, state)``; the outputs are normalised pixels, or logits of pixels.
        """
        features, encoder_state = self.encoder.apply(
            params["encoder"], state["encoder"], images, train=train, key=key
        )
        weights = tie_params(params["encoder"], params["decoder"]) if self.tie else params["decoder"]
        outputs, decoder_state = self.decoder(images).apply(weights, state["decoder"], features, train=train)
        state = {"encoder": encoder_state, "decoder": decoder_state}
        return features, outputs.reshape(images.shape), state

    def error(
        self,
        outputs: Float[Array, "*shape"],
        images: Float[Array, "b h w c"],
        weights: ScalarLike | Float[Array, "b h w c"] = 1.0,
    ) -> Float[Array, ""]:
        """Compare outputs, as many numbers as the images have, with clean images; ``weights`` are of single numbers."""
        targets = images if self.loss == "mse" else to_pixels(images, self.view)
        weights = jnp.broadcast_to(jnp.asarray(weights), images.shape)
        return ERRORS[self.loss](outputs.reshape(images.shape), targets, weights)

    def decoded(self, outputs: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Return the normalised pixels that outputs stand for."""
        return outputs if self.loss == "mse" else from_pixels(jax.nn.sigmoid(outputs), self.view)

    def reconstruct(
        self, params: Params, state: State, images: Float[Array, "b h w c"], key: Key
    ) -> Reconstruction:
        """Decode the features of clean images: the ``reconstruct`` of methods that corrupt none for it."""
        del key
        _, outputs, _ = self.apply(params, state, images)
        return reconstruct_all(images, self.decoded(outputs))


def to_pixels(images: Float[Array, "... c"], view: View) -> Float[Array, "... c"]:
    """Undo the normalisation of a view: pixels in [0, 1]."""
    return unnormalize(images, mean=view.mean, std=view.std)


def from_pixels(pixels: Float[Array, "... c"], view: View) -> Float[Array, "... c"]:
    """Normalise pixels in [0, 1] as a view does."""
    return normalize(pixels, mean=view.mean, std=view.std)


def corrupt_each(
    key: Key, x: Float[Array, "b ..."], *, kind: str, level: ScalarLike
) -> tuple[Float[Array, "b ..."], Bool[Array, "b ..."]]:
    """Corrupt the examples of a batch, each by itself: see :func:`ssl_jax.augment.noise.corrupt`.

    Returns:
      The corrupted examples, and which numbers were touched.
    """
    keys = jax.random.split(key, x.shape[0])
    return jax.vmap(lambda k, one: corrupt(k, one, kind=kind, level=level))(keys, x)


def corrupt_images(
    key: Key, images: Float[Array, "b h w c"], view: View, *, kind: str, level: ScalarLike
) -> tuple[Float[Array, "b h w c"], Bool[Array, "b h w c"]]:
    """Corrupt the pixels in [0, 1] of normalised images; see :func:`corrupt_each`."""
    pixels, touched = corrupt_each(key, to_pixels(images, view), kind=kind, level=level)
    return (images if kind == "none" else from_pixels(pixels, view)), touched


def feature_std(features: Float[Array, "b f"]) -> Float[Array, ""]:
    """Compute the standard deviation of features over the batch, averaged over features, without gradient."""
    return jnp.mean(compute_std(jax.lax.stop_gradient(features)))


def reconstruct_all(images: Float[Array, "b h w c"], predictions: Float[Array, "b h w c"]) -> Reconstruction:
    """Return predictions of which no pixel is copied: all come out of features or codes, as if all were masked."""
    return Reconstruction(images, predictions, jnp.ones((*images.shape[:3], 1), bool))
