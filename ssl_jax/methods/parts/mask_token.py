"""The scaffolding of masked methods whose encoder sees every place, the masked ones as a mask token: SimMIM, MaskFeat, BEiT."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Method, Reconstruction
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype, grid_of, prefix_of
from ssl_jax.ops.block_masking import block_mask
from ssl_jax.ops.masking import mask_of_kind
from ssl_jax.ops.patches import unpatchify

Grid = tuple[int, int]
MASK_KINDS = ("block", "filled", "random")
HiddenLoss = Callable[[Array, Array, Array, Any], tuple[Array, Metrics]]
"""``(predictions [b, l, o], images, masked [b, l], fixed) -> (loss, metrics)``."""


def require_mask_token(encoder: Network) -> None:
    """Raise a ValueError unless patches can be masked from the encoder behind a mask token."""
    fits = bool(encoder.config.get("mask_token"))
    require(fits, "encoder", encoder.config.get("name", ""), "a ViT with mask_token=True, to hide patches")


def draw_mask(
    key: Key, grid: Grid, *, kind: str, ratio: float, min_area: int | None = None
) -> Bool[Array, " l"]:
    """Which patches of one image are masked, by the options of BEiT and data2vec.

    Args:
      key: PRNG key, one an image.
      grid: rows and columns of patches.
      kind: one of :data:`MASK_KINDS`: ``"block"``: rectangles up to the share, on which images fall short a little;
        ``"filled"``: rectangles and exactly that share; ``"random"``: scattered patches.
      ratio: share of masked patches, in (0, 1).
      min_area: of a rectangle, for ``"block"``.

    Returns:
      ``[l]``, True = masked.
    """
    if kind == "block":
        return block_mask(key, grid, jnp.int32(int(grid[0] * grid[1] * ratio)), min_area=min_area)
    return mask_of_kind(key, grid, kind="block" if kind == "filled" else kind, ratio=ratio).masked


def reconstruction(images: Array, predictions: Array, masked: Array, *, patch: int) -> Reconstruction:
    """What is shown of predicted patches ``[b, l, patch² c]``, of which ``masked`` ``[b, l]`` were not seen."""
    height, width = images.shape[1:3]
    places = jnp.broadcast_to(masked[..., None], (*masked.shape, patch * patch))
    join = functools.partial(unpatchify, patch=patch, height=height, width=width)
    return Reconstruction(images, join(predictions), join(places))


def hiding_method(
    encoder: Network,
    outputs: Callable[[int], int],
    loss_of: HiddenLoss,
    *,
    mask_of: Callable[[Key, Grid], Array],
    views: tuple[View, ...],
    start: Callable[[Key, Array], Any] | None = None,
    pixels: Callable[[Array, Array], Array] | None = None,
    collapse: tuple[CollapseValue, ...] = (),
) -> Method:
    """A method that predicts something of each masked patch by a linear layer on its token.

    Args:
      encoder: a ViT with ``mask_token=True``.
      outputs: numbers to predict for a patch, of the number of channels.
      loss_of: the loss; ``fixed`` is what ``start`` made.
      mask_of: ``(key, grid) -> bool [l]``, True = masked, of one image.
      views: one view.
      start: ``(key, images) -> fixed``, kept in ``state["fixed"]`` as it is: a tokenizer.
      pixels: ``(predictions, images) -> [b, l, patch² c]``, for methods that predict pixels.
      collapse: metric values of collapse, as in :class:`ssl_jax.methods.method.Method`.

    Returns:
      The method. ``encode`` gives the encoder's pooled features of all patches, none masked. Params: ``encoder``, ``head``.

    Raises:
      ValueError: an encoder without mask token, or more than one view.
    """
    require_mask_token(encoder)
    require(len(views) == 1, "views", len(views), "one view")
    prefix = prefix_of(encoder)

    def head_for(images: Array) -> Network:
        return heads.mlp((outputs(images.shape[-1]),), dtype=compute_dtype(encoder))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, head_key, start_key = jax.random.split(key, 3)
        images = batch["views"][0][:, 0]
        network, state = encoder.init(encoder_key, images)
        head, _ = head_for(images).init(head_key, jnp.zeros((1, 1, encoder.features)))
        fixed = {} if start is None else start(start_key, images)
        return {"encoder": network, "head": head}, {"encoder": state, "fixed": fixed}

    def predict(
        params: Params, state: State, images: Array, key: Key, *, train: bool
    ) -> tuple[Array, Array, Array, State]:
        mask_key, encoder_key = jax.random.split(key)
        keys = jax.random.split(mask_key, images.shape[0])
        masked = jax.vmap(lambda k: mask_of(k, grid_of(encoder, images)))(keys)
        tokens, online = encoder.apply(
            params["encoder"],
            state["encoder"],
            images,
            train=train,
            key=encoder_key,
            mask=masked,
            output="tokens",
        )
        tokens = tokens[:, prefix:]
        predictions, _ = head_for(images).apply(params["head"], {}, tokens)
        return predictions, tokens, masked, {**state, "encoder": online}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        predictions, tokens, masked, state = predict(params, state, images, key, train=True)
        value, metrics = loss_of(predictions, images, masked, state["fixed"])
        std = jnp.mean(jnp.std(jax.lax.stop_gradient(tokens), axis=0))
        return value, (state, {"token_std": std, "masked": jnp.mean(1.0 * masked), **metrics})

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        assert pixels is not None
        predictions, _, masked, _ = predict(params, state, images, key, train=False)
        return reconstruction(images, pixels(predictions, images), masked, patch=int(encoder.config["patch"]))

    shown = None if pixels is None else reconstruct
    return Method(views, init, loss, encoder, reconstruct=shown, collapse=collapse)
