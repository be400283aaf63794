import json
import math
import operator
from argparse import Namespace

import numpy as np
import pytest
from scipy import stats

from benchmarks import peers
from ssl_jax.config import build
from ssl_jax.core.rows import write_row
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import ArraySource


def row(library, recipe, seed, knn, *, method="simclr", seconds=10.0, **changes):
    return {
        "library": library,
        "recipe": recipe,
        "method": method,
        "seed": seed,
        "quick": False,
        "images": 1000,
        "seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "load_average": [1.0, 1.0, 1.0],
        "measures": {"knn": knn / 100, "linear": (knn + 5) / 100},
        "machine": {"cpu": "A processor", "cores": 2},
        "versions": {"lightly": "1.6.0"},
        **changes,
    }


def test_each_library_runs_on_its_own_recipe_before_the_other_one():
    runs = peers.plan(peers.METHODS, peers.RECIPES, [0, 1])
    assert len(runs) == len(set(runs)) == 2 * 2 * 4 * 2
    own = {("lightly", "lightly"), ("ssl_jax", "color32")}
    assert {run[:2] for run in runs[:16]} == own
    assert {run[:2] for run in runs[16:]} == {(a, b) for a in peers.LIBRARIES for b in peers.RECIPES} - own
    assert [run.seed for run in runs[:16]] == [0] * 8 + [1] * 8


@pytest.mark.parametrize("method", peers.METHODS)
def test_recipes_share_encoder_batch_steps_and_pixels_and_differ_in_the_rest(method):
    theirs, ours = (
        peers.run_config(peers.PeerRun("lightly", recipe, method, 3), images=2560) for recipe in peers.RECIPES
    )
    for config in (theirs, ours):
        build.method(config), build.optimizer(config)
        assert (config["steps"], config["batch_size"], config["seed"]) == (10, 256, 3)
        assert config["optimizer"]["warmup_steps"] <= 5
    assert theirs["encoder"] == ours["encoder"]
    assert theirs["views"]["size"] == ours["views"]["size"] == 32
    assert theirs["views"]["mean"] == ours["views"]["mean"]
    assert theirs["optimizer"] != ours["optimizer"]


def test_the_published_numbers_are_in_the_recipe():
    config = peers.run_config(peers.PeerRun("ssl_jax", "lightly", "simclr", 0))
    assert config["steps"] == 195
    assert float(build.optimizer(config).learning_rate(0)) == pytest.approx(0.06 * 256 / 128)
    assert config["method"]["temperature"] == 0.5
    jitter = config["views"]["jitter"]
    assert [jitter[name] for name in ("brightness", "contrast", "saturation", "hue")] == [0.4, 0.4, 0.4, 0.1]
    for method, option in (("byol", "decay_steps"), ("dino", "teacher")):
        options = peers.run_config(peers.PeerRun("ssl_jax", "lightly", method, 0))["method"]
        assert options.get("teacher", options)["decay_steps"] is None, option


def test_a_run_is_done_when_a_row_has_its_config(tmp_path):
    options = Namespace(out=tmp_path / "rows.jsonl", images=2560, quick=False)
    run = peers.PeerRun("lightly", "color32", "simclr", 1)
    assert not peers.is_done(run, options)
    config = peers.run_config(run, images=2560)
    write_row(options.out, json.loads(json.dumps({**run._asdict(), "config": config})), peers.KEY)
    assert peers.is_done(run, options)
    assert not peers.is_done(run._replace(library="ssl_jax"), options)
    assert not peers.is_done(run, Namespace(**{**vars(options), "images": 25_600}))


def test_differences_beyond_the_band_are_those_of_a_two_sided_t_test():
    generator = np.random.default_rng(0)
    decisions = set()
    for _ in range(40):
        first, second = generator.normal(50, 1, 3), generator.normal(52, 1, 4)
        groups = [
            [row("ssl_jax", "color32", seed, value) for seed, value in enumerate(values)]
            for values in (first, second)
        ]
        value, smallest = peers.difference(*groups, "knn")
        significant = bool(stats.ttest_ind(first, second).pvalue < 0.05)
        assert value == pytest.approx(first.mean() - second.mean())
        assert (abs(value) > smallest) == significant
        decisions.add(significant)
    assert decisions == {True, False}


def test_one_seed_each_shows_no_difference():
    told = peers.difference([row("ssl_jax", "color32", 0, 60)], [row("lightly", "lightly", 0, 50)], "knn")
    assert told == (pytest.approx(10.0), math.inf)
    assert peers.verdict([told]) == "no difference shown"


def test_the_table_has_each_group_and_each_comparison_of_which_both_sides_are_there():
    rows = [row("lightly", "lightly", seed, 50 + 0.1 * seed, seconds=30.0) for seed in range(3)]
    rows += [row("ssl_jax", "color32", seed, 55 + 0.1 * seed, seconds=10.0) for seed in range(3)]
    rows += [row("lightly", "lightly", 0, 99, method="dino", quick=True)]
    text = peers.peers_table(rows)
    assert "| simclr | lightly | lightly | 3 | 50.1 ± 0.1 | 55.1 ± 0.1 | 33 | 1.0 |" in text
    assert "| simclr | ssl_jax | color32 | 3 | 55.1 ± 0.1 | 60.1 ± 0.1 | 100 | 0.3 |" in text
    assert (
        "| simclr | ours against theirs, each on its recipe | +5.0 ± 0.2 | +5.0 ± 0.2 | better | 3.00 x | 3.00 x |"
        in text
    )
    assert text.count("against") == 1
    assert "dino" not in text
    assert peers.peers_table(rows[-1:]) == "not measured yet"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods=simclir"], "simclr"),
        (["--recipes=theirs"], "color32"),
        (["--library=torch"], "lightly"),
        (["--images=0"], "images=0"),
        (["--seeds=a"], "seeds"),
        (["--quick"], "out=None"),
    ],
)
def test_arguments_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        peers.parse(arguments)


def test_images_are_read_as_they_are_and_others_refused():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    images, labels = peers.read_images(ArraySource(pixels, [0, 1, 2, 1, 0]), 4)
    assert np.array_equal(images, pixels[:4])
    assert labels.tolist() == [0, 1, 2, 1]
    with pytest.raises(ValueError, match="RGB images of one size"):
        peers.read_images(open_source("embedded", "test"), 4)


@pytest.mark.long
def test_the_probe_measures_the_share_that_the_features_get_right():
    bright = np.arange(60) % 3
    images = np.ones((60, 32, 32, 3), np.uint8) * bright[:, None, None, None].astype(np.uint8)
    labels = np.where(np.arange(60) < 6, (bright + 1) % 3, bright)  # a tenth of the test images is mislabeled
    trained = peers.Trained(lambda given: np.eye(3, dtype=np.float32)[given[:, 0, 0, 0]], [1.0], 1.0, 1.0)
    config = peers.run_config(peers.PeerRun("ssl_jax", "color32", "simclr", 0), quick=True)
    measured = peers.probe(config, trained, [(images, bright), (images, labels)], ("a", "b", "c"))
    assert measured == {"knn": pytest.approx(0.9), "linear": pytest.approx(0.9)}


@pytest.mark.long
def test_one_command_leaves_a_row_a_run_and_makes_none_twice(tmp_path, monkeypatch, capsys):
    generator = np.random.default_rng(0)
    sources = {
        split: ArraySource(
            generator.integers(0, 256, (70, 32, 32, 3), np.uint8),
            np.arange(70) % 10,
            classes=tuple("abcdefghij"),
        )
        for split in ("train", "test")
    }
    monkeypatch.setattr(peers, "open_images", lambda config, source, split: sources[split.partition("[")[0]])
    out = tmp_path / "rows.jsonl"
    command = ["--quick", f"--out={out}", "--methods=simclr", "--recipes=lightly", "--seeds=0"]
    peers.main([*command, "--library=ssl_jax"])
    (stored,) = map(json.loads, out.read_text().splitlines())
    assert operator.itemgetter("library", "recipe", "method", "seed", "images")(stored) == (
        *("ssl_jax", "lightly", "simclr", 0),
        32,
    )
    assert stored["seconds"] > 0
    assert stored["cpu_seconds"] > 0
    assert 0 <= stored["measures"]["knn"] <= 1
    capsys.readouterr()
    peers.main([*command, "--library=ssl_jax"])
    assert capsys.readouterr().out == ""
