import numpy as np
import pytest
import scipy.sparse
from PIL import Image

from ssl_jax.data.dedup import (
    Duplicates,
    content_digests,
    exact_duplicates,
    join_duplicates,
    near_duplicates,
)
from ssl_jax.data.folder import open_folder
from ssl_jax.data.sources import ArraySource


def keep_greedily(features, threshold):
    """The rule, image by image, in float64."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    kept, kept_as = [], []
    for i, row in enumerate(unit):
        cosines = unit[kept] @ row if kept else np.zeros(0)
        if len(cosines) and cosines.max() >= threshold:
            kept_as.append(kept[int(cosines.argmax())])
        else:
            kept.append(i)
            kept_as.append(i)
    return np.array(kept_as)


def planted(rng, originals, copies, noise):
    """Random directions, and after them in random places copies of some with a little noise."""
    base = rng.normal(size=(originals, 16))
    of = rng.integers(0, originals, copies)
    features = np.concatenate([base, base[of] * 3 + noise * rng.normal(size=(copies, 16))])
    return features, of


@pytest.mark.parametrize("block_size", [1, 7, 64, 1000])
def test_near_duplicates_are_those_of_the_rule_image_by_image(block_size):
    rng = np.random.default_rng(0)
    features, _ = planted(rng, 60, 40, 0.6)
    features = features[rng.permutation(100)]
    for threshold in (0.5, 0.9, 0.97):
        found = near_duplicates(features, threshold, block_size=block_size)
        np.testing.assert_array_equal(found.kept_as, keep_greedily(features, threshold))
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        assert found.closest[0] == -1 == found.similarity[0]
        for i in range(1, 100):
            before = found.kept[found.kept < i]
            assert found.closest[i] == before[np.argmax(unit[before] @ unit[i])]
        cosines = (unit * unit[found.closest]).sum(axis=1)
        np.testing.assert_allclose(found.similarity[1:], cosines[1:], atol=1e-5)


def test_planted_duplicates_are_found_and_nothing_else():
    features, of = planted(np.random.default_rng(1), 50, 30, 0.02)
    found = near_duplicates(features, 0.99)
    assert found.removed.tolist() == list(range(50, 80))
    assert found.kept.tolist() == list(range(50))
    assert found.kept_as[50:].tolist() == of.tolist()


def test_a_chain_keeps_what_is_like_nothing_that_stays():
    """Connected components would remove the third of three images in a row, of which only neighbors are alike."""
    angles = np.deg2rad([0.0, 20.0, 40.0])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    close = features @ features.T >= np.cos(np.deg2rad(25.0))
    assert scipy.sparse.csgraph.connected_components(close)[0] == 1
    assert near_duplicates(features, float(np.cos(np.deg2rad(25.0)))).kept_as.tolist() == [0, 0, 2]


def test_many_copies_of_one_image_leave_it_alone():
    features = np.tile(np.random.default_rng(0).normal(size=(1, 8)), (300, 1))
    assert near_duplicates(features, 0.999, block_size=64).kept.tolist() == [0]


def test_a_row_of_zeros_is_like_no_other():
    assert near_duplicates(np.zeros((3, 4)), 0.5).kept.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("features", "threshold", "named"),
    [
        (np.zeros(3), 0.9, "features.shape"),
        (np.zeros((2, 2)), 1.5, "threshold"),
        (np.full((2, 2), np.nan), 0.9, "features"),
    ],
)
def test_wrong_arguments_are_named(features, threshold, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        near_duplicates(features, threshold)


def test_equal_files_are_found_whatever_they_are_called(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes((tmp_path / "b.png").read_bytes())
    source = open_folder(tmp_path)
    (tmp_path / "c.png").unlink()
    digests = content_digests(source, np.arange(4), threads=3)
    assert digests[2] == b""
    assert exact_duplicates(digests).kept_as.tolist() == [0, 1, 2, 1]


def test_digests_of_arrays_tell_shapes_and_pixels_apart():
    images = np.zeros([4, 2, 3], np.uint8)
    images[2] = 1
    flat, high = (content_digests(ArraySource(x), np.arange(4)) for x in (images, images.reshape(4, 3, 2)))
    assert exact_duplicates(flat).kept.tolist() == [0, 2]
    assert not set(flat) & set(high)


def test_two_removals_follow_each_other():
    rng = np.random.default_rng(2)
    features, _ = planted(rng, 20, 20, 0.3)
    exact = exact_duplicates([bytes([i % 30]) for i in range(40)])
    near = near_duplicates(features[exact.kept], 0.95)
    joined = join_duplicates(exact, near)
    names = exact.kept[near.kept]
    assert joined.kept.tolist() == names.tolist()
    for i in range(40):
        through = int(np.flatnonzero(exact.kept == exact.kept_as[i])[0])
        assert joined.kept_as[i] == exact.kept[near.kept_as[through]]
        if joined.kept_as[i] != i:
            assert joined.closest[i] == joined.kept_as[i]
            assert joined.similarity[i] >= 0.95
    with pytest.raises(ValueError, match=r"^second"):
        join_duplicates(exact, Duplicates(np.arange(3), np.arange(3), np.ones(3)))
