"""Images of any number of channels: mean and deviation follow from them, and every method takes them or says why not."""

import importlib
import logging

import jax
import numpy as np
import pytest

from ssl_jax.config import build
from ssl_jax.config.load import load_config
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import ArraySource
from ssl_jax.data.statistics import channel_statistics
from ssl_jax.methods.registry import names
from ssl_jax.train.program import sample_batch
from ssl_jax.train.step import make_init, make_train_step

CHANNELS = (1, 3, 4, 13)
FEW = {  # what 24 images do not suffice for
    "bownet": {"method.vocabulary_size": 8},
    "deepcluster": {"method.clusters": 4, "method.pca": 4},
    "deepcluster_v2": {"method.clusters": 4},
    "exemplar": {"method.exemplars": 8},
    "pseudo_labels": {"method.num_labels": 8},
}
LABELS = ("ladder", "mean_teacher", "pi_model", "temporal_ensembling")
REFUSED = {"colorization": "allowed is 3"}
CLIPS = ("time_contrastive", "triplet_frames")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By number of channels, 24 images of 32 pixels in two classes; channel k is drawn from 0 to 40 + 10 k."""
    root, rng = tmp_path_factory.mktemp("channels"), np.random.default_rng(0)
    for channels in CHANNELS:
        for place in range(24):
            folder = root / str(channels) / "ab"[place % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 40 + 10 * np.arange(channels), (32, 32, channels), dtype=np.uint8)
            np.save(folder / f"{place}.npy", image)
    return root


def by_loop(source):
    """Mean and deviation by the definition, of all images."""
    images = np.stack([source[i]["image"] for i in range(len(source))]).astype(np.float64) / 255
    return images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))


def test_statistics_are_those_of_a_loop_over_images_that_count_alike():
    rng = np.random.default_rng(1)
    source = ArraySource(rng.integers(0, 256, (20, 9, 7, 4), np.uint8))
    mean, std = channel_statistics(source)
    expected = by_loop(source)
    np.testing.assert_allclose(mean, expected[0], atol=6e-5)
    np.testing.assert_allclose(std, expected[1], atol=6e-5)
    # A sample: the first and the last are in it.
    two = ArraySource(source.images[[0, 19]])
    assert channel_statistics(source, sample=2) == channel_statistics(two)


def test_statistics_of_deep_flat_large_and_broken_images(tmp_path):
    deep = ArraySource(np.full((2, 4, 4, 1), 13107, np.uint16))
    assert channel_statistics(deep) == ((0.2,), (0.01,))
    floats = ArraySource(np.linspace(0, 1, 32, dtype=np.float32).reshape(2, 4, 4, 1))
    assert channel_statistics(floats)[0] == (0.5,)
    tall = np.zeros((2, 1024, 2, 1), np.uint8)
    tall[:, ::4] = 255  # every fourth row is looked at
    assert channel_statistics(ArraySource(tall))[0] == (1.0,)
    for name, value in (("a", 51), ("b", 102)):
        np.save(tmp_path / f"{name}.npy", np.full((4, 4), value, np.uint8))
    (tmp_path / "c.npy").write_bytes(b"\x93NUMPY damaged")
    assert channel_statistics(open_source(f"folder:{tmp_path}"))[0] == (0.3,)


@pytest.mark.parametrize("channels", CHANNELS)
def test_mean_and_deviation_of_a_folder_stand_in_the_config(folders, channels):
    source = f"folder:{folders / str(channels)}"
    config = load_config("configs/simclr.py:smoke", {"data.source": source})
    mean, std = by_loop(open_source(source))
    np.testing.assert_allclose(config.views.mean, mean, atol=6e-5)
    np.testing.assert_allclose(config.views.std, std, atol=6e-5)
    given = load_config(
        "configs/simclr.py:smoke", {"data.source": source, "views.mean": "0.5", "views.std": "0.25"}
    )
    assert (given.views.mean, given.views.std) == ((0.5,), (0.25,))


def test_a_dataset_keeps_its_own_numbers_and_a_run_that_goes_on_the_recorded_ones(folders):
    assert load_config("configs/simclr.py:smoke", {"data.split": "train[:9%]"}).views.mean == (0.286,)
    assert load_config("configs/simclr.py:cifar10").views.mean == (0.4914, 0.4822, 0.4465)
    source = f"folder:{folders / '3'}"
    recorded = build.to_dict(load_config("configs/simclr.py:smoke", {"data.source": source}))
    recorded["views"] |= {"mean": (0.1, 0.2, 0.3)}
    recorded["data"]["channels"] = 3  # as a run writes it
    again = load_config("configs/simclr.py:smoke", {"data.source": source}, recorded=recorded)
    assert again.views.mean == (0.1, 0.2, 0.3)
    gray = {"data.source": source, "data.channels": "1"}
    assert len(load_config("configs/simclr.py:smoke", gray, recorded=recorded).views.mean) == 1


def test_colors_that_do_nothing_are_named_once(folders, caplog):
    options = {"data.source": f"folder:{folders / '13'}", "views.jitter.hue": "0.1"}
    with caplog.at_level(logging.INFO, logger="ssl_jax.config.build"):
        build.run_objects(build.to_dict(load_config("configs/simclr.py:smoke", options)))
        build.run_objects(build.to_dict(load_config("configs/simclr.py:smoke")))
    said = [record.getMessage() for record in caplog.records if record.name == "ssl_jax.config.build"]
    assert said == ["images of 13 channel(s): views.jitter.hue without effect"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "simclr" else pytest.mark.long) for n in names()]
)
def test_every_method_takes_any_number_of_channels_or_says_why_not(folders, name):
    importlib.import_module(f"configs.{name}")
    for channels in CHANNELS:
        options = {"data.source": f"folder:{folders / str(channels)}", **FEW.get(name, {})}
        options |= {"data.num_labels": 8} if name in LABELS else {}
        if name in CLIPS:
            with pytest.raises(ValueError, match="frames:<path>"):
                build.run_objects(build.to_dict(load_config(f"configs/{name}.py:smoke", options)))
            continue
        config = build.to_dict(load_config(f"configs/{name}.py:smoke", options))
        method, optimizer, source = build.run_objects(config)
        batch = sample_batch(source, method)
        init, step = make_init(method, optimizer, batch), make_train_step(method, optimizer)
        if channels != 3 and name in REFUSED:
            with pytest.raises(ValueError, match=REFUSED[name]):
                jax.eval_shape(init, 0)
            continue
        rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((8, *x.shape[1:]), x.dtype), batch)
        _, metrics = jax.eval_shape(step, jax.eval_shape(init, 0), rows)
        assert metrics["loss"].shape == ()
