"""What a config follows from: arguments, recipes, other rules, and the number of images."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from configs import bownet, byol, deepcluster, dino, moco_v3, npid, pi_model, rotation, simclr
from ssl_jax.config import Recipe, build, derive, entry, share
from ssl_jax.config.datasets import DATASETS
from ssl_jax.config.load import load_config, load_entry

SIMCLR = "configs/simclr.py"


def test_steps_override_reaches_every_schedule():
    config = byol.get_config("cifar10")
    config.steps = 5000
    plain = build.to_dict(config)
    assert plain["optimizer"]["steps"] == plain["method"]["decay_steps"] == 5000
    assert plain["optimizer"]["warmup_steps"] == 250


def test_a_value_that_follows_the_steps_can_be_set_alone():
    config = bownet.get_config("cifar10")
    steps = config.steps
    assert config.refresh_every == config.optimizer.steps == steps
    config.refresh_every = 7
    assert (config.refresh_every, config.steps, config.optimizer.steps) == (7, steps, steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("cifar100", "config argument 'cifar100' is unknown: did you mean 'cifar10'"),
        ("cifar10,embedded", "two config arguments for the dataset"),
        (
            "moving",
            "simclr has no recipe for moving: there are recipes for fashion_mnist, cifar10, imagenet, folder",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        simclr.get_config(arguments)


def test_a_dataset_without_numbers_of_its_own_uses_the_recipe_that_it_names():
    assert DATASETS["embedded"].recipe == "fashion_mnist"
    basis = simclr.get_config.find_basis("embedded")
    assert (basis.recipe_name, basis.recipe.source) == (
        "fashion_mnist",
        simclr.RECIPES["fashion_mnist"].source,
    )
    assert npid.get_config.find_basis("embedded").recipe_name == "embedded"


def test_backbones_and_budgets_change_a_recipe():
    vit, resnet = (dino.get_config(f"imagenet,{name}") for name in ("vit_small", "resnet50"))
    assert (vit.optimizer.name, resnet.optimizer.name) == ("adamw", "sgd")
    heads = [moco_v3.get_config(f"imagenet,{name}").encoder.heads for name in ("vit_small", "vit_large")]
    assert heads == [12, 16]
    rates = [moco_v3.get_config(f"imagenet,resnet50,{b}").optimizer.learning_rate for b in ("short", "paper")]
    assert rates == [0.6, 0.3]
    assert [dino.get_config(f"imagenet,{b}").batch_size for b in ("short", "paper")] == [512, 1024]


def test_shares_of_a_run_follow_its_epochs():
    """Of RotNet's 200 epochs: the rate drops after 60, 120 and 160; of half as many after 30, 60 and 80."""
    epoch = 50_000 // 128
    paper, short = (rotation.get_config(f"cifar10,{b}").optimizer.boundaries for b in ("paper", "short"))
    assert paper == (60 * epoch, 120 * epoch, 160 * epoch)
    assert short == (30 * epoch, 60 * epoch, 80 * epoch)
    config = pi_model.get_config("cifar10,short")
    # Warm-ups are shares of the run in thousandths.
    assert (config.method.ramp.steps, config.optimizer.warmup_steps) == (16 * 500, 267 * 60 * 500 // 1000)


def test_the_results_table_gives_every_method_the_same_epochs():
    """Of three passes instead of ten: the warm-up of one pass keeps its share."""
    config = simclr.get_config("fashion_mnist,short")
    assert config.steps == 3 * (60_000 // 256)
    assert config.optimizer.warmup_steps == config.steps // 10


def test_recipes_derive_one_step_deep():
    recipe = derive("simclr", "cifar10", source="ours", batch_size=64)
    assert (recipe.batch_size, recipe.source, recipe.derived_from) == (64, "ours", "simclr:cifar10")
    assert recipe.optimizer == simclr.RECIPES["cifar10"].optimizer
    with pytest.raises(ValueError, match="dcl:folder is derived from simclr:folder itself: derive from that"):
        derive("dcl", "folder", source="too deep")


def test_a_recipe_without_an_option_of_the_method_is_refused():
    recipe = dataclasses.replace(simclr.RECIPES["fashion_mnist"], method={"temprature": 0.1})
    with pytest.raises(ValueError, match="temprature is not an option: did you mean 'temperature'"):
        entry("simclr", {"fashion_mnist": recipe})()


def test_a_recipe_that_leaves_out_its_source_cannot_be_written():
    with pytest.raises(TypeError, match="source"):
        Recipe(backbone="mlp", batch_size=8, epochs={"short": 1}, warmup_epochs=share(1, of=10))


# Other rules


def test_another_rule_comes_with_its_options_and_the_old_ones_leave():
    config = load_config(
        f"{SIMCLR}:cifar10",
        {"optimizer.momentum": "0.5", "optimizer.name": "sgd", "optimizer.nesterov": "true"},
    )
    assert (config.optimizer.name, config.optimizer.momentum, config.optimizer.nesterov) == ("sgd", 0.5, True)
    assert "trust_coefficient" not in config.optimizer
    assert config.optimizer.learning_rate == 1.0 and config.optimizer.weight_decay == 1e-4
    assert build.optimizer(build.to_dict(config)).learning_rate(10_000) > 0
    with pytest.raises(ValueError, match=r"config\.optimizer\.momentum is not an option: .*allowed: b1, b2"):
        load_config(f"{SIMCLR}:cifar10", {"optimizer.name": "adamw", "optimizer.momentum": "0.5"})


def test_another_encoder_comes_with_its_options():
    config = load_config(SIMCLR, {"encoder.name": "vit_micro", "encoder.depth": "2"})
    assert (config.encoder.name, config.encoder.depth, config.encoder.patch) == ("vit_micro", 2, 7)
    assert "widths" not in config.encoder
    assert config.encoder == load_config(f"{SIMCLR}:vit_micro", {"encoder.depth": "2"}).encoder


def test_another_preset_comes_with_its_options_and_keeps_what_belongs_to_the_images():
    config = load_config(f"{SIMCLR}:cifar10", {"views.preset": "byol", "views.solarize_prob": "0,0.5"})
    assert config.views.solarize_prob == (0, 0.5)
    assert config.views.blur_prob == byol.get_config("imagenet").views.blur_prob
    assert (config.views.size, config.views.mean) == (32, DATASETS["cifar10"].mean)
    assert len(build.method(build.to_dict(config)).views) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("optimizer.name", "sgdd"), ("encoder.name", "resnet19"), ("views.preset", "simclrr")],
)
def test_another_rule_that_does_not_exist_is_refused(name, value):
    with pytest.raises(ValueError, match=f"'{value}' is not one of the allowed values: did you mean"):
        load_config(SIMCLR, {name: value})


# Images are counted


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (70, 16, 16, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    return f"folder:{tmp_path}"


def test_images_of_a_folder_are_counted_and_steps_follow(folder):
    overrides = {"data.source": folder, "batch_size": "8"}
    config = load_config(f"{SIMCLR}:folder", overrides)
    assert config.data.num_examples == 70
    # 50 epochs of one step: there are fewer images than the recipe's batch has.
    assert config.steps == config.optimizer.steps == 50
    assert load_config(f"{SIMCLR}:folder", {**overrides, "steps": "7"}).steps == 7


def test_a_memory_has_a_row_for_each_image_of_a_folder(folder):
    config = load_config("configs/npid.py:folder", {"data.source": folder})
    assert config.method.num_examples == 70
    assert load_config("configs/deepcluster.py:smoke").method.num_examples == 10_000


def test_images_of_another_split_are_counted():
    config = load_config("configs/deepcluster.py", {"data.split": "train[:25%]"})
    assert (config.data.num_examples, config.method.num_examples) == (2500, 2500)
    assert config.steps == 10 * (2500 // 256)
    assert deepcluster.get_config().steps == 10 * (10_000 // 256)


def test_without_the_images_their_number_can_be_given():
    with pytest.raises(ValueError, match=r"does not exist.*or --config\.data\.num_examples=N"):
        load_config(f"{SIMCLR}:folder")
    assert load_config(f"{SIMCLR}:folder", {"data.num_examples": "2560"}).steps == 500
    with pytest.raises(ValueError, match=r"data\.num_examples=0: allowed is an integer of 1 or more"):
        load_config(f"{SIMCLR}:folder", {"data.num_examples": "0"})


def test_a_run_that_goes_on_keeps_the_number_of_its_images(folder):
    data = {"source": folder, "split": "train", "num_examples": 2560}
    evaluate = {"train_split": "train[:80%]", "test_split": "train[80%:]"}
    views = {"mean": (0.1,), "std": (0.2,)}
    recorded = {"data": data, "views": views, "watch": {"evaluate": evaluate}}
    config = load_config(f"{SIMCLR}:folder", {"data.source": folder}, recorded=recorded)
    assert config.steps == 500
    other = load_config(f"{SIMCLR}:cifar10", recorded=recorded)
    assert other.data.num_examples == 50_000


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ((), ("train[:80%]", "train[80%:]")),
        (("train",), ("train[:80%]", "train[80%:]")),
        (("train", "val"), ("train", "val")),
        (("train", "Validation", "test"), ("train", "test")),
        (("train", "unlabeled"), ("train[:80%]", "train[80%:]")),
    ],
)
@pytest.mark.parametrize("arguments", ["", "folder"])
def test_the_splits_to_evaluate_on_are_those_that_the_images_have(tmp_path, splits, expected, arguments):
    for split in splits or ("",):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(5):
                np.save(tmp_path / split / label / f"{number}.npy", np.full((8, 8, 3), number, np.uint8))
    options = {"data.source": f"folder:{tmp_path}"}
    config = load_config(f"{SIMCLR}:{arguments}", options)
    evaluate = config.watch.evaluate
    assert (evaluate.train_split, evaluate.test_split) == expected
    recorded = {**build.to_dict(config)}
    again = load_config(f"{SIMCLR}:{arguments}", options, recorded=recorded).watch.evaluate
    assert (again.train_split, again.test_split) == expected


# Config files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("get_config = lambda arguments: {}", "has no get_config"),
        ("import nothing_of_that_name", "cannot be run: ModuleNotFoundError"),
        ("get_config = (", "cannot be run: SyntaxError"),
    ],
)
def test_a_file_that_is_no_config_is_refused(text, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_entry(str(path))


def test_a_config_file_may_lie_anywhere(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from ssl_jax.config import derive, entry\n"
        "RECIPES = {'cifar10': derive('simclr', 'cifar10', source='mine', batch_size=64)}\n"
        "get_config = entry('simclr', RECIPES, dataset='cifar10')\n"
    )
    assert load_config(str(path)).batch_size == 64
