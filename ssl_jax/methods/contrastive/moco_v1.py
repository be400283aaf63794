"""MoCo v1 (He et al., CVPR 2020): InfoNCE against a queue of keys, with a linear projector and simple views."""

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.types import Schedule
from ssl_jax.methods.contrastive import moco_v2
from ssl_jax.methods.method import Method
from ssl_jax.models.network import Network


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    projection: int = 128,
    temperature: float = 0.07,
    queue_size: int = 65536,
    decay: float | Schedule = 0.999,
    symmetric: bool = False,
    bn_groups: int = 1,
    block_size: int | None = None,
) -> Method:
    """MoCo v1: :func:`ssl_jax.methods.contrastive.moco_v2.build` with a linear projector, τ = 0.07 and other views.

    ``L = −mean log( exp(q·k⁺/τ) / (exp(q·k⁺/τ) + Σ_j exp(q·queue_j/τ)) )`` with ``q = n(g(f(v₁)))``,
    ``k⁺ = sg n(g'(f'(v₂)))``, g linear, τ ``temperature`` and (f', g') the EMA of (f, g).

    Args:
      encoder: the network to train.
      views: two views of one size; ``None``: :func:`ssl_jax.augment.presets.moco_v1`.
      projection: width of g's output.
      temperature: τ > 0. May be traced.
      queue_size: number of negatives K.
      decay: momentum m of the key encoder, 0 to 1, or a schedule of it. A float may be traced.
      symmetric: average over both directions (each view queries the other; both keys enter the queue).
      bn_groups: groups of the batch with BatchNorm statistics of their own, shuffled for the keys. 1: none.
      block_size: queue entries a block of the loss that never holds the N x K matrix; ``None``: the plain form.

    Returns:
      The method. ``encode`` gives the query encoder's features.

    Raises:
      ValueError: ``queue_size`` or ``bn_groups`` below 1.

    Reference: Momentum Contrast for Unsupervised Visual Representation Learning, algorithm 1 and section 3;
    facebookresearch/moco.
    """
    return moco_v2.build(
        encoder,
        views=presets.moco_v1() if views is None else views,
        projector_layers=1,
        projection=projection,
        temperature=temperature,
        queue_size=queue_size,
        decay=decay,
        symmetric=symmetric,
        bn_groups=bn_groups,
        block_size=block_size,
    )
