"""Values from text have the type of the value that they replace, or are refused in one line."""

import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ssl_jax.config.overrides import apply_overrides, parse_overrides


def config():
    return ConfigDict(
        {
            "steps": 10,
            "rate": 0.1,
            "name": "sgd",
            "best": True,
            "area": (0.2, 1.0),
            "groups": {},
            "method": {"head": {"prototypes": 8, "layers": 3, "scale": 0.5}},
            "views": {"size": 28, "channels": placeholder(int)},
            "init": placeholder(object),
        }
    ).lock()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "500", 500),
        ("rate", "1e-3", 1e-3),
        ("rate", "2", 2.0),
        ("name", "None", "None"),
        ("best", "false", False),
        ("best", "1", True),
        ("area", "(0.5, 1.0)", (0.5, 1.0)),
        ("area", "0.5,1", (0.5, 1)),
        ("area", "0.5", (0.5,)),
        ("area", "knn,linear", ("knn", "linear")),
        ("area", "()", ()),
        ("groups", "{'head': {'b1': 0.5}}", ConfigDict({"head": {"b1": 0.5}})),
        ("views.size", "32", 32),
        ("method.head.scale", "1", 1.0),
        ("views.channels", "3", 3),
        ("views.channels", "None", None),
        ("init", "[1, 2]", [1, 2]),
        ("init", "file.safetensors", "file.safetensors"),
    ],
)
def test_text_becomes_a_value_of_the_type_that_stands_there(name, text, value):
    changed = config()
    apply_overrides(changed, {name: text})
    for part in name.split("."):
        changed = changed[part]
    assert changed == value and type(changed) is type(value)


@pytest.mark.parametrize("value", ["{'prototypes': 4, 'scale': 1}", {"prototypes": 4, "scale": 1}])
def test_a_group_of_options_keeps_what_is_not_given(value):
    changed = config()
    apply_overrides(changed, {"method.head": value})
    assert changed.method.head.to_dict() == {"prototypes": 4, "layers": 3, "scale": 1.0}
    with pytest.raises(
        ValueError, match=r"config\.method\.head\.scael is not an option: did you mean 'scale'"
    ):
        apply_overrides(changed, {"method.head": {"scael": 1.0}})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("steps", "many", "config.steps='many': allowed is an integer"),
        ("steps", "1.5", "allowed is an integer"),
        ("steps", "None", "config.steps='None': allowed is an integer"),
        ("rate", "fast", "allowed is a number"),
        ("best", "perhaps", "allowed is True or False"),
        ("area", "(0.5,", "allowed is values separated by commas"),
        ("area", "...", "allowed is values separated by commas"),
        ("area", "{1}", "allowed is values separated by commas"),
        ("area", "b'x', 1j", "allowed is values separated by commas"),
        ("groups", "5", "allowed is a mapping"),
        ("stpes", "5", "config.stpes is not an option: did you mean 'steps'"),
        ("views.sizes", "5", "config.views.sizes is not an option: did you mean 'size'"),
        ("steps.more", "5", "config.steps.more is not an option"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(name, text, message):
    with pytest.raises(ValueError, match=message):
        apply_overrides(config(), {name: text})


def test_the_last_of_two_values_counts():
    assert parse_overrides(["steps=5", "rate=1", "steps=6"]) == {"steps": "6", "rate": "1"}
    with pytest.raises(ValueError, match=r"such as config\.steps=500"):
        parse_overrides(["steps"])
