"""What is said of the images of a config: once a source and split, by the first process, as plain lines."""

import logging

import numpy as np
import pytest
from absl import flags

from ssl_jax.cli import launch
from ssl_jax.config.images import forget_descriptions, open_images, split_names
from tests.data.images import encode


@pytest.fixture
def shown(capsys):
    """What a launcher writes on standard error, without the rest of it."""
    logger = logging.getLogger("ssl_jax")
    before = logger.handlers[:], logger.level, logger.propagate
    launch.show_messages()
    launch.show_messages()
    yield lambda: capsys.readouterr().err.splitlines()
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def folder(tmp_path):
    for name in ("fit/a/1.png", "fit/b/1.png", "held/a/1.png", "held/a/2.png", "held/a/x.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(np.zeros([9, 9], np.uint8)))
    return f"folder:{tmp_path}"


def config_of(folder, **splits):
    return {"data": {"source": folder, "split": "fit", "channels": None}, "watch": {"evaluate": splits}}


def test_what_is_found_is_said_once_a_source_and_split(shown, folder):
    config = config_of(folder, train_split="fit", test_split="held")
    for split in ("fit", "held", "fit", "held[:50%]"):
        open_images(config, folder, split)
    expected = [
        f"{folder} (fit): 2 images of 9 x 9 pixels, 1 channel of uint8, 2 classes: a 1, b 1",
        "  splits: fit, held",
        "  only fit has the class b",
        f"{folder} (held): 2 images of 9 x 9 pixels, 1 channel of uint8, 2 classes: a 2, b 0",
        "  left out 1 file: 1 .heic, such as held/a/x.heic (images by their content, PNG: rename to end in .png)",
        f"{folder} (held[:50%]): 1 image of 9 x 9 pixels, 1 channel of uint8, 2 classes: a 1, b 0",
    ]
    assert shown() == expected
    open_images(config, folder, "fit")
    assert shown() == []
    forget_descriptions()
    open_images(config, folder, "fit")
    assert shown() == expected[:3]


def test_splits_of_any_name_are_read_alike_whichever_is_opened(folder):
    config = config_of(folder, train_split="fit[:1]", test_split="held")
    assert split_names(config, "more") == ("fit", "held", "more")
    assert {open_images(config, folder, split).classes for split in ("fit", "held", "fit[:1]")} == {
        ("a", "b")
    }


def test_a_split_of_evaluation_that_is_not_there_names_its_option(folder):
    config = config_of(folder, train_split="fit", test_split="test")
    with pytest.raises(ValueError, match=r"split='test': .*; it is config\.watch\.evaluate\.test_split"):
        open_images(config, folder, "test")
    with pytest.raises(ValueError, match=r"split='gone': [^;]*$"):
        open_images(config, folder, "gone")


def test_only_the_first_process_speaks(shown, folder, monkeypatch):
    def others(**values):
        monkeypatch.setattr(type(flags.FLAGS), "is_parsed", lambda _: True)
        monkeypatch.setattr(type(flags.FLAGS), "flag_values_dict", lambda _: values)
        forget_descriptions()
        open_images(config_of(folder, test_split="held"), folder, "fit")
        return len(shown()) > 0

    assert others() and others(process=0) and not others(process=1)
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert others() and not others(distributed=True)
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert others(distributed=True)


def test_warnings_of_the_package_are_marked_and_details_are_not_shown(shown):
    log = logging.getLogger("ssl_jax.somewhere")
    log.debug("detail")
    log.info("found")
    log.warning("odd")
    log.warning("warning: odd")
    assert shown() == ["found", "warning: odd", "warning: odd"]
