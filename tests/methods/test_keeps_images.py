"""Which methods keep something for each training image: those whose state has an axis as long as the source, and no others."""

import importlib

import jax
import jax.numpy as jnp
import pytest

from ssl_jax.augment.views import groups
from ssl_jax.config import build
from ssl_jax.methods.registry import names
from tests.methods.case import method_of

IMAGES = 10_007
"""A prime that nothing else of a smoke config is."""
KEEPING = {"deepcluster", "deepcluster_v2", "exemplar", "npid", "pseudo_labels", "temporal_ensembling"}


def has_a_row_for_each_image(method):
    """Whether an axis of the state, or of the parameters, is as long as the source."""
    sizes = [[method.views[i] for i in group] for group in groups(method.views)]
    shapes = [(1, len(views), views[0].size, views[0].size, max(len(views[0].mean), 1)) for views in sizes]
    batch = {"views": tuple(jnp.zeros(shape) for shape in shapes)}
    start = jax.eval_shape(method.init, jax.random.key(0), batch)
    return any(IMAGES in leaf.shape for leaf in jax.tree.leaves(start))


@pytest.mark.parametrize("name", names())
def test_a_method_says_so_if_it_keeps_something_for_each_image(name):
    get_config = importlib.import_module(f"configs.{name}").get_config
    config = build.to_dict(get_config("smoke", {"data.num_examples": IMAGES}))
    method = build.method(config)
    assert method.keeps_images == has_a_row_for_each_image(method) == (name in KEEPING)


def test_simsiam_keeps_images_where_it_averages_their_targets():
    assert not method_of("simsiam").keeps_images
    assert method_of("simsiam", expectation_decay=0.8, num_examples=IMAGES).keeps_images
