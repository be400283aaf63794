"""NPID (Wu et al., CVPR 2018): every image is a class of its own, told apart by a memory of all images' embeddings."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, positive, require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.nce import cross_entropy, information_bound, nce, negative_sampling
from ssl_jax.methods.method import CollapseValue, Method, encoder_at
from ssl_jax.methods.parts.memory_bank import update_memory_bank
from ssl_jax.methods.parts.siamese import pair_metrics
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype

FOLLOWS = {"num_examples": "data.num_examples"}
"""Options whose values follow others of the config."""


LOSSES = ("nce", "cross_entropy", "negative_sampling")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    num_examples: int = 1_281_167,
    loss: str = "nce",
    temperature: float = 0.07,
    negatives: int = 4096,
    decay: float = 0.5,
    projection: int = 128,
) -> Method:
    """NPID, also called instance discrimination.

    With ``q = n(W f(v))``, a memory u of one unit vector an image, τ ``temperature``, y the image's number, M ``num_examples``
    and K ``negatives``, numbers j drawn uniformly with replacement, y among them now and then::

        scores   q·u_y/τ and q·u_j/τ,   s = exp(score) / Z,   P = 1/M
        nce      L = mean [ −log s_y / (s_y + K P) − Σ_j log K P / (s_j + K P) ]
        then     u_y ← n(m u_y + (1 − m) q),   m = decay

    Z is a constant of the run: M times the mean of ``exp(score)`` over the first batch. The memory starts as random
    directions, is written right after the scores are read, and passes no gradient. Where a batch holds an image more than
    once, the last one is written.

    It needs many passes over the images, 200 in the paper: what the memory holds of an image is one pass old. In the three
    passes of ``docs/results.md`` it is the one contrastive method that does not beat its own untrained encoder on kNN and few
    labels. The study ``docs/studies/memory_bank.md`` shows the passes to be the cause: with as many updates over fewer images,
    which then come more often, it learns more, and MoCo v1, whose queue holds recent keys, does not depend on them.

    Args:
      encoder: the network to train.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.npid`.
      num_examples: M, the number of training images.
      loss: ``"nce"``; ``"cross_entropy"``: InfoNCE of the same scores; ``"negative_sampling"``: the loss of word2vec, which is
        nce without Z and P.
      temperature: τ > 0. May be traced.
      negatives: K, drawn for each image by itself: a step gathers batch · K · projection numbers.
      decay: m of the memory, 0 (the last embedding) to 1. May be traced.
      projection: width of q.

    Returns:
      The method. ``encode`` gives the encoder's features. ``metrics`` hold ``accuracy`` (share of images whose own memory no
      other of the K outscores), ``information_bound`` (log(K + 1) − InfoNCE, in nats) and for nce
      ``log_normalizer``, log Z.

    Raises:
      ValueError: an unknown loss, fewer than one example or negative, a temperature that is not positive, or more than one
        view.

    Reference: Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3; vissl's ``nce_loss.py``.
    Deviation: the paper's proximal regularisation of the memory is left out, as in vissl.
    """
    choice("loss", loss, LOSSES)
    require(num_examples >= 1, "num_examples", num_examples, "an integer of 1 or more")
    require(negatives >= 1, "negatives", negatives, "an integer of 1 or more")
    positive("temperature", temperature)
    views = presets.npid() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    head = heads.mlp((projection,), dtype=compute_dtype(encoder))
    network = chain(encoder=encoder, projector=head)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        network_key, bank_key = jax.random.split(key)
        params, online = network.init(network_key, batch["views"][0][:, 0])
        width = math.sqrt(3 / projection)
        bank = jax.random.uniform(bank_key, (num_examples, projection), jnp.float32, -width, width)
        state: State = {"online": online, "bank": normalize(bank)}
        if loss == "nce":
            state |= {"log_normalizer": jnp.float32(0), "normalized": jnp.bool_(False)}
        return params, state

    def loss_fn(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        network_key, draw_key = jax.random.split(key)
        images, index = batch["views"][0][:, 0], batch["index"]
        (_, projections), online = network.apply(params, state["online"], images, train=True, key=network_key)
        q, bank = normalize(projections), jax.lax.stop_gradient(state["bank"])  # [n, d], [M, d]
        drawn = jax.random.randint(draw_key, (q.shape[0], negatives), 0, num_examples)
        positive_score = jnp.sum(q * bank[index], axis=1) / temperature  # [n]
        products = jnp.einsum("nd,nkd->nk", q, bank[drawn], precision=jax.lax.Precision.HIGHEST)
        scores = products / temperature  # [n, K]
        state = {**state, "online": online, "bank": update_memory_bank(bank, index, q, decay)}
        info_nce = cross_entropy(positive_score, scores)
        metrics = {
            **pair_metrics(q, bank[index]),
            "accuracy": jnp.mean(positive_score >= jnp.max(scores, axis=1)),
            "information_bound": information_bound(jax.lax.stop_gradient(info_nce), negatives + 1),
        }
        if loss == "cross_entropy":
            return info_nce, (state, metrics)
        if loss == "negative_sampling":
            return negative_sampling(positive_score, scores), (state, metrics)
        of_batch = math.log(num_examples) + _log_mean_exp(
            jnp.concatenate([positive_score[:, None], scores], axis=1)
        )
        log_normalizer = jnp.where(state["normalized"], state["log_normalizer"], of_batch)
        log_normalizer = jax.lax.stop_gradient(log_normalizer)
        state |= {"log_normalizer": log_normalizer, "normalized": jnp.bool_(True)}
        value = nce(positive_score, scores, log_normalizer=log_normalizer, noise=1 / num_examples)
        return value, (state, {**metrics, "log_normalizer": log_normalizer})

    values = {
        "nce": math.log1p(negatives) + negatives * math.log1p(1 / negatives),
        "cross_entropy": math.log1p(negatives),
        "negative_sampling": (1 + negatives) * math.log(2),
    }
    collapse = (
        CollapseValue("loss", values[loss], "an image's own memory scores as those of other images do"),
    )
    return Method(views, init, loss_fn, encoder, encoder_at("online"), collapse=collapse, keeps_images=True)


def _log_mean_exp(scores: Float[Array, "n k"]) -> Float[Array, ""]:
    return jax.nn.logsumexp(scores) - math.log(scores.size)
