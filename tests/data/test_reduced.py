"""JPEGs that are decoded only as large as their crops need."""

import numpy as np
import pytest
from PIL import Image

from ssl_jax.augment.crop import RandomResizedCrop
from ssl_jax.augment.views import View
from ssl_jax.data.decode import decode, decode_reduced
from ssl_jax.data.labels import FewLabels
from ssl_jax.data.loader import stream
from ssl_jax.data.open import open_source
from ssl_jax.data.pack import Shards, pack
from ssl_jax.data.sources import CorruptImage, Subset
from ssl_jax.data.values import Values
from tests.data.images import encode, photo

OPTIONS = {"name": "x", "channels": 3, "dtype": "uint8"}
VIEWS = (
    View(size=48, crop=RandomResizedCrop(area=(0.3, 1.0), interpolation="bicubic")),
    View(size=24, crop=RandomResizedCrop(area=(0.1, 0.5))),
)


def reduced(data, most, **options):
    return decode_reduced(data, most=lambda height, width: most, **{**OPTIONS, **options})


def means(image, factor):
    height, width = (length // factor * factor for length in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, -1)
    return blocks.astype(float).mean((1, 3))


@pytest.mark.parametrize("progressive", [False, True])
def test_an_eighth_is_the_mean_of_each_block(progressive):
    # What is left of the transform of a block is its mean: in gray there is nothing else between.
    gray = photo(np.random.default_rng(0), 83, 121)[..., 0]
    data = encode(gray, "JPEG", quality=97, progressive=progressive)
    found = reduced(data, 9.0, channels=1)
    assert found.image.shape == (11, 16, 1) and found.size == (83, 121) and found.factor == 8
    whole = decode(data, **{**OPTIONS, "channels": 1})
    inside = (whole.min(), whole.max())
    error = np.abs(found.image[:10, :15] - means(whole, 8))
    assert np.median(error) <= 0.5 and error.max() <= 2 + 2 * (inside == (0, 255)), error.max()


@pytest.mark.parametrize("factor", [2, 4])
def test_a_half_and_a_quarter_are_near_the_means(factor):
    data = encode(photo(np.random.default_rng(1), 96, 128), "JPEG", quality=95, subsampling=0)
    found = reduced(data, factor + 0.9)
    assert found.factor == factor
    error = np.abs(found.image - means(decode(data, **OPTIONS), factor))
    assert error.mean() < 1.5, error.mean()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images_are_reduced_where_their_sides_are_multiples(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo(np.random.default_rng(2), 64, 96)
    data = encode(image, "JPEG", quality=95, exif=exif)
    whole, found = decode(data, **OPTIONS), reduced(data, 4.0)
    assert found.size == whole.shape[:2] and found.factor == 4
    assert np.abs(found.image - means(whole, 4)).mean() < 2.5
    odd = encode(image[:61], "JPEG", exif=exif)
    assert reduced(odd, 4.0).factor == (4 if orientation == 1 else 1)
    np.testing.assert_array_equal(reduced(odd, 1.9).image, decode(odd, **OPTIONS))


def test_everything_else_is_read_whole():
    image = photo(np.random.default_rng(3), 40, 56)
    cmyk = Image.fromarray(image).convert("CMYK")
    for data in (encode(image), encode(cmyk, "JPEG"), encode(image, "WEBP"), encode(image[..., 0])):
        found = reduced(data, 8.0)
        assert found.size == (40, 56) and found.factor == 1
        np.testing.assert_array_equal(found.image, decode(data, **OPTIONS))
    jpeg = encode(image, "JPEG")
    scaled = {**OPTIONS, "dtype": "float32", "values": Values(max_value=200)}
    np.testing.assert_array_equal(reduced(jpeg, 8.0, **scaled).image, decode(jpeg, **scaled))
    assert reduced(jpeg, 8.0, dtype="uint16").factor == 1
    # One that is too large is reduced already.
    small = {**OPTIONS, "values": Values(max_image_mib=0.003)}
    np.testing.assert_array_equal(reduced(jpeg, 8.0, **small).image, decode(jpeg, **small))
    with pytest.raises(CorruptImage, match=r"(?i)truncated"):
        reduced(jpeg[: len(jpeg) // 2], 8.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(4)
    for number in range(12):
        height, width = (30, 36) if number == 11 else rng.integers(200, 300, 2).tolist()
        path = root / f"class{number % 2}" / f"{number:02d}.{'png' if number == 5 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(photo(rng, height, width), path.suffix[1:].replace("jpg", "JPEG")))
    (root / "class0" / "broken.jpg").write_bytes(encode(photo(rng, 99, 99), "JPEG")[:900])
    return root


def take(source, crop_on, count=2, **options):
    with stream(
        source, views=VIEWS, seed=0, batch_size=13, crop_on=crop_on, max_corrupt_fraction=0.5, **options
    ) as batches:
        taken = [next(batches) for _ in range(count)]
        assert list(batches.corrupt) == ["class0/broken.jpg"]
        return taken


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_crops_show_the_same_within_the_tolerance_that_is_stated(folder):
    source = open_source(f"folder:{folder}")
    for plain, fast in zip(take(source, "host"), take(source, "host_reduced"), strict=True):
        for key in ("index", "label"):
            np.testing.assert_array_equal(plain[key], fast[key])
        for one, other in zip(plain["crops"], fast["crops"], strict=True):
            error = np.abs(one.astype(int) - other)
            # docs/guides/data.md: a mean of at most 2 levels.
            assert 0 < error.mean() <= 2, error.mean()
            assert np.percentile(error, 99) <= 24
        small = np.isin(plain["index"], [9, 12])  # a PNG, and one too small to be reduced
        for one, other in zip(plain["crops"], fast["crops"], strict=True):
            np.testing.assert_array_equal(one[small], other[small])


@pytest.mark.long
def test_every_format_and_every_way_to_load_gives_the_same_bits(folder, tmp_path):
    (tmp_path / "in").mkdir()
    for path in folder.glob("class*/??.jpg"):
        target = tmp_path / "in" / path.parent.name
        target.mkdir(exist_ok=True)
        (target / path.name).write_bytes(path.read_bytes())
    plain = open_source(f"folder:{tmp_path / 'in'}")
    kinds = {"tar": "tar", "parquet": "parquet", "array_record": "tfds"}
    for form in kinds:
        pack(plain, tmp_path / form, Shards(form))

    def batch(source, **options):
        with stream(source, views=VIEWS, seed=0, batch_size=12, crop_on="host_reduced", **options) as batches:
            return [next(batches) for _ in range(2)]

    expected = batch(plain)
    others = [batch(open_source(f"{kind}:{tmp_path / form}")) for form, kind in kinds.items()]
    others += [batch(Subset(plain, np.arange(len(plain)))), batch(plain, threads=0)]
    few = FewLabels(plain, 2, seed=0)
    for hidden, whole in zip(batch(few), expected, strict=True):
        np.testing.assert_array_equal(hidden["label"], few.labels[whole["index"]])
        np.testing.assert_array_equal(hidden["crops"][0], whole["crops"][0])
    for other in others:
        for one, two in zip(expected, other, strict=True):
            np.testing.assert_array_equal(one["label"], two["label"])
            np.testing.assert_array_equal(one["index"], two["index"])
            for a, b in zip(one["crops"], two["crops"], strict=True):
                np.testing.assert_array_equal(a, b)
