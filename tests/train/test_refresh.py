"""What comes before steps 0, n, 2n: the refresh, what it reinitializes and which images follow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.data.batches import TooManyCorrupt
from ssl_jax.data.sources import ArraySource, CorruptImage
from ssl_jax.methods.contrastive import simclr
from ssl_jax.methods.method import Refresh, encoder_at
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.loop import fit
from ssl_jax.train.refresh import reinitialize
from ssl_jax.train.run import Host, Run, Watch
from ssl_jax.train.sharding import make_mesh

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
MOMENTUM = optim.from_options("sgd", steps=6, learning_rate=0.1, scaling="none", batch_size=8, momentum=0.9)
ONE = Host(mesh=make_mesh(devices=jax.devices()[:1]))


class Remembering:
    """SimCLR whose state counts its refreshes, sums what they were given and notes which images came since the last."""

    def __init__(self, **plan):
        encoder = models.build("convnet", widths=(4,), grid=1)
        method = simclr.build(
            encoder,
            views=presets.simclr(8, blur_prob=0.0),
            projector_width=8,
            projection=4,
            projector_layers=1,
        )

        def describe(params, state, images):
            del params, state
            return images.mean((1, 2, 3))[:, None]

        def init(key, batch):
            params, state = method.init(key, batch)
            counted = {"refreshes": jnp.int32(0), "sum": jnp.float32(0), "gathered": jnp.int32(0)}
            return params, {
                "simclr": state,
                **counted,
                "seen": jnp.zeros(24, jnp.int32),
                "key": jnp.uint32(0),
            }

        def loss(params, state, batch, key, step):
            value, (kept, metrics) = method.loss(params, state["simclr"], batch, key, step)
            seen = state["seen"].at[batch["index"]].add(1)
            return value, ({**state, "simclr": kept, "seen": seen}, metrics)

        def refresh(state, features, key):
            count = 0 if features is None else features.shape[0]
            total = 0.0 if features is None else features.sum()
            return {
                **state,
                "refreshes": state["refreshes"] + 1,
                "gathered": state["gathered"] + count,
                "sum": total + 0.0 * state["sum"],
                "seen": jnp.zeros_like(state["seen"]),
                "key": jax.random.bits(key),
            }

        self.method = dataclasses.replace(
            method,
            init=init,
            loss=loss,
            refresh=Refresh(describe, refresh, **plan),
            encoder_variables=encoder_at("simclr"),
        )

    def fit(self, steps, **options):
        options = {"refresh_every": 2, **options}
        checkpoints = options.pop("checkpoints", None)
        source = options.pop("source", ArraySource(IMAGES))
        run = Run(self.method, MOMENTUM, source, steps=steps, batch_size=8, **options)
        return fit(run, ONE, Watch(checkpoints=checkpoints)).state


def test_refresh_comes_before_the_first_step_and_every_n_with_a_row_for_every_image():
    one, two, five = (Remembering().fit(steps).state for steps in (1, 2, 5))
    assert [int(s["refreshes"]) for s in (one, two, five)] == [1, 1, 3]
    assert int(five["gathered"]) == 3 * 24
    assert float(five["sum"]) == pytest.approx((IMAGES / 255).mean((1, 2, 3)).sum(), rel=1e-5)
    assert int(one["key"]) != int(five["key"])
    assert int(two["seen"].sum()) == 16
    assert int(five["seen"].sum()) == 8


class Damaged(ArraySource):
    """The images, of which some cannot be read."""

    def __init__(self, corrupt):
        super().__init__(IMAGES)
        self.corrupt = corrupt

    def __getitem__(self, index):
        if index in self.corrupt:
            raise CorruptImage(self.file_name(index), "truncated")
        return super().__getitem__(index)


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_a_refresh_has_a_row_for_every_image_also_where_some_cannot_be_read():
    """The row of image i is that of i, or of the next readable one; the share that is put up with is the run's."""
    corrupt = {0, 5, 6, 23}
    state = Remembering().fit(1, source=Damaged(corrupt), max_corrupt_fraction=0.2).state
    rows = [next(j % 24 for j in range(i, 48) if j % 24 not in corrupt) for i in range(24)]
    assert int(state["gathered"]) == 24
    assert float(state["sum"]) == pytest.approx((IMAGES / 255).mean((1, 2, 3))[rows].sum(), rel=1e-5)
    assert not np.asarray(state["seen"])[sorted(corrupt)].any(), "no row is written for what was not seen"
    with pytest.raises(TooManyCorrupt, match="4 of the 24 images"):
        Remembering().fit(1, source=Damaged(corrupt), max_corrupt_fraction=0.1)


def test_features_are_gathered_for_the_first_refresh_only_where_the_method_says_so():
    state = Remembering(features_once=True).fit(5).state
    assert int(state["refreshes"]) == 3
    assert int(state["gathered"]) == 24


def test_between_refreshes_training_goes_through_the_images_that_the_method_chose():
    def order(state, key):
        del key
        return jnp.repeat(state["refreshes"] + jnp.arange(2), 3)

    assert np.flatnonzero(Remembering(order=order).fit(2).state["seen"]).tolist() == [1, 2]
    later = Remembering(order=order).fit(4).state["seen"]
    assert np.flatnonzero(later).tolist() == [2, 3]
    assert int(later.sum()) == 16


def test_reinitialized_parameters_start_again_and_others_go_on():
    kept, drawn = Remembering().fit(3), Remembering(reinit=("projector",)).fit(3)
    before, after = Remembering(reinit=("projector",)).fit(2), Remembering(reinit=("projector",))
    fresh = after.fit(2, seed=1)
    mixed = reinitialize(before, fresh, ("projector",))
    for tree, old, new in (
        (mixed.params, before.params, fresh.params),
        (mixed.opt_state.rule.trace, before.opt_state.rule.trace, fresh.opt_state.rule.trace),
    ):
        jax.tree.map(np.testing.assert_array_equal, tree["projector"], new["projector"])
        jax.tree.map(np.testing.assert_array_equal, tree["encoder"], old["encoder"])
    assert not np.allclose(*(jax.tree.leaves(s.params["projector"])[-1] for s in (kept, drawn)))
    assert int(drawn.opt_state.count) == 3


@pytest.mark.parametrize("killed_after", [pytest.param(2, marks=pytest.mark.long), 3])
def test_a_run_that_goes_on_in_the_middle_of_a_stretch_or_at_its_end_is_the_same_in_every_bit(
    tmp_path, killed_after
):
    def order(state, key):
        return jax.random.randint(key, (24,), 0, 24) + 0 * state["refreshes"]

    remembering = Remembering(order=order, reinit=("projector",))
    whole = remembering.fit(5)
    for steps in (killed_after, 5):
        with Checkpoints(tmp_path / str(killed_after), every=1, keep=1, metadata={}) as checkpoints:
            parts = remembering.fit(steps, checkpoints=checkpoints)
    leaves = [jax.tree.leaves(s._replace(key=jax.random.key_data(s.key))) for s in (whole, parts)]
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("plan", "every", "message"),
    [
        ({}, 0, "refresh_every=0"),
        ({"reinit": ("head",)}, 2, "reinit='head'"),
    ],
)
def test_what_does_not_fit_is_refused(plan, every, message):
    with pytest.raises(ValueError, match=message):
        Remembering(**plan).fit(2, refresh_every=every)


def test_what_looks_at_the_images_once_needs_no_interval():
    """Without an interval it does so before step 0 alone; with one it is called again, without features."""
    assert int(Remembering(features_once=True).fit(5, refresh_every=0).state["refreshes"]) == 1
    with pytest.raises(ValueError, match="refresh_every=0"):
        Remembering(features_once=True, order=lambda state, key: jnp.arange(24)).fit(2, refresh_every=0)


def test_a_method_without_refresh_refuses_an_interval():
    method = dataclasses.replace(Remembering().method, refresh=None)
    with pytest.raises(ValueError, match="refresh_every=2"):
        fit(Run(method, MOMENTUM, ArraySource(IMAGES), steps=1, batch_size=8, refresh_every=2), ONE)
