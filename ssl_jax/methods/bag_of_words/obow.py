"""OBoW (Gidaris et al., CVPR 2021): crops predict the bag of visual words that an EMA teacher sees in the clean image."""

from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import positive, require
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.bag_of_words import (
    bag_of_words,
    bow_loss,
    distances_to_words,
    local_average,
    perplexities,
    soft_assign,
    word_logits,
)
from ssl_jax.methods.method import CollapseValue, Limits, Method, encoder_at
from ssl_jax.methods.parts.bag_of_words import read_maps, require_crops, require_maps, split_clean
from ssl_jax.methods.parts.ema_teacher import EmaTeacher, cosine_ema
from ssl_jax.methods.parts.siamese import embed_each_size, pair_metrics
from ssl_jax.models import heads
from ssl_jax.models.network import Network, compute_dtype
from ssl_jax.ops.queue import Queue, queue_push
from ssl_jax.optim.ema import EmaState, ema

FOLLOWS = {"decay_steps": "steps"}
"""Options whose values follow others of the config."""


FIRST_SCALE = 0.5


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    vocabulary_size: int = 8192,
    levels: int = 2,
    border: int = 1,
    inverse_delta: float = 15.0,
    scale_decay: float = 0.99,
    kappa: float = 8.0,
    hidden_dim: int = 4096,
    decay: float | Schedule = 0.99,
    decay_steps: int | None = None,
) -> Method:
    """OBoW.

    At each level l, a map F of the teacher for the clean image, with a vocabulary V of K words::

        d²_uk = ‖F_u − V_k‖²                       u a location, k a word
        μ     ← m_μ μ + (1 − m_μ) mean_u min_k d²_uk
        y     = n₁( max_u softmax_k(−d²_uk δ⁻¹ / μ) )      n₁ divides by the sum
        G     = n( generator_l( n(V) ) )                     n(x) = x/‖x‖, a row a word
        L     = Σ over crop sizes of the mean over levels, images and crops of KL(y ‖ softmax(κ f Gᵀ))

    f are the student's features of a crop, not normalised. The teacher is the EMA of the student. Since words come and go, the
    weights that predict them are made of the words themselves by a trained MLP a level.

    Order in a step: the student predicts and the teacher assigns with the same vocabulary, that of before the step; μ takes in
    the distances and is used; each image then gives one word to the vocabulary, in place of the oldest ones: the mean of 3 x 3
    neighbouring locations of its map, at a random place. The teacher moves after the update, which is the same sequence as the
    authors' move before its forward pass, except that a decay that rises is read one step earlier.

    Metrics of each level, the last map being level 1: ``level_1/batch_perplexity`` and ``level_1/image_perplexity``, the
    number of words that the batch and an image use (:func:`ssl_jax.losses.bag_of_words.perplexities`); ``level_1/scale``, μ.

    Args:
      encoder: the network to train, a convolutional one.
      views: first the teacher's clean view, then the student's crops, of one size or several; ``None``:
        :func:`ssl_jax.augment.presets.obow`.
      vocabulary_size: K of each level, at least the batch and far fewer than there are images.
      levels: how many maps have words, counted from the encoder's last; 1 is the paper's "vanilla" form.
      border: locations that are left out at each border of a map; 3 x 3 have to remain, better 4 x 4.
      inverse_delta: δ⁻¹ > 0; high makes assignments hard. 15 for ResNet-50, 10 for ResNet-18. May be traced.
      scale_decay: m_μ, 0 to 1; μ starts at 0.5. May be traced.
      kappa: κ > 0, fixed; 8 for ResNet-50, 5 for ResNet-18. May be traced.
      hidden_dim: width of the generators' hidden layer, twice the encoder's features in the paper.
      decay: m₀ of the teacher, 0 to 1, or a schedule of it.
      decay_steps: length of the run, over which a float ``decay`` rises to 1 on a cosine; ``None``: it stays constant.

    Returns:
      The method. ``encode`` gives the student encoder's features. State: ``online`` (batch statistics), ``teacher``,
      ``vocabulary`` and ``scale``.

    Raises:
      ValueError: an encoder without maps, fewer than one word, a κ or δ⁻¹ that is not positive, views without crops; at
        ``init`` levels or a border that do not fit the encoder's maps.

    Reference: Gidaris et al., "OBoW: Online Bag-of-Visual-Words Generation for Self-Supervised Learning", sections 3 and 4;
    valeoai/obow, of which the order in a step is. Deviations: K need not be a multiple of the batch; BatchNorm of encoder and
    generator is over the global batch and all words.
    """
    require(vocabulary_size >= 1, "vocabulary_size", vocabulary_size, "an integer of 1 or more")
    for name, value in (("inverse_delta", inverse_delta), ("kappa", kappa)):
        positive(name, value)
    require_maps(encoder)
    views = presets.obow() if views is None else views
    require_crops(views)
    names = [f"level_{i + 1}" for i in range(levels)]
    generator = heads.mlp((hidden_dim, encoder.features), hidden_bias=False, dtype=compute_dtype(encoder))
    teacher_ema, scale_ema = cosine_ema(decay, decay_steps), ema(scale_decay)
    maps_of: dict[str, Any] = {"levels": levels, "border": border, "train": True}

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        clean, _ = split_clean(batch)
        encoder_key, word_key, generator_key = jax.random.split(key, 3)
        network, online = encoder.init(encoder_key, clean)
        params: Params = {"encoder": network, "generator": {}}
        state: State = {
            "online": {"encoder": online, "generator": {}},
            "teacher": EmaTeacher.init(teacher_ema, network, online),
            "vocabulary": {},
            "scale": {name: scale_ema.init(jnp.float32(FIRST_SCALE)) for name in names},
        }
        maps = jax.eval_shape(lambda: read_maps(encoder, network, online, clean, **maps_of)[0])
        for i, (name, level) in enumerate(zip(names, maps, strict=True)):
            jax.eval_shape(local_average, level)
            first = jax.random.normal(jax.random.fold_in(word_key, i), (vocabulary_size, level.shape[-1]))
            state["vocabulary"][name] = Queue(jax.nn.relu(first), jnp.int32(0))
            params["generator"][name], state["online"]["generator"][name] = generator.init(
                jax.random.fold_in(generator_key, i), first
            )
        return params, state

    def generate(
        params: Params, state: State, vocabulary: dict[str, Queue]
    ) -> tuple[dict[str, Array], State]:
        """Generate the weights ``[k, d]`` that predict the words of each level."""
        weights, moved = {}, {}
        for name, level in vocabulary.items():
            weights[name], moved[name] = generator.apply(
                params[name], state[name], normalize(level.items), train=True
            )
        return weights, moved

    def assign_words(
        maps: Array, vocabulary: Queue, scale: EmaState, key: Key
    ) -> tuple[Array, Queue, EmaState, Metrics]:
        """Compute the bags ``[b, k]`` of one level, its vocabulary and scale after the step, and metrics."""
        distances = distances_to_words(maps, vocabulary.items)
        softness, scale = scale_ema.update(jnp.mean(jnp.min(distances, axis=-1)), scale)
        bags = bag_of_words(soft_assign(distances, softness, inverse_delta=inverse_delta))
        batch_perplexity, image_perplexity = perplexities(bags)
        metrics = {
            "batch_perplexity": batch_perplexity,
            "image_perplexity": image_perplexity,
            "scale": softness,
        }
        return bags, queue_push(vocabulary, draw_words(key, maps)), scale, metrics

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        clean, crops = split_clean(batch)
        crop_key, word_key = jax.random.split(key)
        vocabulary, scales = jax.lax.stop_gradient((state["vocabulary"], state["scale"]))
        online: State = {}
        features, online["encoder"] = embed_each_size(
            encoder, params["encoder"], state["online"]["encoder"], crops, crop_key
        )
        weights, online["generator"] = generate(params["generator"], state["online"]["generator"], vocabulary)
        teacher: EmaTeacher = state["teacher"]
        maps, teacher_state = read_maps(encoder, teacher.params, teacher.state, clean, **maps_of)
        teacher = teacher._replace(state=teacher_state)
        state = {**state, "online": online, "teacher": teacher, "vocabulary": {}, "scale": {}}
        value, metrics = jnp.float32(0), pair_metrics(features[0][:, 0], features[-1][:, -1])
        for i, (name, level) in enumerate(zip(names, jax.lax.stop_gradient(maps), strict=True)):
            bags, state["vocabulary"][name], state["scale"][name], of_level = assign_words(
                level, vocabulary[name], scales[name], jax.random.fold_in(word_key, i)
            )
            for group in features:
                logits = word_logits(group, weights[name], kappa)
                value += bow_loss(logits, bags[:, None]) / levels
            metrics |= {f"{name}/{metric}": x for metric, x in of_level.items()}
        return value, (state, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params["encoder"])}

    values = [CollapseValue("loss", 0.0, "bags of words no longer depend on the image")]
    for name in names:
        values.append(CollapseValue(f"{name}/batch_perplexity", 1.0, "one word takes every image"))
        values.append(
            CollapseValue(
                f"{name}/image_perplexity", 1.0 * vocabulary_size, "every image has all words alike"
            )
        )
    collapse = tuple(values)
    limits = Limits(most_batch=vocabulary_size)
    return Method(
        views, init, loss, encoder, encoder_at("online"), after_update, collapse=collapse, limits=limits
    )


def draw_words(key: Key, maps: Array) -> Array:
    """Take one word ``[b, c]`` of each image: the mean of 3 x 3 neighbouring locations of its map, at a random place.

    >>> import jax, jax.numpy as jnp
    >>> draw_words(jax.random.key(0), jnp.ones((4, 5, 5, 2))).shape
    (4, 2)
    """
    averages = local_average(maps)
    averages = averages.reshape(maps.shape[0], -1, maps.shape[-1])
    position = jax.random.randint(key, (maps.shape[0], 1, 1), 0, averages.shape[1])
    return jnp.take_along_axis(averages, position, axis=1)[:, 0]
