"""LoRA (Hu et al., ICLR 2022): an encoder that stays as it is, and low-rank matrices that are trained in its place."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import check, trees
from ssl_jax.core.types import Array, Key, Params, State
from ssl_jax.models.network import FRESH, Network

TARGETS = ("qkv", "proj", "fc1", "fc2")
"""Linear layers of the blocks of a transformer, and of ConvNeXt's."""


def with_lora(
    network: Network, *, rank: int, alpha: float = 16.0, targets: tuple[str, ...] = TARGETS
) -> Network:
    """Freeze a network and give it low-rank matrices to train.

    ``y = x (W + (α / r) A B)`` for every linear kernel ``W [d, k]`` whose path matches, with ``A [d, r]`` drawn from N(0, 1/d)
    and ``B [r, k]`` 0 at the start, so that the network begins as it was. (The paper draws A from a Gaussian; its code from a
    uniform distribution of variance 1/(3d).) The product is added to the kernel before it is applied, which keeps no further
    activation, and is what :func:`merged_params` leaves for good.

    Args:
      network: an encoder from ``models.build``.
      rank: r, 1 or more.
      alpha: α, factor of the update.
      targets: regular expressions; a kernel of two axes is adapted where one is found in its path, such as
        ``blocks_0/attn/qkv/kernel``.

    Returns:
      The network. Its params are ``{"lora": {..., "qkv": {"a", "b"}}}``, and ``mask_token`` where it has one; the frozen
      parameters are ``state["base"]``, beside the state of the network. ``config`` gets ``lora_rank``, ``lora_alpha`` and
      ``lora_targets``, and ``models.build`` builds the same again.

    Raises:
      ValueError: a rank below 1, or (when variables are made) no kernel that matches.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models.build import build
    >>> vit = build("vit_tiny", width=8, depth=1, heads=2, patch=4, image_size=8)
    >>> network, images = with_lora(vit, rank=2, targets=("qkv",)), jnp.ones((1, 8, 8, 3))
    >>> params, state = network.init(jax.random.key(0), images)
    >>> {path: leaf.shape for path, leaf in trees.flatten(params).items()}
    {'lora/blocks_0/attn/qkv/a': (8, 2), 'lora/blocks_0/attn/qkv/b': (2, 24)}
    >>> bool((network.apply(params, state, images)[0] == vit.apply(state["base"], {}, images)[0]).all())
    True

    Reference: LoRA: Low-Rank Adaptation of Large Language Models, section 4.1.
    """
    check.require(rank >= 1, "lora_rank", rank, "an integer of 1 or more")
    scale = alpha / rank

    def init(key: Key, inputs: Array, **options: Any) -> tuple[Params, State]:
        base, state = network.init(key, inputs, **options)
        flat = trees.flatten(base)
        trained = {path: flat.pop(path) for path in FRESH if path in flat}
        adapted = [path for path, leaf in flat.items() if _is_target(path, leaf, targets)]
        if not adapted:
            kernels = [path for path, leaf in flat.items() if path.endswith("/kernel") and leaf.ndim == 2]
            has = (
                f"its linear kernels are {', '.join(kernels[:4])}{', ...' if len(kernels) > 4 else ''}"
                if kernels
                else "it has convolutions only"
            )
            name = network.config.get("name", "the encoder")
            raise ValueError(f"lora_targets={tuple(targets)!r}: no linear kernel of {name} matches; {has}")
        lora = {}
        for i, path in enumerate(adapted):
            rows, columns = flat[path].shape
            name, draw = path.removesuffix("/kernel"), jax.random.fold_in(jax.random.fold_in(key, 1), i)
            lora[f"{name}/a"] = jax.random.normal(draw, (rows, rank)) / np.sqrt(rows)
            lora[f"{name}/b"] = jnp.zeros((rank, columns))
        params = {"lora": trees.unflatten(lora), **trees.unflatten(trained)}
        return params, {**state, "base": trees.unflatten(flat)}

    def apply(params: Params, state: State, inputs: Array, **options: Any) -> tuple[Any, State]:
        rest = {name: part for name, part in state.items() if name != "base"}
        outputs, rest = network.apply(_merged(params, state["base"], scale), rest, inputs, **options)
        return outputs, {**rest, "base": state["base"]}

    config = {
        **network.config,
        "lora_rank": rank,
        "lora_alpha": float(alpha),
        "lora_targets": tuple(targets),
    }
    return Network(init, apply, network.features, config)


def has_lora(network: Network) -> bool:
    """Tell whether a network is one of :func:`with_lora`."""
    return bool(network.config.get("lora_rank"))


def merged_params(network: Network, params: Params, state: State) -> tuple[Params, State]:
    """Add the low-rank products to the kernels: params and state of the network without LoRA.

    ``W' = W + (α / r) A B``; the others are as they were.

    Args:
      network: from :func:`with_lora`; of any other network the arrays are returned as they are.
      params: its params.
      state: its state.
    """
    if not has_lora(network):
        return params, state
    scale = network.config["lora_alpha"] / network.config["lora_rank"]
    rest = {name: part for name, part in state.items() if name != "base"}
    return _merged(params, state["base"], scale), rest


def _is_target(path: str, leaf: Any, targets: tuple[str, ...]) -> bool:
    return path.endswith("/kernel") and leaf.ndim == 2 and trees.matches(targets, path)


def _merged(params: Params, base: Params, scale: float) -> Params:
    flat, lora = trees.flatten(base), trees.flatten(params["lora"])
    for name in [path.removesuffix("/a") for path in lora if path.endswith("/a")]:
        kernel = flat[f"{name}/kernel"]
        product = jnp.matmul(lora[f"{name}/a"], lora[f"{name}/b"], precision="highest")
        flat[f"{name}/kernel"] = kernel + scale * product.astype(kernel.dtype)
    trained = {name: part for name, part in params.items() if name != "lora"}
    return {**trees.unflatten(flat), **trained}
