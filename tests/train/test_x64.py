"""With ``JAX_ENABLE_X64=1`` a step gives the state that it took: the same shapes and dtypes, parameters in float32."""

import jax
import jax.numpy as jnp
import pytest

from ssl_jax.config import build
from ssl_jax.config.load import load_config
from ssl_jax.core import trees
from ssl_jax.methods.registry import names
from ssl_jax.train.step import make_init, make_train_step

SOME = ("dbn", "mae", "simclr")
METHODS = [pytest.param(name, marks=() if name in SOME else pytest.mark.long) for name in names()]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_keeps_the_types_of_the_state(name):
    config = build.to_dict(load_config(f"configs/{name}.py:smoke"))
    channels = config["data"]["channels"] or (3 if "color" in config["data"]["source"] else 1)
    config = build.with_changes(config, {"data.channels": channels})
    with jax.enable_x64(True):
        method, optimizer, sample = build.method(config), build.optimizer(config), build.sample(config)
        state = jax.eval_shape(make_init(method, optimizer, sample), 0)
        index = jax.ShapeDtypeStruct((8,), jnp.int32)
        batch = dict.fromkeys(("label", "index", "clip", "time"), index)
        batch["image"] = jax.ShapeDtypeStruct((8, *sample["image"].shape[1:]), jnp.uint8)
        after, _ = jax.eval_shape(make_train_step(method, optimizer), state, batch)
    before, after = trees.flatten(state), trees.flatten(after)
    assert {path: leaf.dtype for path, leaf in after.items()} == {p: leaf.dtype for p, leaf in before.items()}
    if name in SOME:
        assert not [path for path, leaf in trees.flatten(state.params).items() if leaf.dtype == jnp.float64]
