"""Online evaluation of sources in which labels, images or classes are missing: what can be measured is."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource, CorruptImage, Subset
from ssl_jax.evaluate.online import Health, OnlineEvaluation
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.state import TrainState

PIXELS = models.build("convnet", widths=(4,), grid=1)._replace(
    apply=lambda params, state, images, train=False: (images.reshape(len(images), -1), state),
)
METHOD = dataclasses.replace(
    simclr.build(PIXELS),
    encoder=PIXELS,
    encoder_variables=lambda params, state: (params, state),
    views=(View(size=4, mean=(0.5,), std=(0.5,)),) * 2,
)
STATE = TrainState(jnp.int32(0), {"w": jnp.ones(1)}, {}, {}, jax.random.key(0), jnp.bool_(True))
COUNT, CLASSES = 90, ("a", "b", "c")
RNG = np.random.default_rng(0)
TRUTH = np.arange(COUNT) // 4 % 3
IMAGES = np.clip(60 + 30 * TRUTH[:, None, None] + RNG.normal(0, 25, (COUNT, 4, 4)), 0, 255).astype(np.uint8)


class WithoutTable:
    """The same images; what label each has shows when it is read, and some cannot be read."""

    def __init__(self, source, corrupt=()):
        self.source, self.corrupt = source, set(corrupt)
        for name in ("name", "shape", "channels", "dtype", "classes", "file_name"):
            setattr(self, name, getattr(source, name))

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if index in self.corrupt:
            raise CorruptImage(self.file_name(index), "not an image")
        return self.source[index]


def source(labels, images=IMAGES):
    return ArraySource(images, labels, classes=CLASSES)


def measure(images, **options):
    hook = OnlineEvaluation(METHOD, images, every=1, **{"bank": 40, "queries": 20, "k": 5, **options})
    return hook(1, STATE)


def knn(bank, queries, k=5):
    """Weighted kNN of cosine similarities, a query at a time."""
    x = IMAGES.reshape(COUNT, -1) / 255.0
    x = (x - 0.5) / 0.5
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    right = 0
    for query in queries:
        similarity = x[bank] @ x[query]
        near = np.argsort(-similarity, kind="stable")[:k]
        votes = np.zeros(3)
        for row in near:
            votes[TRUTH[bank[row]]] += np.exp(similarity[row] / 0.07)
        right += votes.argmax() == TRUTH[query]
    return right / len(queries)


def deal(rows, bank=40, queries=20):
    """At even distances among the rows, one query after two that vote."""
    count = min(bank + queries, len(rows))
    chosen = [rows[int(np.round(i * (len(rows) - 1) / (count - 1)))] for i in range(count)]
    is_query = [(i + 1) * queries // (bank + queries) > i * queries // (bank + queries) for i in range(count)]
    return [r for r, q in zip(chosen, is_query, strict=True) if not q], [
        r for r, q in zip(chosen, is_query, strict=True) if q
    ]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_images_without_a_label_neither_vote_nor_are_classified(share):
    rows = np.sort(RNG.choice(COUNT, round(share * COUNT), replace=False)).tolist()
    labels = np.full(COUNT, -1)
    labels[rows] = TRUTH[rows]
    scalars = measure(source(labels))
    assert scalars["online/knn"] == pytest.approx(knn(*deal(rows)))
    assert 0 <= scalars["online/linear"] <= 1
    # A part of a source has the labels of the part.
    assert measure(Subset(source(labels), np.arange(COUNT))) == scalars


def test_where_only_the_images_tell_those_with_a_label_that_can_be_read_are_measured():
    labels = np.where(np.arange(COUNT) % 5, TRUTH, -1)
    corrupt = [7, 8, 51]
    bank, queries = deal(list(range(COUNT)))
    expected = knn(*([r for r in part if labels[r] >= 0 and r not in corrupt] for part in (bank, queries)))
    with pytest.warns(UserWarning, match="not an image"):
        found = measure(WithoutTable(source(labels), corrupt))
    assert found["online/knn"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([-1] * COUNT, "of 0 labelled images none votes"),
        ([-1] * 40 + [2] + [-1] * (COUNT - 41), "of 1 labelled images none votes"),
        ([1] * COUNT, "all 40 labelled images that vote are of one class"),
        ([0, -1, 1] + [-1] * (COUNT - 3), "all 1 labelled images that vote are of one class"),
    ],
)
@pytest.mark.parametrize("table", [True, False])
def test_where_nothing_can_be_measured_it_is_said_once(labels, reason, table, caplog):
    images = source(labels) if table else WithoutTable(source(labels))
    with caplog.at_level(logging.WARNING, logger="ssl_jax"):
        hook = OnlineEvaluation(METHOD, images, every=1, bank=40, queries=20, k=5)
        assert [hook(step, STATE) for step in (1, 2)] == [{}, {}]
    (record,) = caplog.records
    assert record.getMessage().startswith("no online kNN and linear probe: ")
    assert not table or reason in record.getMessage()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 30])
def test_few_images_give_what_they_can(count):
    scalars = measure(source(TRUTH[::4][:count], IMAGES[::4][:count]), bank=2000, queries=1000, k=20)
    # Two of different classes must vote.
    assert set(scalars) == (set() if count < 3 else {"online/knn", "online/linear"})
    assert all(np.isfinite(value) for value in scalars.values())


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_health_of_fewer_than_two_images_is_said_once_and_the_run_goes_on(caplog):
    # Of the 4 images that are drawn from 90, one can be read.
    unreadable = WithoutTable(source(TRUTH), corrupt=range(1, COUNT))
    for images in (source(TRUTH[:1], IMAGES[:1]), unreadable):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="ssl_jax"):
            hook = Health(METHOD, images, every=1, images=4)
            assert hook(1, STATE) == hook(2, STATE) == {}
        said = [record.message for record in caplog.records if "scalars of the features" in record.message]
        assert said == ["no batch/ scalars of the features: it takes two images that can be read, of 1"]


@pytest.mark.parametrize("classes", [3, 6])
def test_labels_that_repeat_as_the_parts_do_are_dealt_otherwise(classes):
    """A third is classified: of labels 0, 1, 2, 0, 1, 2, in turn, all of one class, which would not vote."""
    truth = np.arange(COUNT) % classes
    images = np.full((COUNT, 4, 4), 20, np.uint8)
    images.reshape(COUNT, -1)[np.arange(COUNT), truth] = 200
    names = tuple("abcdef"[:classes])
    for labels in (truth, np.where(np.arange(COUNT) < 30, -1, truth)):
        scalars = measure(ArraySource(images, labels, classes=names), k=3)
        assert scalars == {"online/knn": 1.0, "online/linear": 1.0}
