"""BiGAN (Donahue et al., ICLR 2017): an encoder learns to invert a generator because a discriminator sees pairs."""

import functools

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.adversarial import discriminator_cross_entropy
from ssl_jax.methods.method import Method, Reconstruction
from ssl_jax.methods.parts.autoencoder import from_pixels, reconstruct_all
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
      discriminator_channels: channels of the discriminator at half the side of the images, doubling likewise.
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
    dtype = compute_dtype(encoder)
    inference = chain(encoder=encoder, head=heads.mlp((latent,), dtype=dtype))
    critic = discriminator(width=discriminator_channels, hidden_dim=hidden_dim, dtype=dtype)

    def generator_for(images: Array) -> Network:
        return generator(size=images.shape[1], channels=images.shape[-1], width=decoder_channels, dtype=dtype)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, generator_key, critic_key = jax.random.split(key, 3)
        images, code = batch["views"][0][:, 0], jnp.zeros((1, latent))
        params, state = inference.init(encoder_key, images)
        params["generator"], state["generator"] = generator_for(images).init(generator_key, code)
        params["discriminator"], state["discriminator"] = critic.init(critic_key, images[:1], code=code)
        return params, state

    def generate(
        params: Params, state: State, code: Array, images: Array, *, train: bool
    ) -> tuple[Array, State]:
        """Compute G(z) in the normalisation of ``images``, of which only the shape is read."""
        variables = params["generator"], state["generator"]
        outputs, generator_state = generator_for(images).apply(*variables, code, train=train)
        return from_pixels(jax.nn.sigmoid(outputs), views[0]), {**state, "generator": generator_state}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        x = batch["views"][0][:, 0]
        prior_key, encoder_key = jax.random.split(key)
        z = draw_prior(prior_key, prior, (x.shape[0], latent))
        (_, code), state = inference.apply(params, state, x, train=True, key=encoder_key)  # E(x)
        generated, state = generate(params, state, z, x, train=True)  # G(z)

        score = functools.partial(critic.apply, train=True)
        stop, d, d_state = jax.lax.stop_gradient, params["discriminator"], state["discriminator"]
        real, d_state = score(d, d_state, x, code=stop(code))
        fake, d_state = score(d, d_state, stop(generated), code=z)
        discriminator_loss = discriminator_cross_entropy(real, fake)
        real, _ = score(stop(d), d_state, x, code=code)
        fake, _ = score(stop(d), d_state, generated, code=z)
        generator_loss = discriminator_cross_entropy(fake, real)

        metrics = {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}
        return discriminator_loss + generator_loss, ({**state, "discriminator": d_state}, metrics)

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        del key
        (_, code), _ = inference.apply(params, state, images)
        generated, _ = generate(params, state, code, images, train=False)
        return reconstruct_all(images, generated)

    return Method(views, init, loss, encoder, reconstruct=reconstruct)


def draw_prior(key: Key, prior: str, shape: tuple[int, ...]) -> Array:
    """Draw z: standard normal, or uniform from −1 to 1."""
    if prior == "normal":
        return jax.random.normal(key, shape)
    return jax.random.uniform(key, shape, minval=-1.0)
