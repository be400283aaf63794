"""Negative cosine, BYOL and DINO: golden numbers, loops, collapse constants."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses import distillation
from ssl_jax.losses.distillation import (
    byol_loss,
    dino_loss,
    mean_shift,
    negative_cosine,
    softmax_similarity,
    teacher_log_probabilities,
)
from tests.golden_files import assert_close, golden

PRECISIONS = [(jnp.float32, 1e-5, 2e-5), (jnp.float64, 1e-9, 1e-8)]
dino_and_gradients = jax.jit(jax.value_and_grad(dino_loss, argnums=(0, 1, 2)))


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def simsiam(p0, p1, z0, z1):
    z0, z1 = jax.lax.stop_gradient((z0, z1))
    return (negative_cosine(p0, z1) + negative_cosine(p1, z0)) / 2


def byol(p0, p1, z0, z1):
    z0, z1 = jax.lax.stop_gradient((z0, z1))
    return byol_loss(p0, z1) + byol_loss(p1, z0)


CASES = {
    "negcos": (negative_cosine, ("p0", "z1")),
    "byol_one": (lambda p, z: byol_loss(p, jax.lax.stop_gradient(z)), ("p0", "z1")),
    "simsiam": (simsiam, ("p0", "p1", "z0", "z1")),
    "simsiam_solo": (simsiam, ("p0", "p1", "z0", "z1")),
    "byol": (byol, ("p0", "p1", "z0", "z1")),
}


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_cosine_losses_equal_golden(case, dtype, loss_tolerance, tolerance):
    file, (function, names) = golden("simsiam_byol"), CASES[case]
    with jax.enable_x64(dtype == jnp.float64):
        inputs = [jnp.asarray(file[f"in__{name}"], dtype) for name in names]
        loss, gradients = jax.jit(jax.value_and_grad(function, argnums=range(len(names))))(*inputs)
        np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=loss_tolerance)
        for name, gradient in zip(names, gradients, strict=True):
            assert_close(gradient, file[f"{case}__grad__{name}"], tolerance=tolerance)


@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_dino_equals_golden_over_three_steps_of_centre_and_temperature(
    step, dtype, loss_tolerance, tolerance
):
    file = golden("dino")
    with jax.enable_x64(dtype == jnp.float64):
        student = jnp.asarray(file[f"in__s{step}"], dtype).swapaxes(0, 1)
        teacher = jnp.asarray(file[f"in__t{step}"], dtype).swapaxes(0, 1)
        center = jnp.asarray(file[f"step{step}__out__centre_before{step}"], dtype)
        temperature = dtype(file[f"step{step}__out__temps"][step])
        loss, gradients = dino_and_gradients(student, teacher, center, teacher_temperature=temperature)
        np.testing.assert_allclose(loss, file[f"step{step}__loss"], rtol=loss_tolerance)
        assert_close(gradients[0].swapaxes(0, 1), file[f"step{step}__grad__s{step}"], tolerance=tolerance)


def test_dino_equals_golden_on_two_global_crops():
    file = golden("dino")
    student, teacher = (jnp.asarray(file[f"in__{x}0"][:2], jnp.float32).swapaxes(0, 1) for x in "st")
    loss = dino_loss(student, teacher, jnp.zeros(40))
    np.testing.assert_allclose(loss, file["two_global_solo__loss"], rtol=1e-5)


def test_dino_equals_a_loop_over_pairs_of_different_crops():
    student, teacher, center = rows(0, 3, 5, 4), rows(1, 3, 2, 4), rows(2, 4)

    def softmax(x):
        return np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(
            -1, keepdims=True
        )

    targets = softmax((np.asarray(teacher, np.float64) - np.asarray(center)) / 0.2)
    predictions = softmax(np.asarray(student, np.float64) / 0.5)
    pairs = [
        -(targets[:, g] * np.log(predictions[:, v])).sum(-1).mean()
        for g in range(2)
        for v in range(5)
        if v != g
    ]
    assert len(pairs) == 2 * (5 - 1)
    found = dino_loss(student, teacher, center, student_temperature=0.5, teacher_temperature=0.2)
    np.testing.assert_allclose(found, np.mean(pairs), rtol=1e-5)


def test_no_gradient_reaches_teacher_or_centre():
    _, (student, teacher, center) = dino_and_gradients(rows(0, 3, 4, 5), rows(1, 3, 2, 5), rows(2, 5))
    assert np.abs(student).max() > 0
    assert not teacher.any()
    assert not center.any()


def test_dino_has_no_gradient_where_student_and_teacher_agree():
    logits = jnp.broadcast_to(rows(0, 3, 1, 5), (3, 4, 5))
    options = {"student_temperature": 0.3, "teacher_temperature": 0.3}
    _, gradients = dino_and_gradients(logits, logits[:, :2], jnp.zeros(5), **options)
    np.testing.assert_allclose(gradients[0], 0, atol=1e-6)


def test_gradients_agree_with_a_finite_difference():
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, teacher, p, z = (
            jnp.asarray(random.normal(size=s)) for s in ((3, 4, 5), (3, 2, 5), (6, 5), (6, 5))
        )
        direction, center = jnp.asarray(random.normal(size=(3, 4, 5))), jnp.zeros(5)
        _, (gradient, *_) = dino_and_gradients(x, teacher, center)
        above, below = (dino_and_gradients(x + h * direction, teacher, center)[0] for h in (1e-6, -1e-6))
        np.testing.assert_allclose(jnp.sum(gradient * direction), (above - below) / 2e-6, rtol=1e-6)
        gradient = jax.jit(jax.grad(byol_loss))(p, z)
        above, below = (byol_loss(p + h * z, z) for h in (1e-6, -1e-6))
        np.testing.assert_allclose(jnp.sum(gradient * z), (above - below) / 2e-6, rtol=1e-6)


def test_uniform_collapse_gives_the_logarithm_of_the_number_of_prototypes():
    loss = dino_loss(jnp.zeros((2, 4, 8)), jnp.full((2, 2, 8), 3.0), jnp.full(8, 3.0))
    np.testing.assert_allclose(loss, np.log(8), rtol=1e-6)


def test_collapse_to_one_prototype_gives_zero_loss_without_and_not_with_centring():
    student, teacher = (jnp.broadcast_to(20 * jnp.eye(8)[0], (2, crops, 8)) for crops in (4, 2))
    np.testing.assert_allclose(dino_loss(student, teacher, jnp.zeros(8)), 0, atol=1e-6)
    assert dino_loss(student, teacher, teacher[0, 0]) > 100


def test_cosine_losses_at_collapse_are_at_their_lowest():
    z = jnp.ones((4, 3))
    np.testing.assert_allclose(negative_cosine(z, z), -1, rtol=1e-6)
    np.testing.assert_allclose(byol_loss(z, z), 0, atol=1e-6)
    np.testing.assert_allclose(byol_loss(z, -z), 4, rtol=1e-6)


def test_a_row_of_zeros_counts_as_cosine_zero_with_finite_gradient():
    loss, gradient = jax.value_and_grad(negative_cosine)(jnp.zeros((2, 3)), jnp.ones((2, 3)))
    assert loss == 0
    assert np.isfinite(gradient).all()


def test_losses_do_not_change_with_order_of_images_scale_or_common_offset():
    p, z, order = rows(0, 5, 4), rows(1, 5, 4), np.array([2, 4, 0, 1, 3])
    np.testing.assert_allclose(byol_loss(3 * p[order], 0.1 * z[order]), byol_loss(p, z), rtol=1e-5)
    student, teacher, center = rows(0, 5, 4, 6), rows(1, 5, 2, 6), rows(2, 6)
    expected = dino_loss(student, teacher, center)
    np.testing.assert_allclose(dino_loss(student[order] + 9, teacher[order] - 9, center), expected, rtol=1e-4)


def test_dino_under_vmap_over_temperatures_equals_a_loop_and_jit_equals_eager():
    student, teacher, center = rows(0, 3, 4, 5), rows(1, 3, 2, 5), rows(2, 5)
    temperatures = jnp.array([0.04, 0.07])

    def loss(t):
        return dino_loss(student, teacher, center, teacher_temperature=t)

    one_by_one = jnp.stack([loss(t) for t in temperatures])
    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(temperatures), one_by_one, rtol=1e-6)


def test_bfloat16_inputs_are_computed_in_float32():
    narrow = [x.astype(jnp.bfloat16) for x in (rows(0, 3, 4, 5), rows(1, 3, 2, 5), rows(2, 5))]
    wide = [x.astype(jnp.float32) for x in narrow]
    for found, expected in (
        (dino_loss(*narrow), dino_loss(*wide)),
        (byol_loss(narrow[0][0], narrow[0][1]), byol_loss(wide[0][0], wide[0][1])),
    ):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_teacher_metrics_tell_the_two_collapses_apart():
    def metrics(logits):
        log_probabilities = teacher_log_probabilities(logits, jnp.zeros(4), 0.04)
        return (
            float(distillation.teacher_entropy(log_probabilities)),
            float(distillation.divergence_from_uniform(log_probabilities)),
        )

    uniform, one, spread = (
        jnp.zeros((2, 4, 4)),
        jnp.tile(9 * jnp.eye(4)[0], (2, 4, 1)),
        jnp.tile(9 * jnp.eye(4), (2, 1, 1)),
    )
    np.testing.assert_allclose(metrics(uniform), (np.log(4), 0), atol=1e-6)
    np.testing.assert_allclose(metrics(one), (0, np.log(4)), atol=1e-6)
    np.testing.assert_allclose(metrics(spread), (0, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((3, 4, 5), (2, 2, 5), (5,)), {}, "teacher.shape"),
        (((3, 4, 5), (3, 2, 5), (1,)), {}, "center.shape"),
        (((3, 2, 5), (3, 3, 5), (5,)), {}, "views"),
        (((3, 1, 5), (3, 1, 5), (5,)), {}, "views"),
        (((3, 4, 5), (3, 2, 5), (5,)), {"student_temperature": -0.1}, "student_temperature"),
        (((3, 4, 5), (3, 2, 5), (5,)), {"teacher_temperature": 0.0}, "temperature"),
    ],
)
def test_bad_input_is_refused_by_name(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(dino_loss)(*(jnp.zeros(shape) for shape in shapes), **options)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"z\.shape"):
        inspect.unwrap(negative_cosine)(jnp.ones((4, 3)), jnp.ones((1, 3)))


def test_softmax_similarity_equals_a_loop_is_least_where_both_agree_and_log_d_where_predictions_say_nothing():
    p, z = rows(0, 5, 4), rows(1, 5, 4)
    softmax = lambda x: np.exp(x) / np.exp(x).sum()  # noqa: E731
    wide = [np.asarray(x, np.float64) for x in (p, z)]
    expected = -np.mean([(softmax(b) * np.log(softmax(a))).sum() for a, b in zip(*wide, strict=True)])
    np.testing.assert_allclose(softmax_similarity(p, z), expected, rtol=1e-5)
    np.testing.assert_allclose(softmax_similarity(p + 7, z - 7), expected, rtol=1e-5)
    np.testing.assert_allclose(softmax_similarity(jnp.full((5, 4), 3.0), z), np.log(4), rtol=1e-6)
    gradient = jax.jit(jax.grad(softmax_similarity))(z, z)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    np.testing.assert_allclose(
        jax.jit(jax.grad(softmax_similarity))(p, z)[2],
        (softmax(wide[0][2]) - softmax(wide[1][2])) / 5,
        atol=1e-6,
    )


def test_mean_shift_equals_a_loop_and_with_one_neighbour_byol():
    p, neighbors = rows(0, 4, 6), rows(1, 4, 3, 6)
    unit = lambda x: np.asarray(x, np.float64) / np.linalg.norm(x)  # noqa: E731
    squared = [((unit(p[i]) - unit(neighbors[i, j])) ** 2).sum() for i in range(4) for j in range(3)]
    np.testing.assert_allclose(mean_shift(p, neighbors), np.mean(squared), rtol=1e-5)
    np.testing.assert_allclose(mean_shift(3 * p, neighbors[:, ::-1] / 7), np.mean(squared), rtol=1e-5)
    np.testing.assert_allclose(mean_shift(p, neighbors[:, :1]), byol_loss(p, neighbors[:, 0]), rtol=1e-6)
    alike = jnp.broadcast_to(p[:, None], (4, 3, 6))
    np.testing.assert_allclose(mean_shift(p, alike), 0, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(mean_shift))(p, alike), 0, atol=1e-6)


def test_softmax_similarity_and_mean_shift_of_bfloat16_and_of_wrong_shapes():
    p, z, neighbors = (x.astype(jnp.bfloat16) for x in (rows(0, 4, 6), rows(1, 4, 6), rows(1, 4, 3, 6)))
    for loss, x in ((softmax_similarity, z), (mean_shift, neighbors)):
        found = loss(p, x)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, loss(p.astype(jnp.float32), x.astype(jnp.float32)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"z\.shape"):
        inspect.unwrap(softmax_similarity)(jnp.ones((4, 3)), jnp.ones((1, 3)))
    for shape in ((4, 3), (1, 2, 3), (4, 0, 3)):
        with pytest.raises(ValueError, match=r"neighbors\.shape"):
            inspect.unwrap(mean_shift)(jnp.ones((4, 3)), jnp.ones(shape))
