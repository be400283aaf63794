"""Ranges of options: every number of every config has one, present values are inside, others are one line."""

import dataclasses
import importlib
import json
import math
import re
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.cli.finetune import override
from ssl_jax.config import build
from ssl_jax.config.load import load_config
from ssl_jax.config.ranges import FINETUNE, RANGES, check_config, check_option, range_of
from ssl_jax.core.check import is_group
from ssl_jax.core.check import options_of as options_of_function
from ssl_jax.evaluate.finetune import RECIPES, Recipe
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.methods.registry import method_module, names
from ssl_jax.optim.options import RULES
from tests.weights_file import write_weights

ROOT = Path(__file__).parent.parent.parent
COUNTED = {"data.num_examples": 10_000}


def every_config():
    """Yield a config of each method and recipe, then of each encoder, update rule and preset."""
    for name in names():
        module = importlib.import_module(f"configs.{name}")
        for dataset in module.RECIPES:
            yield build.to_dict(module.get_config(dataset, COUNTED))
    get_config = importlib.import_module("configs.simclr").get_config
    for option, values in {
        "encoder.name": models.BUILDERS,
        "optimizer.name": RULES,
        "views.preset": presets.PRESETS,
    }.items():
        for value in values:
            yield build.to_dict(get_config("", {option: value}))
    with tempfile.TemporaryDirectory() as folder:
        write_weights(f"{folder}/vit.safetensors")
        yield build.to_dict(get_config("", {"encoder.weights": f"{folder}/vit.safetensors"}))


def options_of(part, prefix=""):
    """Yield names and values of a config, those of ``optimizer.groups`` by the optimizer's names."""
    for name, value in part.items():
        if not isinstance(value, dict):
            yield prefix + name, value
        elif prefix + name == "optimizer.groups":
            for group in value.values():
                yield from options_of(group, "optimizer.")
        else:
            yield from options_of(value, f"{prefix}{name}.")


def signature_options(function, prefix):
    """Yield name, annotation and default of the options of a function, of groups those of their fields."""
    for name, parameter in options_of_function(function).items():
        default = parameter.default
        if is_group(default):
            for field in dataclasses.fields(default):
                yield f"{prefix}.{name}.{field.name}", str(field.type), getattr(default, field.name)
        elif default is not parameter.empty:
            yield f"{prefix}.{name}", str(parameter.annotation), default


def test_ranges_allow_what_the_signatures_do():
    """Texts where a text may stand, None where None may, True where a truth value may."""
    functions = [("method", method_module(name).build) for name in names()]
    functions += [("encoder", function) for function in models.BUILDERS.values()]
    functions += [("views", function) for function in presets.PRESETS.values()]
    wrong, checked = [], 0
    for prefix, function in functions:
        for name, annotation, default in signature_options(function, prefix):
            kinds = {"str": "a", "None": None, "bool": True}
            values = [
                value for kind, value in kinds.items() if kind in annotation and "tuple" not in annotation
            ]
            for value in [*values, default] if default is not None or "None" in annotation else values:
                checked += 1
                try:
                    check_option(name, value)
                except ValueError as error:
                    wrong.append(str(error))
    assert not wrong and checked > 1000


def test_every_number_of_every_config_has_a_range_in_which_it_is():
    without, outside, seen = set(), set(), set()
    for config in every_config():
        for name, value in options_of(config):
            seen.add(name)
            if isinstance(value, str | bool):
                continue
            if name not in RANGES:
                without.add(name)
            elif not RANGES[name].accepts(value):
                outside.add((name, value))
    assert not without, "add them to ssl_jax/config/ranges.py"
    assert not outside
    assert not RANGES.keys() - seen, "options that no config has"


def test_recorded_configs_are_inside_too():
    rows = [
        row for path in sorted((ROOT / "results").glob("*.jsonl")) for row in path.read_text().splitlines()
    ]
    configs = [row["config"] for row in map(json.loads, rows) if "config" in row]
    assert len(configs) > 100
    for config in configs:
        check_config(build.tuples(config))


def test_every_option_of_fine_tuning_has_a_range_in_which_the_recipes_are():
    assert set(FINETUNE) == set(Recipe._fields)
    for recipe in RECIPES.values():
        for name, value in recipe._asdict().items():
            assert FINETUNE[name].accepts(value), name


REFUSED = [
    ("simclr", "method.temperature", "0", "config.method.temperature=0.0: allowed is a number above 0"),
    ("simclr", "method.temperature", "-0.1", "a number above 0"),
    ("simclr", "method.temperature", "nan", "a number above 0"),
    ("simclr", "method.temperature", "1e39", "a number above 0"),
    ("simclr", "method.projector_layers", "-1", "an integer from 0 to 4096"),
    ("simclr", "method.projection", "None", "method.projection=None: allowed is a value of the type int"),
    ("simclr", "optimizer.learning_rate", "-1e-3", "a number of 0 or more"),
    ("simclr", "optimizer.learning_rate", "inf", "a number of 0 or more"),
    ("simclr", "optimizer.weight_decay", "-1", "a number of 0 or more"),
    ("simclr", "optimizer.b1", "1.5", "a number of 0 or more and below 1"),
    (
        "simclr",
        "optimizer.warmup_steps",
        "10000",
        "warmup_steps=10000: allowed is an integer in [0, steps=4]",
    ),
    (
        "simclr",
        "optimizer.groups",
        "{'head': {'learning_rate': -1}}",
        "groups['head'].learning_rate=-1: allowed",
    ),
    ("simclr", "optimizer.groups", "{'head': 5}", "groups['head']=5: allowed is a mapping"),
    ("simclr", "optimizer.freeze", "head,5", "pairs of a pattern and a number of steps"),
    ("simclr", "optimizer.constant_lr", "1,2", "each a regular expression"),
    ("simclr", "optimizer.constant_lr", "(", "each a regular expression"),
    ("simclr", "optimizer.skip_zero_grads", "head,)", "each a regular expression"),
    ("simclr", "optimizer.freeze", "(('*', 5),)", "pairs of a pattern and a number of steps"),
    ("simclr", "optimizer.groups", "{'*': {}}", "groups='*': allowed is a regular expression"),
    ("simclr", "views.area", "0.2", "config.views.area='0.2': allowed is two values"),
    ("simclr", "views.area", "0.2,0.5,1", "two values"),
    ("simclr", "views.area", "()", "two values"),
    ("simclr", "views.area", "1,0.2", "the smaller one first"),
    ("simclr", "views.area", "0,1", "each a number above 0 and at most 1"),
    ("simclr", "views.area", "a,b", "each a number"),
    ("simclr", "views.ratio", "0.75", "two values"),
    ("simclr", "views.std", "0", "each a number above 0"),
    ("simclr", "views.mean", "nan", "each a finite number"),
    ("simclr", "views.blur_prob", "1.1", "a number from 0 to 1"),
    ("byol", "views.blur_prob", "0.1,0.2,0.3", "a number from 0 to 1, or 2 of them"),
    ("simclr", "views.jitter.hue", "0.6", "a number from 0 to 0.5"),
    ("simclr", "views.jitter", "{'hue': 0.6}", "views.jitter.hue=0.6: allowed"),
    ("simclr", "views.size", "0", "an integer from 1 to 65536"),
    ("simclr", "encoder.widths", "8,0", "each an integer from 1 to"),
    ("simclr", "encoder.widths", "1e10", "each an integer from 1 to"),
    ("simclr", "encoder.widths", "8,1.5", "each an integer"),
    ("simclr", "encoder.widths", "True", "each an integer"),
    ("simclr", "steps", "0", "config.steps=0: allowed is an integer of 1 or more"),
    ("simclr", "steps", "2147483648", "below 2^31"),
    ("simclr", "batch_size", "0", "an integer of 1 or more"),
    (
        "simclr",
        "seed",
        "2147483648",
        "config.seed=2147483648: allowed is an integer of 0 or more, below 2^31",
    ),
    ("simclr", "seed", "-1", "an integer of 0 or more"),
    ("simclr", "seed", "9" * 4000, "(4002 characters): allowed is an integer"),
    ("simclr", "host.data", "0", "-1"),
    ("simclr", "data.max_corrupt_fraction", "1.5", "a number from 0 to 1"),
    ("simclr", "watch.evaluate.k", "0", "an integer of 1 or more"),
    ("simclr", "watch.online.every", "0", "an integer of 1 or more"),
    ("simclr", "watch.evaluate.per_class", "1,-1", "each an integer of 1 or more"),
    ("simclr", "watch.online", "None", "a mapping of options, of bank, every, k, queries"),
    ("simclr", "watch.log.tensorboard", "None", "True or False"),
    (
        "dino",
        "method.teacher.decay",
        "1.01",
        "config.method.teacher.decay=1.01: allowed is a number from 0 to 1",
    ),
    ("dino", "method.temperatures.student", "0", "a number above 0"),
    ("dino", "method.temperatures", "{'student': 0}", "method.temperatures.student=0: allowed"),
    ("mae", "method.mask_ratio", "1", "a number above 0 and below 1"),
    ("mae", "encoder.drop_path", "1", "a number of 0 or more and below 1"),
    ("supervised", "method.label_smoothing", "1", "a number of 0 or more and below 1"),
    ("npid", "method.num_examples", "None", "num_examples=None: allowed is a value of the type int"),
    ("rotation", "method.rotations", "0", "2 to 4 values"),
]


@pytest.mark.parametrize(("method", "name", "text", "message"), REFUSED)
def test_a_value_outside_of_its_range_is_one_line_that_says_what_is_allowed(method, name, text, message):
    with pytest.raises(ValueError) as caught:
        config = build.to_dict(load_config(f"configs/{method}.py:smoke", {name: text}))
        build.method(config)
        build.optimizer(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


TAKEN = [
    ("steps", "1e3", 1000),
    ("steps", "1_000", 1000),
    ("steps", " 5.0 ", 5),
    ("seed", "2147483647", 2**31 - 1),
    ("encoder.widths", "8,1e1", (8, 10)),
    ("encoder.widths", "(8.0,)", (8,)),
    ("method.temperature", "1", 1.0),
    ("optimizer.learning_rate", "0", 0.0),
    ("optimizer.clip_norm", "None", None),
    ("optimizer.skip_zero_grads", r"dense_\d+,head", (r"dense_\d+", "head")),
    ("optimizer.freeze", "(('.', 5),)", ((".", 5),)),
    ("views.area", "0.5,1", (0.5, 1)),
    ("views.jitter", "None", None),
    ("data.channels", "13", 13),
]


@pytest.mark.parametrize(("name", "text", "value"), TAKEN)
def test_a_value_inside_has_the_type_that_is_meant(name, text, value):
    found = build.to_dict(load_config("configs/simclr.py:smoke", {name: text}))
    for part in name.split("."):
        found = found[part]
    assert found == value and type(found) is type(value)
    assert not isinstance(value, tuple) or [type(v) for v in found] == [type(v) for v in value]


def test_a_part_given_in_a_mapping_keeps_the_rest():
    config = load_config("configs/simclr.py:smoke", {"watch.online": "{'every': 7}", "views": {"size": 16}})
    before = load_config("configs/simclr.py:smoke")
    assert config.watch.online.to_dict() == {**before.watch.online.to_dict(), "every": 7}
    assert config.views.size == 16 and config.views.area == before.views.area


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "0.1", True, (0.1,), None, np.float32(0)])
def test_configs_made_in_python_or_recorded_are_checked_where_objects_are_built(value):
    config = build.to_dict(load_config("configs/simclr.py:smoke"))
    config = build.with_changes(config, {"method.temperature": value})
    for make in (build.method, build.run_objects):
        with pytest.raises(ValueError, match=r"config\.method\.temperature="):
            make(config)


def test_arrays_pass_unread_since_they_may_be_traced():
    check_option("method.temperature", jnp.float32(0.1))
    check_option("optimizer.learning_rate", jnp.zeros(3))
    check_option("method.temperature", np.float32(0.1))


def test_a_number_of_a_method_from_elsewhere_has_to_be_finite():
    check_option("method.mine", -3)
    with pytest.raises(ValueError, match=r"config\.method\.mine=nan: allowed is a finite number"):
        check_option("method.mine", math.nan)
    assert range_of("method.my_name", "text") is None


def test_values_that_do_not_go_together_are_one_line():
    config = build.to_dict(load_config("configs/simclr.py:smoke"))
    del config["method"]["name"]
    with pytest.raises(ValueError, match=r"config\.method"):
        build.method(config)
    with (
        pytest.raises(ValueError, match=r"config\.x: .*wrong type.*\(TypeError: no\)"),
        build.options_that_fit("config.x", {}),
    ):
        raise TypeError("no\nsecond line")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs='x'", "set=epochs=\"'x'\": allowed is a number above 0"),
        ("epochs=-1", "set=epochs=-1: allowed is a number above 0"),
        ("batch_size=0", "set=batch_size=0: allowed is an integer of 1 or more"),
        ("area=0.2", "set=area=0.2: allowed is two values"),
        ("area=(1, 0.2)", "the smaller one first"),
        ("cutmix=3", "True or False"),
        ("layer_decay=2", "at most 1, or None"),
        ("mixup=1e400", "a number of 0 or more"),
    ],
)
def test_options_of_fine_tuning_outside_of_their_range_are_one_line(text, message):
    with pytest.raises(ValueError) as caught:
        override(Recipe(), [text])
    assert message in str(caught.value)


def test_options_of_fine_tuning_have_the_type_that_is_meant():
    changed = override(Recipe(), ["batch_size=1e1", "area=(0.2, 1)", "layer_decay=None"])
    assert (changed.batch_size, changed.area, changed.layer_decay) == (10, (0.2, 1), None)


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.1), (-1, 0.1), (1, 0.0), (1, -1.0)])
def test_knn_refuses_no_neighbors_and_no_temperature(k, temperature):
    features, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    with pytest.raises(ValueError, match=r"(k|temperature)="):
        knn_accuracy(features, labels, features, labels, classes=3, k=k, temperature=temperature)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"method.temperature": 1e-46},
            "config.method.temperature=1e-46: allowed is a number above 0 that float32 holds",
        ),
        (
            {"method.temperature": "1e39"},
            "config.method.temperature='1e39': allowed is a number above 0 that float32 holds",
        ),
        (
            {"optimizer.warmup_steps": 10**6},
            "config.optimizer.warmup_steps=1000000: allowed is an integer in [0, steps=4]",
        ),
        ({"encoder.widths": "()"}, "config.encoder.widths=(): allowed is one width or more"),
        ({"optimizer.schedule": "x"}, "config.optimizer.schedule='x' is not one of the allowed values"),
    ],
)
def test_what_a_function_refuses_is_named_as_the_user_does(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}[^\n]*$"):
        config = build.to_dict(load_config("configs/simclr.py:,,smoke", change))
        build.method(config)
        build.optimizer(config)
