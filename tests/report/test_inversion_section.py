"""The section of a page on inversion: nothing, everything, a file that cannot be read."""

import json

import numpy as np
import pytest

from ssl_jax.cli.invert import draw_grid
from ssl_jax.report.inversion import FILE, FOLDER, PICTURE, inversion

RESULT = {
    "rows": [
        {"read": "backbone", "features": 1024, "explained": 0.75, "free": 0.25, "reciprocal_rank": 1.0},
        {"read": "<projector>", "features": 16, "explained": 0.5},
    ],
    "transformations": [{"transformation": "hue", "chance": 0.25, "backbone": 0.5}],
}


def write(workdir, text):
    (workdir / FOLDER).mkdir()
    (workdir / FOLDER / FILE).write_text(text)
    (workdir / FOLDER / PICTURE).write_bytes(draw_grid(np.zeros((2, 8, 8, 1), np.float32), {}))


def test_a_run_that_was_not_inverted_has_no_section(tmp_path):
    assert inversion(tmp_path) == []


def test_picture_and_numbers_are_in_the_page_and_names_are_escaped(tmp_path):
    write(tmp_path, json.dumps(RESULT))
    (section,) = inversion(tmp_path)
    for text in ("data:image/png;base64,", "75.0", "25.0", "1,024", "–", "hue", "&lt;projector&gt;"):
        assert text in section.body
    assert "<projector>" not in section.body


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": [{}], "transformations": []}'])
def test_a_file_that_cannot_be_read_is_named(text, tmp_path):
    write(tmp_path, text)
    with pytest.raises(ValueError, match="inversion cannot be read"):
        inversion(tmp_path)
