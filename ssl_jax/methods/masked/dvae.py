"""The tokenizer of BEiT: a discrete variational autoencoder (Ramesh et al., ICML 2021)."""

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.discrete_vae import gumbel_softmax, kl_from_uniform
from ssl_jax.losses.reconstruction import smooth_l1
from ssl_jax.methods.method import CollapseValue, Method, Reconstruction
from ssl_jax.methods.parts.autoencoder import reconstruct_all
from ssl_jax.models.dvae import dvae_decoder
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.ops.schedules import constant, cosine

FOLLOWS = {"decay_steps": "steps"}
"""Options whose values follow others of the config."""


LOSSES = ("l2", "smooth_l1")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    code_width: int = 512,
    temperature: float = 1.0,
    temperature_end: float = 0.0625,
    decay_steps: int | None = None,
    straight_through: bool = False,
    kl_weight: float = 0.0,
    loss: str = "l2",
) -> Method:
    """Discrete variational autoencoder.

    At every position the encoder scores K codes; z is the mean of their vectors under a relaxed draw
    (:func:`ssl_jax.losses.discrete_vae.gumbel_softmax`), from which the decoder makes pixels::

        L = mean (x̂ − x)² + β mean KL(softmax(scores) ‖ uniform)        x̂ = decoder(Σ_k p_k e_k)

    over the normalised pixels x, and over positions. The temperature falls from τ₀ to τ₁ on a cosine over ``decay_steps``.

    Args:
      encoder: :func:`ssl_jax.models.dvae.dvae`, whose ``vocabulary_size`` is K.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      code_width: width of a code's vector.
      temperature: τ₀ > 0.
      temperature_end: τ₁ > 0.
      decay_steps: length of the run; ``None``: the temperature stays τ₀.
      straight_through: the decoder sees one code at each position, with the gradient of the relaxed draw.
      kl_weight: β ≥ 0. May be traced.
      loss: ``"l2"``, or ``"smooth_l1"`` (β 1).

    Returns:
      The method. ``encode`` gives the pooled map before the scores; export writes encoder and scores, which is the tokenizer.
      Metrics: ``error`` and ``kl``, the two terms; ``temperature``; ``code_perplexity``, the exponential of the entropy of the
      best codes of the batch: how many codes are in use, 1 to K.

    Raises:
      ValueError: another encoder, a temperature that is not above 0, an unknown ``loss``.

    References: Ramesh et al. 2021, section 2.1 and appendix A; lucidrains/DALLE-pytorch. Deviations: OpenAI's has a
    logit-Laplace likelihood, another network, and trains with an EMA of the weights; the temperature follows its cosine.
    """
    name = encoder.config.get("name", "")
    require(name == "dvae", "encoder", name, "'dvae'")
    for option, value in (("temperature", temperature), ("temperature_end", temperature_end)):
        require(value > 0, option, value, "a number above 0")
    choice("loss", loss, LOSSES)
    vocabulary_size = int(encoder.config["vocabulary_size"])
    schedule = (
        constant(temperature) if decay_steps is None else cosine(temperature, temperature_end, decay_steps)
    )

    def decoder_for(images: Array) -> Network:
        options = {name: int(encoder.config[name]) for name in ("width", "stride", "blocks")}
        return dvae_decoder(channels=images.shape[-1], dtype=compute_dtype(encoder), **options)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, code_key, decoder_key = jax.random.split(key, 3)
        images = batch["views"][0][:, 0]
        params: Params = {}
        state: State = {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        params["codebook"] = jax.random.normal(code_key, (vocabulary_size, code_width))
        params["decoder"], _ = decoder_for(images).init(decoder_key, jnp.zeros((1, 1, 1, code_width)))
        return params, state

    def encode(params: Params, state: State, images: Array) -> Array:
        return encoder.apply(params["encoder"], state["encoder"], images, output="logits")[0]

    def decode(params: Params, weights: Array, images: Array) -> Array:
        return decoder_for(images).apply(params["decoder"], {}, weights @ params["codebook"])[0]

    def compute_loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        images, tau = batch["views"][0][:, 0], schedule(step)
        logits = encode(params, state, images)  # [b, r, c, k]
        p = gumbel_softmax(key, logits, temperature=tau, hard=straight_through)
        difference = decode(params, p, images) - images
        error = jnp.mean(smooth_l1(difference) if loss == "smooth_l1" else difference**2)
        kl = kl_from_uniform(logits)
        best = jnp.argmax(jax.lax.stop_gradient(logits), axis=-1)
        shares = jnp.bincount(best.reshape(-1), length=vocabulary_size) / best.size
        metrics = {
            "error": error,
            "kl": kl,
            "temperature": tau,
            "code_perplexity": jnp.exp(jnp.sum(entr(shares))),
        }
        return error + kl_weight * kl, (state, metrics)

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        del key
        best = jnp.argmax(encode(params, state, images), axis=-1)
        return reconstruct_all(images, decode(params, jax.nn.one_hot(best, vocabulary_size), images))

    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    collapse = (CollapseValue("code_perplexity", 1.0, "the same code stands at every position"),)
    return Method(views, init, compute_loss, encoder, reconstruct=reconstruct, collapse=collapse)
