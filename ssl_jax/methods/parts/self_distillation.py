"""Self-distillation with prototypes: the outputs of student and teacher, masks, temperatures, metrics. DINO, iBOT, DINOv2."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.core.check import choice, require
from ssl_jax.core.numerics import entropy
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.distillation import divergence_from_uniform, teacher_entropy, usage
from ssl_jax.methods.method import CollapseValue
from ssl_jax.methods.parts.ema_teacher import EmaTeacher
from ssl_jax.methods.parts.siamese import merge_views, pair_metrics, split_views
from ssl_jax.models import heads
from ssl_jax.models.build import without_draws
from ssl_jax.models.network import Network, compute_dtype, grid_of, prefix_of
from ssl_jax.ops.block_masking import block_mask, masked_counts, masked_positions, scattered_mask
from ssl_jax.ops.schedules import as_schedule, linear
from ssl_jax.optim.ema import Ema

PATCH_HEADS = ("shared", "prototypes", "separate")
MASKS = ("block", "random")
TINY = 1e-30
"""Below it a probability counts as 0 in an entropy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DinoHead:
    """Options of the head, see :func:`ssl_jax.models.heads.dino_head`.

    Attributes:
      prototypes: K, width of the output.
      hidden_dim: width of the hidden layers.
      bottleneck: width of the L2-normalised layer before the prototypes.
      layers: layers of the MLP.
      norm_last_layer: prototypes have unit norm; else their norm is trained.
    """

    prototypes: int = 65536
    hidden_dim: int = 2048
    bottleneck: int = 256
    layers: int = 3
    norm_last_layer: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchHead(DinoHead):
    """Options of the heads of crops and patches: the same widths for both.

    Attributes:
      patches: ``"shared"``: one head for crops and patches; ``"prototypes"``: one MLP, prototypes of their own for the patches;
        ``"separate"``: a head of their own.
    """

    patches: str = "shared"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Temperatures:
    """Temperatures of student and teacher. Sharpening is τ_t < τ_s; equal temperatures switch it off.

    Attributes:
      student: τ_s.
      teacher: τ_t after its warm-up.
      teacher_start: τ_t at step 0, from which it moves linearly; ``None``: constant.
      teacher_steps: length of that warm-up in steps.
    """

    student: float = 0.1
    teacher: float = 0.04
    teacher_start: float | None = None
    teacher_steps: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchTemperatures(Temperatures):
    """Temperatures of crops, and those of patches; student's temperature and length of the warm-up are the same.

    Attributes:
      patch: τ_t of patches after its warm-up.
      patch_start: τ_t of patches at step 0; ``None``: constant.
    """

    patch: float = 0.04
    patch_start: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherAverage:
    """How the teacher follows the student.

    Attributes:
      decay: m₀, 0 to 1, or a schedule of it.
      decay_steps: length of the run, over which a float ``decay`` rises to 1 on a cosine; ``None``: it stays constant.
    """

    decay: float | Schedule = 0.996
    decay_steps: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masking:
    """How patches of the student's global crops are masked.

    Attributes:
      kind: ``"block"`` (rectangles) or ``"random"``.
      crop_fraction: share of the global crops in which patches are masked at all, 0 to 1.
      ratio: least and largest share of masked patches in those.
      min_area: least area of a rectangle in patches; ``None``: ⌊side/3⌋² of the grid, at least 1.
    """

    kind: str = "block"
    crop_fraction: float = 0.5
    ratio: tuple[float, float] = (0.1, 0.5)
    min_area: int | None = None


class Networks(NamedTuple):
    """Networks of a student, whose averages are the teacher's.

    Attributes:
      encoder: f.
      head: from features to prototypes.
      predictor: of the student alone, on the features before the head; ``None``: there is none.
      patch_head: from patch tokens to prototypes, without batch statistics; ``None``: patches have no loss.
      patch_head_kind: ``"shared"`` (the head's weights), ``"prototypes"`` (the head's MLP, prototypes of its own) or
        ``"separate"``.
    """

    encoder: Network
    head: Network
    predictor: Network | None = None
    patch_head: Network | None = None
    patch_head_kind: str = "shared"


class Outputs(NamedTuple):
    """What a network makes of the crops.

    Attributes:
      features: ``[b, v, d]`` of the encoder.
      logits: ``[b, v, k]`` of the head.
      tokens: ``[b, g, l, d]`` normalised patch tokens of the global crops; ``None`` for methods without masks.
    """

    features: Array
    logits: Array
    tokens: Any = None


def build_head(encoder: Network, head: DinoHead, *, batch_norm: bool = False) -> Network:
    """Build the head on an encoder's features.

    Args:
      encoder: whose compute dtype the head shares.
      head: widths and depth.
      batch_norm: BatchNorm in the hidden layers.
    """
    return heads.dino_head(
        head.prototypes,
        hidden_dim=head.hidden_dim,
        bottleneck=head.bottleneck,
        layers=head.layers,
        batch_norm=batch_norm,
        norm_last_layer=head.norm_last_layer,
        dtype=compute_dtype(encoder),
    )


def teacher_temperature_schedule(
    temperature: float | Array, start: float | Array | None, steps: int
) -> Schedule:
    """Schedule a teacher's temperature: constant, or on a line from ``start`` over ``steps``.

    >>> round(float(teacher_temperature_schedule(0.07, 0.04, 10)(5)), 3)
    0.055
    """
    return as_schedule(temperature) if start is None else linear(start, temperature, steps)


def prototype_metrics(teacher_log_probs: Array, logits: Array) -> Metrics:
    """Tell the collapses apart, from the teacher's log distributions ``[b, g, k]`` and the student's logits ``[b, v, k]``."""
    return {
        "teacher_entropy": teacher_entropy(teacher_log_probs),
        "teacher_kl_uniform": divergence_from_uniform(teacher_log_probs),
        "prototype_usage": usage(teacher_log_probs),
        **pair_metrics(logits[:, 0], logits[:, 1]),
    }


def patch_prototype_metrics(targets: Array, masked: Array) -> Metrics:
    """Do the same for the teacher's distributions ``[b, g, m, k]`` of masked patches; 0 where nothing is masked."""
    weights = masked / jnp.maximum(jnp.sum(masked), 1)
    entropies = entropy(jnp.log(jnp.maximum(targets, TINY)))
    mean = jnp.einsum("bgm,bgmk->k", weights, targets)
    divergence = jnp.log(1.0 * targets.shape[-1]) - entropy(jnp.log(jnp.maximum(mean, TINY)))
    return {
        "patch_teacher_entropy": jnp.sum(weights * entropies),
        "patch_kl_uniform": divergence * jnp.any(masked),
    }


def prototype_collapse(prototypes: int, loss: float, *, patches: bool) -> tuple[CollapseValue, ...]:
    """Return the values of two collapses: of the distributions to the uniform one, and to a single prototype."""
    most = math.log(prototypes)
    crops = (
        CollapseValue("loss", loss, "the teacher says nothing: its distribution is uniform"),
        CollapseValue("teacher_entropy", most, "the teacher gives every prototype the same share"),
        CollapseValue("teacher_kl_uniform", most, "one prototype takes every image"),
    )
    if not patches:
        return crops
    return (
        *crops,
        CollapseValue(
            "patch_teacher_entropy", most, "the teacher gives every prototype the same share of a patch"
        ),
        CollapseValue("patch_kl_uniform", most, "one prototype takes every patch"),
    )


def check_patches(encoder: Network, masking: Masking, head: PatchHead) -> None:
    """Raise a ValueError unless patches can be masked, and compared, as asked."""
    choice("masking.kind", masking.kind, MASKS)
    choice("head.patches", head.patches, PATCH_HEADS)
    require_patches(encoder)


def require_patches(encoder: Network) -> None:
    """Raise a ValueError unless an encoder can mask patches and gives normalised tokens."""
    name = str(encoder.config.get("name", ""))
    require(name.startswith("vit"), "encoder", name, "a ViT: patches are masked for the student")
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
    pool = encoder.config["pool"]
    require(pool != "map", "encoder.pool", pool, "cls or mean: features and patches come from one pass")


def init_student_and_teacher(
    networks: Networks, average: Ema, key: Key, batch: Batch
) -> tuple[Params, dict[str, Any]]:
    """Draw the student; the teacher starts as its copy.

    Returns:
      Params ``encoder``, ``head``, ``patch_head`` (unless shared) and ``predictor``; state ``online`` and ``teacher``. The
      teacher carries the student's mask token in its average and never uses it.
    """
    encoder_key, head_key, patch_key, predictor_key = jax.random.split(key, 4)
    images = batch["views"][0][:, 0]
    params, online = {}, {}
    params["encoder"], online["encoder"] = networks.encoder.init(encoder_key, images)
    features = jnp.zeros((images.shape[0], networks.encoder.features))
    params["head"], online["head"] = networks.head.init(head_key, features)
    if networks.patch_head is not None and networks.patch_head_kind != "shared":
        params["patch_head"], _ = networks.patch_head.init(patch_key, features)
        if networks.patch_head_kind == "prototypes":
            del params["patch_head"]["mlp"]
    teacher = EmaTeacher.init(average, params, dict(online))
    if networks.predictor is not None:
        predictor, online["predictor"] = networks.predictor.init(predictor_key, features)
        params = {**params, "predictor": predictor}
    return params, {"online": online, "teacher": teacher}


def teacher_outputs(
    networks: Networks, teacher: EmaTeacher, crops: Array, key: Key
) -> tuple[Outputs, EmaTeacher]:
    """Compute the teacher's outputs of the global crops ``[b, g, h, w, c]``, without stochastic depth, masks and gradient."""
    own = networks._replace(encoder=without_draws(networks.encoder), predictor=None)
    outputs, state = student_outputs(own, teacher.params, teacher.state, (crops,), key)
    return jax.lax.stop_gradient(outputs), teacher._replace(state=state)


def student_outputs(
    networks: Networks,
    params: Params,
    state: State,
    crops: tuple[Array, ...],
    key: Key,
    mask: Array | None = None,
) -> tuple[Outputs, State]:
    """Compute the student's outputs of all crops.

    Views of one size pass through the encoder as one batch, the head runs once on the views of all sizes.

    Args:
      networks: the student's.
      params: their parameters, by name.
      state: their batch statistics, by name.
      crops: for each size ``[b, v, h, w, c]``; those of the first size are the global ones.
      key: used once, for what the encoder draws.
      mask: bool ``[b g, l]``, patches of the global crops that a mask token replaces; ``None``: none.

    Returns:
      ``(outputs, state)``.
    """
    features, tokens, encoder_state = encode_crops(
        networks, params["encoder"], state["encoder"], crops, key, mask
    )
    state = {**state, "encoder": encoder_state}
    inputs = merge_views(features)
    if networks.predictor is not None:
        inputs, predictor_state = networks.predictor.apply(
            params["predictor"], state["predictor"], inputs, train=True
        )
        state = {**state, "predictor": predictor_state}
    logits, head_state = networks.head.apply(params["head"], state["head"], inputs, train=True)
    return Outputs(features, split_views(logits, features.shape[1]), tokens), {**state, "head": head_state}


def encode_crops(
    networks: Networks,
    params: Params,
    state: State,
    crops: tuple[Array, ...],
    key: Key,
    mask: Array | None,
) -> tuple[Array, Array | None, State]:
    """Encode all crops: features ``[b, v, d]``, with a patch head also patch tokens ``[b, g, l, d]`` of the first size.

    A network of :func:`ssl_jax.models.packing.pack_crops` takes all of them as one sequence an example, with the same result.
    """
    encoder, features, tokens = networks.encoder, [], None
    if encoder.packed and len(crops) > 1:
        return encode_packed_crops(networks, params, state, crops, key, mask)
    for i, group in enumerate(crops):
        options: dict[str, Any] = {"train": True, "key": jax.random.fold_in(key, i)}
        count, images = group.shape[1], merge_views(group)
        if networks.patch_head is None:
            output, state = encoder.apply(params, state, images, **options)
        else:
            options |= {"output": "tokens"} | ({} if i or mask is None else {"mask": mask})
            every, state = encoder.apply(params, state, images, **options)
            patches = every[:, prefix_of(encoder) :]
            output = every[:, 0] if encoder.config["pool"] == "cls" else patches.mean(axis=1)
            tokens = split_views(patches, count) if i == 0 else tokens
        features.append(split_views(output, count))
    return jnp.concatenate(features, axis=1), tokens, state


def encode_packed_crops(
    networks: Networks,
    params: Params,
    state: State,
    crops: tuple[Array, ...],
    key: Key,
    mask: Array | None,
) -> tuple[Array, Array | None, State]:
    """Do what :func:`encode_crops` does with one pass of the encoder."""
    encoder = networks.encoder
    if networks.patch_head is None:
        features, state = encoder.apply(params, state, crops, train=True, key=key)
        return features, None, state
    masked = {} if mask is None else {"mask": mask}
    every, state = encoder.apply(params, state, crops, train=True, key=key, output="tokens", **masked)
    patches = [tokens[:, :, prefix_of(encoder) :] for tokens in every]
    pooled = (
        [x[:, :, 0] for x in every] if encoder.config["pool"] == "cls" else [x.mean(axis=2) for x in patches]
    )
    return jnp.concatenate(pooled, axis=1), patches[0], state


def patch_logits(networks: Networks, params: Params, state: State, tokens: Array) -> Array:
    """Compute logits ``[..., k]`` of patch tokens ``[..., d]`` by the patch head."""
    assert networks.patch_head is not None
    own = params.get("patch_head", {})
    variables = own if networks.patch_head_kind == "separate" else {**params["head"], **own}
    return networks.patch_head.apply(variables, state["head"], tokens)[0]


def draw_masks(key: Key, masking: Masking, crops: Array, encoder: Network, *, stratified: bool) -> Array:
    """Draw the masked patches of crops.

    Args:
      key: used once.
      masking: how many patches, and which.
      crops: ``[b, g, h, w, c]``.
      encoder: whose patches they are.
      stratified: ratios spread evenly over the batch, see :func:`ssl_jax.ops.block_masking.masked_counts`.

    Returns:
      bool ``[b g, l]``, in the order of ``merge_views``.
    """
    count_key, mask_key = jax.random.split(key)
    total, grid = crops.shape[0] * crops.shape[1], grid_of(encoder, crops[:, 0])
    length = grid[0] * grid[1]
    counts = masked_counts(
        count_key,
        total,
        length,
        share=masking.crop_fraction,
        ratio=masking.ratio,
        stratified=stratified,
    )
    keys = jax.random.split(mask_key, total)
    if masking.kind == "random":
        return jax.vmap(lambda k, n: scattered_mask(k, length, n))(keys, counts)
    return jax.vmap(lambda k, n: block_mask(k, grid, n, min_area=masking.min_area))(keys, counts)


def select_masked_positions(masking: Masking, mask: Array, crops: int) -> tuple[Array, Array]:
    """Return positions ``[b, g, m]`` among which are all masked patches of a mask ``[b g, l]``, and which of them are masked.

    m is static, the most patches that can be masked in a crop.
    """
    most = max(int(mask.shape[-1] * masking.ratio[1]), 1)
    return masked_positions(split_views(mask, crops), most)


def take_tokens(tokens: Array, positions: Array) -> Array:
    """Take tokens ``[b, g, l, d]`` at positions ``[b, g, m]``."""
    return jnp.take_along_axis(tokens, positions[..., None], axis=2)


def masked_mean_logits(logits: Array, masked: Array) -> Array:
    """Average logits ``[b, g, m, k]`` over masked patches ``[b, g, m]``: ``[k]``, 0 without any."""
    return jnp.sum(logits, axis=(0, 1, 2), where=masked[..., None]) / jnp.maximum(masked.sum(), 1)
