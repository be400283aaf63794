"""MeanShift: golden numbers of the search and the loss, and BYOL as its case of one neighbour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment.operations import ColorJitter
from ssl_jax.core.numerics import normalize
from ssl_jax.methods.distillation import byol, msf
from ssl_jax.models import heads
from ssl_jax.ops.queue import Queue
from tests.golden_files import assert_close, golden
from tests.methods.case import loss_inputs, loss_of, with_average

ENCODER = heads.mlp((16,), last_norm="batch")
"""Small enough to compile in a moment; its images are vectors."""


def collapsed(case):
    """Student and teacher give one vector for every image, so all targets are alike, and each other's neighbours."""
    params, state, batch = loss_inputs(case)
    params = jax.tree.map(jnp.zeros_like, params)
    for head in ("projector", "predictor"):
        params[head]["dense_1"]["bias"] = jnp.ones_like(params[head]["dense_1"]["bias"])
    average = {name: params[name] for name in ("encoder", "projector")}
    state["teacher"] = with_average(state["teacher"], average)
    return loss_of(case.method, params, state, batch)[0], 0.0


def one_direction(q, u, bank, k, block_size=None):
    value, *rest = msf.attract_to_neighbors(q[:, None], u[:, None], bank, k=k, block_size=block_size)
    return value, rest


@pytest.mark.parametrize("block_size", [None, 20])
@pytest.mark.parametrize("k", [1, 5])
def test_loss_gradient_and_bank_equal_golden(k, block_size):
    file, case = golden("mocov3_msf"), f"msf_top{k}"
    for dtype, loss_tolerance, tolerance in ((jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)):
        with jax.enable_x64(dtype == jnp.float64):
            q, u, rows = (jnp.asarray(file[f"in__{name}"], dtype) for name in ("q1", "k1", "queue"))

            loss = jax.jit(
                jax.value_and_grad(
                    lambda q, u, bank: one_direction(q, u, bank, k, block_size), argnums=(0, 1), has_aux=True
                )
            )
            (value, (bank, _)), gradients = loss(q, u, Queue(rows, jnp.int32(16)))
            np.testing.assert_allclose(value, file[f"{case}__loss"], rtol=loss_tolerance)
            assert_close(gradients[0], file[f"{case}__grad__q1"], tolerance=tolerance)
            assert_close(gradients[1], file[f"{case}__grad__k1"], tolerance=tolerance)
            assert_close(bank.items, file[f"{case}__out__queue_after"], tolerance=tolerance)
            assert bank.pointer == file[f"{case}__out__ptr_after"][0]


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_both_directions_search_a_bank_that_holds_the_targets_of_both():
    """A loop from the definition: distances of unit vectors to every row, the k smallest of them."""
    bank = Queue(normalize(rows(0, 12, 6)), jnp.int32(10))
    pairs = [(rows(1, 4, 6), rows(2, 4, 6)), (rows(3, 4, 6), rows(4, 4, 6))]
    predictions, targets = (jnp.stack(x, axis=1) for x in zip(*pairs, strict=True))
    value, after, nearest_rows = msf.attract_to_neighbors(predictions, targets, bank, k=3, block_size=None)
    unit = lambda x: np.asarray(x, np.float64) / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    items = np.asarray(bank.items, np.float64)
    for i, target in enumerate(np.concatenate([unit(u) for _, u in pairs])):
        items[(10 + i) % 12] = target
    np.testing.assert_allclose(after.items, items, atol=1e-6)
    distances = []
    for p, u in pairs:
        for prediction, target in zip(unit(p), unit(u), strict=True):
            nearest = np.argsort(((items - target) ** 2).sum(1))[:3]
            distances += [((prediction - items[j]) ** 2).sum() for j in nearest]
    np.testing.assert_allclose(value, np.mean(distances), rtol=1e-5)
    assert [int(row) for row in nearest_rows[:, :, 0].ravel()] == [(10 + i) % 12 for i in range(8)]


def small(**options):
    method = msf.build(ENCODER, hidden_dim=12, projection=8, queue_size=40, **options)
    batch = {"views": (rows(5, 12, 2, 10),)}
    return method, *method.init(jax.random.key(0), batch), batch


def test_one_neighbour_is_byol_on_the_same_inputs():
    method, params, state, batch = small(neighbors=1, symmetric=True)
    params = jax.tree.map(lambda x: x + 0.1, params)  # The teacher differs from the student.
    loss, (_, metrics) = jax.jit(method.loss)(params, state, batch, jax.random.key(1), jnp.int32(0))
    # MeanShift's last layers have a bias, BYOL's have none.
    for name in ("projector", "predictor"):
        params[name]["dense_1"]["bias"] -= params[name]["dense_1"]["bias"]
    found, _ = jax.jit(method.loss)(params, state, batch, jax.random.key(1), jnp.int32(0))
    assert abs(found - loss) > 1e-4
    assert metrics["distinct_neighbors"] == 1.0
    for tree in (
        params["projector"],
        params["predictor"],
        state["teacher"].params["projector"],
    ):
        del tree["dense_1"]["bias"]
    twin = byol.build(ENCODER, hidden_dim=12, projection=8)
    expected, _ = jax.jit(twin.loss)(params, state, batch, jax.random.key(1), jnp.int32(0))
    np.testing.assert_allclose(2 * found, expected, rtol=1e-5)


def test_one_direction_takes_predictions_of_the_first_view_and_targets_of_the_second():
    method, params, state, batch = small(neighbors=1)
    loss = jax.jit(method.loss)
    value, (new, _) = loss(params, state, batch, jax.random.key(1), jnp.int32(0))
    other = {"views": (batch["views"][0].at[:, 0].add(rows(6, 12, 10)),)}
    moved, (same, _) = loss(params, state, other, jax.random.key(1), jnp.int32(0))
    np.testing.assert_array_equal(new["bank"].items, same["bank"].items)
    assert abs(moved - value) > 1e-4
    assert new["bank"].pointer == 12
    np.testing.assert_allclose(np.linalg.norm(new["bank"].items, axis=1), 1, rtol=1e-5)


def test_neighbours_that_are_all_the_same_rows_are_few():
    method, params, state, batch = small(neighbors=4)
    batch = {"views": (jnp.broadcast_to(batch["views"][0][:1], (12, 2, 10)),)}
    _, (_, metrics) = jax.jit(method.loss)(params, state, batch, jax.random.key(1), jnp.int32(0))
    np.testing.assert_allclose(metrics["distinct_neighbors"], 4 / (12 * 4), rtol=1e-6)


def test_widths_follow_the_encoder_and_the_student_sees_the_strong_view():
    method = msf.build(ENCODER)
    params, _ = jax.eval_shape(method.init, jax.random.key(0), {"views": (jnp.zeros((4, 2, 10)),)})
    assert params["projector"]["dense_0"]["kernel"].shape == (16, 32)
    assert params["predictor"]["dense_1"]["kernel"].shape == (32, 4)
    assert [view.find(ColorJitter) is None for view in method.views] == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue_size": 0}, "queue_size=0"),
        ({"neighbors": 0}, "neighbors=0"),
        ({"neighbors": 9, "queue_size": 8}, "neighbors=9.*queue_size=8"),
    ],
)
def test_counts_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        msf.build(ENCODER, **options)
