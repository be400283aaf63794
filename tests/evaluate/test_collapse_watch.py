"""The watch warns once for each kind of collapse, forced in real short runs."""

import dataclasses
import json
import warnings

import jax.numpy as jnp
import pytest

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import Subset
from ssl_jax.evaluate.collapse_watch import CollapseWarning, CollapseWatch
from ssl_jax.evaluate.online import Health
from ssl_jax.methods.distillation import byol
from ssl_jax.train.loop import fit
from ssl_jax.train.run import Run, Watch


def test_each_kind_is_told_once():
    told = []
    watch = CollapseWatch(warn=told.append, after=2)
    for step in range(1, 12):
        watch.write(step, {"batch/spread": 0.001})
    assert len(told) == 1


def test_findings_are_kept_in_a_file_and_not_told_again_after_a_resume(tmp_path):
    path, told = tmp_path / "warnings.jsonl", []

    def watched(start, steps, name):
        watch = CollapseWatch(warn=told.append, path=path, start=start, patience=1)
        for step in steps:
            watch.write(step, {name: 0.0})
        return [(line["step"], line["kind"]) for line in map(json.loads, path.read_text().splitlines())]

    assert watched(0, (5, 6), "batch/spread") == [(5, "constant")]
    assert watched(5, (6, 7), "batch/spread") == [(5, "constant")]
    assert len(told) == 1
    # Going on from before the finding: it is found anew.
    assert watched(4, (8,), "batch/effective_rank") == [(8, "low_rank")]


def test_default_is_a_python_warning():
    watch = CollapseWatch(patience=1)
    with pytest.warns(CollapseWarning, match="collapsed to a point"):
        watch.write(1, {"batch/spread": 0.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.write(2, {"batch/spread": 0.0})
    watch.close()


def flattened(method, how):
    """The method with an encoder whose features collapse: ``point`` to a constant, ``line`` to one direction."""

    def apply(params, state, images, **options):
        features, state = method.encoder.apply(params, state, images, **options)
        if how == "point":
            return jnp.ones_like(features) + 1e-4 * features, state
        # Along one direction, to both sides of the origin: multiples of one sign are a point on the sphere.
        return (features[:, :1] - features[:, 1:2]) * jnp.ones_like(features), state

    return dataclasses.replace(method, encoder=method.encoder._replace(apply=apply))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        pytest.param("point", "to a point", marks=pytest.mark.long),
        pytest.param("line", "to a line", marks=pytest.mark.long),
        ("", ""),
    ],
)
def test_a_run_with_collapsed_features_says_so(how, message):
    source = Subset(open_source("embedded", "train"), range(0, 4000, 40))
    encoder = models.build("convnet", widths=(8, 16))
    views = presets.byol(28, jitter=None, grayscale_prob=0.0)
    method = byol.build(encoder, views=views, hidden_dim=16, projection=8)
    method = flattened(method, how) if how else method
    told = []
    optimizer = optim.from_options("sgd", steps=4, learning_rate=1e-3, batch_size=16)
    watch = Watch(
        hooks=[Health(method, source, every=1, images=32)],
        writer=lambda step: CollapseWatch(
            warn=told.append, collapse=[value.at(16) for value in method.collapse]
        ),
        log_every=1,
    )
    fit(Run(method, optimizer, source, steps=4, batch_size=16), watch=watch)
    assert len(told) == (1 if how else 0), told
    assert not how or message in told[0]
