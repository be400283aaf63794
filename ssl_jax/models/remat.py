"""What the backward pass keeps of an encoder's blocks, and what it computes again."""

from typing import Any

import jax
from flax import linen as nn
from jax import lax

from ssl_jax.core import check

KEEPS = ("nothing", "products")


def require_remat(remat: bool, keeps: str) -> None:
    """Refuse what is not in ``KEEPS``, and products kept where nothing is computed again."""
    check.choice("remat_keeps", keeps, KEEPS)
    check.require(
        remat or keeps == "nothing", "remat_keeps", keeps, "'nothing' where remat=False, which keeps all"
    )


def rematerialize(block: Any, remat: bool, keeps: str, *, static: tuple[int, ...]) -> Any:
    """Let the backward pass compute the inside of a block again, but for what it keeps; do nothing without ``remat``.

    Args:
      block: class of a linen module.
      remat: whether anything is computed again.
      keeps: ``'nothing'`` but the block's input; or ``'products'``: also the results of convolutions and of products with
        weights, so that norms, activation functions and attention are computed again, and hardly any operations are added.
      static: places of the call's arguments that are Python values, counted with ``self``.

    >>> import flax.linen as nn
    >>> rematerialize(nn.Dense, False, "nothing", static=()) is nn.Dense
    True

    Reference: Chen et al. 2016, Training deep nets with sublinear memory cost; the choice of products is that of
    ``jax.checkpoint_policies.dots_with_no_batch_dims_saveable``, here with convolutions.
    """
    if not remat:
        return block
    return nn.remat(block, static_argnums=static, policy=_products if keeps == "products" else None)


def _products(primitive: Any, *arguments: Any, **options: Any) -> Any:
    if primitive is lax.conv_general_dilated_p:
        return True
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *arguments, **options)
