"""``ssl-jax start photos/``: what it sees in images, what it chooses, and what it says of images that are too few or odd."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from ssl_jax.cli import start as launcher
from ssl_jax.cli.start import (
    Facts,
    Wishes,
    choose,
    describe_facts,
    inspect_images,
    require_enough,
    start,
    with_length,
)
from ssl_jax.config import build
from ssl_jax.config.load import load_config


def picture(seed, height=20, width=24, channels=3):
    small = np.random.default_rng(seed).integers(0, 256, (channels, 5, 6), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((width, height))) for one in small], axis=-1)


def write(folder, count, *, channels=3, classes=("",), first=0, suffix=".png"):
    for k in range(first, first + count):
        path = folder / classes[k % len(classes)] / f"{k:03}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = picture(k, 20 + k % 5, channels=channels)
        np.save(path, image) if suffix == ".npy" else Image.fromarray(image.squeeze()).save(path)


def facts_of(**changes):
    plain = Facts(1000, 3, 0.0, (64, 100, 200), 0, 0, 0.0, 1000)
    return plain._replace(**changes)


def test_numbers_sizes_classes_and_copies_are_found(tmp_path):
    write(tmp_path, 30, classes=("cat", "dog"))
    first = (tmp_path / "cat" / "000.png").read_bytes()
    for name in ("copy", "again"):
        (tmp_path / "dog" / f"{name}.png").write_bytes(first)
    brighter = np.clip(picture(4, 24).astype(int) + 9, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(tmp_path / "cat" / "near.png")
    _, facts = inspect_images(f"folder:{tmp_path}")
    assert facts._replace(near=0.0) == Facts(33, 3, 0.0, (20, 22, 24), 2, 2, 0.0, 33)
    assert facts.near == pytest.approx(5 / 33)  # the three of the same bytes, and the pair
    said = "\n".join(describe_facts(facts))
    assert "shorter sides of 20 to 24 pixels" in said and "2 classes" in said
    assert "2 files with the bytes of another one" in said and "15% of 33 images look nearly like" in said


def test_flat_images_are_no_copies_of_each_other(tmp_path):
    for k in range(20):
        Image.new("RGB", (10, 10), (k, k, k)).save(tmp_path / f"{k}.png")
    assert inspect_images(f"folder:{tmp_path}")[1].near == 0


def test_of_mixed_channels_the_most_common_are_taken_and_the_others_said(tmp_path):
    write(tmp_path, 18, channels=5, suffix=".npy")
    write(tmp_path, 2, first=50)
    source = f"folder:{tmp_path}"
    _, facts = inspect_images(source)
    assert (facts.images, facts.channels, facts.other_channels) == (20, 5, pytest.approx(0.1))
    assert "10% of those looked at have another number of channels than 5: left out" in describe_facts(facts)
    choice = choose(facts, source, "cpu", 1, Wishes())
    config = build.to_dict(load_config(choice.spec, choice.overrides))
    assert config["data"]["channels"] == 5 and config["data"]["max_corrupt_fraction"] == 0.2
    assert build.run_objects(config).source.channels == 5


def test_gray_and_colour_are_one_kind(tmp_path):
    write(tmp_path, 9)
    write(tmp_path, 9, channels=1, first=20)
    assert inspect_images(f"folder:{tmp_path}")[1]._replace(near=0.0)[1:3] == (3, 0.0)


@pytest.mark.parametrize(
    ("count", "copies", "message"),
    [
        (1, 0, "has 1 image: allowed are 16 or more to learn from; a pretrained encoder needs none"),
        (15, 0, "has 15 images: allowed are 16"),
        (40, 30, "has 40 images, 10 of them different: allowed are 16"),
    ],
)
def test_too_few_images_are_refused_with_what_to_do_instead(count, copies, message):
    with pytest.raises(ValueError, match=message) as caught:
        require_enough(facts_of(images=count, copies=copies), "folder:x")
    assert "\n" not in str(caught.value)
    require_enough(facts_of(images=16), "folder:x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.mkdir(), "has no image, it is empty"),
        (lambda folder: folder.write_text("a"), "is a file: give the folder"),
        (lambda folder: write(folder, 1), "has 1 image: allowed are 16"),
    ],
)
def test_what_is_no_folder_of_images_is_one_line_and_leaves_nothing(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "photos")
    with pytest.raises(ValueError, match=message) as caught:
        start("photos")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "photos-run").exists()


def test_the_choice_follows_images_and_machine_and_says_why():
    small = choose(facts_of(images=60, sides=(40, 44, 50)), "folder:x", "cpu", 1, Wishes())
    assert small.spec == "dcl:folder"
    assert (small.overrides["batch_size"], small.overrides["views.size"]) == (16, 48)
    assert any("60 images are few" in reason and "--weights=" in reason for reason in small.reasons)
    large = choose(facts_of(images=100_000, sides=(200, 400, 900)), "folder:x", "accelerator", 8, Wishes())
    assert large.spec == "simclr:folder"
    chosen = {
        name: large.overrides[name] for name in ("batch_size", "views.size", "encoder.name", "encoder.stem")
    }
    assert chosen == {
        "batch_size": 256,
        "views.size": 224,
        "encoder.name": "resnet50",
        "encoder.stem": "imagenet",
    }
    for choice in (small, large):
        for word in ("method", "encoder", "pixels", "batches"):
            assert sum(word in reason for reason in choice.reasons) >= 1
        load_config(choice.spec, {**choice.overrides, "data.num_examples": 100})


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_batches_are_divided_by_the_devices(devices):
    for count in (16, 100, 5000):
        batch = choose(facts_of(images=count), "folder:x", "accelerator", devices, Wishes()).overrides[
            "batch_size"
        ]
        assert batch % devices == 0 and batch >= 1


def test_what_was_asked_for_counts_more():
    wishes = Wishes(spec="dino", overrides={"batch_size": "8", "encoder.width": "64"})
    choice = choose(facts_of(), "folder:x", "cpu", 1, wishes)
    assert choice.spec == "dino:folder" and choice.overrides["batch_size"] == "8"
    assert "encoder.name" not in choice.overrides and "method dino:folder: as asked for" in choice.reasons
    other = choose(facts_of(), "folder:x", "cpu", 1, Wishes(overrides={"encoder.name": "resnet18"}))
    assert "encoder.widths" not in other.overrides
    started = choose(facts_of(), "folder:x", "cpu", 1, Wishes(weights="vit.safetensors"))
    assert started.overrides["encoder.weights"] == "vit.safetensors" and "views.size" not in started.overrides
    assert "encoder.name" not in started.overrides


@pytest.mark.parametrize(
    ("seconds", "minutes", "steps", "said"),
    [
        (0.01, 30, 1000, "1,000 steps of 0.01 s (measured), 128 passes over the images in 10 s"),
        (1.0, 5, 300, "1,000 steps would take 17 min: --minutes=17 allows them"),
        (60.0, 0.1, 10, "10 steps of 60 s"),
    ],
)
def test_the_length_is_what_fits_into_the_time(seconds, minutes, steps, said, tmp_path, monkeypatch):
    write(tmp_path, 20)
    monkeypatch.setattr(launcher, "seconds_per_step", lambda config: seconds)
    choice = choose(facts_of(), f"folder:{tmp_path}", "cpu", 1, Wishes())
    long = with_length(choice, facts_of(), minutes)
    assert long.overrides["steps"] == steps and said in long.reasons[-1]
    config = load_config(long.spec, long.overrides)
    assert config.steps == steps and config.watch.checkpoint.every == max(steps // 20, 1)


def test_a_workdir_with_another_run_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    recorded = {"source": "folder:photos", "wishes": "{}"}
    (tmp_path / "start.json").write_text(json.dumps(recorded))
    with pytest.raises(
        ValueError, match="has a run with source folder:photos, not folder:other: give another"
    ):
        start("other", tmp_path)
    with pytest.raises(ValueError, match=re.escape('has a run with wishes {}, not {"weights": "a"}')):
        start("photos", tmp_path, Wishes(weights="a"))
    (tmp_path / "start.json").write_text("{")
    with pytest.raises(ValueError, match=r"start\.json cannot be read"):
        start("photos", tmp_path)


@pytest.mark.long
def test_it_trains_evaluates_reports_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    """Whole, in this process, on eight devices; stopped between training and evaluation."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "photos", 60, classes=("cat", "dog"))
    small = {"encoder.widths": "(8,)", "encoder.grid": "1", "method.projector_width": "16", "batch_size": "8"}
    wishes = Wishes(overrides={**small, "watch.evaluate.measures": "('knn',)"}, minutes=1e-6)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(launcher, "_evaluate", stop)
        start("photos/", wishes=wishes)
    said = capsys.readouterr().out
    assert "Chosen:" in said and "method dcl" in said and "done: 10 steps" in said
    assert not (tmp_path / "photos-run" / "evaluation.json").exists()
    start("photos/")
    said = capsys.readouterr().out
    assert "trained already: 60 images" in said and "measured dcl, 10 steps" in said
    assert 'ssl_jax.load("photos-run").embed("photos")' in said
    assert (tmp_path / "photos-run" / "report.html").exists()
    start("photos/", wishes=wishes)
    said = capsys.readouterr().out
    assert "evaluated already" in said and "measured" not in said
