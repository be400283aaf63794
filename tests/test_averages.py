"""The figure of the guide on averages, and the numbers its text names."""

import numpy as np
import pytest

from docs import averages


def test_weights_are_those_of_the_unrolled_sums():
    start = averages.weights("from its start", 0.9, 20)
    np.testing.assert_allclose(start, [0.9**20, *(0.1 * 0.9 ** (20 - k) for k in range(1, 21))], rtol=1e-4)
    debiased = averages.weights("debiased", 0.9, 20)
    np.testing.assert_allclose(debiased[1:], start[1:] / (1 - 0.9**20), rtol=1e-4)
    assert debiased[0] == 0
    np.testing.assert_allclose(averages.weights("rising decay", 0.9, 8), 1 / 9, rtol=1e-5)
    for kind in averages.KINDS:
        assert averages.weights(kind, 0.9, 20).sum() == pytest.approx(1.0, rel=1e-5)


def test_only_the_images_own_count_gives_a_distribution():
    once, twice = (averages.constant_prediction(0.6, 4, rate) for rate in (1, 2))
    t = np.arange(1, 5)
    np.testing.assert_allclose(once["Z"], 1 - 0.6**t, rtol=1e-5)
    np.testing.assert_allclose(once["by epochs"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(twice["by epochs"], 1 + 0.6**t, rtol=1e-5)
    np.testing.assert_allclose(twice["by its own count"], 1.0, rtol=1e-5)


def test_shares_of_the_start_are_those_in_the_text():
    assert pytest.approx(0.37, abs=0.005) == 0.99**100
    assert pytest.approx(0.37, abs=0.005) == 0.999**1000
    assert pytest.approx(199) == (1 + 0.99) / (1 - 0.99)


def test_figure_is_drawn(tmp_path):
    assert averages.draw(tmp_path / "averages.svg").read_text().rstrip().endswith("</svg>")
