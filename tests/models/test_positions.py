"""Position tables: the numbers of MAE, and interpolation against torch's rule."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.positions import (
    RESIZES,
    relative_index,
    relative_rows,
    resampling_matrix,
    resize_relative_table,
    resize_table,
    sincos_table,
)
from tests.golden_files import assert_close, golden


@pytest.mark.parametrize(("case", "grid", "width"), [("mae_8x8x192", 8, 192), ("mae_14x14x768", 14, 768)])
def test_sincos_table_is_that_of_mae_without_the_class_row(case, grid, width):
    table = golden("simmim_posembed")[f"{case}__out__table"]
    assert not table[0].any()
    assert_close(sincos_table(grid, grid, width), table[1:], tolerance=1e-12)


def test_sincos_table_agrees_with_lightly():
    table = golden("tokens")["sincos_8x8x192__out__table"]
    assert_close(sincos_table(8, 8, 192), table[1:], tolerance=2e-6)


def test_first_half_of_the_table_follows_the_column_and_the_second_the_row():
    table = sincos_table(3, 5, 8).reshape(3, 5, 8)
    assert (table[:, :, :4] == table[:1, :, :4]).all()
    assert (table[:, :, 4:] == table[:, :1, 4:]).all()
    assert len(np.unique(table.reshape(15, 8).round(6), axis=0)) == 15


def test_width_that_four_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="features=6: allowed is a multiple of 4"):
        sincos_table(2, 2, 6)


def test_resize_to_the_same_grid_is_the_identity():
    table = jax.random.normal(jax.random.key(0), (12, 5))
    assert resize_table(table, source=(3, 4), target=(3, 4)) is table
    np.testing.assert_array_equal(resampling_matrix(7, 7), np.eye(7))


@pytest.mark.parametrize("sizes", [(7, 14), (14, 7), (5, 8), (8, 3), (1, 4)])
def test_rows_of_the_resampling_matrix_sum_to_one(sizes):
    matrix = resampling_matrix(*sizes)
    assert matrix.shape == sizes[::-1]
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-12)


def test_upsampling_a_ramp_keeps_it_a_ramp_inside():
    # Cubic convolution with a != -1/2 reproduces no line exactly, so compare by symmetry.
    resized = resampling_matrix(8, 16) @ np.arange(8.0)
    np.testing.assert_allclose(resized + resized[::-1], 7.0, rtol=1e-12)
    assert (np.diff(resized) > 0).all()


def test_bicubic_weights_are_keys_kernel_at_a_quarter():
    # Doubling samples a quarter beside a value: W(1.25), W(0.25), W(0.75), W(1.75) for a = -0.75, by hand.
    np.testing.assert_allclose(
        resampling_matrix(8, 16)[9, 3:7], [-0.10546875, 0.87890625, 0.26171875, -0.03515625], rtol=1e-12
    )


@pytest.mark.parametrize("target", [(5, 3), (2, 2), (7, 9)])
def test_resize_equals_interpolation_in_torch(target):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).normal(size=(12, 6))
    image = torch.tensor(table.reshape(1, 3, 4, 6).transpose(0, 3, 1, 2))
    theirs = torch.nn.functional.interpolate(image, size=target, mode="bicubic", align_corners=False)
    expected = theirs.numpy()[0].transpose(1, 2, 0).reshape(-1, 6)
    found = resize_table(jnp.asarray(table, jnp.float32), source=(3, 4), target=target)
    assert_close(found, expected, tolerance=1e-6)


def test_gradient_of_resize_is_the_transposed_matrix():
    table = jnp.ones((4, 2))
    gradient = jax.grad(lambda t: resize_table(t, source=(2, 2), target=(3, 3)).sum())(table)
    columns = resampling_matrix(2, 3).sum(axis=0)
    np.testing.assert_allclose(gradient[:, 0], np.outer(columns, columns).ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    ("case", "resize"),
    [
        ("timm_4x4", "bicubic_antialias"),
        ("timm_9x9", "bicubic_antialias"),
        ("timm_5x8", "bicubic_antialias"),
        ("timm_4x4_noaa", "bicubic"),
        ("hf_dinov2_4x4", "bicubic"),
        ("hf_dinov2_9x9", "bicubic"),
        ("hf_dinov2_5x8", "bicubic"),
        ("hf_dinov2reg_5x8", "bicubic_antialias"),
        ("dinov2_offset_9x9", "bicubic_offset"),
    ],
)
def test_tables_on_other_grids_equal_those_of_the_libraries(case, resize):
    file = golden("posembed_interp")
    target = tuple(int(side) for side in re.search(r"(\d+)x(\d+)", case).groups())
    with jax.enable_x64(True):
        move = functools.partial(resize_table, source=(6, 6), target=target, resize=resize)
        found, back = jax.vjp(move, jnp.asarray(file["in__pos"][0, 1:]))
        expected = file[f"{case}__out__y"][0]
        # The loss of the file is the mean of the squares of the whole table, the row of the class token included.
        (gradient,) = back(2 * found / expected.size)
    assert_close(found, expected[1:], tolerance=1e-6 if "timm" in case else 1e-12)
    assert_close(gradient, file[f"{case}__grad__pos"][0, 1:], tolerance=1e-6 if "timm" in case else 1e-12)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("sizes", [(7, 14), (14, 7), (5, 8), (8, 3), (1, 4), (4, 1)])
def test_constant_tables_stay_constant(resize, sizes):
    matrix = resampling_matrix(*sizes, resize=resize)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-12)


def test_linear_weights_by_hand():
    np.testing.assert_allclose(
        resampling_matrix(2, 4, resize="linear"), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], atol=1e-12
    )
    np.testing.assert_allclose(
        resampling_matrix(3, 4, resize="linear_corners"),
        [[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 2 / 3, 1 / 3], [0, 0, 1]],
        atol=1e-12,
    )


@pytest.mark.long
@pytest.mark.parametrize("sizes", [(7, 14), (14, 7), (5, 8), (8, 3)])
def test_lines_on_other_lengths_equal_torch_and_scipy(sizes):
    """big_vision moves tables by ``scipy.ndimage.zoom`` of order 1."""
    torch, ndimage = pytest.importorskip("torch"), pytest.importorskip("scipy.ndimage")
    line = np.random.default_rng(0).normal(size=sizes[0])
    image = torch.tensor(line).reshape(1, 1, 1, -1)
    interpolate = functools.partial(torch.nn.functional.interpolate, size=(1, sizes[1]))
    for resize, options in (
        ("linear", {"mode": "bilinear"}),
        ("bicubic", {"mode": "bicubic"}),
        ("bicubic_antialias", {"mode": "bicubic", "antialias": True}),
    ):
        expected = interpolate(image, **options).numpy().ravel()
        assert_close(resampling_matrix(*sizes, resize=resize) @ line, expected, tolerance=1e-12)
    expected = ndimage.zoom(line, sizes[1] / sizes[0], order=1)
    assert_close(resampling_matrix(*sizes, resize="linear_corners") @ line, expected, tolerance=1e-12)


def test_unknown_resize_is_an_error():
    with pytest.raises(ValueError, match=r"resize='cubic'.*'bicubic'"):
        resampling_matrix(2, 3, resize="cubic")


def test_relative_tables_stretch_distances_and_keep_the_rows_of_prefix_tokens():
    source, target = (3, 3), (2, 5)
    down, right = (axis.ravel() for axis in np.indices((5, 5)) - 2.0)
    table = np.stack([down, right], axis=1)
    table = jnp.asarray(np.concatenate([table, [[7, 7], [8, 8], [9, 9]]]), jnp.float32)
    moved = np.asarray(resize_relative_table(table, source=source, target=target))
    assert moved.shape == (relative_rows(*target), 2)
    np.testing.assert_array_equal(moved[-3:], table[-3:])
    index = relative_index(*target, 1)
    for query in range(10):
        for key in range(10):
            distance = np.array([query // 5 - key // 5, query % 5 - key % 5])
            expected = np.clip(distance * 5 / np.array([3, 9]), -2, 2)
            np.testing.assert_allclose(moved[index[query + 1, key + 1]], expected, atol=1e-6)
    assert resize_relative_table(table, source=source, target=source) is table
