"""Label propagation against loops over patches, J and F against a definition written by hand."""

import numpy as np
import pytest

from ssl_jax.evaluate.dense.propagation import (
    Propagation,
    average_videos,
    labels_of_mask,
    mask_of_labels,
    objects_of,
    propagate_labels,
    resize_nearest,
    score_video,
)


def propagate_by_hand(features, first, options):
    """Patch by patch: sort all that may vote, keep the best and what equals the last of them."""
    grid = first.shape[:2]
    unit = [
        frame / np.linalg.norm(frame, axis=-1, keepdims=True) for frame in np.asarray(features, np.float64)
    ]
    labels = [np.asarray(first, np.float64)]
    reach = max(grid) if options.radius is None else options.radius
    for time in range(1, len(unit)):
        looked_at = sorted({0, *range(max(1, time - options.context), time)})
        now = np.zeros_like(labels[0])
        for i, j in np.ndindex(*grid):
            voters = []
            for frame in looked_at:
                for p, q in np.ndindex(*grid):
                    if max(abs(p - i), abs(q - j)) <= reach:
                        voters.append((unit[time][i, j] @ unit[frame][p, q], labels[frame][p, q]))
            voters.sort(key=lambda voter: -voter[0])
            border = voters[min(options.neighbors, len(voters)) - 1][0]
            kept = [
                (np.exp(cosine / options.temperature), label) for cosine, label in voters if cosine >= border
            ]
            now[i, j] = sum(w * label for w, label in kept) / sum(w for w, _ in kept)
        labels.append(now)
    return labels[1:]


@pytest.mark.parametrize(
    "options",
    [
        Propagation(neighbors=3, context=2, radius=1, temperature=0.2),
        Propagation(neighbors=5, context=1, radius=None),
        Propagation(neighbors=100, context=3, radius=2, temperature=0.05),
        Propagation(neighbors=2, context=0, radius=3),
    ],
)
def test_propagation_is_that_of_loops_over_patches(options):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 4, 6, 8)).astype(np.float32)
    first = rng.dirichlet(np.ones(3), size=(4, 6)).astype(np.float32)
    ours = list(propagate_labels(iter(features), first, options))
    assert len(ours) == 4
    np.testing.assert_allclose(ours, propagate_by_hand(features, first, options), atol=2e-6)


def test_a_still_video_keeps_its_labels_and_a_shift_by_a_patch_moves_them_by_one():
    distinct = np.eye(20, dtype=np.float32).reshape(4, 5, 20)
    first = labels_of_mask(np.pad(np.ones((2, 2), int), ((1, 1), (1, 2))), (1,), (4, 5))
    options = Propagation(neighbors=1)
    for labels in propagate_labels([distinct] * 4, first, options):
        np.testing.assert_array_equal(labels, first)
    moving = [np.roll(distinct, time, axis=1) for time in range(3)]
    for time, labels in enumerate(propagate_labels(moving, first, options), 1):
        np.testing.assert_array_equal(labels, np.roll(first, time, axis=1))


def test_a_radius_of_0_keeps_labels_where_they_are():
    rng = np.random.default_rng(1)
    features, first = rng.normal(size=(4, 3, 3, 2)), rng.random((3, 3, 2)).astype(np.float32)
    for labels in propagate_labels(features, first, Propagation(radius=0)):
        np.testing.assert_allclose(labels, first, atol=1e-6)


def test_frames_that_left_the_queue_are_forgotten_and_the_first_never_is():
    """The right patch is seen in frames 0 and 1 only; its label differs."""
    marks = np.eye(4, dtype=np.float32)
    first = np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32)
    video = [marks[[[0, 1]]], marks[[[1, 0]]], *[marks[[[2, 3]]]] * 3, marks[[[1, 0]]]]
    last = list(propagate_labels(video, first, Propagation(neighbors=1, context=2)))[-1]
    np.testing.assert_array_equal(last, first[:, ::-1])


def test_no_frame_and_another_grid_are_refused():
    with pytest.raises(ValueError, match="one frame or more"):
        list(propagate_labels([], np.ones((2, 2, 1), np.float32)))
    with pytest.raises(ValueError, match=r"features\[0\]=\(3, 2\)"):
        list(propagate_labels([np.ones((3, 2, 4), np.float32)], np.ones((2, 2, 1), np.float32)))
    for options, text in (({"neighbors": 0}, "neighbors=0"), ({"temperature": 0.0}, "temperature=0.0")):
        with pytest.raises(ValueError, match=text):
            Propagation(**options)


def test_masks_come_back_from_labels_of_a_fine_grid():
    mask = np.zeros((12, 18), np.int64)
    mask[2:8, 3:12], mask[9:, 14:] = 4, 9
    labels = labels_of_mask(mask, (4, 9), (12, 18))
    np.testing.assert_array_equal(mask_of_labels(labels, (4, 9), mask.shape), mask)
    assert labels_of_mask(mask, (4, 9), (2, 3)).sum(axis=-1).tolist() == [[1, 1, 1]] * 2


@pytest.mark.long
def test_labels_are_enlarged_as_torch_and_pillow_do():
    torch = pytest.importorskip("torch")
    from PIL import Image

    # No center of a new pixel falls on the border of two old ones, where Pillow rounds as it happens.
    rng = np.random.default_rng(2)
    labels = rng.random((4, 5, 3)).astype(np.float32)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(labels.transpose(2, 0, 1))[None],
        scale_factor=8,
        mode="bilinear",
        align_corners=False,
    )[0].numpy()
    for channel in large:
        channel -= channel.min()
        channel /= channel.max()
    chosen = Image.fromarray(large.argmax(axis=0).astype(np.uint8))
    expected = np.asarray(chosen.resize((48, 64), Image.Resampling.NEAREST))
    ours = mask_of_labels(labels, (1, 2), (64, 48), size=(32, 40))
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(
        resize_nearest(ours, (128, 32)),
        np.asarray(Image.fromarray(ours.astype(np.uint8)).resize((32, 128), Image.Resampling.NEAREST)),
    )


def test_an_even_channel_of_labels_is_left_as_it_is():
    labels = np.stack([np.full((2, 2), 0.4), [[0.0, 1.0], [0.0, 1.0]]], axis=-1).astype(np.float32)
    assert mask_of_labels(labels, (1,), (2, 2)).tolist() == [[0, 1], [0, 1]]


def test_j_and_f_are_means_over_the_frames_but_the_first_and_the_last():
    """Masks drawn by hand: a square that is found, then half of it, then nothing."""
    square = np.zeros((20, 20), np.int64)
    square[4:12, 4:12] = 1
    half = square.copy()
    half[:, 8:] = 0
    target = [square] * 5
    predicted = [square, square, half, 0 * square, square]
    scores = score_video(predicted, target, (1,), tolerance=0.0)
    assert scores[0, 0] == pytest.approx((1 + 0.5 + 0) / 3)
    # Boundaries of 32 and 24 pixels share 17: the left side with its corners, and 4 each above and below.
    outline, narrow = 4 * 8, 2 * (8 + 4)
    shared = 9 + 4 + 4
    precision, recall = shared / narrow, shared / outline
    assert scores[0, 1] == pytest.approx((1 + 2 * precision * recall / (precision + recall) + 0) / 3)


def test_objects_count_alike_whatever_their_video_and_void_counts_for_none():
    first, second = np.array([[1.0, 0.5], [0.0, 0.5]]), np.array([[0.5, 1.0]])
    scores = average_videos([first, second])
    assert scores.j == pytest.approx(0.5)
    assert scores.f == pytest.approx(2 / 3)
    assert scores.jf == pytest.approx(7 / 12)
    mask = np.array([[1, 1, 2, -1]] * 2)
    assert objects_of(mask) == (1, 2)
    guess = np.array([[1, 1, 2, 1]] * 2)
    np.testing.assert_array_equal(score_video([guess] * 3, [mask] * 3, (1, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="no object"):
        average_videos([])
    with pytest.raises(ValueError, match="1 frames"):
        score_video([mask], [mask], (1,))
