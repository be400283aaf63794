"""The table of results."""

import numpy as np
import pytest

from ssl_jax.core.table import table

ROWS = [
    {"encoder": "pixels", "kNN": 80.25},
    {"encoder": "SimCLR", "kNN": np.float32(87.04), "linear": (74.71, 0.5), "steps": 700},
]


def test_columns_are_aligned_and_what_is_missing_shows_as_a_dash():
    lines = table(ROWS).split("\n")
    assert lines == [
        "encoder   kNN      linear  steps",
        "pixels   80.2           –      –",
        "SimCLR   87.0  74.7 ± 0.5    700",
    ]


def test_markdown_has_a_rule_and_equal_bars():
    lines = table(ROWS, columns=("encoder", "linear"), markdown=True).split("\n")
    assert lines[1] == "| ------- | ---------: |"
    assert [line.count("|") for line in lines] == [3] * 4 and len({len(line) for line in lines}) == 1


def test_columns_and_digits_can_be_chosen():
    assert table(ROWS, columns=("kNN",), digits=2).split("\n")[1:] == ["80.25", "87.04"]


def test_an_unknown_column_and_no_rows_are_refused():
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        table(ROWS, columns=("liner",))
    with pytest.raises(ValueError, match="one row or more"):
        table([])
