"""Meshes and sharding rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from ssl_jax.train.sharding import batch_sharding, make_mesh, replicated, state_shardings


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, (8, 1)), ({"fsdp": 4}, (2, 4)), ({"fsdp": -1, "data": 2}, (2, 4)), ({"data": 8}, (8, 1))],
)
def test_a_mesh_covers_all_devices_with_auto_axes(options, expected):
    mesh = make_mesh(**options)
    assert tuple(mesh.shape.items()) == (("data", expected[0]), ("fsdp", expected[1]))
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": 0}, "data=0"),
        ({"fsdp": -2}, "fsdp=-2"),
        ({"data": -1, "fsdp": -1}, "not for both"),
        ({"fsdp": 3}, "needs a multiple of 3 devices, but there are 8"),
        ({"data": 2, "fsdp": 2}, r"needs 2 \* 2 = 4 devices, but there are 8"),
        ({"devices": []}, "there are 0"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(**options)


class Device:
    """What JAX knows of a device of a pod, whose chips are numbered by their place in the grid."""

    platform = device_kind = "chip"

    def __init__(self, number, process):
        self.id, self.process_index = number, process


def test_a_mesh_lists_devices_process_by_process():
    """In a 4 x 4 grid whose hosts hold 2 x 2 chips, the order of the grid tears the rows of a host apart."""
    grid = [Device(4 * row + column, row // 2 * 2 + column // 2) for row in range(4) for column in range(4)]
    for options in ({}, {"fsdp": 4}):
        processes = [device.process_index for device in make_mesh(devices=grid, **options).devices.flat]
        assert processes == sorted(processes)


def test_a_batch_is_split_over_every_device_and_the_rest_replicated():
    mesh = make_mesh(fsdp=2)
    batch = jax.device_put(jnp.arange(16.0).reshape(16, 1), batch_sharding(mesh))
    assert {piece.data.shape for piece in batch.addressable_shards} == {(2, 1)}
    assert jax.device_put(jnp.ones(3), replicated(mesh)).is_fully_replicated


def test_without_fsdp_everything_is_replicated():
    shardings = state_shardings({"big": shape(1024, 1024)}, make_mesh())
    assert shardings["big"].is_fully_replicated


def test_fsdp_splits_the_largest_axis_that_divides_of_big_arrays_only():
    tree = {
        "tall": shape(512, 256),
        "square": shape(256, 256),
        "odd": shape(513, 256),
        "nothing_divides": shape(513, 255),
        "small": shape(64, 64),
        "scalar": shape(),
        "key": jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2**16)),
    }
    shardings = state_shardings(tree, make_mesh(fsdp=4))
    specs = {name: tuple(sharding.spec) for name, sharding in shardings.items()}
    assert specs == {
        "tall": ("fsdp",),
        "square": (None, "fsdp"),
        "odd": (None, "fsdp"),
        "nothing_divides": (),
        "small": (),
        "scalar": (),
        "key": (),
    }
    smaller = state_shardings({"small": shape(64, 64)}, make_mesh(fsdp=4), fsdp_min_size=4096)
    assert tuple(smaller["small"].spec) == (None, "fsdp")


def test_the_first_rule_that_matches_decides_for_parameters_and_their_moments():
    params = {"encoder": {"kernel": shape(8, 16)}, "head": {"kernel": shape(8, 16)}}
    state = {"params": params, "opt_state": jax.eval_shape(optax.adam(0.1).init, params)}
    rules = [("head/kernel$", PartitionSpec()), ("kernel$", PartitionSpec(("data", "fsdp")))]
    shardings = state_shardings(state, make_mesh(fsdp=2), rules=rules)
    for tree in (shardings["params"], shardings["opt_state"][0].mu, shardings["opt_state"][0].nu):
        assert tree["encoder"]["kernel"].spec == PartitionSpec(("data", "fsdp"))
        assert tree["head"]["kernel"].spec == PartitionSpec()
    assert shardings["opt_state"][0].count.is_fully_replicated


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (PartitionSpec("fsdp"), "axis 0 of 6 cannot be split in 4 equal parts"),
        (PartitionSpec(None, None, "fsdp"), "the rule names 3 axes, the array has 2"),
        (PartitionSpec("fdsp"), "'fdsp' is not an axis of the mesh: did you mean 'fsdp'"),
    ],
)
def test_a_rule_that_does_not_fit_is_an_error_that_names_path_and_shape(spec, reason):
    with pytest.raises(ValueError, match=rf"head/kernel \(6, 8\): {reason}"):
        state_shardings({"head": {"kernel": shape(6, 8)}}, make_mesh(fsdp=4), rules=[("kernel", spec)])


def test_keys_are_replicated_whatever_the_rules_say():
    tree = {"key": jax.eval_shape(lambda: jax.random.key(0))}
    shardings = state_shardings(tree, make_mesh(fsdp=4), rules=[(".*", PartitionSpec("fsdp"))])
    assert shardings["key"].is_fully_replicated


def test_a_sharded_state_gives_the_same_result_as_one_device():
    weights = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    inputs = np.random.default_rng(1).normal(size=(16, 256)).astype(np.float32)

    def loss(w, x):
        return jnp.mean(jnp.tanh(x @ w) ** 2)

    expected = jax.grad(loss)(weights, inputs)
    mesh = make_mesh(fsdp=4)
    sharding = state_shardings({"w": shape(256, 256)}, mesh)["w"]
    placed = jax.device_put(weights, sharding), jax.device_put(inputs, batch_sharding(mesh))
    found = jax.jit(jax.grad(loss), out_shardings=sharding)(*placed)
    assert not found.is_fully_replicated
    np.testing.assert_allclose(found, expected, atol=1e-7)
