"""Groups of options: dataclasses as defaults of keyword parameters."""

import dataclasses

import pytest

from ssl_jax.config.options import defaults_of, typed
from ssl_jax.core.check import call


@dataclasses.dataclass(frozen=True)
class Head:
    prototypes: int = 8
    scale: float = 0.5
    start: float | None = None


def build(encoder, *, head: Head = Head(scale=0.25), weight: float = 1.0):
    return encoder, head, weight


def test_a_mapping_replaces_fields_of_the_default_instance():
    _, head, weight = call(build, "encoder", where="config.method", options={"head": {"prototypes": 4}})
    assert head == Head(prototypes=4, scale=0.25) and weight == 1.0
    given = Head(start=0.1)
    assert call(build, "encoder", where="config.method", options={"head": given})[1] is given


def test_a_misspelt_field_is_refused_by_its_dotted_name():
    message = "config.method.head.prototpyes is not an option: did you mean 'prototypes'? allowed: prototypes, scale, start"
    with pytest.raises(ValueError) as error:
        call(build, "encoder", where="config.method", options={"head": {"prototpyes": 4}})
    assert str(error.value) == message
    with pytest.raises(ValueError, match=r"config\.method\.head=None: allowed is a mapping of options"):
        call(build, "encoder", where="config.method", options={"head": None})


def test_a_group_becomes_nested_options_with_typed_placeholders():
    options = typed(defaults_of(build), {"head": {"scale": 2}})
    assert options.keys() == {"head", "weight"}
    head = options["head"]
    assert (head["prototypes"], head["scale"]) == (8, 2.0) and isinstance(head["scale"], float)
    assert head["start"].get_type() is float and head["start"].get() is None


def test_what_a_recipe_gives_a_group_is_checked():
    with pytest.raises(ValueError, match=r"^head\.sclae is not an option: did you mean 'scale'"):
        typed(defaults_of(build), {"head": {"sclae": 1.0}})
    with pytest.raises(ValueError, match="head=3: allowed is a mapping of options"):
        typed(defaults_of(build), {"head": 3})
