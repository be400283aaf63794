"""Few labels, and batches with a fixed share of labelled examples."""

import importlib
import json
import pickle

import numpy as np
import pytest

from ssl_jax.config import build
from ssl_jax.data.batches import Part, example_indices, mixture_of
from ssl_jax.data.labels import FewLabels, balanced_draw, labels_of, with_all_labels
from ssl_jax.data.loader import stream
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import ArraySource, CorruptImage, Subset


def images(count=30):
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 4, 4))
    return ArraySource(pixels, np.arange(count) % 3, classes=tuple("abc"))


class Unlisted:
    """A source that keeps no table of labels, and one image of which is corrupt."""

    def __init__(self, source):
        self.source, self.classes, self.name = source, source.classes, "unlisted"
        self.shape, self.channels, self.dtype = source.shape, source.channels, source.dtype

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if index == 4:
            raise CorruptImage("4", "truncated")
        return self.source[index]

    def file_name(self, index):
        return self.source.file_name(index)


def take(source, count, **options):
    given = {"seed": 3, "batch_size": 8, "share": (0, 1), "threads": 0, **options}
    with stream(source, **given) as batches:
        return [next(batches) for _ in range(count)]


def test_few_labels_are_balanced_and_a_function_of_the_seed():
    whole = images()
    few, again, other = (FewLabels(whole, 6, seed=seed) for seed in (0, 0, 1))
    assert np.bincount(few.labels[few.labels >= 0]).tolist() == [2, 2, 2]
    np.testing.assert_array_equal(few.labels, again.labels)
    assert (few.labels != other.labels).any()
    for index in range(len(whole)):
        assert few[index]["label"] in (whole[index]["label"], -1)
        assert few[index]["label"] == few.labels[index]
    assert with_all_labels(few) is whole and with_all_labels(whole) is whole
    assert pickle.loads(pickle.dumps(few)).file_name(3) == whole.file_name(3)
    # The first draw of the few-label probes.
    drawn = balanced_draw(whole.labels, classes=3, per_class=2, seed=(0, 0))
    assert sorted(drawn.ravel()) == np.flatnonzero(few.labels >= 0).tolist()


def test_labels_come_from_a_table_or_from_the_elements():
    whole = images()
    part = Subset(whole, [5, 4, 3])
    assert labels_of(part).tolist() == [2, 1, 0]
    assert labels_of(FewLabels(part, 3, seed=0)).tolist() == [2, 1, 0]
    expected = np.where(np.arange(30) == 4, -1, whole.labels)
    np.testing.assert_array_equal(labels_of(Unlisted(whole)), expected)


@pytest.mark.parametrize(
    ("source", "count", "message"),
    [
        (images(), 7, "num_labels=7.*multiple of the 3 classes"),
        (images(), -3, "labels=-3"),
        (images(), 33, "num_labels=33.*at most 30"),
        (ArraySource(np.zeros([4, 2, 2], np.uint8)), 3, "num_labels=3.*no classes"),
    ],
)
def test_counts_that_cannot_be_drawn_are_refused(source, count, message):
    with pytest.raises(ValueError, match=message):
        FewLabels(source, count, seed=0)


def test_a_batch_begins_with_its_labelled_rows_and_each_kind_has_epochs_of_its_own():
    few = FewLabels(images(), 6, seed=0)
    batches = take(few, 12, labeled_fraction=0.25)
    for batch in batches:
        assert (batch["label"][:2] >= 0).all() and (batch["label"][2:] == -1).all()
        np.testing.assert_array_equal(batch["label"], few.labels[batch["index"]])
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
    known, rest = (np.concatenate([b["index"][part] for b in batches]) for part in (np.s_[:2], np.s_[2:]))
    for epoch in known.reshape(4, 6):
        assert sorted(epoch) == np.flatnonzero(few.labels >= 0).tolist()
    for epoch in rest.reshape(3, 24):
        assert sorted(epoch) == np.flatnonzero(few.labels < 0).tolist()
    assert len({tuple(epoch) for epoch in known.reshape(4, 6)}) > 1


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_mixed_batches_do_not_depend_on_processes_and_resume_as_the_tail(processes):
    few = FewLabels(images(), 6, seed=0)
    whole = take(few, 5, labeled_fraction=0.4)
    parts = [take(few, 5, labeled_fraction=0.4, share=(k, processes)) for k in range(processes)]
    for step, batch in enumerate(whole):
        for name in ("index", "label", "image"):
            np.testing.assert_array_equal(np.concatenate([p[step][name] for p in parts]), batch[name])
    (tail,) = take(few, 1, labeled_fraction=0.4, start_step=4, threads=2)
    np.testing.assert_array_equal(tail["index"], whole[4]["index"])


def test_share_one_leaves_the_others_out_and_few_examples_repeat_in_a_batch():
    few = FewLabels(images(), 3, seed=0)
    labels = np.concatenate([batch["label"] for batch in take(few, 3, labeled_fraction=1.0)])
    assert np.bincount(labels).tolist() == [8, 8, 8]


def test_without_a_share_the_stream_is_the_plain_one_but_for_the_labels():
    few = FewLabels(images(), 6, seed=0)
    for mixed, plain in zip(take(few, 3), take(images(), 3), strict=True):
        np.testing.assert_array_equal(mixed["index"], plain["index"])
        np.testing.assert_array_equal(mixed["label"], few.labels[plain["index"]])


def test_the_plain_order_is_the_one_it_has_always_been():
    """Committed results depend on it."""
    assert example_indices(0, 0, 6, 10).tolist() == [2, 4, 1, 5, 0, 3]
    assert example_indices(3, 17, 6, 10).tolist() == [9, 1, 4, 0, 8, 7]


@pytest.mark.parametrize(
    ("count", "labeled_fraction", "message"),
    [
        (6, 0.0, r"labeled_fraction=0\.0"),
        (6, 1.5, r"labeled_fraction=1\.5"),
        (6, 0.01, r"labeled_fraction=0\.01.*a batch of 8"),
        (6, 0.99, r"labeled_fraction=0\.99.*a batch of 8"),
        (30, 0.5, r"labeled_fraction=0\.5.*every image of array has a label"),
    ],
)
def test_shares_outside_the_batch_are_refused(count, labeled_fraction, message):
    with pytest.raises(ValueError, match=message):
        mixture_of(FewLabels(images(), count, seed=0), labeled_fraction, 8)


def test_a_share_of_a_source_without_labels_or_beside_a_choice_is_refused():
    blank = ArraySource(np.zeros([4, 2, 2], np.uint8))
    with pytest.raises(ValueError, match=r"labeled_fraction=0\.5.*array has no labels"):
        take(blank, 1, labeled_fraction=0.5)
    with pytest.raises(ValueError, match=r"labeled_fraction=0\.5.*among"):
        take(images(), 1, labeled_fraction=0.5, among=np.array([1]))


def test_every_part_of_a_mixture_has_its_rows():
    mixture = mixture_of(FewLabels(images(), 6, seed=0), 0.375, 8)
    rows = [mixture.indices(0, 7, Part(8, k, 4)) for k in range(4)]
    assert [len(row) for row in rows] == [2] * 4


def test_a_class_without_images_is_none_to_draw_from():
    """As where only another split has it: the draw is that of the classes that are there."""
    pixels = np.zeros([6, 2, 2], np.uint8)
    whole = ArraySource(pixels, [0, 2, 0, 2, -1, 2], classes=tuple("abc"))
    few = FewLabels(whole, 4, seed=0)
    assert few.labels[4] == -1 and np.bincount(few.labels[few.labels >= 0]).tolist() == [2, 0, 2]
    assert all(few.labels[i] in (-1, whole.labels[i]) for i in range(6))
    same = FewLabels(ArraySource(pixels, [0, 1, 0, 1, -1, 1], classes=tuple("ac")), 4, seed=0)
    assert np.flatnonzero(few.labels >= 0).tolist() == np.flatnonzero(same.labels >= 0).tolist()
    with pytest.raises(ValueError, match="none of whose images has a label"):
        FewLabels(ArraySource(pixels, np.full(6, -1), classes=tuple("ab")), 2, seed=0)


BLANK = np.zeros([6, 28, 28], np.uint8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(
            (name, {})
            for name in (
                "supervised",
                "pi_model",
                "mean_teacher",
                "temporal_ensembling",
                "ladder",
                "pseudo_labels",
            )
        ),
        *((name, {"labels": True}) for name in ("pairwise", "triplet")),
    ],
)
def test_methods_that_learn_from_labels_need_some_and_outputs_for_all_classes(name, options, monkeypatch):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.method.update(options)
    config.data.num_labels = 0
    plain = build.to_dict(config)

    def run_objects(labels, classes=()):
        monkeypatch.setattr(
            build, "open_images", lambda *_: ArraySource(np.tile(BLANK, (20, 1, 1)), labels, classes=classes)
        )
        return build.run_objects(plain)

    for labels in (None, np.full(120, -1)):
        message = (
            rf"config\.method\.name='{name}' learns from labels, but none of the 120 images of array has one"
        )
        with pytest.raises(ValueError, match=message):
            run_objects(labels, classes=("a", "b") if labels is not None else ())
    assert run_objects(np.where(np.arange(120) % 2, -1, np.arange(120) % 10)).source.classes
    if options:
        return
    with pytest.raises(
        ValueError, match=r"config\.(method|encoder)\.classes=10: allowed is 12 or more, as many as array has"
    ):
        run_objects(np.arange(120) % 12)


def test_other_methods_need_no_labels(monkeypatch):
    plain = build.to_dict(importlib.import_module("configs.simclr").get_config("smoke"))
    monkeypatch.setattr(build, "open_images", lambda *_: ArraySource(np.tile(BLANK, (10, 1, 1))))
    assert build.run_objects(plain).source.classes == ()


def test_a_config_asks_for_labels_and_their_share():
    config = importlib.import_module("configs.supervised").get_config("smoke")
    assert build.labeled_fraction(build.to_dict(config)) is None
    config.data.num_labels = 100
    plain = build.to_dict(config)
    source = build.run_objects(plain).source
    assert build.labeled_fraction(plain) == 1.0
    assert np.bincount(source.labels[source.labels >= 0]).tolist() == [10] * 10
    assert len(with_all_labels(source)) == len(open_source("embedded"))
    config.data.labeled_fraction = 0.01
    with pytest.raises(ValueError, match=r"labeled_fraction=0\.01"):
        build.run_objects(build.to_dict(config))


def test_a_run_with_few_labels_is_another_run():
    for name in ("supervised", "simclr"):
        config = importlib.import_module(f"configs.{name}").get_config("smoke")
        now = build.to_dict(config)
        assert build.same_run(json.loads(json.dumps(now)), now)
        config.data.num_labels = 100
        assert not build.same_run(now, build.to_dict(config))
