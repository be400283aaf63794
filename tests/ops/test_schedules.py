"""Schedules: golden numbers of lightly, solo-learn, timm, torch and DINO; ends, tracing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ops import schedules
from ssl_jax.ops.schedules import constant, cosine, linear, warmup_cosine, warmup_then
from tests.golden_files import assert_close, golden

EVERY = {
    "constant": constant(0.3),
    "linear": linear(0.2, 0.7, 8),
    "cosine": cosine(0.996, 1.0, 8),
    "warmup_cosine": warmup_cosine(0.3, 8, warmup=3, start=0.1, end=0.01),
    "warmup_then": warmup_then(linear(1.0, 0.5, 4), warmup=2),
    "step_decay": schedules.step_decay(0.3, (3, 5), 0.1),
    "per_epoch": schedules.per_epoch(linear(0.0, 1.0, 8), 3),
    "rampup": schedules.rampup(2.0, 6, quiet=2),
    "rampdown": schedules.rampdown(2.0, 8, steps=3),
    "increasing_decay": schedules.increasing_decay(0.8),
}


def values(schedule, steps):
    return jax.jit(schedule)(jnp.arange(steps))


@pytest.mark.parametrize(
    ("case", "schedule"),
    [
        ("lightly_cosine", cosine(0.996, 1.0, 99)),
        ("solo_ema", cosine(0.99, 1.0, 100)),
        ("lightly_linear_warmup", linear(0.04, 0.07, 30)),
        ("timm_cosine_prefix", warmup_cosine(0.3, 100, warmup=10, start=1e-5, end=1e-4)),
        ("torch_sequential", warmup_cosine(0.3, 100, warmup=10, start=3e-4, end=1e-4)),
    ],
)
def test_schedule_equals_golden_at_every_step(case, schedule):
    expected = golden("schedules")[f"{case}__out__values"]
    assert_close(values(schedule, len(expected)), expected, tolerance=1e-6)


def test_pieces_of_goldens_with_another_offset_are_equal():
    file = golden("schedules")
    lightly = file["lightly_cosine_warmup__out__values"]
    schedule = warmup_then(cosine(1.0, 0.001, 89), warmup=10)
    assert_close(values(schedule, 11)[1:], lightly[:10], tolerance=1e-6)  # its warm-up is (k + 1) / warmup
    assert_close(values(schedule, 100)[10:], lightly[10:], tolerance=1e-6)
    timm = file["timm_cosine__out__values"]
    assert_close(
        values(cosine(0.3, 1e-4, 100), 101)[10:], timm[10:], tolerance=1e-6
    )  # does not wait for warm-up
    assert_close(values(linear(1e-5, 0.3, 10), 10), timm[:10], tolerance=1e-6)
    period = file["lightly_cosine_period__out__values"]
    assert_close(values(cosine(1.0, 0.0, 25), 26), period[:26], tolerance=1e-6)


def test_teacher_temperature_of_dino_is_linear_by_epoch():
    temperatures = golden("dino")["step0__out__temps"]
    schedule = schedules.per_epoch(linear(0.04, 0.07, 2 * 5), 5)
    np.testing.assert_allclose(values(schedule, 20), np.repeat(temperatures, 5), rtol=1e-6)


def test_ends_are_exact_and_held():
    for schedule, start, end in (
        (linear(0.04, 0.07, 7), 0.04, 0.07),
        (cosine(0.996, 1.0, 7), 0.996, 1.0),
        (warmup_cosine(0.3, 7, warmup=2, start=1e-5, end=1e-4), 1e-5, 1e-4),
    ):
        assert schedule(0) == np.float32(start)
        assert schedule(7) == schedule(1000) == np.float32(end)
    assert warmup_cosine(0.3, 7, warmup=2)(2) == np.float32(0.3)
    assert warmup_cosine(0.3, 7, warmup=0)(0) == np.float32(0.3)


def test_step_decay_changes_at_its_boundaries():
    schedule = schedules.step_decay(0.3, (3, 5), 0.1)
    np.testing.assert_allclose(values(schedule, 7), [0.3] * 3 + [0.03] * 2 + [0.003] * 2, rtol=1e-6)
    assert schedules.step_decay(0.3, (), 0.1)(9) == np.float32(0.3)


def test_per_epoch_holds_the_value_of_the_first_step():
    schedule = linear(0.0, 1.0, 9)
    np.testing.assert_array_equal(
        values(schedules.per_epoch(schedule, 3), 9), np.repeat(values(schedule, 9)[::3], 3)
    )


def test_numbers_become_constants_and_schedules_stay():
    schedule = linear(0.0, 1.0, 2)
    assert schedules.as_schedule(schedule) is schedule
    assert schedules.as_schedule(2)(5) == 2.0


@pytest.mark.parametrize("name", EVERY)
def test_traced_steps_arrays_and_python_integers_give_the_same_float32(name):
    schedule, steps = EVERY[name], np.arange(10)
    one_by_one = [schedule(int(k)) for k in steps]
    assert {(x.dtype.name, x.shape) for x in map(jnp.asarray, one_by_one)} == {("float32", ())}
    for found in (schedule(steps), values(schedule, 10), jax.vmap(schedule)(steps)):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, one_by_one, rtol=1e-6)
    with jax.enable_x64(True):
        assert schedule(jnp.int64(3)).dtype == jnp.float32


def test_values_may_be_traced():
    peaks = jnp.array([0.1, 0.3])
    found = jax.vmap(lambda peak: warmup_cosine(peak, 8, warmup=3)(5))(peaks)
    np.testing.assert_allclose(found, [warmup_cosine(peak, 8, warmup=3)(5) for peak in (0.1, 0.3)], rtol=1e-6)


def test_a_million_steps_are_resolved():
    schedule = linear(0.0, 1.0, 2_000_000)
    np.testing.assert_allclose(schedule(1_234_567), 1_234_567 / 2_000_000, rtol=1e-6)
    assert schedule(1_234_568) > schedule(1_234_567)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear(0.0, 1.0, 0), "steps=0"),
        (lambda: cosine(0.0, 1.0, -1), "steps=-1"),
        (lambda: warmup_cosine(1.0, 10, warmup=10), "warmup=10"),
        (lambda: warmup_then(constant(1.0), warmup=-1), "warmup=-1"),
        (lambda: schedules.per_epoch(constant(1.0), 0), "steps_per_epoch=0"),
    ],
)
def test_step_counts_that_make_no_schedule_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rampup_rises_from_e_to_the_minus_five_to_its_value_after_the_quiet_steps():
    expected = [0.3 * np.exp(-5 * (1 - min(k / 8, 1)) ** 2) for k in range(12)]
    np.testing.assert_allclose(values(schedules.rampup(0.3, 8), 12), expected, rtol=1e-5)
    quiet = values(schedules.rampup(0.3, 8, quiet=3), 12)
    assert quiet[:3].tolist() == [0.0] * 3
    np.testing.assert_allclose(quiet[3:], expected[3:], rtol=1e-5)
    np.testing.assert_allclose(values(schedules.rampup(0.3, 0), 3), 0.3, rtol=1e-6)


def test_rampdown_falls_in_the_last_steps():
    expected = [0.3 * np.exp(-12.5 * (max(k - 5, 0) / 5) ** 2) for k in range(11)]
    np.testing.assert_allclose(values(schedules.rampdown(0.3, 10, steps=5), 11), expected, rtol=1e-5)


def test_rising_decay_makes_an_average_that_begins_as_the_mean():
    from_start, weights = values(schedules.increasing_decay(0.75), 5), np.ones(1)
    np.testing.assert_allclose(from_start, [1 / 2, 2 / 3, 3 / 4, 3 / 4, 3 / 4], rtol=1e-6)
    for k in range(3):
        weights = np.append(weights * from_start[k], 1 - from_start[k])
        np.testing.assert_allclose(weights, 1 / (k + 2), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.rampup(1.0, -1), "steps=-1"),
        (lambda: schedules.rampup(1.0, 1, quiet=-1), "quiet=-1"),
        (lambda: schedules.rampdown(1.0, 4, steps=5), "steps=5"),
        (lambda: schedules.rampdown(1.0, 4, steps=0), "steps=0"),
    ],
)
def test_ramps_of_impossible_lengths_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_stages_count_the_ends_that_are_reached_and_may_be_traced():
    found = jax.jit(schedules.stage((2, 2, 5)))(jnp.arange(7))
    assert found.tolist() == [0, 0, 2, 2, 2, 3, 3]
    assert found.dtype == jnp.int32
    assert int(schedules.stage(())(3)) == 0
    with pytest.raises(ValueError, match=r"ends=\(5, 2\)"):
        schedules.stage((5, 2))
