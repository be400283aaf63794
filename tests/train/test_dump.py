"""A dump holds what is needed to run a step again, or is not there."""

import json
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.train import storage
from ssl_jax.train.dump import read_dump, write_dump
from ssl_jax.train.sharding import batch_sharding, make_mesh, state_shardings
from ssl_jax.train.state import TrainState

# When a read fails, orbax closes its event loop under the other reads, which complain when they finish.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Moments(NamedTuple):
    count: jax.Array
    mean: dict


def make_state(width: int = 4) -> TrainState:
    params = {"w": jnp.linspace(0, 1, 8 * width, dtype=jnp.bfloat16).reshape(8, width)}
    state = {"center": jnp.array([jnp.nan, 1.0]), "queue": {}}
    opt_state = (Moments(jnp.int32(7), jax.tree.map(jnp.ones_like, params)), ())
    return TrainState(jnp.int32(7), params, state, opt_state, jax.random.key(3), jnp.bool_(True))


def make_batch() -> dict:
    generator = np.random.default_rng(0)
    crops = tuple(generator.integers(0, 255, (8, 2, size, size, 3), dtype=np.uint8) for size in (4, 2))
    return {"crops": crops, "label": np.arange(8, dtype=np.int32), "extra": [np.float16([1.5])]}


def abstract(state: TrainState) -> TrainState:
    shardings = state_shardings(state, make_mesh(devices=jax.devices()[:1]))
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert storage.to_host(one).tobytes() == storage.to_host(other).tobytes()


METRICS = {"loss": float("nan"), "grad_norm": jnp.float32(jnp.inf), "learning_rate": 0.1}


def test_state_and_batch_come_back_bit_for_bit(tmp_path):
    path = write_dump(tmp_path / "dumps", state=make_state(), batch=make_batch(), metrics=METRICS)
    assert path == tmp_path / "dumps" / "step_7"
    state, batch = read_dump(path, abstract(make_state()))
    assert_same_bits(state, make_state())
    assert_same_bits(batch, make_batch())
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch))


def test_a_sharded_state_and_batch_are_dumped_whole(tmp_path):
    mesh = make_mesh(fsdp=4)
    state = jax.device_put(make_state(), state_shardings(make_state(), mesh, fsdp_min_size=1))
    whole = {"image": np.arange(32.0, dtype=np.float32).reshape(8, 4)}
    path = write_dump(tmp_path, state=state, batch=jax.device_put(whole, batch_sharding(mesh)), metrics={})
    found, found_batch = read_dump(path, abstract(make_state()))
    assert_same_bits(found, make_state())
    assert_same_bits(found_batch, whole)


def test_a_person_can_read_what_happened(tmp_path):
    path = write_dump(
        tmp_path, state=make_state(), batch=make_batch(), metrics=METRICS, command="run it again"
    )

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    facts = json.loads((path / "manifest" / "manifest.json").read_text(), parse_constant=refuse)["facts"]
    assert facts["step"] == 7 and facts["command"] == "run it again"
    assert facts["metrics"] == {"loss": "nan", "grad_norm": "inf", "learning_rate": 0.1}


def test_a_later_dump_of_the_same_step_replaces_the_earlier(tmp_path):
    write_dump(tmp_path, state=make_state(), batch=make_batch(), metrics={})
    second = {"image": np.ones((2, 2), np.float32)}
    path = write_dump(tmp_path, state=make_state(), batch=second, metrics={})
    assert_same_bits(read_dump(path, abstract(make_state()))[1], second)


def test_an_interrupted_dump_is_absent(tmp_path, monkeypatch):
    def fail(arrays):
        raise OSError("No space left on device")

    monkeypatch.setattr(storage, "checksums", fail)
    with pytest.raises(OSError, match="No space"):
        write_dump(tmp_path, state=make_state(), batch=make_batch(), metrics={})
    assert not (tmp_path / "step_7").exists()


def test_what_is_not_a_whole_dump_of_this_configuration_is_refused(tmp_path):
    path = write_dump(tmp_path, state=make_state(), batch=make_batch(), metrics={})
    with pytest.raises(ValueError, match=r"params/w is bfloat16\[8,4\] in .* bfloat16\[8,5\]"):
        read_dump(path, abstract(make_state(width=5)))
    with pytest.raises(ValueError, match="not a whole dump"):
        read_dump(tmp_path / "absent", abstract(make_state()))
    for file in path.glob("batch/**/d/*"):
        os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(ValueError, match="not a whole dump: batch"):
        read_dump(path, abstract(make_state()))
