"""Sources with a target for each pixel: what stored numbers mean, which mask belongs to which image."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ssl_jax.augment.crop import Box
from ssl_jax.data.decode import decode_numbers
from ssl_jax.data.masks import (
    VOID,
    MaskFormat,
    MaskSource,
    crop_pair,
    open_masks,
    parse_palette,
    resize_pair,
    resize_target,
)
from ssl_jax.data.sources import ArraySource, CorruptImage, Source
from tests.data.images import encode, encode_npy, encode_png16

RNG = np.random.default_rng(0)
MASKS = [np.array([[i, 1, 2], [0, 255, i]], np.uint8) for i in range(5)]
IMAGES = [np.full([4, 6, 3], 40 * i, np.uint8) for i in range(5)]


def palette_png(mask):
    image = Image.fromarray(mask, "P")
    image.putpalette(RNG.integers(0, 255, 768).tolist())
    return encode(image)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(MASKS[3]), MASKS[3]),
        (palette_png(MASKS[3]), MASKS[3]),
        (encode_png16(MASKS[3].astype(np.uint16)[..., None] * 100), MASKS[3] * np.int64(100)),
        (encode(MASKS[3] > 1), MASKS[3] > 1),
        (encode_npy(MASKS[3].astype(np.int64) - 7), MASKS[3] - np.int64(7)),
        (encode_npy(MASKS[3].astype(np.float32) / 2), MASKS[3] / 2),
        (encode(np.stack([MASKS[3]] * 3, -1)), np.stack([MASKS[3]] * 3, -1)),
    ],
)
def test_stored_numbers_come_back_whatever_the_file(data, expected):
    np.testing.assert_array_equal(decode_numbers(data, name="x"), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode(MASKS[0], "JPEG"), "a JPEG does not keep numbers"),
        (encode(np.zeros((2, 2, 4), np.uint8)), "mode RGBA"),
        (encode(MASKS[0])[:44], "truncated|broken"),
        (encode_npy(np.zeros((5, 6, 2))), "2 channels"),
    ],
)
def test_files_that_do_not_keep_numbers_are_corrupt(data, message):
    with pytest.raises(CorruptImage, match=message):
        decode_numbers(data, name="x.png")


def test_numbers_become_classes_by_palettes_of_numbers_and_colors():
    stored = RNG.integers(0, 9, (20, 30)).astype(np.uint8)
    palette = (7, 2, 5)
    expected = np.array(
        [[palette.index(v) if v in palette else VOID for v in row] for row in stored.tolist()]
    )
    np.testing.assert_array_equal(MaskFormat(palette=palette).read(stored), expected)
    colors = np.stack([stored, 255 - stored, stored * 3], -1)
    by_color = parse_palette([f"#{v:02x}{255 - v:02x}{3 * v:02x}" for v in palette])
    np.testing.assert_array_equal(MaskFormat(palette=by_color).read(colors), expected)


def test_void_and_negative_numbers_do_not_count():
    read = MaskFormat(void=(255, 9)).read
    assert read(np.array([[0, 255, 9, -1]])).tolist() == [[0, VOID, VOID, VOID]]
    assert MaskFormat(void=()).read(np.array([[0, 255]])).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("format", "stored", "message"),
    [
        (MaskFormat(), np.zeros((2, 2, 3), np.uint8), "colors"),
        (MaskFormat(), np.array([[0.5]]), "whole numbers"),
        (MaskFormat(), np.array([[-3]]), "mask=-3"),
        (MaskFormat(palette=(0, 0)), np.zeros((2, 2), np.uint8), "different entries"),
        (MaskFormat(palette=((0, 0, 0),)), np.zeros((2, 2), np.uint8), "palette"),
        (MaskFormat(palette=((0, 0, 300),)), np.zeros((2, 2, 3), np.uint8), "0 to 255"),
        (MaskFormat(regression=True), np.zeros((2, 2, 3), np.uint8), "one number a pixel"),
    ],
)
def test_numbers_that_are_no_classes_are_refused(format, stored, message):
    with pytest.raises(ValueError, match=message):
        format.read(stored)


def test_wrong_palettes_are_refused():
    with pytest.raises(ValueError, match="palette='#12'"):
        parse_palette(["#12"])


def test_arrays_are_a_source_with_elements_of_image_and_target():
    source = MaskSource(ArraySource(np.stack(IMAGES)), MASKS)
    assert (
        isinstance(source, Source) and len(source) == 5 and source.mask_classes == ("0", "1", "2", "3", "4")
    )
    assert source[3]["target"].tolist() == [[3, 1, 2], [0, VOID, 3]] and source[3]["label"] == -1
    named = MaskSource(ArraySource(np.stack(IMAGES)), MASKS, mask_classes=("sky", "road"))
    with pytest.raises(CorruptImage, match=r"array/000001 \(mask\): mask=2: allowed are the classes 0 to 1"):
        named[1]
    with pytest.raises(ValueError, match="no mask has a class"):
        MaskSource(ArraySource(np.stack(IMAGES)), [np.full((2, 2), 255)] * 5)
    depth = MaskSource(
        ArraySource(np.stack(IMAGES)),
        [mask / 2 for mask in MASKS],
        format=MaskFormat(void=(0,), regression=True),
    )
    assert depth.mask_classes == () and np.isnan(depth[0]["target"][0, 0]) and depth[3]["target"][0, 0] == 1.5


def write_table(path, masks, **columns):
    images = [{"bytes": encode(image), "path": None} for image in IMAGES]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, "mask": masks, **columns}), path, row_group_size=2)


@pytest.mark.parametrize("form", ["files", "paths", "numbers"])
def test_a_column_of_a_table_has_the_masks(tmp_path, form):
    masks = [{"bytes": palette_png(mask), "path": None} for mask in MASKS]
    if form == "paths":
        masks = [{"bytes": None, "path": f"{i}.png"} for i in range(5)]
        for i, mask in enumerate(MASKS):
            (tmp_path / f"{i}.png").write_bytes(encode(mask))
    if form == "numbers":
        masks = [mask.tolist() for mask in MASKS]
    write_table(tmp_path / "train-0.parquet", masks, label=["a", "b", "a", "b", "a"])
    source = open_masks(f"parquet:{tmp_path}", cache_dir=tmp_path / "cache")
    again = pickle.loads(pickle.dumps(source))
    for i, mask in enumerate(MASKS):
        expected = np.where(mask == 255, VOID, mask.astype(int))
        np.testing.assert_array_equal(again[i]["target"], expected)
        np.testing.assert_array_equal(again[i]["image"], IMAGES[i])
    assert source.classes == ("a", "b") and source[1]["label"] == 1
    part = open_masks(f"parquet:{tmp_path}", "train[:40%]", cache_dir=tmp_path / "cache")
    assert [part[i]["image"][0, 0, 0] // 40 for i in range(2)] == [part[i]["target"][0, 0] for i in range(2)]


def test_a_missing_column_is_named(tmp_path):
    write_table(tmp_path / "train-0.parquet", [{"bytes": encode(mask), "path": None} for mask in MASKS])
    with pytest.raises(ValueError, match=r"masks='depth'.*that can hold images are \['image', 'mask'\]"):
        open_masks(f"parquet:{tmp_path}", masks="depth", cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match="kind of source with masks"):
        open_masks("embedded")


def test_a_folder_of_masks_is_matched_by_name_and_images_without_a_mask_are_left_out(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "masks" / split).mkdir(parents=True)
        for i, (image, mask) in enumerate(zip(IMAGES, MASKS, strict=True)):
            (tmp_path / "images" / split / f"street.{i}.jpg").write_bytes(encode(image, "JPEG", quality=95))
            if i != 2:
                (tmp_path / "masks" / split / f"street.{i}.png").write_bytes(palette_png(mask))
    source = open_masks(f"folder:{tmp_path}", "val")
    assert [source[i]["target"][0, 0] for i in range(len(source))] == [0, 1, 3, 4]
    assert [round(source[i]["image"].mean() / 40) for i in range(4)] == [0, 1, 3, 4]
    assert any("1 of 5 images have no mask" in note for note in source.notes)
    given = open_masks(
        f"folder:{tmp_path / 'images' / 'val'}", "train[:50%]", masks=str(tmp_path / "masks" / "val")
    )
    pairs = [(round(given[i]["image"].mean() / 40), int(given[i]["target"][0, 0])) for i in range(len(given))]
    assert len(pairs) in (1, 2, 3) and all(a == b for a, b in pairs)


def test_folders_without_masks_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(encode(IMAGES[0]))
    with pytest.raises(ValueError, match="images and masks below"):
        open_masks(f"folder:{tmp_path / 'a'}")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "y.png").write_bytes(encode(MASKS[0]))
    with pytest.raises(ValueError, match="none of its 1 files has the name of an image, such as x"):
        open_masks(f"folder:{tmp_path / 'a'}", masks=str(tmp_path / "b"))
    (tmp_path / "b" / "x.png").write_bytes(encode(MASKS[0]))
    (tmp_path / "b" / "x.bmp").write_bytes(encode(MASKS[0], "BMP"))
    with pytest.raises(ValueError, match="one file of a name"):
        open_masks(f"folder:{tmp_path / 'a'}", masks=str(tmp_path / "b"))


class TinyScenes(tfds.core.GeneratorBasedBuilder):
    """Images with masks."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, (image, mask) in enumerate(zip(IMAGES, MASKS, strict=True)):
            yield i, {"image": encode(image), "segmentation_mask": encode(mask)}


def test_a_prepared_set_with_segmentation(tmp_path):
    builder = TinyScenes(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = open_masks("tfds:tiny_scenes", data_dir=tmp_path)
    for i in range(len(source)):
        element = source[i]
        number = element["image"][0, 0, 0] // 40
        np.testing.assert_array_equal(element["target"][1], [0, VOID, number])
    with pytest.raises(ValueError, match="masks='depth'"):
        open_masks("tfds:tiny_scenes", masks="depth", data_dir=tmp_path)


def test_targets_are_resized_to_the_nearest_pixel():
    target = RNG.integers(0, 9, (7, 5))
    for height, width in ((7, 5), (14, 10), (3, 11), (1, 1), (9, 4)):
        expected = [
            [target[int((i + 0.5) * 7 / height), int((j + 0.5) * 5 / width)] for j in range(width)]
            for i in range(height)
        ]
        np.testing.assert_array_equal(resize_target(target, height, width), expected)
    theirs = Image.fromarray(target.astype(np.uint8)).resize((11, 13), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize_target(target, 13, 11), np.asarray(theirs))


def test_crops_and_resizes_move_image_and_target_together():
    target = RNG.integers(0, 4, (24, 36))
    image = np.repeat((60 * target).astype(np.uint8)[..., None], 3, -1)
    cut, below = crop_pair(image, target, Box(3, 5, 12, 20))
    np.testing.assert_array_equal(cut[..., 0], 60 * below)
    half = target[::2, ::2]
    cut, below = crop_pair(image, half, Box(4, 6, 12, 20))
    np.testing.assert_array_equal(below, np.repeat(np.repeat(half, 2, 0), 2, 1)[4:16, 6:26])
    with pytest.raises(ValueError, match="box"):
        crop_pair(image, target, Box(20, 0, 5, 5))
    blocks = np.kron(RNG.integers(0, 4, (3, 4)), np.ones((8, 8), int))
    image = np.repeat((60 * blocks).astype(np.uint8)[..., None], 3, -1)
    small, below = resize_pair(image, blocks, 12, 16)
    inner = np.ix_([1, 2, 5, 6, 9, 10], [1, 2, 5, 6, 9, 10, 13, 14])
    assert np.abs(small[..., 0].astype(int) - 60 * below)[inner].max() < 30
    np.testing.assert_array_equal(below, blocks[::2, ::2])
