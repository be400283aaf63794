"""Ridge regression of pixels and images against scikit-learn, and maps whose answer is known."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from ssl_jax.augment.views import View
from ssl_jax.data.masks import MaskFormat, MaskSource
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate.dense import regression
from ssl_jax.evaluate.dense.features import pixel_maps
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.evaluate.dense.regression import (
    MEASURE,
    ErrorSums,
    choose_head,
    collect_moments,
    fit_ridge,
    image_regression,
    patch_means,
    pixel_regression,
)
from ssl_jax.evaluate.linear import hold_out
from ssl_jax.evaluate.measure import Options, PixelTargets, Subject
from ssl_jax.train.features import Features


def make_rows(n=60, d=5, k=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) * [1, 3, 0.1, 10, 1] + [0, 50, -4, 2, 1000]
    return x, x @ rng.normal(size=(d, k)) + rng.normal(size=(n, k))


@pytest.mark.parametrize("l2", [1e-3, 0.5])
def test_weights_are_those_of_scikit_learn_on_standardized_features(l2):
    x, y = make_rows()
    moments = collect_moments((x[i : i + 7], y[i : i + 7]) for i in range(0, len(x), 7))
    (head,) = fit_ridge(moments, [l2], dims=5)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    oracle = Ridge(alpha=l2 * len(x)).fit(scaled, y)
    np.testing.assert_allclose(head.predict(x), oracle.predict(scaled), rtol=1e-9)
    squared = mean_squared_error(y, head.predict(x)) * y.shape[1]
    assert regression.mean_squared_error(moments, head) == pytest.approx(squared, rel=1e-9)


def test_a_constant_feature_gets_no_weight_and_more_features_than_rows_do():
    x, y = make_rows(n=8)
    wide = np.concatenate([x, np.full((8, 1), 7.0), np.random.default_rng(1).normal(size=(8, 20))], axis=1)
    (head,) = fit_ridge(collect_moments([(wide, y)]), [0.1], dims=26)
    assert (head.weights[5] == 0).all() and np.isfinite(head.weights).all()


def test_the_penalty_is_that_of_the_best_held_out_images_and_the_fit_of_all():
    x, y = make_rows()
    grid = (1e-3, 1e-1, 10.0)
    result = image_regression(x[:40], y[:40], x[40:], y[40:], l2=grid, holdout=0.25, seed=3)
    held_out, rest = hold_out(40, holdout=0.25, seed=3)

    def fit(rows, l2):
        mean, std = x[rows].mean(axis=0), x[rows].std(axis=0)
        model = Ridge(alpha=l2 * len(rows)).fit((x[rows] - mean) / std, y[rows])
        return lambda features: model.predict((features - mean) / std)

    errors = {l2: 2 * mean_squared_error(y[held_out], fit(rest, l2)(x[held_out])) for l2 in grid}
    assert result.l2 == min(errors, key=errors.get)
    assert result.validation == pytest.approx(min(errors.values()))
    predicted = fit(np.arange(40), result.l2)(x[40:])
    for column, found in enumerate(result.errors):
        target = y[40:, column]
        assert found.r2 == pytest.approx(r2_score(target, predicted[:, column]))
        assert found.mae == pytest.approx(mean_absolute_error(target, predicted[:, column]))
        assert found.rmse == pytest.approx(mean_squared_error(target, predicted[:, column]) ** 0.5)


def test_errors_do_not_depend_on_how_predictions_are_parted():
    rng = np.random.default_rng(2)
    target, noise = rng.uniform(1, 9, 50), rng.normal(size=50)
    whole, parts = ErrorSums(), ErrorSums()
    whole.add(target + noise, target)
    for i in range(0, 50, 12):
        parts.add(target[i : i + 12] + noise[i : i + 12], target[i : i + 12])
    np.testing.assert_allclose(parts.errors(), whole.errors(), rtol=1e-12)
    found = whole.errors()
    ratio = np.maximum((target + noise) / target, target / (target + noise))
    assert found.relative == pytest.approx(np.mean(np.abs(noise) / target))
    assert found.delta == pytest.approx(np.mean((ratio < 1.25) & (target + noise > 0)))
    whole.add(np.array([1.0]), np.array([0.0]))
    assert whole.errors().relative is None and whole.errors().delta is None


def test_means_of_patches_leave_out_pixels_without_a_target():
    rng = np.random.default_rng(3)
    target = rng.normal(size=(7, 10))
    target[rng.random((7, 10)) < 0.3] = np.nan
    target[:2, :3] = np.nan
    for covered in ((1.0, 1.0), (0.875, 0.625)):
        found = patch_means(target, (4, 4), covered)
        cells = {}
        for i, j in np.ndindex(7, 10):
            cell = int((i + 0.5) / 7 * covered[0] * 4), int((j + 0.5) / 10 * covered[1] * 4)
            cells.setdefault(cell, []).append(target[i, j])
        for place in np.ndindex(4, 4):
            known = [value for value in cells.get(place, []) if np.isfinite(value)]
            if known:
                assert found[place] == pytest.approx(np.mean(known))
            else:
                assert np.isnan(found[place])


def make_sources(number=12, side=16):
    """Depth is the brightness, but for pixels without depth; images of two sizes."""
    rng = np.random.default_rng(4)
    images, depths = [], []
    for _ in range(number):
        level = rng.integers(20, 230, size=(side // 8, side // 8))
        image = np.repeat(np.kron(level, np.ones((8, 8)))[:, :, None], 3, axis=2).astype(np.uint8)
        images.append(image)
        depths.append(np.where(rng.random((side, side)) < 0.2, 0.0, image[..., 0] / 10.0 + 1))
    make = MaskFormat(void=(0,), regression=True)
    half = number // 2
    return tuple(
        MaskSource(ArraySource(np.stack(images[part])), np.stack(depths[part]), format=make)
        for part in (slice(0, half), slice(half, number))
    )


def test_a_target_that_is_linear_in_the_patch_is_found_but_for_the_interpolation():
    train, test = make_sources()
    encoder = pixel_maps(View(mean=(0.5,), std=(0.25,)), channels=3, patch=8)
    result = pixel_regression(encoder, train, test, l2=(1e-6, 1e-3))
    # Between patches the target jumps where the prediction is interpolated.
    assert 0.5 < result.errors[0].r2 < 1
    means = np.concatenate([patch_means(test[i]["target"], (2, 2)).ravel() for i in range(len(test))])
    maps = np.concatenate(
        [np.asarray(encoder.apply(test[i]["image"][None])).reshape(4, -1) for i in range(len(test))]
    )
    np.testing.assert_allclose(result.head.predict(maps)[:, 0], means, atol=0.02)


def test_the_measure_gives_errors_and_says_why_it_cannot():
    train, test = make_sources()
    options = Options(k=5, temperature=0.07, per_class=(1,), draws=1, crop_ratio=1.0)
    features = Features(np.zeros((6, 1)), np.full(6, -1), np.arange(6))
    subject = Subject(
        features, features, (train, test), options, pixel_targets=PixelTargets((train, test), Framing())
    )
    row = MEASURE.run(subject)
    assert row["pixel_r2"] == row["regression"]["r2"] > 0.5
    assert set(row["regression"]) == {"rmse", "mae", "r2", "relative", "delta", "l2", "validation"}
    nowhere = MaskSource(test.images, np.zeros((6, 16, 16)), format=test.format)
    subject = subject._replace(pixel_targets=PixelTargets((train, nowhere), Framing()))
    with pytest.raises(ValueError, match="no test image has a target"):
        MEASURE.run(subject)
    classes = MaskSource(test.images, np.ones((6, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=r"train.format.regression=False"):
        MEASURE.run(subject._replace(pixel_targets=PixelTargets((classes, test), Framing())))


def test_what_cannot_be_fitted_is_refused():
    x, y = make_rows()
    with pytest.raises(ValueError, match="l2="):
        image_regression(x, y, x, y, l2=(0.0,))
    with pytest.raises(ValueError, match="holdout=1"):
        image_regression(x, y, x, y, holdout=1.0)
    with pytest.raises(ValueError, match="all test targets are 3"):
        image_regression(x, y, x, np.full((len(x), 2), 3.0))
    with pytest.raises(ValueError, match="no row has a target"):
        choose_head(lambda rows: [(x[:0], y[:0])], 10, dims=5)
