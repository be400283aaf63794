"""A plan's memory is the compiled program's; its times are amounts over published speeds; wrong topologies are refused."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.cli import hardware, plan_text, planning
from ssl_jax.config import build
from ssl_jax.core.hlo import Collective
from ssl_jax.core.rows import read_rows
from ssl_jax.train.program import make_program, sample_batch
from ssl_jax.train.sharding import batch_sharding

ROOT = Path(__file__).parent.parent.parent


def config_of(name="simclr", **changes):
    config = build.to_dict(importlib.import_module(f"configs.{name}").get_config("smoke"))
    return build.with_changes(config, changes)


@pytest.mark.parametrize("fsdp", [1, pytest.param(8, marks=pytest.mark.long)])
def test_memory_on_this_machine_is_what_the_compiled_program_reports(fsdp):
    """To the byte but for labels and indices, which the step may not read; and what a device really holds."""
    # Wide enough that arrays are worth sharding.
    config = config_of(**{"encoder.widths": (64, 256), "host.fsdp": fsdp, "host.data": 8 // fsdp})
    plan = planning.make_plan(config, planning.find_target("local"))
    method, optimizer, source = build.run_objects(config)
    mesh = build.mesh(config)
    rows = sample_batch(source, method)
    program = make_program(method, optimizer, rows, mesh)
    batch = jax.tree.map(lambda x: jnp.asarray(np.repeat(x, config["batch_size"], axis=0)), rows)
    batch = jax.device_put(batch, batch_sharding(mesh))
    reported = program.step.lower(program.abstract, batch).compile().memory_analysis()
    memory = plan["memory"]
    assert plan["total"] == sum(memory.values())
    given = sum(memory[part] for part in ("parameters", "optimizer", "state", "batch", "padding"))
    assert given == reported.argument_size_in_bytes
    unread = sum(batch[part].nbytes // 8 for part in ("label", "index"))
    assert -unread <= memory["padding"] <= 0
    needed = reported.temp_size_in_bytes + reported.output_size_in_bytes - reported.alias_size_in_bytes
    assert memory["activations"] == needed
    state, first = program.init(0), jax.devices()[0]

    def on_first_device(tree):
        shards = (s for x in jax.tree.leaves(tree) for s in x.addressable_shards if s.device == first)
        return sum(shard.data.size * shard.data.dtype.itemsize for shard in shards)

    assert memory["parameters"] == on_first_device(state.params)
    assert memory["optimizer"] == on_first_device(state.opt_state)
    assert memory["batch"] == on_first_device(batch)
    assert plan["fits"]
    assert plan["seconds"] == dict.fromkeys(planning.RESOURCES)
    kinds = {row["kind"] for row in plan["collectives"]}
    assert "all-reduce" in kinds
    assert ("all-gather" in kinds) or fsdp == 1


def test_operations_grow_with_the_batch_and_are_shared_by_devices():
    plans = [
        planning.make_plan(config_of(batch_size=size), planning.find_target("local")) for size in (8, 16)
    ]
    # But for the logits, quadratic in the batch, all of it is linear.
    assert plans[1]["flops"] / plans[0]["flops"] == pytest.approx(2, rel=0.02)


def test_times_are_amounts_over_speeds_and_the_longest_is_the_limit():
    chip = hardware.Chip("", 100.0, 1.0, 10.0, 5.0, "")
    seconds = planning.estimate_seconds(chip, flops=200.0, traffic=50, sent=5.0)
    assert seconds == {"compute": 2.0, "memory": 5.0, "interconnect": 1.0}
    assert plan_text.step_bounds({"seconds": seconds}) == (5.0, 8.0)
    assert plan_text.busiest_resource({"seconds": seconds}) == "memory bandwidth"
    unknown = planning.estimate_seconds(chip, flops=200.0, traffic=None, sent=None)
    assert unknown == {"compute": 2.0, "memory": None, "interconnect": None}
    assert plan_text.step_bounds({"seconds": unknown}) is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.",
            20.5 * 2**30,
        ),
        (
            "the total memory required for HLO temporaries (149.06G) exceeds available HBM (15.75G)",
            149.06 * 2**30 + 7,
        ),
        ("INVALID_ARGUMENT: something else", None),
    ],
)
def test_bytes_are_read_from_the_compilers_refusal(message, expected):
    found = planning.required_bytes(message, 7)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1)


def test_communication_is_added_up_by_kind_and_group():
    found = [
        Collective("all-reduce", 8, 4, 2),
        Collective("all-gather", 400, 4, 1),
        Collective("all-reduce", 8, 4, 1),
    ]
    assert planning.group_collectives(found) == [
        {"kind": "all-gather", "group": 4, "count": 1, "bytes": 400, "sent": 300.0},
        {"kind": "all-reduce", "group": 4, "count": 3, "bytes": 24, "sent": 36.0},
    ]


def test_what_is_tried_where_a_run_does_not_fit_goes_from_harmless_to_smaller_batches():
    config = config_of("mae", batch_size=32)
    both = {"encoder.remat": True, "host.data": 1, "host.fsdp": 8}
    assert list(planning.propose_changes(config, 8)) == [
        {"encoder.remat": True},
        {"host.data": 1, "host.fsdp": 8},
        both,
        both | {"batch_size": 16},
        both | {"batch_size": 8},
    ]
    done = build.with_changes(config, both)
    assert list(planning.propose_changes(done, 8)) == [{"batch_size": 16}, {"batch_size": 8}]
    less = {"encoder.remat_keeps": "nothing"}
    some = build.with_changes(config, both | {"encoder.remat_keeps": "products"})
    assert list(planning.propose_changes(some, 8)) == [
        less,
        less | {"batch_size": 16},
        less | {"batch_size": 8},
    ]


@pytest.mark.long
def test_the_first_change_that_fits_is_proposed():
    wide = config_of(**{"encoder.widths": (64, 256), "encoder.remat": True})
    sharded = build.with_changes(wide, {"host.data": 1, "host.fsdp": 8})
    here = planning.find_target("local")
    whole, parts = (planning.make_plan(config, here) for config in (wide, sharded))
    assert parts["total"] < whole["total"]
    tight = here._replace(capacity=(parts["total"] + whole["total"]) / 2)
    plan = {**whole, "capacity": tight.capacity, "fits": False, "remedy": planning.find_remedy(wide, tight)}
    assert plan["remedy"]["change"] == {"host.data": 1, "host.fsdp": 8}
    assert plan["remedy"]["total"] == parts["total"]
    assert "does not fit; --config.host.data=1 --config.host.fsdp=8 would, with" in plan_text.format_plan(
        plan
    )
    assert "does not fit; host.data=1 host.fsdp=8 would" in plan_text.plans_table([plan])


def test_plans_of_one_recipe_have_names_of_their_own():
    def name(fsdp, remat, keeps="nothing"):
        config = config_of(**{"encoder.remat": remat, "encoder.remat_keeps": keeps})
        return plan_text.plan_name({"config": config, "topology": "v5e:4x4", "mesh": {"fsdp": fsdp}})

    names = [name(fsdp, remat) for fsdp in (1, 16) for remat in (False, True)]
    assert names[0] == "simclr-convnet-8-v5e_4x4"
    assert names[3] == "simclr-convnet-8-v5e_4x4-fsdp16-remat"
    assert name(1, True, "products") == "simclr-convnet-8-v5e_4x4-remat-but-products"
    assert len(set(names)) == 4


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e:3x3", "topology=v5e:='3x3' is not one of the allowed values: .*16x16.*4x4"),
        ("v9:2x2", "allowed: local, v5e:1x1, v5p:2x2x1, v6e:1x1"),
        ("cloud", "topology='cloud'.*allowed: local, v5e"),
    ],
)
def test_unknown_topologies_are_answered_with_what_is_allowed(topology, message):
    with pytest.raises(ValueError, match=message):
        planning.find_target(topology)


def test_without_the_tpu_compiler_the_extra_is_named(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(planning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[tpu\]'"):
        planning.find_target("v5e:2x2")


def test_every_slice_has_as_many_chips_as_its_sides_say_and_a_source():
    for generation, (chip, shapes) in hardware.SLICES.items():
        assert chip.source.startswith("https://")
        assert all(hardware.slice_chip(f"{generation}:{shape}") is chip for shape in shapes)
    # Published: peak of a full pod of v5e and v6e.
    assert 256 * hardware.V5E.flops == pytest.approx(50.63e15, rel=0.01)
    assert 256 * hardware.V6E.flops == pytest.approx(234.9e15, rel=0.01)


@pytest.mark.long
def test_a_plan_for_a_slice_that_is_not_there(tmp_path):
    """Compiled by the TPU compiler for 16 chips, from a command."""
    pytest.importorskip("libtpu")
    command = [
        sys.executable,
        "-m",
        "experiments.plan",
        "--config=configs/mae.py:smoke",
        "--topology=v5e:4x4",
    ]
    options = ["--config.batch_size=64", f"--out={tmp_path}/plans.jsonl"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")
    }
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    (plan,) = read_rows(tmp_path / "plans.jsonl")
    assert plan_text.plan_name(plan) == "mae-vit_micro-64-v5e_4x4"
    assert (plan["devices"], plan["chip"], plan["fits"]) == (16, "TPU v5e", True)
    assert all(value > 0 for value in plan["seconds"].values())
    assert any(row["kind"] == "all-reduce" and row["group"] == 16 for row in plan["collectives"])
    assert "the limit is" in done.stdout
