"""BoWNet (Gidaris et al., CVPR 2020): crops predict the bag of k-means visual words of a frozen teacher's features."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from ssl_jax.augment import presets
from ssl_jax.augment.mix import cutmix as mix
from ssl_jax.augment.views import View, groups
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.bag_of_words import (
    bag_of_words,
    bow_loss,
    distances_to_words,
    hard_assign,
    perplexities,
    word_logits,
)
from ssl_jax.methods.method import CollapseValue, Limits, Method, Refresh, encoder_at
from ssl_jax.methods.parts.bag_of_words import read_maps, require_crops, require_maps, split_clean
from ssl_jax.methods.parts.frozen_teacher import FrozenTeacher, read_teacher, renormalization, start_teacher
from ssl_jax.methods.parts.siamese import embed_each_size, merge_views, pair_metrics
from ssl_jax.models.network import Network
from ssl_jax.ops.kmeans import kmeans

POOLS = {"counts": "sum", "presence": "max"}


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    teacher: str = "",
    vocabulary_size: int = 8192,
    level: int = 1,
    border: int = 0,
    bag: str = "counts",
    cutmix: bool = False,
    scale: float = 1.0,
    samples: int = 1,
    iterations: int = 20,
) -> Method:
    """BoWNet.

    With a map F of the frozen teacher for the clean image and the vocabulary V of K words, the centroids of k-means over
    features of the teacher at random places of all training images::

        q_u = argmin_k ‖F_u − V_k‖²               u a location
        y_k = share of the locations with q_u = k
        L   = mean over images and crops of −Σ_k y_k log softmax_k(γ f·w_k / ‖w_k‖)

    f are the student's features of a crop, not normalised; w and the one magnitude γ are trained, and w is normalised at every
    step. Crops of several sizes: the sum of a loss for each size. The vocabulary is made once, before the first step.

    The student may be the teacher of a next round, as often as it helps::

        python -m experiments.export --workdir=runs/1 --out=runs/1
        python -m experiments.pretrain --config=configs/bownet.py --workdir=runs/2 \\
            --config.method.teacher=runs/1/encoder.safetensors

    Metrics: ``batch_perplexity`` and ``image_perplexity``, the number of words that the batch and an image use
    (:func:`ssl_jax.losses.bag_of_words.perplexities`); ``information``, by how many nats the student's prediction is better
    than the mean bag of the batch, the best that says nothing about the image; ``scale``, γ.

    Args:
      encoder: the student.
      views: first the teacher's clean view, then the student's crops; ``None``: one crop of
        :func:`ssl_jax.augment.presets.obow` in the size of the clean view.
      teacher: ``encoder.safetensors`` of a convolutional network as ``experiments.export`` writes it, such as RotNet's in the
        paper; ``""``: a random network of the student's architecture. It normalises with its own statistics.
      vocabulary_size: K, at most ``samples`` times the number of training images.
      level: which map of the teacher has the words, counted from its last one, 1.
      border: locations that are left out at each border of the map, where features come from padding.
      bag: ``"counts"`` of words, or ``"presence"``: words that occur, each once. Both are divided by their sum.
      cutmix: a random rectangle of each crop comes from another image's, and the bags are mixed in the same shares.
      scale: γ at the start. May be traced.
      samples: locations of each image that k-means is made of: all images' together have to fit into memory.
      iterations: of k-means.

    Returns:
      The method. ``encode`` gives the student encoder's features. State: ``online`` (batch statistics), ``teacher`` and
      ``vocabulary``.

    Raises:
      ValueError: an encoder or a teacher without maps, a file that is missing or no encoder, an unknown ``bag``, a count below
        1, views without crops; at ``init`` a teacher that does not fit the images, a level or border that does not fit its
        maps; before the first step more words than local features.

    Reference: Gidaris et al., "Learning Representations by Predicting Bags of Visual Words", section 3. There is no official
    code. Deviations: the random places are drawn for the position in a batch of the pass over all images, so that images far
    apart share them; γ starts where ``scale`` says.
    """
    pool = POOLS[choice("bag", bag, POOLS)]
    for name, value in (
        ("vocabulary_size", vocabulary_size),
        ("samples", samples),
        ("level", level),
        ("iterations", iterations),
    ):
        require(value >= 1, name, value, "an integer of 1 or more")
    views = (
        presets.obow(crop_size=224, crop_count=1, local_count=0, crop_area=(0.08, 1.0))
        if views is None
        else views
    )
    require_crops(views)
    source = read_teacher(teacher, encoder)
    require_maps(source.network)
    factor, offset = renormalization(source.metadata, views[0])
    sizes = len(groups(views[1:]))

    def teacher_map(state: State, images: Array) -> Array:
        frozen: FrozenTeacher = state["teacher"]
        options: dict[str, Any] = {"levels": level, "border": border, "train": False}
        images = images * factor + offset
        maps, _ = read_maps(source.network, frozen.params, frozen.state, images, **options)
        return jax.lax.stop_gradient(maps[-1])

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        clean, _ = split_clean(batch)
        encoder_key, teacher_key, head_key, word_key = jax.random.split(key, 4)
        network, online = encoder.init(encoder_key, clean)
        directions = jax.random.normal(head_key, (vocabulary_size, encoder.features)) / math.sqrt(
            encoder.features
        )
        head = {"direction": directions, "scale": jnp.asarray(scale, jnp.float32)}
        state: State = {
            "online": {"encoder": online},
            "teacher": start_teacher(teacher, source, teacher_key, clean),
        }
        width = jax.eval_shape(teacher_map, state, clean).shape[-1]
        # Until the refresh before the first step puts the vocabulary in their place.
        state["vocabulary"] = jax.random.normal(word_key, (vocabulary_size, width))
        return {"encoder": network, "head": head}, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        clean, crops = split_clean(batch)
        crop_key, mix_key = jax.random.split(key)
        distances = distances_to_words(teacher_map(state, clean), jax.lax.stop_gradient(state["vocabulary"]))
        bags = bag_of_words(hard_assign(distances), pool=pool)  # [b, k]
        targets = [bags[:, None]] * len(crops)
        if cutmix:
            keys = jax.random.split(mix_key, len(crops))
            mixed = [mix_crops(k, group, bags) for k, group in zip(keys, crops, strict=True)]
            crops, targets = [list(parts) for parts in zip(*mixed, strict=True)]
        features, online = embed_each_size(
            encoder, params["encoder"], state["online"]["encoder"], crops, crop_key
        )
        head = params["head"]
        losses = [
            bow_loss(word_logits(f, head["direction"], head["scale"]), y, kind="cross_entropy")
            for f, y in zip(features, targets, strict=True)
        ]
        value = jnp.sum(jnp.stack(losses))
        batch_perplexity, image_perplexity = perplexities(bags)
        mean = jnp.mean(jnp.stack([jnp.mean(y, axis=(0, 1)) for y in targets]), axis=0)
        metrics = {
            **pair_metrics(features[0][:, 0], features[-1][:, -1]),
            "batch_perplexity": batch_perplexity,
            "image_perplexity": image_perplexity,
            "information": jnp.sum(entr(mean)) - value / sizes,
            "scale": head["scale"],
        }
        return value, ({**state, "online": {"encoder": online}}, metrics)

    def sample_local_features(params: Params, state: State, images: Array) -> Array:
        """Take local features ``[b, samples, c]`` of the teacher."""
        del params
        maps = teacher_map(state, images)
        local = maps.reshape(maps.shape[0], -1, maps.shape[-1])
        positions = jax.random.randint(jax.random.key(0), (maps.shape[0], samples, 1), 0, local.shape[1])
        return jnp.take_along_axis(local, positions, axis=1)

    def make_vocabulary(state: State, features: Any, key: Key) -> State:
        if features is None:
            return state
        points = features.reshape(-1, features.shape[-1])
        require(
            vocabulary_size <= len(points),
            "vocabulary_size",
            vocabulary_size,
            f"at most the {len(points)} local features that were gathered",
        )
        return {**state, "vocabulary": kmeans(key, points, vocabulary_size, iterations=iterations).centroids}

    collapse = (
        CollapseValue(
            "loss", sizes * math.log(vocabulary_size), "the student gives every word the same share"
        ),
        CollapseValue("information", 0.0, "the student predicts the mean bag of words, whatever the image"),
        CollapseValue("batch_perplexity", 1.0, "one word takes every image: the vocabulary is degenerate"),
    )
    return Method(
        views,
        init,
        loss,
        encoder,
        encoder_at("online"),
        refresh=Refresh(sample_local_features, make_vocabulary, features_once=True),
        collapse=collapse,
        limits=Limits(
            least_batch=2 if cutmix else 1,
            least_images=-(-vocabulary_size // samples),
            follows_from=f"vocabulary_size={vocabulary_size} of samples={samples} an image",
        ),
    )


def mix_crops(key: Key, crops: Array, bags: Array) -> tuple[Array, Array]:
    """Cut and mix crops ``[b, v, h, w, c]`` with those of the image before, and mixed bags ``[b, v, k]`` of bags ``[b, k]``.

    >>> import jax, jax.numpy as jnp
    >>> crops, bags = mix_crops(jax.random.key(0), jnp.zeros((4, 2, 8, 8, 1)), jnp.eye(4))
    >>> crops.shape, bags.shape
    ((4, 2, 8, 8, 1), (4, 2, 4))
    """
    count = crops.shape[0] * crops.shape[1]
    others = jnp.roll(crops, 1, axis=0)
    mixed, shares = jax.vmap(mix)(jax.random.split(key, count), merge_views(crops), merge_views(others))
    shares = shares.reshape(*crops.shape[:2], 1)
    return mixed.reshape(crops.shape), shares * bags[:, None] + (1 - shares) * jnp.roll(bags, 1, axis=0)[
        :, None
    ]
