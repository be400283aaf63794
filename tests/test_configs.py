"""Every config evaluates and binds for every dataset and budget; smoke configs train through the launcher."""

import importlib
import json
from pathlib import Path

import pytest

from ssl_jax.cli import pretrain
from ssl_jax.config import build, datasets
from ssl_jax.config import recipe as base
from ssl_jax.methods.registry import names
from ssl_jax.train.workdir import Workdir

ROOT = Path(__file__).parent.parent
METHODS = list(names())


def test_every_method_has_a_config_and_every_config_a_method():
    assert sorted(path.stem for path in (ROOT / "configs").glob("[a-z]*.py")) == METHODS


# Every dataset and every budget, not their product, in the short suite.
CHOICES = [
    pytest.param(
        dataset, budget, marks=() if budget == "short" or dataset == "embedded" else pytest.mark.long
    )
    for dataset in datasets.DATASETS
    for budget in base.BUDGETS
]


@pytest.mark.parametrize(("dataset", "budget"), CHOICES)
@pytest.mark.parametrize("name", METHODS)
def test_config_binds(name, dataset, budget):
    config = build.plain(importlib.import_module(f"configs.{name}").get_config(f"{dataset},{budget}"))
    method = build.method(config)
    optimizer = build.optimizer(config)
    assert method.encoder.config["name"] == config["encoder"]["name"]
    assert optimizer.learning_rate(0) >= 0
    assert config["optimizer"]["steps"] == config["steps"]
    assert config["optimizer"]["warmup_steps"] < config["steps"]
    assert build.tuples(json.loads(json.dumps(config))) == config
    shapes = [(view.size, view.size) for view in method.views]
    assert shapes[0] == (config["views"]["size"],) * 2


# One method in the short suite, and long ones for what differs between launches: other encoders, crops, refreshes, labels, and
# few of them. The conformance table trains all methods.
LONG = (
    "beit",
    "bownet",
    "context_encoder",
    "dbn",
    "deepcluster",
    "dino",
    "dvae",
    "mae",
    "mean_teacher",
    "supervised",
)
SMOKED = ["simclr", *(pytest.param(name, marks=pytest.mark.long) for name in LONG)]


@pytest.mark.parametrize("name", SMOKED)
def test_smoke_config_trains_through_the_launcher_and_leaves_its_files(name, tmp_path):
    config = build.plain(importlib.import_module(f"configs.{name}").get_config("smoke"))
    with Workdir(tmp_path / "run") as workdir:
        pretrain.train(config, build.parts(config), workdir)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["method"]["name"] == name
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {record["step"] for record in records} == {1, 2, 3, 4}
    assert any("online/knn" in record for record in records)
    assert (tmp_path / "run" / "checkpoints" / "4").is_dir()


def test_steps_override_reaches_every_schedule():
    config = importlib.import_module("configs.byol").get_config("cifar10")
    config.steps = 5000
    plain = build.plain(config)
    assert plain["optimizer"]["steps"] == plain["method"]["decay_steps"] == 5000
    assert plain["optimizer"]["warmup_steps"] == 250


def test_a_value_that_follows_the_steps_can_be_set_alone():
    config = importlib.import_module("configs.bownet").get_config("cifar10")
    steps = config.steps
    assert config.refresh_every == config.optimizer.steps == steps
    config.refresh_every = 7
    assert (config.refresh_every, config.steps, config.optimizer.steps) == (7, steps, steps)


@pytest.mark.parametrize(
    ("arg", "message"),
    [("cifar100", "did you mean 'cifar10'"), ("cifar10,embedded", "two words for the dataset")],
)
def test_wrong_words_after_the_colon_are_refused(arg, message):
    with pytest.raises(ValueError, match=message):
        importlib.import_module("configs.simclr").get_config(arg)
