"""A run that goes on with other images than those that it was started with: refused where it is tied to them, else said."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ssl_jax.cli import evaluate, pretrain, vectorized_runs
from ssl_jax.cli.search_space import Trial
from ssl_jax.config import build
from ssl_jax.config.load import load_config
from ssl_jax.train.run import Fitted
from ssl_jax.train.workdir import IMAGES, read_images
from tests.data.images import encode

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)
CLASSES = tuple("abcdefghij")
FEW = {"data__num_labels": 20}
KEEPING = {
    "deepcluster": {},
    "deepcluster_v2": {},
    "exemplar": {"method__exemplars": 20},
    "pseudo_labels": {"method__num_labels": 20},
    "temporal_ensembling": FEW,
    "simsiam": {"method__expectation_decay": 0.8, "method__num_examples": 50},
}
"""Options of a small set, of methods that keep something for each image, besides NPID."""


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode(RNG.integers(0, 255, (28, 28), np.uint8)))


@pytest.fixture
def folder(tmp_path):
    """Five images of each of ten classes."""
    write(tmp_path / "images", *(f"{name}/{number}.png" for name in CLASSES for number in range(5)))
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """The run is over at once: what is tested comes before its first step."""
    monkeypatch.setattr(pretrain, "fit", lambda run, host, watch: Fitted(SimpleNamespace(step=4), ""))
    monkeypatch.setattr(pretrain, "make_hooks", lambda *args: [])


def config_of(folder, name, **options):
    options = {key.replace("__", "."): value for key, value in options.items()}
    overrides = {"data.source": f"folder:{folder}", **options}
    recorded = pretrain.previous_config(folder.parent / "run")
    return build.to_dict(load_config(f"{ROOT / 'configs' / name}.py:smoke", overrides, recorded=recorded))


def start(folder, name="simclr", *, allow_changes=False, **options):
    """What the launcher does."""
    config = config_of(folder, name, **options)
    pretrain.pretrain(config, folder.parent / "run", allow_changes=allow_changes)


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "ssl_jax.train.workdir"]


def add(folder):
    write(folder, "b/5.png")


def remove(folder):
    (folder / "c" / "0.png").unlink()


def replace(folder):
    (folder / "d" / "4.png").write_bytes(encode(np.zeros((28, 28), np.uint8)))


def rename(folder):
    (folder / "a" / "0.png").rename(folder / "a" / "9.png")


CHANGES = {
    add: "1 added, such as b/5.png",
    remove: "1 removed, such as c/0.png",
    replace: "1 of another size, such as d/4.png",
    rename: "1 added, such as a/9.png, 1 removed, such as a/0.png",
}


@pytest.mark.parametrize(("change", "phrase"), CHANGES.items())
def test_a_method_that_keeps_something_for_each_image_does_not_go_on_with_others(folder, change, phrase):
    start(folder, "npid")
    start(folder, "npid")
    before = read_images(folder.parent / "run")
    change(folder)
    with pytest.raises(ValueError) as error:
        start(folder, "npid")
    message = str(error.value)
    kept = "npid keeps something for each image"
    for part in (str(folder.parent / "run"), phrase, kept, "another workdir"):
        assert part in message
    # Its memory has no row for a 51st image.
    assert ("--allow_changes" in message) == (change is not add)
    assert "\n" not in message
    assert read_images(folder.parent / "run") == before, "refused: nothing is written"


@pytest.mark.parametrize(("name", "options"), KEEPING.items())
def test_so_does_every_other_that_keeps_something_for_each_image(folder, name, options):
    start(folder, name, **options)
    rename(folder)
    with pytest.raises(
        ValueError, match=rf"a/9\.png.*{name} keeps something for each image.*--allow_changes"
    ):
        start(folder, name, **options)


@pytest.mark.parametrize(("change", "phrase"), CHANGES.items())
def test_a_method_that_keeps_nothing_goes_on_and_says_so_once(folder, change, phrase, caplog):
    caplog.set_level(logging.INFO, logger="ssl_jax")
    start(folder)
    assert not said(caplog)
    change(folder)
    start(folder)
    (message,) = said(caplog)
    assert phrase in message and "goes on" in message and "\n" not in message
    start(folder)
    assert said(caplog) == [message], "from then on these are its images"


def test_it_goes_on_where_that_is_asked_for_and_says_what_is_wrong(folder, caplog):
    start(folder, "npid")
    remove(folder)
    start(folder, "npid", allow_changes=True)
    (message,) = said(caplog)
    assert "c/0.png" in message and "keeps something for each image" in message


def test_a_moved_folder_has_the_same_images(folder, caplog):
    start(folder, "npid")
    elsewhere = folder.parent / "elsewhere"
    shutil.move(folder, elsewhere)
    start(elsewhere, "npid", allow_changes=True)  # for the config, which names the folder
    assert not said(caplog)


def test_few_labels_are_drawn_from_all_images_and_would_be_others(folder):
    options = {"data__num_labels": 20, "data__labeled_fraction": 0.5}
    start(folder, "mean_teacher", **options)
    add(folder)
    with pytest.raises(ValueError, match=r"b/5\.png.*20 images that have a label are drawn from all"):
        start(folder, "mean_teacher", **options)


def test_a_class_of_another_split_renumbers_those_that_a_method_knows(tmp_path, caplog):
    """The table of classes is shared by all splits: a class that val gains moves the numbers of train."""
    folder = tmp_path / "images"
    write(
        folder,
        *(f"{split}/{name}/{i}.png" for split in ("train", "val") for name in CLASSES for i in range(3)),
    )
    classes = {"method__classes": 12}
    start(folder, "supervised", **classes)
    write(folder, "val/A/0.png")
    refused = r"class A added.*supervised knows classes by their number"
    with pytest.raises(ValueError, match=rf"{refused}.*--allow_changes"):
        start(folder, "supervised", **classes)
    write(folder, "val/B/0.png", "val/C/0.png")
    with pytest.raises(ValueError, match=refused.replace("class A added", "class C added")):
        start(folder, "supervised", **classes)
    for name in "ABC":
        shutil.rmtree(folder / "val" / name)
    start(folder, "supervised", **classes)
    add(folder / "train")
    start(folder, "supervised", **classes)
    assert "b/5.png" in said(caplog)[-1], "images of the same classes are only said"


def test_a_run_from_before_is_taken_as_it_is_with_a_word(folder, caplog):
    caplog.set_level(logging.INFO, logger="ssl_jax")
    start(folder, "npid")
    (folder.parent / "run" / IMAGES).unlink()
    rename(folder)
    start(folder, "npid")
    (message,) = said(caplog)
    assert "began before images were recorded" in message
    assert (folder.parent / "run" / IMAGES).exists()


def test_a_damaged_record_is_named(folder):
    start(folder)
    (folder.parent / "run" / IMAGES).write_bytes(b"{")
    with pytest.raises(ValueError, match=r"images\.json\.gz cannot be read .* delete it"):
        start(folder)


def test_of_several_processes_the_first_writes_and_speaks_and_all_refuse(folder, caplog, monkeypatch):
    start(folder, "npid")
    record = folder.parent / "run" / IMAGES
    before = record.read_bytes()
    rename(folder)
    monkeypatch.setattr(pretrain.jax, "process_index", lambda: 1)
    with pytest.raises(ValueError, match="npid keeps something"):
        start(folder, "npid")
    start(folder, "npid", allow_changes=True)
    assert record.read_bytes() == before and not said(caplog)


def test_what_a_method_has_kept_is_measured_on_the_images_it_was_trained_on_only(folder):
    """The rows of clusters are those of images that were there in training."""
    start(folder, "deepcluster")
    recorded, config = read_images(folder.parent / "run"), pretrain.previous_config(folder.parent / "run")
    assert len(evaluate.open_training_images(config, recorded)) == 50
    rename(folder)
    with pytest.raises(
        ValueError, match=r"training images are others than in training: 1 added, such as a/9\.png"
    ):
        evaluate.open_training_images(config, recorded)
    assert len(evaluate.open_training_images(config, None)) == 50, "a run from before images were recorded"


def test_runs_that_are_one_program_are_tied_to_their_images_too(folder, monkeypatch):
    class TrainedError(Exception):
        """The part that comes after the images were looked at."""

    def train(*args):
        raise TrainedError

    monkeypatch.setattr(
        vectorized_runs, "make_vectorized_program", lambda *args: SimpleNamespace(abstract=None)
    )
    monkeypatch.setattr(vectorized_runs, "_open_checkpoints", train)
    config = config_of(folder, "npid")
    trials = [Trial(folder.parent / f"{seed}", {"seed": seed}, {**config, "seed": seed}) for seed in (0, 1)]
    for _ in range(2):
        with pytest.raises(TrainedError):
            vectorized_runs.train(trials, folder.parent / "scratch")
    assert read_images(trials[0].folder) == read_images(trials[1].folder)
    rename(folder)
    with pytest.raises(ValueError, match="npid keeps something for each image"):
        vectorized_runs.train(trials, folder.parent / "scratch")
