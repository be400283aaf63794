"""Greedy layer-wise pre-training (Bengio et al., NeurIPS 2006): one layer's autoencoder after the other, then all together."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.noise import CORRUPTIONS
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.autoencoder import ERRORS, Autoencoder, corrupt_each, corrupt_images
from ssl_jax.models.network import Network
from ssl_jax.models.perceptron import ACTIVATIONS
from ssl_jax.ops.schedules import stage

FOLLOWS = {"run_steps": "steps"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    run_steps: int = 10_000,
    joint: float = 0.25,
    corruption: str = "masking",
    level: float | Array = 0.25,
    loss: str = "mse",
) -> Method:
    """Greedy layer-wise pre-training.

    With f_k the layers of the encoder, g_k those of a decoder and ``h_k = f_k(h_{k−1})``, h_0 the image: in stage k = 1 to n::

        L = mean ℓ(g_k(f_k(h̃_{k−1})), h_{k−1})        h̃ = h after fresh corruption

    with f_1 to f_{k−1} as the stages before left them; in the last stage, of all layers, ``L = mean ℓ(g_1(... g_n(f_n(...
    f_1(x̃)))), x)``. The stage is a function of the step. What a stage does not train has the gradient 0:
    ``optimizer.skip_zero_grads`` keeps decay and momentum from moving it (``configs/greedy.py``).

    Args:
      encoder: :func:`ssl_jax.models.perceptron.mlp`.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`.
      run_steps: length of the run.
      joint: share of the run in which all layers train together, in [0, 1); the layers share the rest evenly.
      corruption: kind of noise on pixels in [0, 1] and on units, see :func:`ssl_jax.augment.noise.corrupt`.
      level: ν of the corruption. May be traced.
      loss: ``"mse"``; or ``"cross_entropy"`` of pixels in [0, 1] and of units, which are to be sigmoid ones.

    Returns:
      The method. Params: ``encoder``, ``decoder``. ``encode`` gives the encoder's last layer. Metrics: ``stage`` from 0.

    Raises:
      ValueError: another encoder, an option outside its range, ``"cross_entropy"`` with units outside [0, 1].

    References: Bengio et al., Greedy Layer-Wise Training of Deep Networks (2007), section 4 (autoencoders); Vincent et al.,
    Stacked Denoising Autoencoders (2010), section 3.4. Deviation: the fine-tuning of all layers is that of the deep
    autoencoder (Hinton & Salakhutdinov 2006), without labels.
    """
    name = encoder.config.get("name", "")
    require(name == "mlp", "encoder", name, "'mlp', whose layers can be trained one by one")
    choice("corruption", corruption, CORRUPTIONS)
    choice("loss", loss, ERRORS)
    activation = encoder.config["activation"]
    fits = loss == "mse" or activation == "sigmoid"
    require(fits, "loss", loss, f"'mse' for units that are {activation!r}, not 'sigmoid'")
    require(0 <= joint < 1, "joint", joint, "a share of the run, in [0, 1)")
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    networks = Autoencoder(encoder, views[0], loss)
    depth = len(encoder.config["widths"])
    stage_at = stage(tuple(int(run_steps * (1 - joint) * (k + 1) / depth) for k in range(depth)))
    activate = ACTIVATIONS[activation]
    noise: dict[str, Any] = {"kind": corruption, "level": level}

    def layer_loss(k: int, params: Params, state: State, images: Array, key: Key) -> Array:
        """Stage k: the autoencoder of one layer on what the layers below make of clean images."""
        encode = lambda x, layer: encoder.apply(params["encoder"], state["encoder"], x, layer=layer)[0]  # noqa: E731
        below = images
        for i in range(k):
            below = encode(below, i)
        below = jax.lax.stop_gradient(below)
        corrupt = corrupt_each(key, below, **noise) if k else corrupt_images(key, images, views[0], **noise)
        units = encode(corrupt[0], k)
        decoder = networks.decoder(images)
        outputs, _ = decoder.apply(params["decoder"], state["decoder"], units, layer=k)
        if k == 0:
            return networks.error(outputs, images)
        return ERRORS[loss](activate(outputs) if loss == "mse" else outputs, below, jnp.ones_like(outputs))

    def joint_loss(params: Params, state: State, images: Array, key: Key) -> Array:
        """Last stage: the autoencoder of all layers."""
        corrupted, _ = corrupt_images(key, images, views[0], **noise)
        _, outputs, _ = networks.apply(params, state, corrupted)
        return networks.error(outputs, images)

    def compute_loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        images, now = batch["views"][0][:, 0], stage_at(step)
        stages = [functools.partial(layer_loss, k) for k in range(depth)]
        value = jax.lax.switch(now, [*stages, joint_loss], params, state, images, key)
        return value, (state, {"stage": now.astype(jnp.float32)})

    return Method(views, networks.init, compute_loss, encoder, reconstruct=networks.reconstruct)
