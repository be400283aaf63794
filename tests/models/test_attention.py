"""Attention in blocks and by kernels equals the plain form, which equals a loop; its memory is linear in the tokens."""

import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models import attention, vit
from ssl_jax.models.attention import attend, attend_blockwise, attend_plainly, block_rows, choose_kernel
from ssl_jax.models.flash_tpu import attend_padded, can_divide

rng = np.random.default_rng(0)
B, N, M, H, D = 2, 7, 5, 3, 4


def draw(*shape, dtype=jnp.float32):
    return jnp.asarray(rng.normal(size=shape), dtype)


def arguments(*, bias=None, present=False, queries=N, keys=M):
    qkv = [draw(B, queries, H, D), draw(B, keys, H, D), draw(B, keys, H, D)]
    there = jnp.asarray(rng.random((B, keys)) < 0.6).at[:, 0].set(True) if present else None
    return (*qkv, None if bias is None else draw(*bias), there)


def by_hand(query, key, value, bias=None, present=None):
    out = np.zeros((B, query.shape[1], H, D))
    for b in range(B):
        for h in range(H):
            for i in range(query.shape[1]):
                scores = []
                for j in range(key.shape[1]):
                    score = sum(
                        float(query[b, i, h, d]) * float(key[b, j, h, d]) for d in range(D)
                    ) / math.sqrt(D)
                    if bias is not None:
                        row = np.broadcast_to(bias, (B, H, query.shape[1], key.shape[1]))
                        score += float(row[b, h, i, j])
                    scores.append(score if present is None or present[b, j] else -math.inf)
                weights = np.exp(np.asarray(scores) - max(scores))
                out[b, i, h] = weights / weights.sum() @ np.asarray(value)[b, :, h]
    return out


FORMS: list[dict] = [{}, {"bias": (1, H, N, M), "present": True}, {"bias": (B, 1, 1, M)}]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_plain_and_blockwise_forms_are_a_loop_over_pairs_with_equal_gradients(form):
    given = arguments(**form)
    differentiable = tuple(i for i in range(4) if given[i] is not None)
    toward = draw(B, N, H, D)

    def loss(kernel):
        return jax.jit(jax.value_and_grad(lambda *a: jnp.sum(kernel(*a) * toward), argnums=differentiable))

    expected = by_hand(*given)
    np.testing.assert_allclose(attend_plainly(*given), expected, atol=2e-6)
    with mock.patch.object(attention, "BLOCK_ROWS", (2, 3)):  # blocks of 3, the last one not full
        np.testing.assert_allclose(attend_blockwise(*given), expected, atol=2e-6)
        value, gradients = loss(attend_blockwise)(*given)
    plain_value, plain_gradients = loss(attend_plainly)(*given)
    np.testing.assert_allclose(value, plain_value, rtol=1e-5)
    for found, wanted in zip(gradients, plain_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=5e-6)


def test_blockwise_form_keeps_float64_and_maps():
    with jax.enable_x64(True):
        q, k, v = (jnp.asarray(rng.normal(size=(3, 1, 6, 1, 4))) for _ in range(3))
        with mock.patch.object(attention, "BLOCK_ROWS", (2, 2)):
            found = jax.vmap(attend_blockwise)(q, k, v)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, jax.vmap(attend_plainly)(q, k, v), rtol=1e-13)


@pytest.mark.parametrize(
    ("platform", "facts", "name"),
    [
        ("cpu", {"queries": 257}, "plain"),
        ("cpu", {"queries": 1025}, "blockwise"),
        ("cuda", {"queries": 197}, "cudnn"),
        ("cuda", {"queries": 197, "dtype": "float32"}, "plain"),
        ("cuda", {"queries": 4097, "present": True}, "blockwise"),
        ("cuda", {"queries": 197, "width": 20}, "plain"),
        ("tpu", {"queries": 197}, "plain"),
        ("tpu", {"queries": 1025, "present": True}, "flash"),
        ("tpu", {"queries": 1025, "bias": True}, "blockwise"),
        ("tpu", {"queries": 1025, "dtype": "float64"}, "blockwise"),
    ],
)
def test_kernel_is_chosen_by_platform_and_shape_with_a_reason(platform, facts, name):
    facts = {"width": 64, "dtype": "bfloat16", "keys": facts["queries"], **facts}
    chosen = choose_kernel(platform, **facts)
    assert chosen.name == name
    assert chosen.reason


def test_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match="platform='metal'"):
        choose_kernel("metal", queries=1, keys=1, width=8, dtype="float32")


def test_one_query_of_many_keys_is_not_long():
    assert choose_kernel("cpu", queries=1, keys=5000, width=64, dtype="float32").name == "plain"


def test_rows_of_a_block_are_bounded_and_cover_the_queries():
    for matrices, queries in ((1, 1024), (6, 1025), (48, 4097), (10_000, 1024)):
        rows = block_rows(matrices, queries, queries)
        assert 16 <= rows <= 256
        assert -(-queries // rows) * rows - queries < -(
            -queries // rows
        )  # less than one row of padding a block


def test_attention_follows_the_length_and_is_the_plain_form_below_it():
    x = draw(1, 8, 1, 4)
    with mock.patch.object(attention, "LONG", 8):
        assert "scan" in str(jax.make_jaxpr(lambda x: attend(x, x, x))(x))
    assert "scan" not in str(jax.make_jaxpr(lambda x: attend(x, x, x))(x))


def test_programs_for_tpus_call_the_kernel_and_those_for_cpus_do_not():
    x = jax.ShapeDtypeStruct((2, 40, 1, 8), jnp.bfloat16)
    with mock.patch.object(attention, "LONG", 32), mock.patch.object(attention, "can_divide", lambda _: True):
        traced = jax.jit(lambda x: attend(x, x, x)).trace(x)
    assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" not in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_a_batch_over_several_devices_needs_the_mesh_of_its_arrays():
    assert can_divide(draw(1, 2)) == (jax.device_count() == 1)
    devices = jax.devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    seen = []

    def look(x):
        seen.extend((can_divide(x + 1), can_divide(x[1:])))
        return x

    jax.jit(look).trace(jax.ShapeDtypeStruct((2 * len(devices), 1), jnp.float32, sharding=sharding))
    assert seen == [True, len(devices) == 1]


def planned(tokens_across, form):
    """Bytes of temporaries of loss and gradient of one block on ``tokens_across²`` patches."""
    network = vit.vit("vit_nano", width=8, depth=1, heads=2, patch=1, image_size=tokens_across, pool="mean")
    images = jax.ShapeDtypeStruct((1, tokens_across, tokens_across, 1), jnp.float32)
    params, state = jax.eval_shape(network.init, jax.random.key(0), images)
    with mock.patch.object(attention, "LONG", 1 if form == "blockwise" else 10**6):
        loss = jax.grad(lambda p, x: network.apply(p, state, x, train=True)[0].sum())
        return jax.jit(loss).lower(params, images).compile().memory_analysis().temp_size_in_bytes


def test_planned_memory_is_linear_in_the_number_of_tokens_and_quadratic_in_the_plain_form():
    with mock.patch.object(attention, "BLOCK_ROWS", (16, 16)):
        small, large = planned(16, "blockwise"), planned(32, "blockwise")
    assert large / small < 4.6  # four times as many tokens
    assert planned(32, "plain") / planned(16, "plain") > 12


@pytest.mark.long
@pytest.mark.parametrize("absent", [False, True])
def test_kernel_of_tpus_equals_the_plain_form_where_it_is_interpreted(absent):
    from jax.experimental.pallas import tpu as pltpu

    q, k, v = (draw(1, 130, 1, 8) for _ in range(3))
    present = jnp.ones((1, 130), bool) if not absent else jnp.asarray(rng.random((1, 130)) < 0.5)
    toward = draw(1, 130, 1, 8)

    def loss(kernel):
        return jax.value_and_grad(lambda *a: jnp.sum(kernel(*a) * toward), argnums=(0, 1, 2))

    with pltpu.force_tpu_interpret_mode():
        value, gradients = jax.jit(loss(lambda *a: attend_padded(*a, present)))(q, k, v)
    expected, expected_gradients = loss(lambda *a: attend_plainly(*a, None, present))(q, k, v)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
