"""Position tables: the numbers of MAE, and interpolation against torch's rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.positions import resampling_matrix, resize_table, sincos_table
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
