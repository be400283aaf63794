"""How stored values become [0, 1], for every kind of source: the options, what is said of a sample, what is refused."""

import io
import logging
import re
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from ssl_jax.config.images import open_images
from ssl_jax.config.load import load_config
from ssl_jax.data.frames import open_frames
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import ArraySource, CorruptImage
from tests.data.images import encode, encode_npy, encode_png16, photo

RNG = np.random.default_rng(0)
DEEP = [RNG.integers(0, 4096, (9, 8, 1), dtype=np.uint16) for _ in range(6)]
"""Images of a camera of 12 bits."""
OPTIONS = [
    {"max_value": 4095},
    {"max_value": 4095.0, "dtype": "uint8"},
    {"percentiles": (1, 99)},
    {"percentiles": [0, 100]},
]


def save(kind, images, folder):
    """Save images as a source of a kind; return its name and the options that it needs."""
    for i, image in enumerate(images):
        path = folder / ("a" if kind == "frames" else ".") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        if kind in ("folder", "frames"):
            path.with_suffix(".npy" if image.dtype != np.uint16 else ".png").write_bytes(
                encode_npy(image) if image.dtype != np.uint16 else encode_png16(image)
            )
    if kind == "parquet":
        cells = [encode_npy(image) if image.dtype != np.uint16 else encode_png16(image) for image in images]
        pq.write_table(pa.table({"image": cells}), folder / "x.parquet")
    if kind == "lists":
        pq.write_table(pa.table({"image": [image.tolist() for image in images]}), folder / "x.parquet")
    options = {"cache_dir": folder / "cache"} if kind in ("parquet", "lists") else {}
    options |= {"window": 2} if kind == "frames" else {}
    where = f"parquet:{folder / 'x.parquet'}" if kind in ("parquet", "lists") else f"{kind}:{folder}"
    return where, options


def open_kind(kind, images, folder, **given):
    if kind == "array":
        return ArraySource(np.stack(images), **given)
    where, options = save(kind, images, folder)
    return open_source(where, **options, **given)


def expected_of(image, options):
    """Oracle: in double precision, as the docstring says."""
    stored = image.astype(float)
    if "max_value" in options:
        unit = np.minimum(stored / options["max_value"], 1)
    else:
        low, high = np.percentile(stored, options["percentiles"])
        unit = np.clip((stored - low) / (high - low), 0, 1)
    return np.rint(255 * unit) / 255 if options.get("dtype") == "uint8" else unit


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["folder", "frames", "parquet", "lists", "array"])
def test_every_kind_of_source_scales_its_values(tmp_path, kind, options):
    if kind == "array":
        options = {name: value for name, value in options.items() if name != "dtype"}
    source = open_kind(kind, DEEP, tmp_path, **options)
    assert (
        source.dtype == options.get("dtype", "float32") and source.shape == (9, 8, 1) and source.notes == ()
    )
    for i, image in enumerate(DEEP):
        found = source[i]["image"]
        assert found.dtype == source.dtype and found.shape == image.shape
        top = 255 if source.dtype == "uint8" else 1
        np.testing.assert_allclose(found / top, expected_of(image, options), atol=1e-6)


@pytest.mark.parametrize("kind", ["folder", "frames", "parquet", "lists", "array"])
def test_values_far_below_the_top_are_said_at_the_opening(tmp_path, kind):
    source = open_kind(kind, DEEP, tmp_path)
    largest = max(int(image.max()) for image in DEEP)
    assert (
        source.dtype == "uint16" and [int(source[i]["image"].max()) <= 4095 for i in range(6)] == [True] * 6
    )
    (note,) = source.notes
    assert note.startswith(
        f"the largest value of 6 images is {largest} of 65535, 6.2% of the range: give max_value=4095 "
    )
    assert "--config.data.max_value=4095" in note


@pytest.mark.parametrize("kind", ["folder", "frames", "parquet", "lists", "array"])
def test_floats_of_another_range_are_refused_at_the_opening(tmp_path, kind):
    for number, (images, message) in enumerate(
        (
            (
                [image // 17 for image in DEEP],
                r"floats from .*: allowed are 0 to 1; max_value=255 scales them",
            ),
            ([image / 2048.0 - 1 for image in DEEP], r"floats from -.*: allowed are 0 to 1; "),
            ([np.where(image == image.max(), np.nan, 0.5) for image in DEEP], r"NaN or infinite"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ValueError, match=message) as caught:
            open_kind(kind, [image.astype(np.float32) for image in images], folder)
        assert "\n" not in str(caught.value)


def test_some_images_out_of_range_are_said_at_the_opening(tmp_path):
    images = [(image / (4095 if i != 3 else 5)).astype(np.float32) for i, image in enumerate(DEEP)]
    for kind in ("folder", "parquet"):
        (note,) = open_kind(kind, images, tmp_path).notes
        assert re.match(
            r"1 of 6 images looked at cannot be read, such as .*3(.npy)?: floats from .*: allowed are 0 to 1",
            note,
        )


def test_signed_integers_need_a_range(tmp_path):
    images = [image.astype(np.int16) - 2000 for image in DEEP]
    for number, kind in enumerate(("folder", "frames", "parquet", "array")):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ValueError, match=r"int16.*percentiles"):
            open_kind(kind, images, folder)
        (folder / "again").mkdir()
        source = open_kind(kind, images, folder / "again", percentiles=(1, 99))
        np.testing.assert_allclose(
            source[3]["image"], expected_of(images[3], {"percentiles": (1, 99)}), atol=1e-6
        )


def test_a_max_value_that_is_too_small_or_too_large_is_said(tmp_path):
    where, _ = save("folder", DEEP, tmp_path)
    (small,) = open_source(where, max_value=255).notes
    assert "of the values of 6 images are 255 or more, and become 1: is max_value=255 too small?" in small
    (large,) = open_source(where, max_value=65535).notes
    assert "of 65535, 6.2% of the range: give max_value=4095 " in large


def test_images_of_several_depths_are_said(tmp_path):
    save("folder", DEEP, tmp_path)
    for i in range(2):
        (tmp_path / f"plain{i}.png").write_bytes(encode(photo(RNG, 9, 8)))
    source = open_source(f"folder:{tmp_path}")
    assert source.dtype == "uint8"
    assert (
        source.notes[0]
        == "images of several depths, 6 uint16, 2 uint8 of those looked at: all are read as uint8"
    )


def test_images_of_8_bits_are_not_decoded_at_the_opening(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(photo(RNG, 9, 8)))
    monkeypatch.setattr("ssl_jax.data.folder.decode", lambda *_, **__: pytest.fail("decoded"))
    assert open_source(f"folder:{tmp_path}").notes == ()


@pytest.mark.parametrize("kind", ["folder", "frames", "parquet"])
def test_the_limit_of_memory_reaches_every_kind(tmp_path, kind):
    images = [*DEEP, np.zeros([90, 90, 1], np.uint16)]
    source = open_kind(kind, images, tmp_path, max_image_mib=16000 / 2**20, channels=1)
    assert source[2]["image"].shape == (9, 8, 1)
    with pytest.raises(
        CorruptImage, match=r"90 x 90 pixels of 1 channel take 0\.0154 MiB: too large for max_image_mib"
    ):
        source[6]
    with pytest.raises(ValueError, match=r"can be read: .* too large for max_image_mib"):
        open_kind(kind, images, tmp_path, max_image_mib=100 / 2**20)


class FloatTensors(tfds.core.GeneratorBasedBuilder):
    """Images stored as floats of 0 to 4095 and as encoded files of 16 bits."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("tensor", "files")]

    def _info(self):
        image = (
            tfds.features.Tensor(shape=(9, 8, 1), dtype=np.float32)
            if self.builder_config.name == "tensor"
            else tfds.features.Image(shape=(9, 8, 1), dtype=np.uint16)
        )
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": image}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, image in enumerate(DEEP):
            yield (
                i,
                {
                    "image": image.astype(np.float32)
                    if self.builder_config.name == "tensor"
                    else io.BytesIO(encode_png16(image))
                },
            )


def test_sets_of_tfds_scale_their_values(tmp_path):
    for name in ("tensor", "files"):
        builder = FloatTensors(config=name, data_dir=tmp_path, file_format="array_record")
        builder.download_and_prepare()
        where = f"tfds:{builder.data_dir}"
        for options in (OPTIONS[0], OPTIONS[2]):
            source = open_source(where, **options)
            assert source.dtype == "float32" and source.shape == (9, 8, 1) and source.notes == ()
            found = sorted(float(source[i]["image"].sum()) for i in range(6))
            assert found == pytest.approx(
                sorted(expected_of(image, options).sum() for image in DEEP), rel=1e-5
            )
        if name == "tensor":
            with pytest.raises(
                ValueError, match=r"floats from .* to 40\d\d: allowed are 0 to 1; max_value=4095"
            ):
                open_source(where)
        else:
            assert "give max_value=4095" in open_source(where).notes[0]


def test_a_config_says_how_values_are_read(tmp_path):
    where, _ = save("folder", DEEP, tmp_path)
    config = load_config("configs/simclr.py:smoke")
    assert (config.data.max_value, config.data.percentiles, config.data.max_image_mib) == (None, None, 1024.0)
    for overrides, options in (
        ({"data.max_value": "4095"}, {"max_value": 4095}),
        ({"data.percentiles": "1,99"}, {"percentiles": (1, 99)}),
    ):
        config = load_config("configs/simclr.py:folder,smoke", {"data.source": where, **overrides})
        source = open_images(config, where, "train")
        np.testing.assert_allclose(source[2]["image"], expected_of(DEEP[2], options), atol=1e-6)
    with pytest.raises(ValueError, match="too large for max_image_mib"):
        load_config("configs/simclr.py:folder,smoke", {"data.source": where, "data.max_image_mib": "1e-5"})
    for bad in (
        {"data.max_value": "0"},
        {"data.percentiles": "99,1"},
        {"data.percentiles": "5"},
        {"data.max_image_mib": "0"},
    ):
        with pytest.raises(ValueError, match=next(iter(bad)).split(".")[1]):
            load_config("configs/simclr.py:folder,smoke", {"data.source": where, **bad})


@pytest.mark.parametrize("source", ["embedded", "frames:moving"])
def test_images_that_the_package_makes_have_values_of_their_own(source):
    data = {"source": source, "split": "test", "channels": None, "max_image_mib": 1024.0, "percentiles": None}
    with pytest.raises(ValueError, match=f"config.data.max_value=5: allowed is None for {source}"):
        open_images({"data": {**data, "max_value": 5}}, source, "test")
    assert open_images({"data": {**data, "max_value": None}}, source, "test").dtype == "uint8"
    # A probe on other images than those of training reads them as they are.
    assert (
        open_images({"data": {**data, "max_value": 5, "source": "folder:x"}}, source, "test").dtype == "uint8"
    )
    with pytest.raises(ValueError, match="max_value=5"):
        open_frames("moving", max_value=5)


def test_a_large_jpeg_that_is_read_reduced_is_said_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("ssl_jax.data.decode._said", set())
    monkeypatch.setattr(
        logging.getLogger("ssl_jax.data.decode"), "warning", lambda text, *args: said.append(text % args)
    )
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(encode(photo(RNG, 64, 96), "JPEG"))
    source = open_source(f"folder:{tmp_path}", max_image_mib=64 * 96 / 2**20)
    assert source.shape == (32, 48, 3) and source[1]["image"].shape == (32, 48, 3)
    assert len(said) == 1 and "64 x 96 pixels" in said[0] and "read at 1/2 of the size, 32 x 48" in said[0]
