"""What experiments.evaluate adds for methods that cluster their training images."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.cli.evaluate import measure_options
from ssl_jax.cli.tables import measure_table
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.evaluate import clusters
from ssl_jax.evaluate.measure import Candidate, Subject
from ssl_jax.evaluate.measures import run_measures
from ssl_jax.train.features import Features
from tests.methods.case import config_of


@pytest.fixture(scope="module")
def config():
    config = config_of("deepcluster")
    config["data"]["split"] = "train[:5%]"
    return config


def measure_clusters(config, candidate):
    """The rows of the measure, which no features are needed for."""
    images = open_images(config, config["data"]["source"], config["data"]["split"])
    nothing = Features(*[np.zeros(0)] * 3)
    options = measure_options(config)
    subject = Subject(nothing, nothing, (images, images), options, candidate, lambda: images)
    return run_measures(subject, [clusters.MEASURE]).get("clusters", [])


def candidate(config, labels, previous):
    padded = np.full((2, 1, config["method"]["num_examples"]), -1, np.int32)
    padded[:, 0, : len(labels)] = labels, previous
    state = {"labels": jnp.asarray(padded[0]), "previous": jnp.asarray(padded[1])}
    return Candidate("deepcluster", "encoder", build.method(config), {}, state)


def test_clusters_that_are_the_classes_are_pure_and_a_renamed_clustering_has_not_changed(config):
    source = open_images(config, "embedded", "train[:5%]")
    classes = np.array([source[i]["label"] for i in range(len(source))])
    (row,) = measure_clusters(config, candidate(config, classes, (classes + 3) % 10))
    assert row["used"] == 10
    assert [row[name] for name in ("purity", "nmi_classes", "nmi_before", "changed")] == pytest.approx(
        [1, 1, 1, 0]
    )
    assert "100.0" in measure_table(clusters.MEASURE, [row])


def test_the_first_clustering_has_none_before_it(config):
    none = np.full(500, -1)
    (row,) = measure_clusters(config, candidate(config, np.arange(500) % 4, none))
    assert row["used"] == 4
    assert row["nmi_before"] is None
    assert row["changed"] is None
    assert "–" in measure_table(clusters.MEASURE, [row])


def test_methods_without_clusters_have_no_rows():
    config = config_of("simclr")
    assert measure_clusters(config, Candidate("simclr", "encoder", build.method(config), {}, {})) == []
