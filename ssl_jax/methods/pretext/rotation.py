"""RotNet (Gidaris et al., ICLR 2018): tell by which of four angles an image was turned."""

import math

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment import presets
from ssl_jax.augment.operations import Rotate
from ssl_jax.augment.views import View
from ssl_jax.core.check import choice, require
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import CollapseValue, Method
from ssl_jax.methods.parts.siamese import merge_views
from ssl_jax.models import heads
from ssl_jax.models.network import Network, chain, compute_dtype
from ssl_jax.ops.tiles import rotate

ANGLES = (0, 90, 180, 270)
COPIES = ("all", "one")


def build(
    encoder: Network,
    *,
    views: tuple[View, ...] | None = None,
    rotations: tuple[int, ...] = ANGLES,
    copies: str = "all",
    hidden_dim: int = 1024,
    hidden_layers: int = 0,
) -> Method:
    """RotNet.

    ``L = mean −log softmax(W f(rot_r(v)))_r`` over the views v of all images and the rotations r, all of them in one batch.
    Views are square and turned last: turning before a mirror image is taken would make 90 degrees look like 270. A view that is
    turned at random has no upright left to find, and is refused.

    Args:
      encoder: the network to train, on square images.
      views: one view; ``None``: :func:`ssl_jax.augment.presets.mae`, a crop and a flip.
      rotations: two or more of 0, 90, 180 and 270 degrees, counter-clockwise; the paper's ablation has all, (0, 180) and
        (90, 270).
      copies: ``"all"`` rotations of each view, or ``"one"`` at random (vissl).
      hidden_dim: width of the hidden layers of the head, with BatchNorm and ReLU.
      hidden_layers: their number; 0: the head is linear, as in the paper.

    Returns:
      The method. ``encode`` gives the encoder's features; metrics hold the ``accuracy`` of the rotations.

    Raises:
      ValueError: rotations that are none or not distinct, an unknown ``copies``, more than one view, a view with
        ``rotate_prob``.

    References: "Unsupervised Representation Learning by Predicting Image Rotations";
    gidariss/FeatureLearningRotNet. Deviations: the ablation's eight rotations, by 45 degrees, are left out: they need
    interpolation, which gives them away. vissl turns images before it crops and mirrors them, and leaves black corners.
    """
    choice("copies", copies, COPIES)
    for angle in rotations:
        choice("rotations", angle, ANGLES)
    distinct = len(set(rotations)) == len(rotations) >= 2
    require(distinct, "rotations", rotations, f"two or more different ones of {ANGLES}")
    require(hidden_layers >= 0, "hidden_layers", hidden_layers, "an integer of 0 or more")
    views = presets.mae() if views is None else views
    require(len(views) == 1, "views", len(views), "one view")
    upright = (
        "without Rotate: what is already turned at random has no upright, so that its rotation cannot be told"
    )
    require(views[0].find(Rotate) is None, "views[0].ops", views[0].ops, upright)
    classes, quarters = len(rotations), jnp.array([angle // 90 for angle in rotations])
    head = heads.mlp(
        (hidden_dim,) * hidden_layers + (classes,), hidden_bias=False, dtype=compute_dtype(encoder)
    )
    network = chain(encoder=encoder, head=head)

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return network.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        draw_key, network_key = jax.random.split(key)
        turned = rotate(batch["views"][0][:, 0])[:, quarters]
        labels = jnp.broadcast_to(jnp.arange(classes), turned.shape[:2])
        if copies == "one":
            labels = jax.random.randint(draw_key, (len(turned), 1), 0, classes)
            turned = jnp.take_along_axis(turned, labels[..., None, None, None], axis=1)
        labels = labels.reshape(-1)
        (_, logits), state = network.apply(params, state, merge_views(turned), train=True, key=network_key)
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        accuracy = jnp.mean(jnp.argmax(logits, axis=1) == labels)
        return value, (state, {"accuracy": accuracy})

    collapse = (CollapseValue("loss", math.log(classes), "rotations cannot be told from what is seen"),)
    return Method(views, init, loss, encoder, collapse=collapse)
