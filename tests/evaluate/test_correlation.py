"""Rank correlations against loops over the definitions."""

import math

import numpy as np
import pytest

from ssl_jax.evaluate.correlation import rank_correlation

RNG = np.random.default_rng(0)
ACCURACY = RNG.integers(0, 8, 12) / 10
MEASURE = np.round(ACCURACY + RNG.normal(size=12) * 0.2, 1)


def ranks(values):
    """Mean rank of each value, by counting."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def kendall(x, y):
    """τ-b by a loop over pairs."""
    alike = other = x_only = y_only = 0
    for i in range(len(x)):
        for j in range(i):
            a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
            alike, other = alike + (a * b > 0), other + (a * b < 0)
            x_only, y_only = x_only + (a == 0 and b != 0), y_only + (a != 0 and b == 0)
    return (alike - other) / math.sqrt((alike + other + x_only) * (alike + other + y_only))


def test_both_correlations_equal_their_definitions_with_ties():
    found = rank_correlation({"m": MEASURE}, ACCURACY)["m"]
    assert len(set(MEASURE)) < 12 and len(set(ACCURACY)) < 12
    assert found.spearman == pytest.approx(np.corrcoef(ranks(MEASURE), ranks(ACCURACY))[0, 1])
    assert found.kendall == pytest.approx(kendall(MEASURE, ACCURACY))
    assert found.runs == 12


def test_only_the_order_matters_and_its_reverse_changes_the_sign():
    plain, bent, reverse = rank_correlation(
        {"m": MEASURE, "exp": np.exp(3 * MEASURE), "minus": -MEASURE}, ACCURACY
    ).values()
    assert bent == plain
    assert (reverse.spearman, reverse.kendall) == pytest.approx((-plain.spearman, -plain.kendall))


def test_runs_that_are_not_finite_are_left_out_for_that_measure_alone():
    holed, accuracy = MEASURE.copy(), ACCURACY.copy()
    holed[[1, 4]], accuracy[7] = [np.nan, np.inf], np.nan
    found = rank_correlation({"holed": holed, "whole": MEASURE}, accuracy)
    kept = [i for i in range(12) if i not in (1, 4, 7)]
    assert found["holed"] == rank_correlation({"m": MEASURE[kept]}, ACCURACY[kept])["m"]
    assert (found["holed"].runs, found["whole"].runs) == (9, 11)


@pytest.mark.parametrize("measure", [[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, math.nan, math.nan]])
def test_a_constant_and_too_few_runs_give_nan_without_a_warning(measure):
    found = rank_correlation({"m": measure}, [0.1, 0.2, 0.3, 0.4])["m"]
    assert math.isnan(found.spearman) and math.isnan(found.kendall)


@pytest.mark.parametrize(
    ("measures", "accuracy", "message"),
    [
        ({"m": [1.0, 2.0]}, [0.1, 0.2], "accuracy='2 finite runs'.*three runs or more"),
        ({"m": [1.0, 2.0, 3.0]}, [0.1, 0.2, math.nan], "accuracy='2 finite runs'"),
        ({"m": [1.0, 2.0]}, [0.1, 0.2, 0.3], r"measures\['m'\]='2 numbers'.*one number a run, 3"),
    ],
)
def test_wrong_arguments_are_refused(measures, accuracy, message):
    with pytest.raises(ValueError, match=message):
        rank_correlation(measures, accuracy)
