"""Colorization (Zhang et al., ECCV 2016): which of 313 colours every place of an image has, from its lightness."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import entr

from ssl_jax.augment import color, presets
from ssl_jax.augment.operations import ColorJitter, Grayscale, Solarize
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, positive, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import masked_mean
from ssl_jax.methods.method import CollapseValue, Method, Reconstruction, encoder_at
from ssl_jax.methods.parts.bag_of_words import read_maps, require_maps
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.ops.cielab import ab_bins, annealed_mean, lab_to_rgb, rebalancing_weights, rgb_to_lab, soft_bins
from ssl_jax.optim.ema import ema

BINS = len(ab_bins())
GRAY = ("images", "pixels", "keep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rebalancing:
    """How much more rare colours count.

    Attributes:
      gamma: γ in [0, 1]. May be traced.
      alpha: α ≥ 0; 0: all colours count alike. May be traced.
      prior: p of the 313 bins in the order of :func:`ssl_jax.ops.cielab.ab_bins`; ``()``: learnt.
      prior_decay: decay of the moving average of a learnt p, 0 to 1. May be traced.
    """

    gamma: float = 0.5
    alpha: float = 1.0
    prior: tuple[float, ...] = ()
    prior_decay: float = 0.99


class Colors(NamedTuple):
    """Lightness ``[b, h, w, 1]`` in [0, 100] and ab ``[b, h, w, 2]``."""

    lightness: Array
    ab: Array


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    levels: int = 1,
    hidden_dim: int = 256,
    neighbors: int = 10,
    sigma: float = 5.0,
    rebalancing: Rebalancing = Rebalancing(),
    ignore_gray: str = "images",
    gray_threshold: float = 5.0,
    temperature: float = 0.38,
) -> Method:
    """Colorization.

    The encoder sees the lightness L, a head on its maps scores 313 bins of the ab plane at every place u::

        Z_u = soft code of the colour at u         the ``neighbors`` nearest bins, weights ∝ exp(−d²/2σ²)
        w_q ∝ ((1 − γ) p_q + γ/Q)^−α,  Σ p w = 1   rare colours count more
        L   = −Σ_u w_q(u) Σ_q Z_uq log softmax(scores_u)_q / Σ_u w_q(u)        q(u) the nearest bin

    over all places of the batch. p are the shares of the bins among the colours. By default they are learnt on the way, as the
    bias-corrected moving average of the mean soft code of a batch: it needs no pass over the data before, is right after a
    hundred batches and follows another dataset or crop by itself, and its soft codes smooth it as the paper does.
    ``rebalancing.prior`` gives fixed shares instead, such as published ones.

    The encoder's input is L/100 in each of three channels, normalised as the views are: so it takes the images that any other
    encoder of this project takes, and can be fine-tuned in colour, where one with a single channel could not.

    Args:
      encoder: a convolutional network.
      views: one view of colour images that leaves colours as they are; ``None``: :func:`ssl_jax.augment.presets.mae`.
      levels: how many of the encoder's maps the head sees, from the last one; the others are enlarged to the finest of them,
        whose places are predicted. 1: the last map.
      hidden_dim: width of the head's hidden layer, shared by all places; 0: the head is linear.
      neighbors: bins in a soft code; 1: one-hot.
      sigma: σ > 0 of the soft codes. May be traced.
      rebalancing: w, see :class:`Rebalancing`.
      ignore_gray: what has weight 0: ``"images"`` without a place where \\|a\\| or \\|b\\| is above ``gray_threshold``,
        ``"pixels"`` where neither is, or nothing, ``"keep"``.
      gray_threshold: in units of ab.
      temperature: T > 0 of the mean colour that ``reconstruct`` paints.

    Returns:
      The method. ``encode`` gives the encoder's features of the lightness. Metrics: ``accuracy``, the share of the places that
      count whose nearest bin scores highest; ``counted``, the share of places that count; ``bins_in_use``, the exponential of
      the entropy of p.

    Raises:
      ValueError: an encoder without maps, an option out of its range, views that change colours; at ``init`` images without
        three channels, and more levels than maps.

    References: "Colorful Image Colorization", sections 2.1 and 2.2; richzhang/colorization. Deviations: the code multiplies
    only the gradient by w and divides by the number of places; here the loss is weighted too, and divided by the sum of the
    weights, so that uniform scores cost log 313 whatever the colours. Colours are point samples at the middles of the cells of
    the map. The paper's network is dilated and predicts at a quarter of the side; here it is the encoder's own map.
    """
    require_maps(encoder)
    choice("ignore_gray", ignore_gray, GRAY)
    require(levels >= 1, "levels", levels, "an integer of 1 or more")
    require(hidden_dim >= 0, "hidden_dim", hidden_dim, "an integer of 0 or more")
    prior = rebalancing.prior
    require(len(prior) in (0, BINS), "rebalancing.prior", len(prior), f"() or {BINS} shares")
    for name, value in (("sigma", sigma), ("temperature", temperature)):
        positive(name, value)
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    view = views[0]
    colors = any(isinstance(op, ColorJitter | Grayscale | Solarize) for op in view.ops)
    allowed = "without jitter, grayscale and solarize: colours are what is predicted"
    require(not colors, "views[0].ops", view.ops, allowed)
    dtype = compute_dtype(encoder)
    head = heads.mlp((hidden_dim,) * (hidden_dim > 0) + (BINS,), dtype=dtype, kernel_init=0.01)
    average = ema(rebalancing.prior_decay, debias=True)

    def colors_of(images: Array) -> Colors:
        pixels = color.unnormalize(images, mean=view.mean, std=view.std)
        lab = rgb_to_lab(jnp.clip(pixels, 0.0, 1.0))
        return Colors(lab[..., :1], lab[..., 1:])

    def lightness_images(lightness: Array) -> Array:
        return color.normalize(jnp.repeat(lightness / 100, 3, axis=-1), mean=view.mean, std=view.std)

    def maps_of(params: Params, online: State, lightness: Array, *, train: bool) -> tuple[Array, State]:
        maps, state = read_maps(
            encoder,
            params["encoder"],
            online["encoder"],
            lightness_images(lightness),
            levels=levels,
            border=0,
            train=train,
        )
        rows, columns = maps[-1].shape[1:3]
        enlarged = [jax.image.resize(x, (len(x), rows, columns, x.shape[-1]), "bilinear") for x in maps]
        return jnp.concatenate(enlarged, axis=-1), state

    def scores(params: Params, online: State, lightness: Array, *, train: bool) -> tuple[Array, State]:
        maps, encoder_state = maps_of(params, online, lightness, train=train)
        logits, head_state = head.apply(params["head"], online["head"], maps, train=train)
        return logits, {"encoder": encoder_state, "head": head_state}

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, head_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        require_color(images)
        network, network_state = encoder.init(encoder_key, images)
        lightness = images[..., :1]
        maps = jax.eval_shape(
            lambda p, s, x: maps_of({"encoder": p}, {"encoder": s}, x, train=False)[0],
            network,
            network_state,
            lightness,
        )
        top, top_state = head.init(head_key, jnp.zeros(maps.shape))
        state: State = {"online": {"encoder": network_state, "head": top_state}}
        if not prior:
            state["prior"] = average.init(jnp.zeros(BINS))
        return {"encoder": network, "head": top}, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del key, step
        lightness, ab = colors_of(batch["views"][0][:, 0])
        logits, online = scores(params, state["online"], lightness, train=True)
        ab = at_middles(ab, (logits.shape[1], logits.shape[2]))
        codes = soft_bins(ab, neighbors=neighbors, sigma=sigma)
        state = {**state, "online": online}
        shares = jnp.asarray(prior)
        if not prior:
            shares, state["prior"] = average.update(jnp.mean(codes, axis=(0, 1, 2)), state["prior"])
        shares = jax.lax.stop_gradient(shares)
        best = jnp.argmax(codes, axis=-1)
        counted = is_counted(ab, ignore_gray, gray_threshold)
        weights = (
            rebalancing_weights(shares, gamma=rebalancing.gamma, alpha=rebalancing.alpha)[best] * counted
        )
        errors = optax.softmax_cross_entropy(logits, codes)
        rows = (len(errors), -1)
        value = masked_mean(errors.reshape(rows), weights.reshape(rows))
        right = (jnp.argmax(logits, axis=-1) == best).astype(jnp.float32)
        metrics = {
            "accuracy": masked_mean(right.reshape(rows), counted.reshape(rows)),
            "counted": jnp.mean(counted),
            "bins_in_use": jnp.exp(jnp.sum(entr(shares))),
        }
        return value, (state, metrics)

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        del key
        lightness, ab = colors_of(images)
        logits, _ = scores(params, state["online"], lightness, train=False)
        painted = jax.image.resize(annealed_mean(logits, temperature=temperature), ab.shape, "bilinear")
        rgb = lab_to_rgb(jnp.concatenate([lightness, painted], axis=-1))
        predictions = color.normalize(rgb, mean=view.mean, std=view.std)
        # The encoder sees no colour anywhere.
        return Reconstruction(images, predictions, jnp.ones((*images.shape[:3], 1), bool))

    collapse = (CollapseValue("loss", math.log(BINS), "every colour is as likely, whatever the image"),)

    def apply_to_lightness(params: Params, state: State, images: Array, **options: Any) -> tuple[Any, State]:
        return encoder.apply(params, state, lightness_images(colors_of(images).lightness), **options)

    image_encoder = encoder._replace(apply=apply_to_lightness)
    variables = encoder_at("online")
    return Method(views, init, loss, image_encoder, variables, reconstruct=reconstruct, collapse=collapse)


def require_color(images: Array) -> None:
    """Raise a ValueError unless images have three channels."""
    channels = images.shape[-1]
    allowed = "3: colorization predicts colours from lightness, which are defined for red, green and blue"
    require(channels == 3, "channels", channels, allowed)


def at_middles(x: Array, grid: tuple[int, int]) -> Array:
    """The pixels ``[b, rows, columns, c]`` nearest to the middles of the cells of a grid laid over images ``[b, h, w, c]``."""
    rows, columns = ((np.arange(n) + 0.5) * size // n for n, size in zip(grid, x.shape[1:3], strict=True))
    return x[:, rows.astype(int)][:, :, columns.astype(int)]


def is_counted(ab: Array, ignore_gray: str, threshold: float) -> Array:
    """Which places ``[b, h, w]`` count, as floats: see ``ignore_gray`` of :func:`build`."""
    colored = jnp.any(jnp.abs(ab) > threshold, axis=-1)
    if ignore_gray == "images":
        colored = jnp.broadcast_to(jnp.any(colored, axis=(1, 2), keepdims=True), colored.shape)
    return (colored | (ignore_gray == "keep")).astype(jnp.float32)
