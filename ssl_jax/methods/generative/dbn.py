"""Deep belief network (Hinton et al. 2006): restricted Boltzmann machines on top of each other, trained one after the other."""

import functools

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.energy import contrastive_divergence, gibbs
from ssl_jax.methods.method import Method, Reconstruction
from ssl_jax.methods.parts.autoencoder import reconstruct_all
from ssl_jax.models.network import Network
from ssl_jax.models.perceptron import count_pixels
from ssl_jax.ops.schedules import stage

FOLLOWS = {"run_steps": "steps"}
"""Options whose values follow others of the config."""


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    run_steps: int = 10_000,
    gibbs_steps: int = 1,
    chains: int = 0,
) -> Method:
    """Deep belief network.

    Layer k of the encoder, ``σ(v W_k + b_k)``, is the inference ``E[h | v]`` of a machine with the energy ``−a_k·v − b_k·h −
    vᵀ W_k h`` whose visible units v are the layer below, or the pixels. In its stage, a function of the step, it learns by
    contrastive divergence::

        L = mean F_k(v) − mean F_k(v⁻)        F_k(v) = −a_k·v − Σ_j log(1 + exp(b_kj + (vᵀ W_k)_j)),  v⁻ fixed

    v⁻ the end of a short chain that starts at v (CD-k), or of chains that go on from step to step. Of the other machines the
    gradient is 0: ``optimizer.skip_zero_grads`` keeps decay and momentum from moving them (``configs/dbn.py``).

    Args:
      encoder: :func:`ssl_jax.models.perceptron.mlp` with ``activation="sigmoid"``.
      views: one view whose pixels are not normalised, as probabilities they have to be in [0, 1]; ``None``:
        :func:`ssl_jax.augment.presets.mae`.
      run_steps: length of the run, which the layers share evenly.
      gibbs_steps: k of CD-k, 1 or more.
      chains: number of persistent chains; 0: chains start at the data.

    Returns:
      The method. Params: ``encoder``, and ``visible``, the biases a_k. State: ``chains``, for each layer ``[chains, width]``.
      ``encode`` gives the probabilities of the last layer. Metrics: ``reconstruction_error``, the mean square of v − E[v | h]
      with ``h = E[h | v]`` in the machine of the stage; ``stage`` from 0.

    Raises:
      ValueError: another encoder, normalised pixels, an option outside its range.

    References: Hinton, Osindero & Teh, A Fast Learning Algorithm for Deep Belief Nets (2006), without the wake-sleep
    fine-tuning; Hinton 2002 (CD); Tieleman 2008 (persistent chains, there of drawn visible units); Hinton, A Practical Guide
    to Training Restricted Boltzmann Machines (2010), sections 3 and 8: a machine learns on the probabilities of the layer
    below.
    """
    name, activation = encoder.config.get("name", ""), encoder.config.get("activation", "")
    fits = name == "mlp" and activation == "sigmoid"
    require(fits, "encoder", f"{name} {activation}".strip(), "'mlp' with activation='sigmoid'")
    require(gibbs_steps >= 1, "gibbs_steps", gibbs_steps, "an integer of 1 or more")
    require(chains >= 0, "chains", chains, "an integer of 0 or more")
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    view = views[0]
    plain = all(m == 0 for m in view.mean) and all(s == 1 for s in view.std)
    require(
        plain, "views.mean, views.std", (view.mean, view.std), "0 and 1: pixels in [0, 1], not normalised"
    )
    widths = tuple(encoder.config["widths"])
    depth = len(widths)
    stage_at = stage(tuple(run_steps * k // depth for k in range(1, depth)))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, chain_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        below = (count_pixels(images.shape), *widths[:-1])
        params["visible"] = {f"dense_{k}": jnp.zeros(width, jnp.float32) for k, width in enumerate(below)}
        state["chains"] = {
            f"dense_{k}": jax.random.uniform(jax.random.fold_in(chain_key, k), (chains, width), jnp.float32)
            for k, width in enumerate(below if chains else ())
        }
        return params, state

    def machine(params: Params, k: int) -> tuple[Array, Array, Array]:
        """Return W, b and a of layer k."""
        layer = params["encoder"][f"dense_{k}"]
        return layer["kernel"], layer["bias"], params["visible"][f"dense_{k}"]

    def infer(params: Params, images: Array, layers: int) -> Array:
        """Compute the probabilities of the units of a layer; the pixels for layer 0."""
        units = images.reshape(images.shape[0], -1)
        for k in range(layers):
            kernel, bias, _ = machine(params, k)
            units = jax.nn.sigmoid(units @ kernel + bias)
        return units

    def layer_loss(
        k: int, params: Params, chain_states: State, images: Array, key: Key
    ) -> tuple[Array, State, Array]:
        """Compute the loss of one machine, its chains after the step, and its error in reconstructing the layer below."""
        kernel, bias, visible_bias = machine(params, k)
        data = jax.lax.stop_gradient(infer(params, images, k))
        start = chain_states[f"dense_{k}"] if chains else data
        samples = gibbs(key, start, kernel, bias, visible_bias, steps=gibbs_steps)
        value = contrastive_divergence(data, samples, kernel, bias, visible_bias)
        again = jax.nn.sigmoid(jax.nn.sigmoid(data @ kernel + bias) @ kernel.T + visible_bias)
        chain_states = {**chain_states, f"dense_{k}": samples} if chains else chain_states
        return value, chain_states, jax.lax.stop_gradient(jnp.mean((data - again) ** 2))

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        images = batch["views"][0][:, 0]
        now = stage_at(step)
        stages = [functools.partial(layer_loss, k) for k in range(depth)]
        value, chain_states, error = jax.lax.switch(now, stages, params, state["chains"], images, key)
        metrics = {"reconstruction_error": error, "stage": now.astype(jnp.float32)}
        return value, ({**state, "chains": chain_states}, metrics)

    def reconstruct(params: Params, state: State, images: Array, key: Key) -> Reconstruction:
        del key
        units = infer(params, images, depth)
        for k in reversed(range(depth)):
            kernel, _, visible_bias = machine(params, k)
            units = jax.nn.sigmoid(units @ kernel.T + visible_bias)
        return reconstruct_all(images, units.reshape(images.shape))

    return Method(views, init, loss, encoder, reconstruct=reconstruct)
