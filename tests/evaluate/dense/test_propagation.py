"""Label propagation against loops over patches, J and F against a definition written by hand."""

import numpy as np
import pytest

from ssl_jax.data.masks import MaskFormat, MaskSource
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.evaluate.dense.propagation import (
    MEASURE,
    Propagation,
    average_frames,
    average_videos,
    clips_of,
    labels_of_mask,
    mask_of_labels,
    objects_of,
    propagate_labels,
    score_frame,
)
from ssl_jax.evaluate.measure import Options, PixelTargets, Subject
from ssl_jax.train.features import Features


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
def test_labels_are_enlarged_as_torch_does():
    torch = pytest.importorskip("torch")
    labels = np.random.default_rng(2).random((4, 5, 3)).astype(np.float32)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(labels.transpose(2, 0, 1))[None], size=(32, 40), mode="bilinear", align_corners=False
    )[0].numpy()
    for channel in large:
        channel -= channel.min()
        channel /= channel.max()
    np.testing.assert_array_equal(mask_of_labels(labels, (1, 2), (32, 40)), large.argmax(axis=0))


def test_an_even_channel_of_labels_is_left_as_it_is():
    labels = np.stack([np.full((2, 2), 0.4), [[0.0, 1.0], [0.0, 1.0]]], axis=-1).astype(np.float32)
    assert mask_of_labels(labels, (1,), (2, 2)).tolist() == [[0, 1], [0, 1]]


def test_j_and_f_are_means_over_the_frames_but_the_first_and_the_last():
    """Masks drawn by hand: a square that is found, then half of it, then nothing."""
    square = np.zeros((20, 20), np.int64)
    square[4:12, 4:12] = 1
    half = square.copy()
    half[:, 8:] = 0
    predicted = [square, half, 0 * square, square]
    scores = average_frames([score_frame(mask, square, (1,), tolerance=0.0) for mask in predicted])
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
    np.testing.assert_array_equal(score_frame(guess, mask, (1, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="no object"):
        average_videos([])
    with pytest.raises(ValueError, match="frames=0"):
        average_frames([])


def make_video(frames=4, side=24, shift=4):
    """A square of noise that moves over other noise by a patch a frame, and its masks of {0, 255}."""
    rng = np.random.default_rng(3)
    ground = rng.integers(0, 256, size=(side, side, 3), dtype=np.uint8)
    square = rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    images, masks = [], []
    for time in range(frames):
        image, mask = ground.copy(), np.zeros((side, side), np.uint8)
        place = slice(8, 16), slice(time * shift, time * shift + 8)
        image[place], mask[place] = square, 255
        images.append(image)
        masks.append(mask)
    return np.stack(images), np.stack(masks)


def make_subject(images, masks, labels, *, align="resize"):
    source = MaskSource(
        ArraySource(images, labels, classes=("walk", "run")),
        masks,
        format=MaskFormat(void=(), palette=(0, 255)),
    )
    options = Options(k=5, temperature=0.07, per_class=(1,), draws=1, crop_ratio=1.0)
    features = Features(np.zeros((len(images), 1)), np.zeros(len(images), int), np.arange(len(images)))
    targets = PixelTargets((source, source), Framing(align=align))
    return Subject(features, features, (source, source), options, pixel_targets=targets)


def test_the_measure_follows_what_moves_by_whole_patches_of_pixels():
    """Without an encoder the features are the pixels of patches of 8 pixels."""
    images, masks = make_video(frames=4, side=40, shift=8)
    twice = np.concatenate([images, images[:, :, ::-1]])
    subject = make_subject(twice, np.concatenate([masks, masks[:, :, ::-1]]), [0] * 4 + [1] * 4)
    assert {name: list(frames) for name, frames in clips_of(subject.targets.sources[1]).items()} == {
        "walk": [0, 1, 2, 3],
        "run": [4, 5, 6, 7],
    }
    row = MEASURE.run(subject)
    facts = row["propagation"]
    assert facts["objects"] == 2 and set(facts["videos"]) == {"walk", "run"}
    # Five neighbors vote, so that labels are soft and the enlarged mask is a bit off; nearly as good as can be.
    assert facts["ceiling"]["j"] > 0.6
    assert row["video_j"] > 0.8 * facts["ceiling"]["j"]
    assert row["video_jf"] == pytest.approx((row["video_j"] + row["video_f"]) / 2)


def test_videos_of_one_frame_and_images_without_labels_are_refused():
    images, masks = make_video()
    with pytest.raises(ValueError, match="a video of 1 frames"):
        MEASURE.run(make_subject(images, masks, [0, 0, 0, 1]))
    with pytest.raises(ValueError, match="of which video a frame is"):
        MEASURE.run(make_subject(images, masks, [-1] * 4))
