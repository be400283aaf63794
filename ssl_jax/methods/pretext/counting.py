"""Learning to count (Noroozi et al., ICCV 2017): what an image holds is the sum of what its four tiles hold."""

import math

import jax
import jax.numpy as jnp

from ssl_jax.augment import presets
from ssl_jax.augment.views import View
from ssl_jax.core.check import positive, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.losses.pretext import counting
from ssl_jax.methods.method import CollapseValue, Limits, Method
from ssl_jax.methods.parts.siamese import merge_views, split_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.ops.patches import patchify
from ssl_jax.ops.tiles import FILTERS, halve


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    margin: float = 10.0,
    elementwise: bool = False,
    filters: tuple[str, ...] = FILTERS,
    counts: int = 1000,
    hidden_dim: int = 4096,
    hidden_layers: int = 2,
) -> Method:
    """Learning to count.

    Counts φ(x) = relu(h(f(x))) of each view at half its size, D∘x, are to be the sum of those of its four quarters T_j∘x, and
    not those of another image y of the batch::

        L = mean [ ‖φ(D∘x) − Σ_j φ(T_j∘x)‖² + max(0, M − ‖φ(D∘y) − Σ_j φ(T_j∘x)‖²) ]

    Without the second term φ = 0 would cost nothing; with it, it costs M. The encoder is trained on images of half the size of
    the views and encodes whole ones with the same parameters; the patches of a ViT have to divide both, and its positions must
    not be relative.

    Args:
      encoder: the network to train.
      views: one view of an even size; ``None``: :func:`ssl_jax.augment.presets.mae`, a crop and a flip.
      margin: M > 0. May be traced.
      elementwise: hinge and square for each count, as in a public reimplementation, not for their vector. See
        :func:`ssl_jax.losses.pretext.counting`.
      filters: of which D draws one an image, see :func:`ssl_jax.ops.tiles.halve`; one alone can be told from no filter.
      counts: width of φ.
      hidden_dim: width of the hidden layers of the head, with BatchNorm and ReLU.
      hidden_layers: their number.

    Returns:
      The method. ``encode`` gives the encoder's features of whole images, before the head. Metrics: ``accuracy``, the share of
      images whose tiles sum to something nearer their own counts than the other image's; ``count``, the mean of φ(D∘x).

    Raises:
      ValueError: a view of an odd size, an option out of its range, more than one view, a batch of one image.

    Reference: "Representation Learning by Learning to Count". Deviations: y is the image before x in the batch;
    the head has BatchNorm, which AlexNet's has not, and its last kernel starts smaller by √counts.
    """
    positive("margin", margin)
    require(counts >= 1, "counts", counts, "an integer of 1 or more")
    require(hidden_layers >= 0, "hidden_layers", hidden_layers, "an integer of 0 or more")
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    half, odd = divmod(views[0].size, 2)
    require(not odd and half >= 1, "views", f"{views[0].size} pixels", "an even size: tiles are its quarters")
    head = heads.mlp(
        (hidden_dim,) * hidden_layers + (counts,), hidden_bias=False, dtype=compute_dtype(encoder)
    )
    network = chain(encoder=encoder, head=head)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        params, state = network.init(key, jnp.zeros((1, half, half, batch["views"][0].shape[-1])))
        last = params["head"][f"dense_{hidden_layers}"]
        # Squared errors start far below M, however many counts: above it all counts die at once, as 0 is then the shortest way.
        last["kernel"] = last["kernel"] / math.sqrt(counts)
        return params, state

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        filter_key, network_key = jax.random.split(key)
        images = batch["views"][0][:, 0]
        require(len(images) >= 2, "batch", f"{len(images)} image", "two or more: each needs another one")
        quarters = patchify(images, patch=half).reshape(len(images), 4, half, half, -1)
        inputs = jnp.concatenate([halve(filter_key, images, filters=filters)[:, None], quarters], axis=1)
        (_, outputs), state = network.apply(params, state, merge_views(inputs), train=True, key=network_key)
        phi = split_views(jax.nn.relu(outputs), 5)
        wholes, tiles = phi[:, 0], phi[:, 1:]
        others = jnp.roll(wholes, 1, axis=0)
        value = counting(wholes, tiles, others, margin=margin, elementwise=elementwise)
        sums = jnp.sum(tiles, axis=1)
        own, other = (jnp.sum((x - sums) ** 2, axis=1) for x in (wholes, others))
        return value, (state, {"accuracy": jnp.mean(own < other), "count": jnp.mean(wholes)})

    collapse = (CollapseValue("loss", margin, "every count of every image is 0"),)
    return Method(views, init, loss, encoder, collapse=collapse, limits=Limits(least_batch=2))
