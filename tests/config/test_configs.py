"""Every config evaluates and binds for every dataset and budget; smoke configs train through the launcher."""

import ast
import functools
import importlib
import json
from pathlib import Path

import pytest

from ssl_jax.cli import pretrain
from ssl_jax.config import build, datasets, make
from ssl_jax.methods.registry import names
from ssl_jax.train.workdir import Workdir

ROOT = Path(__file__).parent.parent.parent
METHODS = list(names())


def test_every_method_has_a_config_and_every_config_a_method():
    assert sorted(path.stem for path in (ROOT / "configs").glob("[a-z]*.py")) == METHODS


# Every budget and every dataset that a method has a recipe for, not their product, in the short suite.
CHOICES = [
    pytest.param(
        name, dataset, budget, marks=() if budget == "short" or dataset == "embedded" else pytest.mark.long
    )
    for name in METHODS
    for dataset in datasets.DATASETS
    for budget in make.BUDGETS
    if {dataset, datasets.DATASETS[dataset].recipe} & set(importlib.import_module(f"configs.{name}").RECIPES)
]
COUNTED = {"data.num_examples": 10_000}


@pytest.mark.parametrize(("name", "dataset", "budget"), CHOICES)
def test_config_binds(name, dataset, budget):
    choices = COUNTED if dataset == "folder" else {}
    config = build.to_dict(
        importlib.import_module(f"configs.{name}").get_config(f"{dataset},{budget}", choices)
    )
    method = build.method(config)
    optimizer = build.optimizer(config)
    assert method.encoder.config["name"] == config["encoder"]["name"]
    assert optimizer.learning_rate(0) >= 0
    assert config["optimizer"]["steps"] == config["steps"]
    assert config["optimizer"]["warmup_steps"] < config["steps"]
    assert build.tuples(json.loads(json.dumps(config))) == config
    shapes = [(view.size, view.size) for view in method.views]
    assert shapes[0] == (config["views"]["size"],) * 2


@pytest.mark.parametrize("name", METHODS)
def test_every_recipe_says_its_source_and_writes_out_schedule_and_scaling(name):
    for dataset, recipe in importlib.import_module(f"configs.{name}").RECIPES.items():
        assert recipe.source, dataset
        assert {"schedule", "scaling"} <= recipe.optimizer.keys(), dataset
        assert set(recipe.epochs) == {"short", "paper"}, dataset


@pytest.mark.parametrize("name", METHODS)
def test_config_files_import_nothing_but_ssl_jax_config(name):
    tree = ast.parse((ROOT / "configs" / f"{name}.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node.module for node in imports] == ["ssl_jax.config"]
    assert not any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree)), "recipes are data"


@pytest.mark.parametrize("name", METHODS)
def test_what_follows_another_value_is_an_option_of_the_method(name):
    config = config_entry(name)()
    for option, followed in config_entry(name).follows.items():
        value = 1 + look_up(config, followed)
        config.update_from_flattened_dict({followed: value})
        assert look_up(config.method, option) == value


def look_up(config, name):
    return functools.reduce(lambda part, member: part[member], name.split("."), config)


def config_entry(name):
    return importlib.import_module(f"configs.{name}").get_config


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
    config = build.to_dict(config_entry(name)("smoke"))
    with Workdir(tmp_path / "run") as workdir:
        pretrain.train(config, build.run_objects(config), workdir)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["method"]["name"] == name
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {record["step"] for record in records} == {1, 2, 3, 4}
    assert any("online/knn" in record for record in records)
    assert (tmp_path / "run" / "checkpoints" / "4").is_dir()
