"""Methods with crops of several sizes: packed into one sequence they have the loss, gradients and state of separate passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dino as dino_config
from ssl_jax.augment import presets
from ssl_jax.config import build as from_config
from ssl_jax.core import trees
from ssl_jax.methods.clustering import swav
from ssl_jax.methods.distillation import dino, dinov2, ibot
from ssl_jax.methods.parts.self_distillation import DinoHead, PatchHead
from ssl_jax.models.build import build
from ssl_jax.models.packing import pack_crops

WIDTHS = {"prototypes": 8, "hidden_dim": 16, "bottleneck": 8}
VIEWS = presets.dino(size=12, local_size=8, local_count=3)
METHODS = {
    "ibot": lambda encoder: ibot.build(encoder, views=VIEWS, head=PatchHead(**WIDTHS)),
    "dino": lambda encoder: dino.build(encoder, views=VIEWS, head=DinoHead(**WIDTHS)),
    "dinov2": lambda encoder: dinov2.build(encoder, views=VIEWS, head=PatchHead(**WIDTHS)),
    "swav": lambda encoder: swav.build(encoder, views=VIEWS),
}


@pytest.mark.parametrize(
    "name", [name if name == "dino" else pytest.param(name, marks=pytest.mark.long) for name in METHODS]
)
def test_packed_crops_have_the_loss_and_gradients_of_separate_passes(name):
    encoder = build(
        "vit_tiny",
        width=16,
        depth=1,
        heads=2,
        patch=4,
        image_size=12,
        drop_path=0.3,
        drop_path_uniform=True,
        mask_token=True,
    )
    rng = np.random.default_rng(0)
    crops = tuple(jnp.asarray(rng.random((4, v, s, s, 3)), jnp.float32) for v, s in ((2, 12), (3, 8)))
    batch = {"views": crops, "index": jnp.arange(4)}
    key = jax.random.key(1)
    found = []
    for network in (encoder, pack_crops(encoder)):
        method = METHODS[name](network)
        params, state = method.init(jax.random.key(0), batch)
        run = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
        found.append(run(params, state, batch, key, jnp.int32(0)))
    ((loss, (state, metrics)), gradients), ((packed_loss, (packed_state, packed_metrics)), packed) = found
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-5)
    for wanted, result in ((gradients, packed), (state, packed_state), (metrics, packed_metrics)):
        result = trees.flatten(result)
        for path, leaf in trees.flatten(wanted).items():
            np.testing.assert_allclose(result[path], leaf, rtol=1e-3, atol=1e-5, err_msg=path)


def test_a_config_packs_crops_of_several_sizes_of_a_vit():
    config = from_config.to_dict(dino_config.get_config("imagenet,vit_small"))
    packed = {**config, "host": {**config["host"], "packed_crops": True}}
    assert from_config.method(packed).encoder.packed
    assert not from_config.method(config).encoder.packed
    one_size = {**packed, "views": {**packed["views"], "local_count": 0}}
    with pytest.raises(
        ValueError, match=r"config\.host\.packed_crops=True: allowed is False where all views"
    ):
        from_config.method(one_size)
