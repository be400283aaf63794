"""Ladder network (Rasmus et al., NeurIPS 2015): a noisy classifier whose layers are cleaned by a decoder beside it."""

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.reconstruction import masked_mean
from ssl_jax.methods.method import Limits, Method
from ssl_jax.methods.parts.semi_supervised import classifier_collapse, supervised_loss
from ssl_jax.models.ladder import EPSILON, Path, ladder_decoder
from ssl_jax.models.network import Network, compute_dtype

MODELS = ("full", "gamma")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    model: str = "full",
    costs: tuple[float, ...] = (1000.0, 10.0, 0.1),
    noise: float = 0.3,
    input_noise: float = 0.3,
    normalize_by: str = "labeled",
) -> Method:
    """Ladder network.

    One clean and one corrupted pass through the same encoder, layers 0 (the pixels) to L (the classes), and a decoder from the
    top of the corrupted one down, with the corrupted z̃_l beside it (:mod:`ssl_jax.models.ladder`)::

        L = 1/n Σ_labelled −log softmax(l̃)_y  +  Σ_l λ_l · 1/|U| Σ_{i ∈ U} 1/d_l ‖z_il − (ẑ_il − μ_l)/√(v_l + ε)‖²

    l̃ are the logits of the corrupted pass, z_l the clean layers, ẑ_l the decoder's estimates, U the unlabelled images, μ_l and
    v_l the statistics by which the clean pass normalised layer l (none at the pixels). The clean z_l is no constant: it
    gets a gradient too. Batch statistics of labelled and unlabelled images are separate.

    Args:
      encoder: :func:`ssl_jax.models.ladder.ladder`, which has the classifier in it.
      views: one view. ``None``: the whole image as it is.
      model: ``"full"``; ``"gamma"``: the cost of the top layer alone, for which no other has to be decoded.
      costs: weights λ_0, λ_1, ... of the layers; the last is that of all further layers. ``gamma`` takes the last. ``()``: no
        decoder, which leaves a classifier under noise.
      noise: deviation of the noise in the layers, .3 for 100 labels, .2 for 1000. May be traced.
      input_noise: deviation of the noise on the pixels. May be traced.
      normalize_by: n: ``"labeled"``: the number of labelled images, as by the authors, whose labelled and unlabelled
        batches are two; or ``"batch"``.

    Returns:
      The method. ``encode`` gives the last hidden layer of the clean pass, ``classify`` its logits. Metrics:
      ``cross_entropy`` and ``accuracy`` of the corrupted pass on the labelled images, ``denoising``, the second sum, and
      ``error_<l>``, its terms without λ.

    Raises:
      ValueError: another encoder, a full model on convolutions, a negative cost, more than one view, or an unknown option.

    Reference: Semi-Supervised Learning with Ladder Networks, algorithm 1 and section 4; CuriousAI/ladder, with its normalised
    estimates. Deviations: there unlabelled batches are drawn from all images, the labelled ones among them, here from the
    others; pixels are those of the view, normalised, there in [0, 1].
    """
    name = encoder.config.get("name", "")
    require(name == "ladder", "encoder", name, "'ladder'")
    choice("model", model, MODELS)
    require(all(cost >= 0 for cost in costs), "costs", costs, "numbers of 0 or more")
    channels = encoder.config["channels"]
    allowed = "'gamma' for an encoder with convolutions, which the decoder does not have"
    require(model == "gamma" or not channels, "model", model, allowed)
    views = presets.mae(area=(1.0, 1.0), ratio=(1.0, 1.0), flip_prob=0.0) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    top = len(channels) + len(encoder.config["widths"]) + 1
    used = {layer: costs[min(layer, len(costs) - 1)] for layer in range(top + 1)} if costs else {}
    used = {layer: cost for layer, cost in used.items() if cost and (model == "full" or layer == top)}
    decoder = ladder_decoder(lowest=min(used, default=top + 1), dtype=compute_dtype(encoder))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, decoder_key = jax.random.split(key)
        images = batch["views"][0][:1, 0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = variables = encoder.init(encoder_key, images)
        path: Path = jax.eval_shape(lambda x: encoder.apply(*variables, x, output="path")[0], images)
        z = [jnp.zeros(layer.shape) for layer in path.z]
        params["decoder"], _ = decoder.init(decoder_key, z[-1], z=z, labeled=jnp.ones(1, bool))
        return params, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images, labels = batch["views"][0][:, 0], batch["label"]
        labeled, variables = labels >= 0, (params["encoder"], state["encoder"])
        options = {"train": True, "labeled": labeled, "output": "path"}
        clean, encoder_state = encoder.apply(*variables, images, **options)
        corrupted, _ = encoder.apply(
            *variables, images, key=key, noise=noise, input_noise=input_noise, **options
        )
        probabilities = jax.nn.softmax(corrupted.logits)
        estimates, _ = decoder.apply(params["decoder"], {}, probabilities, z=corrupted.z, labeled=labeled)
        cross_entropy, metrics = supervised_loss(corrupted.logits, labels, normalize_by)
        errors = {layer: denoising_error(clean, estimates[layer], layer, ~labeled) for layer in used}
        denoising = sum((used[layer] * error for layer, error in errors.items()), jnp.float32(0))
        metrics |= {f"error_{layer}": error for layer, error in errors.items()}
        return cross_entropy + denoising, ({"encoder": encoder_state}, {**metrics, "denoising": denoising})

    def classify(params: Params, state: State, images: Array) -> dict[str, Array]:
        logits, _ = encoder.apply(params["encoder"], state["encoder"], images, output="logits")
        return {"classifier": logits}

    collapse = classifier_collapse(encoder.config["classes"])
    return Method(
        views, init, loss, encoder, collapse=collapse, limits=Limits(least_batch=2), classify=classify
    )


def denoising_error(clean: Path, estimate: Array, layer: int, unlabeled: Array) -> Array:
    """Compute the mean squared error of a clean layer's estimate, over units and unlabelled images; 0 without any."""
    if layer:
        mean, var = clean.mean[layer - 1][1], clean.var[layer - 1][1]
        estimate = (estimate - mean) * jax.lax.rsqrt(var + EPSILON)
    squared = (clean.z[layer] - estimate) ** 2
    return masked_mean(jnp.mean(squared.reshape(len(squared), -1), axis=1)[:, None], unlabeled[:, None])
