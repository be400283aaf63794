"""The scaffolding of self-distillation with prototypes: DINO, iBOT, DINOv2."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import entropy
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.distillation import divergence_from_uniform, teacher_entropy, usage
from ssl_jax.methods.method import Method, Sign, encode_with
from ssl_jax.methods.parts.siamese import merge_views, pair_health, split_views
from ssl_jax.models.build import without_drop_path
from ssl_jax.models.network import Network, prefix_of
from ssl_jax.ops.masking import block_mask, hidden_counts, hidden_places, scattered_mask
from ssl_jax.ops.schedules import as_schedule, linear
from ssl_jax.optim.ema import Ema

PATCH_HEADS = ("shared", "prototypes", "separate")
MASKS = ("block", "random")
TINY = 1e-30
"""Below it a probability counts as 0 in an entropy."""


class Outputs(NamedTuple):
    """What a network makes of the crops.

    Attributes:
      features: ``[b, v, d]`` of the encoder.
      logits: ``[b, v, k]`` of the head.
      patches: ``[b, g, m, k]`` logits of patches of the global crops, those that the student does not see among them; ``None``
        for methods without masks.
      hidden: ``[b, g, m]`` True where the student did not see the patch.
      patch_mean: ``[k]`` mean of the patches' raw logits, over all patches or the hidden ones.
    """

    features: Array
    logits: Array
    patches: Any = None
    hidden: Any = None
    patch_mean: Any = None


class Masking(NamedTuple):
    """How patches of the student's global crops are hidden, and which head compares them.

    Attributes:
      kind: ``"block"`` (rectangles) or ``"random"``.
      share: of the crops, in which patches are hidden at all.
      ratio: least and largest share of hidden patches in those.
      stratified: ratios spread evenly over the batch, see :func:`ssl_jax.ops.masking.hidden_counts`.
      min_area: of a rectangle, see :func:`ssl_jax.ops.masking.block_mask`.
      head: of the patches, without batch statistics; ``where`` says what it shares with the head of the crops.
      where: ``"shared"`` (one head), ``"prototypes"`` (one MLP, prototypes of its own) or ``"separate"``.
      mean_over: whether ``patch_mean`` is over ``"all"`` of the teacher's patches or over the ``"hidden"`` ones.
    """

    kind: str
    share: float
    ratio: tuple[float, float]
    stratified: bool
    min_area: int | None
    head: Network
    where: str
    mean_over: str


LossOf = Callable[[Outputs, Outputs, State, Array], tuple[Array, State, Metrics]]
"""``(student, teacher, centers, step) -> (loss, centers, metrics)``; nothing of the teacher is differentiated."""


def warmed_up(temperature: float | Array, start: float | Array | None, steps: int) -> Schedule:
    """A teacher's temperature: constant, or on a line from ``start`` over ``steps``.

    >>> round(float(warmed_up(0.07, 0.04, 10)(5)), 3)
    0.055
    """
    return as_schedule(temperature) if start is None else linear(start, temperature, steps)


def beliefs_health(beliefs: Array, logits: Array) -> Metrics:
    """What tells the collapses apart: the teacher's log distributions ``[b, g, k]`` and the student's logits ``[b, v, k]``."""
    return {
        "teacher_entropy": teacher_entropy(beliefs),
        "teacher_kl_uniform": divergence_from_uniform(beliefs),
        "prototype_usage": usage(beliefs),
        **pair_health(logits[:, 0], logits[:, 1]),
    }


def patch_health(targets: Array, hidden: Array) -> Metrics:
    """The same for the teacher's distributions ``[b, g, m, k]`` of hidden patches; 0 where nothing is hidden."""
    weights = hidden / jnp.maximum(jnp.sum(hidden), 1)
    entropies = entropy(jnp.log(jnp.maximum(targets, TINY)))
    mean = jnp.einsum("bgm,bgmk->k", weights, targets)
    divergence = jnp.log(1.0 * targets.shape[-1]) - entropy(jnp.log(jnp.maximum(mean, TINY)))
    return {
        "patch_teacher_entropy": jnp.sum(weights * entropies),
        "patch_kl_uniform": divergence * jnp.any(hidden),
    }


def prototype_signs(prototypes: int, loss: float, *, patches: bool) -> tuple[Sign, ...]:
    """The two collapses: of the head's distributions to the uniform one, and to a single prototype."""
    most = math.log(prototypes)
    found = (
        Sign("loss", loss, "the teacher says nothing: its distribution is uniform"),
        Sign("teacher_entropy", most, "the teacher gives every prototype the same share"),
        Sign("teacher_kl_uniform", most, "one prototype takes every image"),
    )
    if not patches:
        return found
    return (
        *found,
        Sign("patch_teacher_entropy", most, "the teacher gives every prototype the same share of a patch"),
        Sign("patch_kl_uniform", most, "one prototype takes every patch"),
    )


def draw_masks(key: Key, masking: Masking, batch: int, crops: int, grid: tuple[int, int]) -> Array:
    """Hidden patches of a batch, bool ``[batch * crops, patches]``, in the order of ``merge_views``."""
    count_key, mask_key = jax.random.split(key)
    total, length = batch * crops, grid[0] * grid[1]
    counts = hidden_counts(
        count_key,
        total,
        length,
        share=masking.share,
        ratio=masking.ratio,
        stratified=masking.stratified,
    )
    keys = jax.random.split(mask_key, total)
    if masking.kind == "random":
        return jax.vmap(lambda k, n: scattered_mask(k, length, n))(keys, counts)
    return jax.vmap(lambda k, n: block_mask(k, grid, n, min_area=masking.min_area))(keys, counts)


def require_patches(encoder: Network) -> None:
    """Raise a ValueError unless an encoder can hide patches and gives normalised tokens."""
    name = str(encoder.config.get("name", ""))
    require(name.startswith("vit"), "encoder", name, "a ViT: patches are hidden from the student")
    require(
        bool(encoder.config["mask_token"]),
        "encoder.mask_token",
        encoder.config["mask_token"],
        "True: it stands for them",
    )
    require(
        not encoder.config["fc_norm"],
        "encoder.fc_norm",
        encoder.config["fc_norm"],
        "False: tokens have to be normalised",
    )


def places_of(masking: Masking, mask: Array, crops: int) -> tuple[Array, Array]:
    """Indices ``[b, g, m]`` of places with all hidden patches, and which hold one; of a merged mask ``[b * g, l]``."""
    most = max(int(mask.shape[-1] * masking.ratio[1]), 1)
    return hidden_places(split_views(mask, crops), most)


def gather(tokens: Array | None, places: Array) -> Array:
    """Tokens ``[b, g, l, d]`` at places ``[b, g, m]``."""
    assert tokens is not None
    return jnp.take_along_axis(tokens, places[..., None], axis=2)


def prototype_method(
    encoder: Network,
    head: Network,
    loss_of: LossOf,
    *,
    average: Ema,
    views: tuple[View, ...],
    signs: Callable[[int], tuple[Sign, ...]],
    centers: dict[str, tuple[Ema, int]],
    predictor: Network | None = None,
    masking: Masking | None = None,
) -> Method:
    """A method in which a student matches an average teacher's distributions over prototypes.

    Views of the first crop size are the global ones, which the teacher sees too; other sizes are local. Views of one size
    pass through the encoder as one batch, the head runs once on the views of all sizes. The teacher takes part without
    stochastic depth and moves after the update. With ``masking`` patches of the student's global crops are replaced by the
    mask token, and the patch head runs on a static number of places per crop that holds all hidden ones.

    Args:
      encoder: the network to train.
      head: between the features and the prototypes.
      loss_of: the loss, with what the centres become and metrics.
      average: of the student's parameters.
      views: global views, then local ones.
      signs: of collapse, as in :class:`ssl_jax.methods.method.Method`.
      centers: name to (average, width), of running means in the state.
      predictor: of the student alone, on the features before the head; ``None``: there is none.
      masking: of the student's global crops; ``None``: nothing is hidden.

    Returns:
      The method. ``encode`` gives the teacher encoder's features. Params: ``encoder``, ``head``, ``patch_head`` (unless shared)
      and ``predictor``; state: ``online``, ``teacher`` and the centres by name. The teacher carries the student's mask token
      in its average and never uses it.

    Raises:
      ValueError: masking of an encoder that cannot hide patches, or an option of it out of range.
    """
    if masking is not None:
        choice("mask", masking.kind, MASKS)
        choice("patch_head", masking.where, PATCH_HEADS)
        require_patches(encoder)
    teacher_encoder = without_drop_path(encoder)

    def patch_logits(params: Params, state: State, tokens: Array | None) -> Array:
        """Logits ``[..., m, k]`` of patch tokens ``[..., m, d]``."""
        assert masking is not None and tokens is not None
        own = params.get("patch_head", {})
        variables = own if masking.where == "separate" else {**params["head"], **own}
        return masking.head.apply(variables, state["head"], tokens)[0]

    def see(
        network: Network, params: Params, state: State, images: Array, key: Key, mask: Array | None = None
    ) -> tuple[Array, Array | None, State]:
        """Features, and with masking normalised patch tokens, of merged crops."""
        if masking is None:
            features, state = network.apply(params, state, images, train=True, key=key)
            return features, None, state
        options = {} if mask is None else {"mask": mask}
        tokens, state = network.apply(params, state, images, train=True, key=key, output="tokens", **options)
        patches = tokens[:, prefix_of(encoder) :]
        features = tokens[:, 0] if encoder.config["pool"] == "cls" else patches.mean(axis=1)
        return features, patches, state

    def embed(
        network: Network,
        params: Params,
        state: State,
        crops: tuple[Array, ...],
        key: Key,
        mask: Array | None = None,
    ) -> tuple[Array, Array | None, State]:
        """Features ``[b, v, d]`` of all crops, patch tokens ``[b, g, l, d]`` of the first size."""
        state, features, tokens = dict(state), [], None
        for i, group in enumerate(crops):
            merged, group_key = merge_views(group), jax.random.fold_in(key, i)
            output, patches, state["encoder"] = see(
                network, params["encoder"], state["encoder"], merged, group_key, mask if i == 0 else None
            )
            features.append(split_views(output, group.shape[1]))
            if i == 0 and patches is not None:
                tokens = split_views(patches, group.shape[1])
        return jnp.concatenate(features, axis=1), tokens, state

    def classify(params: Params, state: State, features: Array) -> tuple[Array, State]:
        logits, head_state = head.apply(params["head"], state["head"], merge_views(features), train=True)
        return split_views(logits, features.shape[1]), {**state, "head": head_state}

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, head_key, patch_key, predictor_key = jax.random.split(key, 4)
        images = batch["views"][0][:, 0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        features = jnp.zeros((images.shape[0], encoder.features))
        params["head"], state["head"] = head.init(head_key, features)
        if masking is not None and masking.where != "shared":
            params["patch_head"], _ = masking.head.init(patch_key, features)
            if masking.where == "prototypes":
                del params["patch_head"]["mlp"]
        kept: State = {"teacher": {"variables": average.init(params), "state": state}}
        kept |= {name: mean.init(jnp.zeros(width)) for name, (mean, width) in centers.items()}
        if predictor is not None:
            params["predictor"], predictor_state = predictor.init(predictor_key, features)
            state = {**state, "predictor": predictor_state}
        return params, {**kept, "online": state}

    def teach(
        params: Params, state: State, crops: Array, key: Key, mask: Array | None
    ) -> tuple[Outputs, State]:
        """The teacher's outputs of the global crops, in which nothing is hidden from it."""
        features, tokens, state = embed(teacher_encoder, params, state, (crops,), key)
        logits, state = classify(params, state, features)
        if masking is None or mask is None:
            return Outputs(features, logits), state
        places, hidden = places_of(masking, mask, crops.shape[1])
        if masking.mean_over == "all":
            every = patch_logits(params, state, tokens)
            return Outputs(features, logits, gather(every, places), hidden, every.mean((0, 1, 2))), state
        patches = patch_logits(params, state, gather(tokens, places))
        total = jnp.sum(patches, axis=(0, 1, 2), where=hidden[..., None])
        return Outputs(features, logits, patches, hidden, total / jnp.maximum(hidden.sum(), 1)), state

    def study(
        params: Params, state: State, crops: tuple[Array, ...], key: Key, mask: Array | None
    ) -> tuple[Outputs, State]:
        """The student's outputs of all crops, the global ones masked."""
        features, tokens, state = embed(encoder, params, state, crops, key, mask)
        predictions = features
        if predictor is not None:
            merged, predictor_state = predictor.apply(
                params["predictor"], state["predictor"], merge_views(features), train=True
            )
            predictions = split_views(merged, features.shape[1])
            state = {**state, "predictor": predictor_state}
        logits, state = classify(params, state, predictions)
        if masking is None or mask is None:
            return Outputs(features, logits), state
        places, hidden = places_of(masking, mask, crops[0].shape[1])
        return Outputs(features, logits, patch_logits(params, state, gather(tokens, places)), hidden), state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        teacher_key, student_key, mask_key = jax.random.split(key, 3)
        crops, mask = batch["views"], None
        if masking is not None:
            count, global_crops, height, width, _ = crops[0].shape
            patch = int(encoder.config["patch"])
            mask = draw_masks(mask_key, masking, count, global_crops, (height // patch, width // patch))
        kept = state["teacher"]
        teacher, teacher_state = teach(kept["variables"].average, kept["state"], crops[0], teacher_key, mask)
        student, online = study(params, state["online"], crops, student_key, mask)
        value, moved, metrics = loss_of(
            student, jax.lax.stop_gradient(teacher), {name: state[name] for name in centers}, step
        )
        return value, ({**moved, "online": online, "teacher": {**kept, "state": teacher_state}}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        averaged = {name: part for name, part in params.items() if name != "predictor"}
        _, variables = average.update(averaged, state["teacher"]["variables"])
        return {**state, "teacher": {**state["teacher"], "variables": variables}}

    def encoder_of(params: Params, state: State) -> tuple[Params, State]:
        del params
        teacher = state["teacher"]
        return teacher["variables"].average["encoder"], teacher["state"]["encoder"]

    def encode(params: Params, state: State, images: Array) -> Array:
        return encode_with(encoder, *encoder_of(params, state), images)

    return Method(views, init, loss, encode, encoder, encoder_of, after_update, signs=signs)
