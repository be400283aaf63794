"""Pictures of patches: components are those of a plain PCA, colors are the same in all images, likeness is the cosine."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.model import load
from ssl_jax.models.serialize import save_encoder
from ssl_jax.report import invariance, patches

RNG = np.random.default_rng(0)


def scene(seed=0, images=3, side=8, d=12):
    """A square of three parts in the middle, of directions of their own, before a background of one direction."""
    rng = np.random.default_rng(seed)
    features = 0.05 * rng.normal(size=(images, side, side, d)) + np.eye(d)[0]
    part = np.zeros((side, side), int)
    part[2:6, 2:6] = np.array([1, 2, 3, 3])[:, None]
    features[:, part > 0] += 2 * np.eye(d)[1]
    for k in (1, 2, 3):
        features[:, part == k] += np.eye(d)[1 + k]
    return features, part


def plain_pca(rows):
    """Principal axes by the eigenvectors of numpy's covariance."""
    values, axes = np.linalg.eigh(np.cov(rows.T))
    return axes[:, np.argsort(-values)].T


def test_the_foreground_is_cut_out_and_colored_by_its_own_components():
    features, part = scene()
    fitted = patches.fit_patch_components(features)
    colors = patches.patch_colors(features, fitted)
    np.testing.assert_array_equal(colors[..., 3], np.broadcast_to(part > 0, (3, 8, 8)))
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    rows = unit.reshape(-1, 12)
    assert abs(fitted.first @ plain_pca(rows)[0]) == pytest.approx(1, abs=1e-9)
    foreground = rows[np.broadcast_to(part > 0, (3, 8, 8)).ravel()]
    for axis, expected in zip(fitted.axes, plain_pca(foreground), strict=False):
        assert abs(axis @ expected) == pytest.approx(1, abs=1e-6)
        assert axis[np.abs(axis).argmax()] > 0
    coordinates = (foreground - foreground.mean(0)) @ fitted.axes.T
    low, high = np.percentile(coordinates, [1, 99], axis=0)
    expected = np.clip((coordinates - low) / (high - low), 0, 1)
    np.testing.assert_allclose(colors[colors[..., 3] == 1][:, :3], expected, atol=1e-9)


def test_the_background_may_be_the_smaller_or_the_larger_part():
    features, _ = scene()
    large = features.copy()
    large[:, 1:7, 1:7] = features[:, 3:4, 3:4]  # the object takes more than half of the image
    inside = patches.patch_colors(large)[..., 3]
    assert inside[:, 2:6, 2:6].all() and not inside[:, 0].any() and not inside[:, :, -1].any()


def test_other_images_get_the_same_colors_and_neither_order_nor_length_matters():
    features, _ = scene()
    fitted = patches.fit_patch_components(features)
    together = patches.patch_colors(features)
    np.testing.assert_allclose(patches.patch_colors(features[1:2], fitted), together[1:2])
    np.testing.assert_allclose(patches.patch_colors(features[::-1] * 7), together[::-1], atol=1e-9)


def test_threshold_is_the_best_split_of_all():
    values = np.concatenate([RNG.normal(size=20), RNG.normal(size=9) + 3])

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    middles = [(a + b) / 2 for a, b in itertools.pairwise(np.sort(values))]
    assert patches.otsu_threshold(values) == pytest.approx(max(middles, key=between))


def test_similarity_is_the_cosine():
    features = RNG.normal(size=(2, 3, 4, 5))
    found = patches.patch_similarity(features, (1, 2, 0))
    for i, r, c in itertools.product(range(2), range(3), range(4)):
        a, b = features[i, r, c], features[1, 2, 0]
        assert found[i, r, c] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-9)
    with pytest.raises(ValueError, match="patch="):
        patches.patch_similarity(features, (2, 0, 0))


def test_clusters_are_the_parts_largest_first_and_the_same_in_all_images():
    features, part = scene()
    labels = patches.patch_clusters(features, 4)
    assert [len({*labels[:, part == k].ravel()}) for k in range(4)] == [1, 1, 1, 1]
    assert (labels[:, part == 0] == 0).all() and (labels[:, part == 3] == 1).all()
    assert sorted(np.unique(labels)) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="clusters=0"):
        patches.patch_clusters(features, 0)


@pytest.mark.parametrize("d", [8, 200])
def test_codes_give_the_cosines_back_within_the_error_that_they_state(d):
    features = RNG.normal(size=(2, 5, 5, 4)) @ RNG.normal(size=(4, d)) + RNG.normal(size=d)
    codes, scale, error = patches.encode_patches(features)
    assert codes.dtype == np.int8 and codes.shape == (50, min(d, 50, patches.NUMBERS))
    unit = features.reshape(50, d) / np.linalg.norm(features.reshape(50, d), axis=1, keepdims=True)
    exact = unit @ unit.T
    approximate = scale**2 * codes.astype(int) @ codes.T.astype(int)
    assert np.abs(approximate - exact).max() == pytest.approx(error) and error < 0.02


def test_section_names_what_cannot_be_drawn_and_fits_on_more_than_it_draws():
    features, _ = scene()
    images = RNG.random((3, 8, 8, 3))
    body = patches.patch_section(images, features, more=scene(1)[0]).body
    assert body.count('class="scene"') == 3 and body.count(">foreground<") == 3
    with pytest.raises(ValueError, match="one patch an image"):
        patches.patch_section(images, features[:, :1, :1])
    with pytest.raises(ValueError, match="nothing to color"):
        patches.patch_section(images, np.ones((3, 2, 2, 4)))


def test_models_give_the_pictures_as_arrays(tmp_path):
    network = models.build("vit_micro", width=16, depth=1, heads=2, patch=4, image_size=12)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    facts = {"image_shape": [12, 12, 3], "mean": [0.5], "std": [0.5]}
    save_encoder(tmp_path / "encoder.safetensors", network, *variables, metadata=facts)
    model, images = load(tmp_path), RNG.integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    features = model.patches(images)
    np.testing.assert_array_equal(model.patch_colors(images), patches.patch_colors(features))
    np.testing.assert_array_equal(
        model.patch_similarity(images, (2, 1, 0)), patches.patch_similarity(features, (2, 1, 0))
    )
    labels = model.patch_clusters(images, 3)
    assert labels.shape == (3, 3, 3) and set(np.unique(labels)) == {0, 1, 2}
    with pytest.raises(ValueError, match="there is none"):
        model.patch_colors([])


def test_heat_map_holds_the_numbers_of_all_encoders_and_missing_ones_are_said():
    rows = [
        (
            "a",
            {"invariance": {"crop 0.1": 0.25, "noise 0.2": 1.5}, "projector_invariance": {"crop 0.1": 0.5}},
        ),
        ("pixels", {"knn": 0.5}),
        ("b", {"invariance": {"crop 0.1": 0.75}}),
    ]
    made = invariance.heat_map(invariance.named_rows(rows), "invariance")
    assert made.rows == ["a", "a, projector", "b"] and made.columns == ["crop 0.1", "noise 0.2"]
    np.testing.assert_array_equal(made.values, [[0.25, 1.5], [0.5, np.nan], [0.75, np.nan]])
    body = invariance.invariance(rows).body
    assert 'style="--v:1.000">1.50<' in body and body.count("<td>–</td>") == 2
    assert '<th scope="colgroup" colspan="1">crop, cut away</th>' in body
    picture = invariance.paint_heat_map(made.values, size=3)
    assert picture.shape == (9, 6, 3) and (picture[:3, 3:] == picture[0, 3]).all()
    assert "experiments.evaluate --workdir='a b' --measures=invariance" in invariance.invariance(
        [], workdir="a b"
    ).body.replace("&#x27;", "'")
