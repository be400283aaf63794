"""Context encoder (Pathak et al., CVPR 2016): what fills a hole, from its surroundings, judged by a discriminator too."""

import functools

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import rectangle
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.adversarial import discriminator_cross_entropy, generator_cross_entropy
from ssl_jax.losses.reconstruction import weighted_mse
from ssl_jax.methods.method import Method, Reconstruction
from ssl_jax.models.generator import channelwise_dense, generator
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.models.spectral import discriminator

HOLES = ("center", "blocks")
JOINS = ("channelwise", "dense")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    hole: str = "center",
    blocks: int = 4,
    overlap: int = 0,
    overlap_weight: float | Array = 10.0,
    join: str = "channelwise",
    adversarial: bool = True,
    reconstruction_weight: float | Array = 0.999,
    adversarial_weight: float | Array = 0.001,
    decoder_channels: int = 64,
    discriminator_channels: int = 64,
) -> Method:
    """Context encoder.

    The encoder sees the image x with a hole filled by the mean, F predicts the region R of the hole from its features::

        L = λ_rec mean_R w (F − x)² + λ_adv mean −log D̄(F) + mean −log D(x_R) + mean −log (1 − D(F̄))

    A bar stops the gradient: the last two terms move the discriminator D alone, the others everything but it.

    Args:
      encoder: the network to train, for ``join="channelwise"`` a convolutional one.
      views: one view, normalised, so that 0 is the mean; ``None``: :func:`ssl_jax.augment.presets.mae`.
      hole: ``"center"``: a square of half the side; ``"blocks"``: squares of a quarter of the side, anywhere in each image.
      blocks: number of square holes, 1 or more; they may overlap.
      overlap: width in pixels of the border of a hole in the centre that the encoder sees and F predicts nevertheless.
      overlap_weight: w of the pixels of that border; 1 elsewhere. May be traced.
      join: ``"channelwise"``: what joins the positions of the encoder's last map,
        :func:`ssl_jax.models.generator.channelwise_dense`; ``"dense"``: F starts from the encoder's features.
      adversarial: with a discriminator or without its three terms. Without one an optimizer has no group for it.
      reconstruction_weight: λ_rec. May be traced.
      adversarial_weight: λ_adv. May be traced.
      decoder_channels: channels of F at the side of its output, doubling with each halving.
      discriminator_channels: channels of D at half the side of its input, doubling likewise.

    Returns:
      The method. Params: ``encoder``, ``join``, ``decoder``, ``discriminator``. ``encode`` gives the encoder's features of
      whole images. Metrics: ``reconstruction_loss``, ``generator_loss``, ``discriminator_loss``, the terms without their
      weights.

    Raises:
      ValueError: an option outside its range, an encoder without maps, a map whose side is none of R's, halved.

    References: Pathak et al. 2016, sections 3.1 to 3.3; pathak22/context-encoder ``train.lua`` (λ, overlap of 4 of 128 pixels).
    Deviations: D has spectral norm 1 instead of BatchNorm; of blocks F predicts the whole image and the error is that of the
    masked pixels, as in the paper, while ``train_random.lua`` counts all pixels; convolutions have biases, which the code sets
    to 0.
    """
    choice("hole", hole, HOLES)
    choice("join", join, JOINS)
    require(blocks >= 1, "blocks", blocks, "an integer of 1 or more")
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    size = views[0].size
    side = size // 2 if hole == "center" else size
    allowed = f"0 to {size // 4 - 1}" if hole == "center" else "0 for blocks"
    require(0 <= overlap < (size // 4 if hole == "center" else 1), "overlap", overlap, allowed)
    name = str(encoder.config.get("name", ""))
    maps = name.startswith(("convnet", "convnext", "resnet"))
    require(join == "dense" or maps, "encoder", name, "a convolutional one, or join='dense'")
    dtype = compute_dtype(encoder)
    corner = (size - side) // 2
    region = (slice(None), slice(corner, corner + side), slice(corner, corner + side))
    output = "tokens" if join == "channelwise" else "features"
    critic = discriminator(width=discriminator_channels, hidden_dim=1, dtype=dtype)

    def decoder_for(images: Array) -> Network:
        return generator(size=side, channels=images.shape[-1], width=decoder_channels, dtype=dtype)

    def joint_for(code: Array) -> Network:
        return channelwise_dense(channels=code.shape[-1], dtype=dtype)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, join_key, decoder_key, critic_key = jax.random.split(key, 4)
        images = batch["views"][0][:, 0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        code = jax.eval_shape(
            lambda p, s, x: encoder.apply(p, s, x, output=output)[0],
            params["encoder"],
            state["encoder"],
            images,
        )
        if join == "channelwise":
            params["join"], _ = joint_for(code).init(join_key, code)
        params["decoder"], state["decoder"] = decoder_for(images).init(decoder_key, jnp.zeros(code.shape))
        if adversarial:
            params["discriminator"], state["discriminator"] = critic.init(critic_key, images[region])
        return params, state

    def draw_holes(key: Key, count: int) -> Array:
        """Draw which pixels the encoder does not see, ``[count, h, w, 1]``."""
        if hole == "center":
            inner = side - 2 * overlap
            center = rectangle((size, size), corner + overlap, corner + overlap, inner, inner)
            return jnp.broadcast_to(center[..., None], (count, size, size, 1))
        edge = size // 4

        def draw_squares(k: Key) -> Array:
            corners = jax.random.randint(k, (blocks, 2), 0, size - edge + 1)
            squares = jax.vmap(lambda c: rectangle((size, size), c[0], c[1], edge, edge))(corners)
            return jnp.any(squares, axis=0)[..., None]

        return jax.vmap(draw_squares)(jax.random.split(key, count))

    def predict(
        params: Params, state: State, images: Array, masked: Array, *, train: bool, key: Key | None = None
    ) -> tuple[Array, State]:
        """Predict what fills the region: ``F``."""
        state = dict(state)
        variables = params["encoder"], state["encoder"]
        visible = jnp.where(masked, 0.0, images)
        code, state["encoder"] = encoder.apply(*variables, visible, train=train, key=key, output=output)
        if join == "channelwise":
            code, _ = joint_for(code).apply(params["join"], {}, code)
        variables = params["decoder"], state["decoder"]
        predictions, state["decoder"] = decoder_for(images).apply(*variables, code, train=train)
        return predictions, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        hole_key, encoder_key = jax.random.split(key)
        masked = draw_holes(hole_key, images.shape[0])
        fake, state = predict(params, state, images, masked, train=True, key=encoder_key)
        real, inside = images[region], jnp.broadcast_to(masked, images.shape)[region]
        if hole == "center":
            weights = jnp.where(inside, 1.0, overlap_weight)
        else:
            weights = inside / jnp.mean(1.0 * inside)
            # The discriminator sees the holes alone.
            real, fake = real * inside, fake * inside
        error = weighted_mse(fake, real, weights)
        if not adversarial:
            return reconstruction_weight * error, (state, {"reconstruction_loss": error})

        score = functools.partial(critic.apply, train=True)
        stop, d = jax.lax.stop_gradient, params["discriminator"]
        real_logits, d_state = score(d, state["discriminator"], real)
        fake_logits, d_state = score(d, d_state, stop(fake))
        discriminator_loss = discriminator_cross_entropy(real_logits, fake_logits)
        generator_loss = generator_cross_entropy(score(stop(d), d_state, fake)[0])
        value = reconstruction_weight * error + adversarial_weight * generator_loss + discriminator_loss
        metrics = {
            "reconstruction_loss": error,
            "generator_loss": generator_loss,
            "discriminator_loss": discriminator_loss,
        }
        return value, ({**state, "discriminator": d_state}, metrics)

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        masked = draw_holes(key, images.shape[0])
        predictions, _ = predict(params, state, images, masked, train=False)
        return Reconstruction(images, images.at[region].set(predictions), masked)

    return Method(views, init, loss, encoder, reconstruct=reconstruct)
