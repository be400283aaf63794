"""Vision transformers (Dosovitskiy et al. 2021) with the options that self-supervised methods use."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.models.attention_pool import AttentionPool
from ssl_jax.models.network import DTYPES, Network, from_linen
from ssl_jax.models.packing import Layout, pack, unpack
from ssl_jax.models.positions import RESIZES, relative_index, relative_rows, resize_table, sincos_table
from ssl_jax.models.remat import require_remat
from ssl_jax.models.rope import augment_coordinates, patch_coordinates, rotation
from ssl_jax.models.transformer import (
    DROP_PATHS,
    INITS,
    MLPS,
    Grid,
    Positions,
    apply_blocks,
    final_norm,
    gather_tokens,
    layer_norm,
    linear_init,
    relative_bias,
)
from ssl_jax.ops.patches import patchify

POOLS = ("cls", "mean", "map")
POSITIONS = ("learned", "sincos", "relative", "rope", "none")
ROPE_OFF = {"rope_shift": 0.0, "rope_jitter": 1.0, "rope_rescale": 1.0}
"""Options that draw other coordinates in training, at the values that do not."""


class PatchEmbedding(nn.Module):
    """Linear map of patch pixels; with ``frozen`` its random weights lie in the collection ``frozen``."""

    width: int
    use_bias: bool
    frozen: bool
    scheme: str
    dtype: str

    @nn.compact
    def __call__(self, patches: Array) -> Array:
        dtype = jnp.dtype(self.dtype)
        kernel = self.weight("kernel", linear_init(self.scheme), (patches.shape[-1], self.width))
        x = patches.astype(dtype) @ kernel.astype(dtype)
        if self.use_bias:
            x = x + self.weight("bias", nn.initializers.zeros, (self.width,)).astype(dtype)
        return x

    def weight(self, name: str, init: Callable[..., Array], shape: tuple[int, ...]) -> Array:
        if self.frozen:
            value = self.variable(
                "frozen", name, lambda: init(self.make_rng("params"), shape, jnp.float32)
            ).value
            return jax.lax.stop_gradient(value)
        return self.param(name, init, shape, jnp.float32)


class VisionTransformer(nn.Module):
    """See :func:`vit`, whose keyword arguments are the fields."""

    width: int
    depth: int
    heads: int
    patch: int
    image_size: int
    pool: str
    class_token: bool
    registers: int
    position: str
    position_resize: str
    relative_per_block: bool
    rope_base: float
    rope_shift: float
    rope_jitter: float
    rope_rescale: float
    mlp: str
    mlp_ratio: float
    qkv_bias: bool
    key_bias: bool
    qk_norm: bool
    norm_epsilon: float
    layer_scale: float | None
    drop_path: float
    drop_path_kind: str
    drop_path_uniform: bool
    pre_norm: bool
    fc_norm: bool
    patch_bias: bool | None
    freeze_patch: bool
    mask_token: bool
    scheme: str
    dtype: str
    remat: bool
    remat_keeps: str

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "b h w c"] | tuple[Float[Array, "b v h w c"], ...],
        *,
        train: bool = False,
        keep: Int[Array, "b k"] | None = None,
        mask: Bool[Array, "b l"] | None = None,
        present: Bool[Array, "b k"] | None = None,
        output: str = "features",
    ) -> Any:
        packed = isinstance(images, tuple)
        outputs = ("features", "tokens") if packed else ("features", "tokens", "attention", "layers")
        check.choice("output", output, outputs)
        check.require(
            not packed or (keep is None and present is None), "keep", keep, "None with crops of several sizes"
        )
        if mask is not None:
            check.require(self.mask_token, "mask_token", self.mask_token, "True, to hide patches by a mask")
        # All parameters are made at the start, whichever output is asked for.
        attention = output == "attention" and not self.is_initializing()
        layers = output == "layers" and not self.is_initializing()
        sizes = [merge(crops) for crops in images] if isinstance(images, tuple) else [images]
        batch = images[0].shape[0] if isinstance(images, tuple) else images.shape[0]
        patches = [patchify(jnp.asarray(x), patch=self.patch) for x in sizes]
        grids = [(x.shape[1] // self.patch, x.shape[2] // self.patch) for x in sizes]
        table, relative = self.position_table(), self.shared_table()
        positions = [
            self.attended_positions(grid, keep, present, train, relative, f"train_{i}" if packed else "train")
            for i, grid in enumerate(grids)
        ]
        if keep is not None:
            patches = [gather_tokens(patches[0], keep)]
        embed = PatchEmbedding(
            self.width, self.has_patch_bias(), self.freeze_patch, self.scheme, self.dtype, name="patch_embed"
        )
        x = embed(pack(patches, batch) if packed else patches[0])
        parts = unpack(x, layout_of(patches, batch)) if packed else [x]
        parts[0] = self.hide(parts[0], mask)
        for i, grid in enumerate(grids):
            added = self.added_positions(table, grid)
            if added is not None:
                parts[i] = parts[i] + (added[None] if keep is None else added[keep]).astype(parts[i].dtype)
        first = self.prefix_tokens()
        parts = [prepend(first, x) for x in parts]
        layout = layout_of(parts, batch) if packed else None
        x = pack(parts, batch) if packed else parts[0]
        if self.pre_norm:
            x = layer_norm(x.dtype, "norm_pre", self.norm_epsilon)(x)
        side = self.image_size // self.patch
        own_tables = self.position == "relative" and self.relative_per_block
        x = apply_blocks(
            x,
            depth=self.depth,
            train=train,
            remat=self.remat,
            remat_keeps=self.remat_keeps,
            drop_path=self.drop_path,
            drop_path_kind=self.drop_path_kind,
            drop_path_uniform=self.drop_path_uniform,
            last_weights=attention,
            every=layers,
            positions=(lambda: tuple(own() for own in positions)) if packed else positions[0],
            layout=layout,
            heads=self.heads,
            mlp=self.mlp,
            mlp_ratio=self.mlp_ratio,
            qkv_bias=self.qkv_bias,
            key_bias=self.key_bias,
            qk_norm=self.qk_norm,
            norm_epsilon=self.norm_epsilon,
            relative_grids=((side, side), *grids) if own_tables else None,
            layer_scale=self.layer_scale,
            scheme=self.scheme,
            dtype=self.dtype,
        )
        if layers:
            return x
        if attention:
            return at_least_float32(x)
        tokens = at_least_float32(x) if self.fc_norm else final_norm(x, "norm", self.norm_epsilon)
        parts = [tokens] if layout is None else unpack(tokens, layout)
        if output == "tokens" and not self.is_initializing():
            crops = tuple(part.reshape(batch, -1, *part.shape[1:]) for part in parts)
            return crops if packed else parts[0]
        pooled = self.pool_tokens(parts, present)
        features = pack([x[:, None] for x in pooled], batch) if packed else pooled[0]
        return final_norm(features, "fc_norm", self.norm_epsilon) if self.fc_norm else features

    def pool_tokens(self, parts: list[Array], present: Array | None) -> list[Array]:
        """Features ``[b, width]`` of tokens ``[b, prefix + patches, width]``, for each size."""
        prefix = self.class_token + self.registers
        if self.pool == "cls":
            return [tokens[:, 0] for tokens in parts]
        if self.pool == "mean":
            where = None if present is None else present[..., None]
            return [jnp.mean(tokens[:, prefix:], axis=1, where=where) for tokens in parts]
        pool = AttentionPool(
            self.heads,
            self.mlp,
            self.mlp_ratio,
            self.norm_epsilon,
            self.scheme,
            self.dtype,
            name="attn_pool",
        )
        return [at_least_float32(pool(tokens[:, prefix:], present)) for tokens in parts]

    def has_patch_bias(self) -> bool:
        return not self.pre_norm if self.patch_bias is None else self.patch_bias

    def hide(self, x: Array, mask: Array | None) -> Array:
        if not self.mask_token:
            return x
        start = linear_init("beit") if self.scheme == "beit" else nn.initializers.zeros
        token = self.param("mask_token", start, (1, 1, self.width), jnp.float32)
        return x if mask is None else jnp.where(mask[..., None], token.astype(x.dtype), x)

    def position_table(self) -> Array | None:
        """The table of positions that are added to the embedded patches, for ``image_size``."""
        if self.position not in ("learned", "sincos"):
            return None
        side = self.image_size // self.patch
        if self.position == "sincos":
            dtype = jnp.promote_types(self.dtype, jnp.float32)
            return jnp.asarray(sincos_table(side, side, self.width), dtype)
        start = nn.initializers.normal(0.02)
        return self.param("pos_embed", start, (1, side * side, self.width), jnp.float32)[0]

    def added_positions(self, table: Array | None, grid: Grid) -> Array | None:
        """What is added to the embedded patches of a grid."""
        if table is None:
            return None
        side = self.image_size // self.patch
        return resize_table(table, source=(side, side), target=grid, resize=self.position_resize)

    def attended_positions(
        self,
        grid: Grid,
        keep: Array | None,
        present: Array | None,
        train: bool,
        table: Array | None,
        stream: str,
    ) -> Callable[[], Positions]:
        """What attention knows of positions: relative ones, rotations, and which keys are there."""
        prefix, bias = self.class_token + self.registers, None
        if present is not None:
            present = jnp.pad(present, ((0, 0), (prefix, 0)), constant_values=True)
        if self.position == "relative":
            pairs = self.relative_pairs(grid, keep)
            if table is None:
                return lambda: Positions(relative=pairs, present=present)
            side = self.image_size // self.patch
            bias = relative_bias(table, pairs, ((side, side), grid))
        if self.position != "rope":
            return lambda: Positions(bias, present=present)
        coordinates = jnp.asarray(patch_coordinates(*grid), jnp.promote_types(self.dtype, jnp.float32))
        drawn = [name for name, value in ROPE_OFF.items() if getattr(self, name) != value]
        if not train or not drawn:
            turns = self.rotation(coordinates, keep)
            return lambda: Positions(bias, turns, present=present)
        if not self.has_rng(stream):
            raise ValueError(f"key=None: allowed is a key, as {', '.join(drawn)} draws in training")

        def draw() -> Positions:
            moved = augment_coordinates(
                self.make_rng(stream),
                coordinates,
                shift=self.rope_shift,
                jitter=self.rope_jitter,
                rescale=self.rope_rescale,
            )
            return Positions(bias, self.rotation(moved, keep), present=present)

        return draw

    def relative_pairs(self, grid: Grid, keep: Array | None) -> Array:
        """Rows of a table of relative positions for every pair of tokens, ``[b or 1, length, length]``."""
        prefix = self.class_token + self.registers
        index = jnp.asarray(relative_index(*grid, prefix))
        if keep is None:
            return index[None]
        first = jnp.broadcast_to(jnp.arange(prefix), (keep.shape[0], prefix))
        tokens = jnp.concatenate([first, keep + prefix], axis=1)
        return index[tokens[:, :, None], tokens[:, None, :]]

    def shared_table(self) -> Array | None:
        """The table of relative positions that all blocks share."""
        if self.position != "relative" or self.relative_per_block:
            return None
        side = self.image_size // self.patch
        shape = (relative_rows(side, side), self.heads)
        return self.param("relative_bias", nn.initializers.zeros, shape, jnp.float32)

    def rotation(self, coordinates: Array, keep: Array | None) -> tuple[Array, Array]:
        """Cosines and sines ``[b or 1, prefix + patches, 1, width / heads]``; those of prefix tokens turn nothing."""
        cosines, sines = rotation(coordinates, features=self.width // self.heads, base=self.rope_base)
        parts = (cosines[None], sines[None]) if keep is None else (cosines[keep], sines[keep])
        pad = ((0, 0), (self.class_token + self.registers, 0), (0, 0))
        cosines, sines = (
            jnp.pad(part, pad, constant_values=value)[:, :, None, :]
            for part, value in zip(parts, (1.0, 0.0), strict=True)
        )
        return cosines, sines

    def prefix_tokens(self) -> list[Array]:
        """The tokens in front of the patches, each ``[1, number, width]``."""
        small = nn.initializers.normal(1e-6 if self.scheme == "xavier_split" else 0.02)
        prefix = []
        if self.class_token:
            prefix.append(self.param("cls_token", small, (1, 1, self.width), jnp.float32))
        if self.registers:
            prefix.append(
                self.param(
                    "reg_token", nn.initializers.normal(1e-6), (1, self.registers, self.width), jnp.float32
                )
            )
        return prefix


def merge(crops: Array) -> Array:
    """Reshape ``[b, v, h, w, c]`` to ``[b v, h, w, c]``."""
    return crops.reshape(-1, *crops.shape[2:])


def layout_of(parts: Sequence[Array], batch: int) -> Layout:
    """Read the layout of tokens ``[b v, n, ...]`` of each size; see :mod:`ssl_jax.models.packing`."""
    return tuple((part.shape[0] // batch, part.shape[1]) for part in parts)


def prepend(prefix: Sequence[Array], x: Array) -> Array:
    """Put tokens ``[1, number, width]`` in front of those of each example, ``[b, length, width]``."""
    parts = [jnp.broadcast_to(p.astype(x.dtype), (x.shape[0], *p.shape[1:])) for p in prefix]
    return jnp.concatenate([*parts, x], axis=1) if parts else x


def vit(
    name: str,
    *,
    width: int,
    depth: int,
    heads: int,
    patch: int = 16,
    image_size: int = 224,
    pool: str = "cls",
    class_token: bool = True,
    registers: int = 0,
    position: str = "learned",
    position_resize: str = "bicubic",
    relative_per_block: bool = False,
    rope_base: float = 100.0,
    rope_shift: float = 0.0,
    rope_jitter: float = 1.0,
    rope_rescale: float = 1.0,
    mlp: str = "gelu",
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    key_bias: bool = True,
    qk_norm: bool = False,
    norm_epsilon: float = 1e-6,
    layer_scale: float | None = None,
    drop_path: float = 0.0,
    drop_path_kind: str = "bernoulli",
    drop_path_uniform: bool = False,
    pre_norm: bool = False,
    fc_norm: bool = False,
    patch_bias: bool | None = None,
    freeze_patch: bool = False,
    mask_token: bool = False,
    init: str = "xavier",
    dtype: str = "float32",
    remat: bool = False,
    remat_keeps: str = "nothing",
) -> Network:
    """Build a vision transformer: linear patch embedding, positions, pre-norm blocks, layer normalisation.

    Tokens are ordered ``[class token, registers, patches]``. Positions are added to the patches only.

    ``apply(params, state, images [b, h, w, c], *, train, key, keep=None, output="features")`` returns float32
    features ``[b, width]``, with ``output="tokens"`` all tokens after the final normalisation ``[b, prefix +
    patches, width]``, or with ``output="attention"`` who attends to whom in the last block, ``[b, heads,
    tokens, tokens]``, rows of sum 1; ``output="layers"`` gives the tokens after every block, not normalised
    and in the compute dtype, ``{"blocks_0": [b, prefix + patches, width], ...}``. ``keep [b, k]`` (integers):
    only these patches, in this order and each with its own position, enter the blocks (MAE). ``mask [b,
    patches]`` (bool, needs ``mask_token``): where it is True the mask token stands in place of the embedded
    patch, before the position is added (iBOT); with ``keep`` it is about the kept ones, ``[b, k]``. ``present [b, k]`` (bool,
    with ``keep``): patches where it is False are not attended to and do not count in the mean; their own outputs mean
    nothing (I-JEPA, whose contexts differ in size). ``h`` and ``w`` may differ from ``image_size`` and from each other: the
    position table is interpolated. ``key`` is for ``drop_path`` and for what draws coordinates. Instead of images a tuple with
    crops ``[b, v, h, w, c]`` of each size may be given, see :func:`ssl_jax.models.packing.pack_crops`.

    Args:
      name: name under which ``models.build`` finds the sizes.
      width: features of a token, divisible by ``heads``.
      depth: number of blocks.
      heads: attention heads.
      patch: side of a patch in pixels; divides the sides of the images.
      image_size: side in pixels for which the position table is made.
      pool: features are the class token (``'cls'``), the mean of the patch tokens (``'mean'``), or what a learned query
        attends to among them, and an MLP (``'map'``: SigLIP, see :mod:`ssl_jax.models.attention_pool`).
      class_token: whether there is one; needed for ``pool='cls'``.
      registers: number of register tokens (Darcet et al. 2024).
      position: ``'learned'`` table; ``'sincos'``, the fixed table of MAE; ``'relative'``: instead of adding positions to
        tokens, a trained bias is added to the attention's scores, for each head and distance, at first 0 (BEiT); ``'rope'``:
        queries and keys of patches are turned by angles that grow with their row and column (DINOv3, see
        :mod:`ssl_jax.models.rope`), prefix tokens are not; ``'none'``.
      position_resize: how a table meets another grid, one of :data:`ssl_jax.models.positions.RESIZES`; tables of ``'relative'``
        are interpolated bilinearly whatever it says, see :func:`ssl_jax.models.positions.resize_relative_table`.
      relative_per_block: with ``'relative'``, each block has a table of its own, not one for all (BEiT, fine-tuned).
      rope_base: with ``'rope'``, the base of its periods.
      rope_shift: with ``'rope'``, in training each block draws coordinates that are moved by up to this along each axis, where
        the image reaches from −1 to 1; 0: none.
      rope_jitter: the same, stretched by up to this factor along each axis; 1: none.
      rope_rescale: the same, stretched by up to this factor along both axes together; 1: none (DINOv3: 2).
      mlp: ``'gelu'`` (exact), ``'gelu_tanh'``, ``'quick_gelu'`` (``x σ(1.702 x)``: CLIP), or ``'swiglu'`` (packed: half of
        the hidden units gate the other half).
      mlp_ratio: hidden units of the MLP divided by ``width``.
      qkv_bias: whether queries, keys and values have a bias.
      key_bias: whether the keys' part of it is trained; if not, it is 0 and gets no gradient (BEiT, DINOv3). The
        softmax does not see it but with ``'rope'`` or ``qk_norm``.
      qk_norm: normalise queries and keys of each head by a layer normalisation.
      norm_epsilon: ε of all layer normalisations, added to the variance.
      layer_scale: start of LayerScale's ``gamma``; ``None`` for none.
      drop_path: stochastic depth of the last block, in ``[0, 1)``, rising linearly from 0 at the first; per
        example.
      drop_path_kind: ``'bernoulli'``: each example by itself; ``'subset'``: of a batch of b exactly ``int(b (1 − rate))``
        examples, and the branch is computed for these only (DINOv2).
      drop_path_uniform: the same rate in all blocks (DINOv2).
      pre_norm: normalise the tokens before the first block (CLIP).
      fc_norm: normalise the features after pooling instead of the tokens, which then leave as they are.
      patch_bias: whether the patch embedding has a bias; ``None``: unless ``pre_norm``.
      freeze_patch: patch embedding fixed at its random start (MoCo v3), kept in ``state["frozen"]``.
      mask_token: whether there is a parameter ``mask_token``, at first 0, for hidden patches; without a
        ``mask`` it does nothing and gets no gradient.
      init: linear kernels Xavier uniform (``'xavier'``: MAE), the same with queries, keys and values drawn
        separately and a class token near 0 (``'xavier_split'``: MoCo v3), N(0, 0.02²) (``'trunc_normal'``:
        timm, DINO), or N(0, 0.02²) cut at one deviation, the mask token too, with the last layer of block l's branches divided
        by √(2l) (``'beit'``).
      dtype: compute type ``'float32'`` or ``'bfloat16'``; parameters, statistics and outputs are float32.
      remat: compute each block's inside again in the backward pass instead of storing it.
      remat_keeps: with ``remat``, what of a block is stored all the same, see :func:`ssl_jax.models.remat.recomputed`.

    Returns:
      The network; ``state`` is ``{}`` unless ``freeze_patch``.

    Raises:
      ValueError: an option outside its range.

    >>> import jax, jax.numpy as jnp
    >>> network = vit("vit_nano", width=8, depth=1, heads=2, patch=4, image_size=8)
    >>> images = jnp.zeros((2, 8, 8, 3))
    >>> params, state = network.init(jax.random.key(0), images)
    >>> network.apply(params, state, images)[0].shape
    (2, 8)
    >>> network.apply(params, state, images, keep=jnp.array([[3, 1], [0, 2]]), output="tokens")[0].shape
    (2, 3, 8)
    >>> network.apply(params, state, images, output="attention")[0].shape
    (2, 2, 5, 5)

    References: Dosovitskiy et al. 2021, eq. 1-4; Chen et al. 2021 (MoCo v3), section 4 for ``freeze_patch``; Bao et al. 2021
    (BEiT) for ``'relative'``; Siméoni et al. 2025 (DINOv3) for ``'rope'``. Deviations: the class token has no learned position
    of its own, as their sum is all that counts (``torch_names_vit`` adds them up); biases start at 0 where MAE leaves
    PyTorch's default in the patch embedding; BEiT's keys have no bias, here ``key_bias`` gives them one, which the softmax
    does not see.
    """
    options = {key: value for key, value in locals().items() if key != "name"}
    check.require(width % heads == 0, "width", width, f"a multiple of heads={heads}")
    check.require(image_size % patch == 0, "image_size", image_size, f"a multiple of patch={patch}")
    check.choice("pool", pool, POOLS)
    check.require(class_token or pool != "cls", "pool", pool, "'mean' or 'map', as there is no class token")
    gated = pool == "map" and mlp == "swiglu"
    check.require(not gated, "mlp", mlp, "another one with pool='map', whose MLP has no gates")
    check.choice("position", position, POSITIONS)
    check.choice("position_resize", position_resize, RESIZES)
    relative = position == "relative" or not relative_per_block
    check.require(relative, "relative_per_block", relative_per_block, "False unless position='relative'")
    _check_rope(options)
    check.choice("mlp", mlp, MLPS)
    check.require(
        key_bias or qkv_bias, "key_bias", key_bias, "True with qkv_bias=False, which leaves out all biases"
    )
    check.require(norm_epsilon > 0, "norm_epsilon", norm_epsilon, "a number above 0")
    check.choice("init", init, INITS)
    check.require(0 <= drop_path < 1, "drop_path", drop_path, "0 <= drop_path < 1")
    check.choice("drop_path_kind", drop_path_kind, DROP_PATHS)
    check.choice("dtype", dtype, DTYPES)
    require_remat(remat, remat_keeps)
    fields = {**options, "scheme": options["init"]}
    del fields["init"]
    return from_linen(VisionTransformer(**fields), features=width, config={"name": name, **options})


def _check_rope(options: Mapping[str, Any]) -> None:
    width, heads = options["width"], options["heads"]
    if options["position"] == "rope":
        check.require(width // heads % 4 == 0, "width", width, f"4 heads={heads} times a whole number")
        check.require(options["rope_base"] > 0, "rope_base", options["rope_base"], "a number above 0")
        check.require(options["rope_shift"] >= 0, "rope_shift", options["rope_shift"], "0 or more")
        for name in ("rope_jitter", "rope_rescale"):
            check.require(options[name] >= 1, name, options[name], "1 or more")
        return
    for name, value in {**ROPE_OFF, "rope_base": 100.0}.items():
        check.require(options[name] == value, name, options[name], f"{value} unless position='rope'")


BUILDERS: dict[str, Callable[..., Network]] = {
    "vit_micro": functools.partial(vit, "vit_micro", width=128, depth=4, heads=4, patch=4, image_size=32),
    "vit_tiny": functools.partial(vit, "vit_tiny", width=192, depth=12, heads=3),
    "vit_small": functools.partial(vit, "vit_small", width=384, depth=12, heads=6),
    "vit_base": functools.partial(vit, "vit_base", width=768, depth=12, heads=12),
    "vit_large": functools.partial(vit, "vit_large", width=1024, depth=24, heads=16),
    "vit_huge": functools.partial(vit, "vit_huge", width=1280, depth=32, heads=16, patch=14),
}
