"""I-JEPA (Assran et al., CVPR 2023): what a teacher makes of blocks of an image, predicted from the rest."""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import require
from ssl_jax.core.numerics import compute_std
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, Schedule, State
from ssl_jax.losses.reconstruction import masked_smooth_l1
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.ema_teacher import EmaTeacher, linear_ema
from ssl_jax.models.build import without_draws
from ssl_jax.models.decoders import jepa_predictor
from ssl_jax.models.network import Network, grid_of
from ssl_jax.models.transformer import gather_tokens
from ssl_jax.ops.multiblock_masking import Blocks, multiblock
from ssl_jax.ops.patches import standardize

FOLLOWS = {"decay_steps": "steps"}
"""Options whose values follow others of the config."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShapes:
    """Number and shapes of the blocks that :func:`ssl_jax.ops.multiblock_masking.multiblock` draws.

    Attributes:
      targets: number of target blocks.
      target_scale: least and largest share of the patches in a target block.
      target_aspect: least and largest ratio of a target block's height to its width.
      context_scale: least and largest share of the patches in the context block.
      least_context: patches that the context has at least, at most half of them; see ``multiblock``.
      truncate: cut contexts to the smallest one of the batch, as the authors' code does.
    """

    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    least_context: int = 10
    truncate: bool = False


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    blocks: BlockShapes = BlockShapes(),
    beta: float = 1.0,
    predictor_width: int = 384,
    predictor_depth: int = 6,
    predictor_heads: int | None = None,
    decay: float | Schedule = 0.996,
    decay_steps: int | None = None,
) -> Method:
    """I-JEPA.

    ``L = mean over the patches of all target blocks, and over features, of smooth_l1_β(predictor(encoder(context), position)
    − n(teacher(image)))``: the encoder sees the patches of a large block without those of the target blocks, the predictor is
    told the positions, and the teacher, the EMA of the encoder, sees the whole image; n is layer normalisation without weights.
    Blocks as in :func:`ssl_jax.ops.multiblock_masking.multiblock`, at static shapes.

    Args:
      encoder: a ViT without class token and registers.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae` with crops of area 0.3 to 1 and no flip.
      blocks: number and shapes of the blocks, see :class:`BlockShapes`.
      beta: β > 0. May be traced.
      predictor_width: features of the predictor's tokens.
      predictor_depth: blocks of the predictor; 12 for ViT-H in the paper.
      predictor_heads: attention heads of the predictor; ``None``: as many as the encoder has.
      decay: decay m₀ of the teacher's average, 0 (the student of the step before) to 1, or a schedule of it.
      decay_steps: length of the run, over which a float ``decay`` rises to 1 in a straight line; ``None``: it stays constant.

    Returns:
      The method. ``encode`` gives the mean of the teacher's tokens. Metrics: ``target_std``, the deviation of the targets over
      images, averaged over patches and features, 0 when all images look the same to the teacher; ``context``, the share of the
      patches that the encoder sees.

    Raises:
      ValueError: an encoder that is no ViT or has a class token, a decay outside [0, 1], what ``multiblock`` refuses.

    Reference: Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture, section 3 and appendix A;
    facebookresearch/ijepa. Deviations: contexts keep their sizes instead of being cut to the batch's smallest; the code draws
    every linear layer with a deviation of 0.02, ``init="trunc_normal"`` here.
    """
    config = encoder.config
    plain = (
        str(config.get("name", "")).startswith("vit")
        and not config["class_token"]
        and not config["registers"]
    )
    require(
        plain, "encoder", config.get("name", ""), "a ViT with class_token=False, pool='mean', no registers"
    )
    if isinstance(decay, float):
        require(0 <= decay <= 1, "decay", decay, "a number from 0 to 1")
    teacher_ema, teacher_network = linear_ema(decay, decay_steps), without_draws(encoder)

    def predictor_for(images: Array) -> Network:
        return jepa_predictor(
            outputs=encoder.features,
            grid=grid_of(encoder, images),
            width=predictor_width,
            depth=predictor_depth,
            heads=int(config["heads"]) if predictor_heads is None else predictor_heads,
            init=config["init"],
            dtype=config["dtype"],
            remat=config["remat"],
            remat_keeps=config["remat_keeps"],
        )

    def draw_blocks(key: Key, images: Array) -> Blocks:
        """Draw the context ``[b, c]`` and the targets ``[b, t, n]`` of each image: indices of patches, and which count."""
        size_key, position_key = jax.random.split(key)
        grid = grid_of(encoder, images)
        least = min(blocks.least_context, grid[0] * grid[1] // 2)
        shapes = dataclasses.replace(blocks, least_context=least)
        keys = jax.random.split(position_key, images.shape[0])
        return multiblock(keys, size_key, grid, **dataclasses.asdict(shapes))

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        encoder_key, predictor_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        params: Params = {}
        state: State = {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        shapes = jax.eval_shape(draw_blocks, key, images)
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        tokens = jnp.zeros((*empty.context.shape, encoder.features))
        predictor = predictor_for(images)
        params["predictor"], _ = predictor.init(predictor_key, tokens, **predictor_inputs(empty))
        state["teacher"] = EmaTeacher.init(teacher_ema, params["encoder"], state["encoder"])
        return params, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        block_key, encoder_key, predictor_key = jax.random.split(key, 3)
        drawn = draw_blocks(block_key, images)
        tokens, teacher = state["teacher"].apply(teacher_network, images, train=False, output="tokens")
        y = standardize(tokens)  # [b, l, d]

        variables = params["encoder"], state["encoder"]
        options = {"keep": drawn.context, "present": drawn.context_filled, "output": "tokens"}
        context, encoder_state = encoder.apply(*variables, images, train=True, key=encoder_key, **options)
        options = {"train": True, "key": predictor_key, **predictor_inputs(drawn)}
        predictions, _ = predictor_for(images).apply(params["predictor"], {}, context, **options)

        targets = gather_tokens(y, merge_blocks(drawn.targets))  # [b, t n, d]
        filled = merge_blocks(drawn.targets_filled)  # [b, t n]
        value = masked_smooth_l1(merge_blocks(predictions), targets, filled, beta=beta)
        metrics = {
            "target_std": jnp.mean(compute_std(y)),
            "context": jnp.sum(drawn.context_filled) / y[..., 0].size,
        }
        return value, ({"encoder": encoder_state, "teacher": teacher}, metrics)

    def after_update(params: Params, state: State, step: Array) -> State:
        del step
        return {**state, "teacher": state["teacher"].update(teacher_ema, params["encoder"])}

    def encoder_variables(params: Params, state: State) -> tuple[Params, State]:
        del params
        return state["teacher"].params, state["teacher"].state

    views = presets.mae(area=(0.3, 1.0), flip_prob=0.0) if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    collapse = (CollapseValue("target_std", 0.0, "all images look the same to the teacher"),)
    return Method(views, init, loss, encoder, encoder_variables, after_update, collapse=collapse)


def predictor_inputs(blocks: Blocks) -> dict[str, Array]:
    """Return blocks as the options of the predictor."""
    names = ("context", "present", "targets", "counted")
    return dict(zip(names, blocks, strict=True))


def merge_blocks(x: Array) -> Array:
    """Reshape ``[b, t, n, ...]`` to ``[b, t n, ...]``: the patches of all blocks in a row."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])
