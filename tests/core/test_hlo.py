"""Communication read from compiled programs: every notation of groups, loops, halves; and from real programs."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssl_jax.core.hlo import Collective, collectives, traffic
from ssl_jax.train.sharding import make_mesh

HEAD = "HloModule jit_f, is_scheduled=true, num_partitions=16, frontend_attributes={x=1}\n"


def found_in(line, *, head=HEAD):
    return collectives(f"{head}\nENTRY %main.1 (p: f32[8]) -> f32[8] {{\n  {line}\n}}\n")


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", 4),
        ("replica_groups=[2,8]<=[16]", 8),
        ("replica_groups=[4,4]<=[4,4]T(1,0)", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_1'}", 8),
        ("replica_groups=mesh['a'=2,'b'=8] {'a','b':(1)4}", 8),
        ("replica_groups={}", 16),
    ],
)
def test_every_notation_of_groups(groups, size):
    line = f"%r.1 = f32[256,8]{{1,0:T(8,128)S(1)}} all-reduce(%p), channel_id=2, {groups}, to_apply=%add"
    assert found_in(line) == [Collective("all-reduce", 256 * 8 * 4, size, 1)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # What a gather gives, a scatter takes: the whole array.
        (
            "%g = bf16[1024,4]{1,0} all-gather(%p), replica_groups=[1,16]<=[16], dimensions={0}",
            ("all-gather", 8192, 16),
        ),
        (
            "%s = f32[64]{0} reduce-scatter(%p), replica_groups=[4,4]<=[16], to_apply=%a",
            ("reduce-scatter", 1024, 4),
        ),
        (
            "%t = (f32[4]{0}, f32[4]{0}) all-to-all(%p, %q), replica_groups={{0,1},{2,3}}",
            ("all-to-all", 32, 2),
        ),
        # Several arrays at once, and types of other widths.
        (
            "%r = (f32[4]{0}, bf16[4]{0}, pred[], s4[8]) all-reduce(%p), replica_groups=[1,16]<=[16]",
            ("all-reduce", 29, 16),
        ),
        # First halves carry operands and counters too; second halves are not counted.
        (
            "%g = (f32[4]{0}, f32[64]{0}) all-gather-start(%p), replica_groups=[1,16]<=[16]",
            ("all-gather", 256, 16),
        ),
        ("%r = f32[4]{0} all-reduce-start(%p), replica_groups=[1,16]<=[16]", ("all-reduce", 16, 16)),
        (
            "%c = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]) collective-permute-start(%p), source_target_pairs={{0,1},{1,0}}",
            ("collective-permute", 16, 2),
        ),
    ],
)
def test_kinds_and_sizes(line, expected):
    assert found_in(line) == [Collective(*expected, 1)]


@pytest.mark.parametrize(
    "line",
    [
        "%d = f32[64]{0} all-gather-done(%g)",
        "%f = f32[8]{0} fusion(%all-reduce.1, %all-gather.2), kind=kOutput, calls=%other",
        "%r = f32[8]{0} all-reduce(%p), replica_groups={{0},{1}}, to_apply=%add",
        "%c = f32[8]{0} collective-permute(%p), source_target_pairs={{0,0},{1,1}}",
    ],
)
def test_what_is_no_communication(line):
    assert found_in(line) == []


def test_bodies_of_loops_count_their_turns():
    """As the compiler says; else below which constant the counter stays; else once."""
    text = f"""{HEAD}
%inner (p: f32[8]) -> f32[8] {{
  ROOT %r = f32[8]{{0}} all-reduce(%p), replica_groups=[1,16]<=[16], to_apply=%add
}}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %c = f32[8]{{0}} fusion(%x), kind=kCustom, calls=%inner
  %g = f32[8]{{0}} all-gather(%y), replica_groups=[8,2]<=[16]
}}

%cond (t: (s32[], f32[8])) -> pred[] {{
  %constant.3 = s32[]{{:T(128)}} constant(7)
  ROOT %lt = pred[]{{:T(512)}} compare(%gte, %constant.3), direction=LT
}}

%cond.2 (t: (s32[], f32[8])) -> pred[] {{
  ROOT %lt = pred[] compare(%gte, %other), direction=LT
}}

%unused (p: f32[8]) -> f32[8] {{
  ROOT %r = f32[8]{{0}} all-reduce(%p), replica_groups=[1,16]<=[16]
}}

ENTRY %main (p: f32[8]) -> f32[8] {{
  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body, backend_config={{"known_trip_count":{{"n":"5"}}}}
  %v = (s32[], f32[8]) while(%u), condition=%cond, body=%body
  %z = (s32[], f32[8]) while(%u), condition=%cond.2, body=%body
}}
"""
    assert collectives(text) == [
        Collective("all-reduce", 32, 16, 5 + 7 + 1),
        Collective("all-gather", 32, 2, 5 + 7 + 1),
    ]


def test_a_scatter_that_the_compiler_wrote_as_a_sliced_reduction():
    text = f"""{HEAD}
%all-reduce-scatter.3 (p: f32[64]) -> f32[4] {{
  %r = f32[64]{{0}} all-reduce(%p), replica_groups=[1,16]<=[16]
}}

ENTRY %main (p: f32[64]) -> f32[4] {{
  ROOT %f = f32[4]{{0}} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.3
}}
"""
    assert collectives(text) == [Collective("reduce-scatter", 256, 16, 1)]


def test_bytes_that_a_device_sends():
    sent = {
        kind: Collective(kind, 800, 8, 3).sent
        for kind in ("all-gather", "all-reduce", "reduce-scatter", "all-to-all")
    }
    assert sent == {"all-gather": 2100, "all-reduce": 4200, "reduce-scatter": 2100, "all-to-all": 2100}
    assert Collective("collective-permute", 800, 2, 3).sent == 2400


def test_a_compiled_program_of_eight_devices():
    """Mean over a sharded batch: one sum. Its product with all rows: one gather. In a scan: as often as it turns."""
    mesh = make_mesh(devices=jax.devices()[:8])
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    rows = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=split)

    def text(function, out):
        return jax.jit(function, out_shardings=out).lower(rows).compile().as_text()

    (mean,) = collectives(text(lambda x: jnp.sum(x), whole))
    assert mean == Collective("all-reduce", 4, 8, 1)
    (gather,) = collectives(text(lambda x: x @ x.T, split))
    assert (gather.kind, gather.size, gather.group, gather.times) == ("all-gather", 64 * 16 * 4, 8, 1)

    def scanned(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(x * c).sum(), None), jnp.float32(1), None, length=5)[0]

    assert collectives(text(scanned, whole)) == [Collective("all-reduce", 4, 8, 5)]


def test_traffic_counts_what_passes_between_a_device_and_its_memory():
    """A prefetch into fast memory once, a fusion as one, parts of arrays as parts, bodies of loops as often as they turn."""
    text = f"""{HEAD}
%fused (a: f32[8], b: f32[8]) -> f32[8] {{
  %c = f32[8]{{0}} add(%a, %b)
  ROOT %d = f32[8]{{0}} multiply(%c, %c)
}}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %y = f32[8]{{0}} get-tuple-element(%t), index=1
  %n = f32[8]{{0}} negate(%y)
}}

ENTRY %main (x: f32[8], y: f32[100]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %y = f32[100]{{0}} parameter(1)
  %s = (f32[8]{{0:S(1)}}, f32[8]{{0}}, u32[]{{:S(2)}}) copy-start(%x)
  %p = f32[8]{{0:S(1)}} copy-done(%s)
  %f = f32[8]{{0}} fusion(%p, %x), kind=kLoop, calls=%fused
  %l = f32[4]{{0}} dynamic-slice(%y, %i), dynamic_slice_sizes={{4}}
  %u = f32[100]{{0}} dynamic-update-slice(%y, %l, %i)
  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body, backend_config={{"known_trip_count":{{"n":"5"}}}}
}}
"""
    prefetch, fusion, slice_, update, loop = 32, 32 + 32, 2 * 16, 2 * 16, 5 * (32 + 32)
    assert traffic(text) == prefetch + fusion + slice_ + update + loop


def test_traffic_of_a_compiled_program_is_its_inputs_and_outputs():
    rows = jax.ShapeDtypeStruct((64, 16), jnp.float32)
    text = jax.jit(lambda x, y: jnp.tanh(x) + y).lower(rows, rows).compile().as_text()
    assert traffic(text) == 3 * 64 * 16 * 4
