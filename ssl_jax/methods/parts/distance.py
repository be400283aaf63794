"""Distance of embeddings in metric learning: pairwise contrastive loss, triplet loss."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distance:
    """Options of the distance D, see :func:`ssl_jax.losses.metric.distances`.

    Attributes:
      normalize: embeddings are L2-normalised.
      p: D is the distance of the p-norm, p = 1, 2, ...
      squared: D is the squared distance.
    """

    normalize: bool = True
    p: int = 2
    squared: bool = False
