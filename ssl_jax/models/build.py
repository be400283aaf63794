"""Encoders by name."""

from collections.abc import Callable
from typing import Any

from ssl_jax.core import check
from ssl_jax.core.types import Params, State
from ssl_jax.models import convnet, convnext, dvae, ladder, perceptron, resnet, vit
from ssl_jax.models.lora import merged_params, with_lora
from ssl_jax.models.network import Network, frozen

BUILDERS: dict[str, Callable[..., Network]] = {
    **convnet.BUILDERS,
    **convnext.BUILDERS,
    **dvae.BUILDERS,
    **ladder.BUILDERS,
    **perceptron.BUILDERS,
    **resnet.BUILDERS,
    **vit.BUILDERS,
}
ADAPTATION = ("all_frozen", "lora_rank", "lora_alpha", "lora_targets")
"""Options of :func:`build` that every encoder has: what of it is trained."""


def build(name: str, **options: Any) -> Network:
    """Build an encoder by name.

    Args:
      name: a key of ``BUILDERS``.
      **options: the options of that builder, and those of :func:`adapt`.

    Returns:
      The network; ``build(**network.config)`` builds the same again, also after a round trip through JSON.

    Raises:
      ValueError: unknown name or option; the error names the nearest right one.

    >>> build("convnet", widths=(8, 16), grid=1).features
    16
    >>> build("convnet", widht=8)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: convnet.widht is not an option: did you mean 'widths'? allowed: dtype, grid, ..., widths
    """
    builder = BUILDERS[check.choice("name", name, BUILDERS)]
    adaptation = {option: options.pop(option) for option in ADAPTATION if option in options}
    return adapt(check.call(builder, where=name, options=options), **adaptation)


def adapt(network: Network, *, all_frozen: bool = False, lora_rank: int = 0, **lora: Any) -> Network:
    """Say what of an encoder is trained: all of it, low-rank matrices in its place, or nothing.

    Args:
      network: an encoder of a builder.
      all_frozen: nothing is trained, see :func:`ssl_jax.models.network.frozen`.
      lora_rank: rank of the matrices of :func:`ssl_jax.models.lora.with_lora`; 0: none.
      **lora: ``lora_alpha`` and ``lora_targets``, its further options.

    Raises:
      ValueError: nothing is to be trained, and LoRA is.
    """
    options = {name.removeprefix("lora_"): value for name, value in lora.items()}
    check.require(
        not (all_frozen and lora_rank), "lora_rank", lora_rank, "0 for an encoder that is frozen for ever"
    )
    if lora_rank:
        return with_lora(network, rank=lora_rank, **options)
    return frozen(network) if all_frozen else network


def merge_lora(network: Network, params: Params, state: State) -> tuple[Network, Params, State]:
    """Turn an encoder into the plain one that computes the same, without LoRA and trainable again.

    Args:
      network: an encoder of :func:`build`, with LoRA or without.
      params: its params.
      state: its state.

    Returns:
      ``(network, params, state)``; of a plain encoder what was given.
    """
    if not any(option in network.config for option in ADAPTATION):
        return network, params, state
    config = {option: value for option, value in network.config.items() if option not in ADAPTATION}
    return build(**config), *merged_params(network, params, state)


def without_draws(encoder: Network) -> Network:
    """Build the same architecture without what training draws, stochastic depth and moved rotary positions, for teachers."""
    off = {"drop_path": 0.0, **vit.ROPE_OFF}
    changed = {name: value for name, value in off.items() if encoder.config.get(name, value) != value}
    if not changed:
        return encoder
    # It starts as the encoder does, whose variables it shares.
    return build(**{**encoder.config, **changed})._replace(init=encoder.init)
