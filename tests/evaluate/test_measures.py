"""A measure is taken where a subject offers what it needs, and its columns name its values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate.measure import Candidate, Options, Subject, offers
from ssl_jax.evaluate.measures import ALWAYS, MEASURES, ON_REQUEST, parse_measures, row_columns, run_measures
from ssl_jax.methods.baseline import supervised
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.features import Features

OPTIONS = Options(k=3, temperature=0.07, per_class=(1, 1000), draws=2, crop_ratio=1.0)
ENCODER = models.build("convnet", widths=(4,))
VIEWS = (View(size=8), View(size=8))


def source(count, *, labeled=True):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, 8, 8, 1), dtype=np.uint8)
    return ArraySource(images, np.arange(count) % 2, classes=("a", "b")) if labeled else ArraySource(images)


def features(count):
    labels = np.arange(count, dtype=np.int32) % 2
    return Features(np.eye(2, dtype=np.float32)[labels], labels, np.arange(count, dtype=np.int32))


def candidate(method, role="encoder"):
    params, state = method.init(jax.random.key(0), {"views": (jnp.zeros((2, len(method.views), 8, 8, 1)),)})
    return Candidate("name", role, method, params, state)


def subject(measured=None, *, labeled=True):
    sources = (source(400, labeled=labeled), source(20, labeled=labeled))
    return Subject(features(400), features(20), sources, OPTIONS, measured)


def test_features_without_an_encoder_are_measured_by_probes_of_features_only():
    row = run_measures(subject(), parse_measures(["all"]))
    assert set(row_columns(row)) == {"knn", "linear", "ridge", "logistic", "linear_1", "retrieval_map"}
    assert {row[name] for name in ("knn", "linear", "ridge", "logistic", "retrieval_map")} == {1.0}


def test_numbers_of_labels_that_a_class_does_not_have_and_more_neighbors_than_examples_are_left_out():
    few = subject()._replace(train=features(30))
    row = run_measures(few, parse_measures(["few", "knn"]))
    assert "linear_1000" not in row and "linear_1_std" in row
    assert list(row["knn_sweep"]) == ["1", "5", "10", "20"]


def test_images_without_labels_do_for_measures_that_read_none():
    measured = subject(candidate(simclr.build(ENCODER, views=VIEWS)), labeled=False)
    row = run_measures(measured, parse_measures(["health", "rotation", "knn"]))
    assert set(row) == {"health", "rotation", "left_out"} and set(row["left_out"]) == {"knn"}
    assert {"rankme", "alpha"} < set(row["health"])


@pytest.mark.parametrize("role", ["supervised", "baseline"])
def test_a_classifier_counts_where_it_was_trained(role):
    measured = subject(candidate(supervised.build(ENCODER, views=VIEWS[:1], classes=2), role))
    assert ("classifier" in offers(measured)) == (role == "supervised")
    assert ("classifier" in run_measures(measured, parse_measures([]))) == (role == "supervised")


def test_layers_have_a_row_for_each_layer_and_pooling_with_a_value_for_each_column():
    measured = subject(candidate(simclr.build(ENCODER, views=VIEWS)))
    rows = run_measures(measured, [MEASURES["layers"]])["layers"]
    assert len(rows) > 1 and rows[0]["layer"].endswith("/mean")
    assert all(set(row) == {column.key for column in MEASURES["layers"].columns} for row in rows)


def test_measures_are_asked_for_by_name_once_and_what_a_method_brings_along_comes_too():
    assert [m.name for m in parse_measures(["ridge", "knn", "ridge"])] == ["ridge", "knn", *ALWAYS]
    assert [m.name for m in parse_measures(["knn", "all"])] == [*ON_REQUEST, *ALWAYS]
    assert all(name == measure.name for name, measure in MEASURES.items())
    with pytest.raises(ValueError, match=r"measures='rige'.*'ridge'"):
        parse_measures(["rige"])


def test_columns_of_different_measures_differ():
    columns = [c for m in MEASURES.values() if not m.own_table for c in m.columns]
    assert len({c.key for c in columns}) == len({c.heading for c in columns}) == len(columns)
