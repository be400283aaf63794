"""The printed config: every value once, with where it comes from."""

import re

import pytest

from ssl_jax.cli.config_flag import gather_overrides
from ssl_jax.cli.show import describe_config
from ssl_jax.config import build
from ssl_jax.config.load import load_config
from ssl_jax.config.origins import leaves


def origins_of(text):
    lines = [re.split(r"  +", line, maxsplit=2) for line in text.splitlines() if not line.startswith("#")]
    return {name: (value, origin) for name, value, origin in lines}


def test_every_value_is_shown_with_its_origin():
    overrides = {"optimizer.name": "sgd", "optimizer.nesterov": "True", "steps": "100"}
    text = describe_config("configs/byol.py:cifar10", overrides)
    assert text.startswith("# recipe cifar10 of configs/byol.py: solo-learn's CIFAR-10")
    shown = origins_of(text)
    config = build.to_dict(load_config("configs/byol.py:cifar10", overrides))
    assert {name: value for name, (value, _) in shown.items()} == {n: repr(v) for n, v in leaves(config)}
    expected = {
        "steps": "command line",
        "optimizer.name": "command line",
        "optimizer.nesterov": "command line",
        "optimizer.learning_rate": "recipe",
        "optimizer.momentum": "default of ssl_jax.optim.options.from_options",
        "optimizer.warmup_steps": "recipe",
        "batch_size": "recipe",
        "method.decay": "recipe",
        "method.decay_steps": "follows steps",
        "method.projection": "default of ssl_jax.methods.distillation.byol.build",
        "data.num_examples": "dataset",
        "encoder.name": "recipe",
        "encoder.stem": "dataset",
        "views.mean": "dataset",
        "views.blur_prob": "recipe",
        "optimizer.steps": "follows steps",
        "views.solarize_prob": "default of ssl_jax.augment.presets.byol",
        "watch.log.every": "default of ssl_jax.config.make",
    }
    assert {name: shown[name][1] for name in expected} == expected


def test_what_the_smoke_budget_changes_is_shown():
    shown = origins_of(describe_config("configs/simclr.py:smoke"))
    assert shown["steps"] == ("4", "smoke") and shown["method.projector_width"] == ("32", "smoke")
    assert origins_of(describe_config("configs/dino.py:smoke"))["method.head.prototypes"] == ("64", "smoke")


def test_options_of_a_group_are_shown_one_by_one():
    text = describe_config("configs/dino.py:imagenet,paper", {"method.head.prototypes": "8192"})
    expected = {
        "method.head.prototypes": ("8192", "command line"),
        "method.head.norm_last_layer": ("False", "recipe"),
        "method.head.layers": ("3", "default of ssl_jax.methods.distillation.dino.build"),
        "method.temperatures.teacher_steps": (str(30 * (1_281_167 // 1024)), "recipe"),
    }
    shown = origins_of(text)
    assert {name: shown[name] for name in expected} == expected
    assert shown["method.teacher.decay_steps"][1] == "follows steps"


@pytest.mark.parametrize(
    ("argv", "gathered"),
    [
        (["--config.best"], ["--config_override=best=True"]),
        (["--noconfig.best", "x"], ["--config_override=best=False", "x"]),
        (["--config.best", "--debug"], ["--config_override=best=True", "--debug"]),
        (["-config.a.b=c=d"], ["--config_override=a.b=c=d"]),
        (["--config", "configs/byol.py", "--configs=3"], ["--config", "configs/byol.py", "--configs=3"]),
    ],
)
def test_overrides_have_the_forms_of_flags(argv, gathered):
    assert gather_overrides(argv) == gathered
