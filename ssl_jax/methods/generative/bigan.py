"""BiGAN (Donahue et al., ICLR 2017): an encoder learns to invert a generator because a discriminator sees pairs."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.color import normalize
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.adversarial import telling_apart
from ssl_jax.methods.method import Method, Reconstruction
from ssl_jax.methods.parts.autoencoder import pixel_range
from ssl_jax.models import heads
from ssl_jax.models.generator import generator
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.models.spectral import discriminator

PRIORS = ("uniform", "normal")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    latent: int = 200,
    prior: str = "uniform",
    decoder_channels: int = 64,
    discriminator_channels: int = 64,
    hidden_dim: int = 1024,
) -> Method:
    """Bidirectional generative adversarial network.

    E the encoder with a linear layer on its features, G a generator, D a discriminator of pairs, z from the prior::

        L = ℓ(D(x, Ē), D(Ḡ, z)) + ℓ(D̄(G(z), z), D̄(x, E(x)))        ℓ(s, t) = mean −log σ(s) − mean log (1 − σ(t))

    A bar stops the gradient: the first term moves D alone, the second E and G, who want the labels exchanged. Where D cannot be
    beaten E is the inverse of G.

    Args:
      encoder: the network to train.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      latent: width of z.
      prior: ``"uniform"`` from −1 to 1, or ``"normal"``.
      decoder_channels: channels of the generator at the side of the images, doubling with each halving.
      discriminator_channels: channels of the discriminator at half that side, doubling likewise.
      hidden_dim: width of the discriminator's layers on z and on both.

    Returns:
      The method. Params: ``encoder``, ``head`` (the linear layer), ``generator``, ``discriminator``. ``encode`` gives the
      features before E's output. Metrics: ``discriminator_loss`` and ``generator_loss``, the two terms; each is ``2 log 2``
      where D cannot tell the pairs apart.

    Raises:
      ValueError: an unknown ``prior``, more than one view, a width below 1.

    References: Donahue et al. 2017, sections 3 and 3.4; jeffdonahue/bigan ``train_gan.py``. Deviations: D has spectral norm 1
    (Miyato et al. 2018) instead of BatchNorm, by one power iteration a call; G's pixels are ``σ(.)`` in the view's
    normalisation; all three move at once, as in the authors' code by default.
    """
    choice("prior", prior, PRIORS)
    require(latent >= 1, "latent", latent, "an integer of 1 or more")
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    scale, dtype = pixel_range(views[0]), compute_dtype(encoder)
    head = heads.mlp((latent,), dtype=dtype)
    inference = chain(encoder=encoder, head=head)
    judge = discriminator(width=discriminator_channels, hidden_dim=hidden_dim, dtype=dtype)

    def generator_for(images: Array) -> Network:
        return generator(size=images.shape[1], channels=images.shape[-1], width=decoder_channels, dtype=dtype)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, generator_key, judge_key = jax.random.split(key, 3)
        images, code = batch["views"][0][:, 0], jnp.zeros((1, latent))
        params, state = inference.init(encoder_key, images)
        params["generator"], state["generator"] = generator_for(images).init(generator_key, code)
        params["discriminator"], state["discriminator"] = judge.init(judge_key, images[:1], code=code)
        return params, state

    def generate(
        params: Params, state: State, code: Array, images: Array, *, train: bool
    ) -> tuple[Array, State]:
        """G(z), in the normalisation of ``images``, of which only the shape is read."""
        outputs, kept = generator_for(images).apply(
            params["generator"], state["generator"], code, train=train
        )
        return normalize(jax.nn.sigmoid(outputs), **scale), {**state, "generator": kept}

    def draw(key: Key, count: int) -> Array:
        if prior == "normal":
            return jax.random.normal(key, (count, latent))
        return jax.random.uniform(key, (count, latent), minval=-1.0)

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        latent_key, encoder_key = jax.random.split(key)
        z = draw(latent_key, images.shape[0])
        (_, code), state = inference.apply(params, state, images, train=True, key=encoder_key)
        made, state = generate(params, state, z, images, train=True)

        def scores(judging: Params, kept: State, x: Array, code: Array) -> tuple[Array, State]:
            return judge.apply(judging, kept, x, code=code, train=True)

        stop = jax.lax.stop_gradient
        judging, kept = params["discriminator"], state["discriminator"]
        of_real, kept = scores(judging, kept, images, stop(code))
        of_made, kept = scores(judging, kept, stop(made), z)
        told = telling_apart(of_real, of_made)
        of_real, _ = scores(stop(judging), kept, images, code)
        of_made, _ = scores(stop(judging), kept, made, z)
        confused = telling_apart(of_made, of_real)
        metrics = {"discriminator_loss": told, "generator_loss": confused}
        return told + confused, ({**state, "discriminator": kept}, metrics)

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        del key
        (_, code), _ = inference.apply(params, state, images)
        made, _ = generate(params, state, code, images, train=False)
        return Reconstruction(images, made, jnp.ones((*images.shape[:3], 1), bool))

    return Method(views, init, loss, encoder, reconstruct=reconstruct)
