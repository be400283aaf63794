"""Autoencoder (Bourlard & Kamp 1988; Hinton & Salakhutdinov 2006): features from which the image can be made again."""

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.autoencoder import Autoencoder, feature_std
from ssl_jax.models.network import Network


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    loss: str = "mse",
    tied: bool = False,
    decoder_channels: int = 32,
) -> Method:
    """Autoencoder.

    ``L = mean (g(f(x)) − x)²`` over pixels and images, f the encoder with its features, g a decoder; or, with x in [0, 1] and
    ``g = σ(l)``, the cross-entropy ``L = mean −x log σ(l) − (1 − x) log (1 − σ(l))``. What makes features of it is that they
    are fewer than the pixels. A linear perceptron with ``tied`` kernels and ``"mse"`` finds the subspace of the principal
    components.

    Args:
      encoder: the network to train; the decoder of ``mlp`` is its mirror image, that of others is convolutional.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      loss: ``"mse"`` of normalised pixels, or ``"cross_entropy"`` of pixels in [0, 1].
      tied: the decoder's kernels are the encoder's, transposed; for ``mlp``.
      decoder_channels: channels of the convolutional decoder at the side of the images, doubling with each halving.

    Returns:
      The method. Params: ``encoder``, ``decoder``. ``encode`` gives the encoder's features. Metrics: ``feature_std``, the
      standard deviation of the features over the batch.

    Raises:
      ValueError: an unknown ``loss``, more than one view, ``tied`` with an encoder that is no perceptron.

    References: Bourlard & Kamp, Auto-association by multilayer perceptrons and singular value decomposition (1988); Hinton &
    Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks (2006), without its pre-training; Bengio et al.,
    Greedy Layer-Wise Training of Deep Networks (2007), equation 5 for the cross-entropy.
    """
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    networks = Autoencoder(encoder, views[0], loss, tied, decoder_channels)
    networks.check()

    def compute_loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        x = batch["views"][0][:, 0]
        features, outputs, state = networks.apply(params, state, x, train=True, key=key)
        return networks.error(outputs, x), (state, {"feature_std": feature_std(features)})

    return Method(views, networks.init, compute_loss, encoder, reconstruct=networks.reconstruct)
