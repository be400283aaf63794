"""Numbers from libraries that this project did not write: ``tests/golden/*.npz``, described in ``tests/golden/README.md``."""

import functools
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"
Arrays = dict[str, np.ndarray]


@functools.cache
def golden(name: str) -> Arrays:
    """All arrays of one golden file: inputs ``in__NAME``, outputs ``CASE__loss``, ``CASE__grad__NAME``, ``CASE__out__NAME``."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def assert_close(found: object, expected: np.ndarray, *, tolerance: float) -> None:
    """Absolute tolerance relative to the largest entry of the golden array; exact zero where the golden is all zero."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max(initial=0.0))
