"""Charts: what is drawn where, and colours that people with colour blindness can tell apart."""

import math
import re
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest

from ssl_jax.report import charts
from ssl_jax.report.page import asset

# Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB.
DEFICIENCY = {
    "none": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def points_of(svg):
    """Pixels of the first line."""
    d = re.search(r'<path class="line"[^>]* d="M([^"]*)"', svg)[1]
    return np.array([[float(v) for v in p.split()] for p in d.replace("M", "L").split("L")])


def linear(color):
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def palettes():
    blocks = re.findall(r"--paper: (#\w+).*?(--c0:.*?)\n\s*}", asset("report.css"), re.S)
    return [(linear(paper), [linear(c) for c in re.findall(r"#\w{6}", colors)]) for paper, colors in blocks]


def oklab(rgb):
    first = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
    second = np.array(
        [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]
    )
    return second @ np.cbrt(first @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("sight", DEFICIENCY)
def test_palette_stays_apart_for_every_kind_of_sight_in_light_and_dark(sight):
    for _, colors in palettes():
        assert len(colors) == charts.COLORS
        seen = [oklab(np.asarray(DEFICIENCY[sight]) @ color) for color in colors]
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.08
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen[:4], 2)) > 0.1


def test_palette_stands_out_from_the_paper():
    weights = np.array([0.2126, 0.7152, 0.0722])
    for paper, colors in palettes():
        for color in colors:
            bright, dim = sorted((weights @ color + 0.05, weights @ paper + 0.05), reverse=True)
            assert bright / dim > 2


def test_line_puts_values_in_proportion():
    xy = points_of(charts.line([charts.Series("a", [0, 1, 4], [0.0, 1.0, 2.0])], title="a"))
    steps = np.diff(xy, axis=0)
    np.testing.assert_allclose(steps[1] / steps[0], [3.0, 1.0], atol=0.02)
    assert steps[0][1] < 0, "larger values stand higher"


def test_log_axis_puts_ratios_in_proportion():
    svg = charts.line(
        [charts.Series("a", [1, 10, 1000], [1.0, 0.1, 0.001])], title="a", log_x=True, log_y=True
    )
    steps = np.diff(points_of(svg), axis=0)
    np.testing.assert_allclose(steps[1] / steps[0], [2.0, 2.0], atol=0.02)


def test_numbers_that_are_not_finite_are_gaps_and_alone_are_refused():
    svg = charts.line([charts.Series("a", range(5), [1, 2, math.nan, 3, 4])], title="a")
    assert len(re.search(r' d="(M[^"]*)"', svg)[1].split("M")) == 3
    with pytest.raises(ValueError, match="finite"):
        charts.line([charts.Series("a", [1], [math.nan])], title="a")


def test_reference_is_inside_the_axis_and_span_is_that_of_all_charts():
    svg = charts.line([charts.Series("a", [5, 6], [0.2, 0.3])], title="a", reference=1.0, span=(0, 10))
    y = float(re.search(r'class="ref"[^>]*y1="([\d.]+)"', svg)[1])
    assert charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM
    middle = (charts.LEFT + charts.WIDTH - charts.RIGHT) / 2
    assert points_of(svg)[0][0] == pytest.approx(middle)


def test_constant_curve_and_single_point_are_drawn():
    for series in (charts.Series("a", [0, 1], [2.0, 2.0]), charts.Series("a", [3], [0.0])):
        assert np.isfinite(points_of(charts.line([series], title="a").replace("h.01", ""))).all()


def test_noise_on_a_large_value_does_not_look_like_a_trend():
    svg = charts.line([charts.Series("a", [0, 1], [4.7001, 4.7002])], title="a")
    assert abs(np.diff(points_of(svg)[:, 1])[0]) < 1
    labels = re.findall(r'text-anchor="end">([^<]*)<', svg)
    assert len(set(labels)) == len(labels) >= 2


def test_charts_are_well_formed_whatever_names_say():
    name = "<b>&\"'"
    for svg in (
        charts.line([charts.Series(name, [0, 1], [1, 2])], title=name, y_label=name),
        charts.dots([charts.Dot(name, 1.0, 0.1)], title=name, x_label=name),
    ):
        words = ET.fromstring(svg).attrib["aria-label"]
        assert name in words


def test_error_bars_reach_as_far_as_they_say():
    svg = charts.dots([charts.Dot("a", 50.0, 2.0), charts.Dot("b", 60.0, 4.0)], title="t", x_label="%")
    x = [float(v) for v in re.findall(r'cx="([\d.]+)"', svg)]
    bars = [[float(v) for v in pair] for pair in re.findall(r'd="M([\d.]+) [\d.]+H([\d.]+)"', svg)]
    scale = (x[1] - x[0]) / 10
    for middle, bar, size in zip(x, bars, (2, 4), strict=True):
        np.testing.assert_allclose(bar, [middle - size * scale, middle + size * scale], atol=0.2)


def test_thinning_keeps_peaks_ends_and_gaps():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000).tolist()
    values[777], values[15_000], values[9_000] = 50.0, -50.0, math.nan
    x, y = charts.thin(range(20_000), values, limit=400)
    assert len(x) <= 401 + 1
    assert {50.0, -50.0} <= set(y)
    assert x == sorted(x)
    assert any(v != v for v in y)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 17), (81.5, 83.9), (1e-7, 3e-7), (0, 12345)])
def test_ticks_are_few_round_and_inside(low, high):
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= 11
    assert low - 1e-9 <= min(found) and max(found) <= high * (1 + 1e-9)
    assert len(set(np.round(np.diff(found) / (found[1] - found[0]), 6))) == 1
