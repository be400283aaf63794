import functools
import io
import logging
import warnings

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import tiff
from ssl_jax.data.decode import decode, read_header
from ssl_jax.data.files import infer_format
from ssl_jax.data.sources import CorruptImage
from ssl_jax.data.values import Values
from tests.data.images import encode, encode_npy, encode_png16, encode_tiff, photo

RNG = np.random.default_rng(0)
COLOUR = photo(RNG, 23, 31)
GRAY = COLOUR[..., 0]
DEEP = RNG.integers(0, 65536, (13, 17, 6), dtype=np.uint16)


def read(data, channels=3, dtype="uint8"):
    image = decode(data, name="x", channels=channels, dtype=dtype)
    assert image.shape[2] == channels and image.dtype == dtype
    assert image.flags.owndata and image.flags.c_contiguous and image.flags.writeable
    return image


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(kind):
    assert (read(encode(COLOUR, kind)) == COLOUR).all()
    assert (read(encode(GRAY, kind), 1)[..., 0] == GRAY).all()
    assert (read(encode(GRAY, kind)) == GRAY[..., None]).all()
    assert read_header(encode(COLOUR, kind), name="x") == ((23, 31, 3), "uint8")
    assert read_header(encode(GRAY, kind), name="x") == ((23, 31, 1), "uint8")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_give_about_the_pixels_back(kind):
    data = encode(COLOUR, kind, quality=95)
    assert np.abs(read(data).astype(int) - COLOUR).mean() < 12
    assert read_header(data, name="x").shape == (23, 31, 3)


def test_colour_to_gray_is_the_luma():
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read(encode(COLOUR), 1)[..., 0] - luma).max() <= 0.51
    assert np.abs(read(encode(COLOUR), 1, "uint16")[..., 0] - 257 * luma).max() <= 129


def test_palette_and_one_bit_images_become_plain():
    palette = Image.fromarray(COLOUR).quantize(8)
    assert (read(encode(palette)) == np.asarray(palette.convert("RGB"))).all()
    bits = Image.fromarray(GRAY > 99)
    assert (read(encode(bits), 1)[..., 0] == 255 * (GRAY > 99)).all()
    assert read_header(encode(bits), name="x") == ((23, 31, 1), "uint8")


def test_cmyk_becomes_rgb():
    data = encode(Image.fromarray(COLOUR).convert("CMYK"), "TIFF")
    assert np.abs(read(data).astype(int) - COLOUR).max() <= 2
    assert read_header(data, name="x").shape[2] == 3


def test_transparent_pixels_are_laid_over_white():
    alpha = np.full_like(GRAY, 255)
    alpha[:5] = 0
    alpha[5:9] = 128
    image = read(encode(np.dstack([COLOUR, alpha])))
    assert (image[:5] == 255).all() and (image[9:] == COLOUR[9:]).all()
    mixed = COLOUR[5:9] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(image[5:9] - mixed).max() <= 0.5 + 1e-9
    assert (read(encode(np.dstack([GRAY, alpha])), 1)[:5] == 255).all()
    key = Image.fromarray(COLOUR).quantize(8)
    key.info["transparency"] = key.getpixel((0, 0))
    assert (read(encode(key, transparency=key.getpixel((0, 0))))[0, 0] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_honoured(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(COLOUR).resize((32, 16))
    plain = encode(image, kind, **({"quality": 95} if kind == "JPEG" else {}))
    data = encode(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    turn = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: lambda x: np.rot90(x, 1),
    }[orientation]
    expected = turn(read(plain))
    assert (read(data) == expected).all()
    assert read_header(data, name="x").shape == expected.shape


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_all_bits(channels):
    deep = DEEP[..., :channels].copy()
    data = encode_png16(deep)
    if channels in (2, 4):  # opaque
        deep[..., -1] = 65535
        data = encode_png16(deep)
        deep = deep[..., :-1]
    assert (read(data, deep.shape[2], "uint16") == deep).all()
    assert read_header(data, name="x") == (deep.shape, "uint16")
    assert (read(data, deep.shape[2], "uint8") == np.rint(deep / 257)).all()


def test_16_bit_alpha_is_laid_over_white():
    image = read(encode_png16(DEEP[..., :4]), 3, "uint16")
    alpha = DEEP[..., 3:4] / 65535
    assert np.abs(image - (DEEP[..., :3] * alpha + 65535 * (1 - alpha))).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_keeps_all_bits(order):
    data = bytearray(encode_tiff(DEEP[..., :3], order=order))
    assert (read(bytes(data), 3, "uint16") == DEEP[..., :3]).all()
    gray = encode(DEEP[..., 0], "TIFF")
    assert (read(gray, 1, "uint16")[..., 0] == DEEP[..., 0]).all()


def test_16_bit_pgm_is_read():
    data = b"P5 17 13 65535\n" + DEEP[..., 0].astype(">u2").tobytes()
    assert (read(data, 1, "uint16")[..., 0] == DEEP[..., 0]).all()
    assert read_header(data, name="x") == ((13, 17, 1), "uint16")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("form", [{}, {"deflate": True}, {"deflate": True, "predict": True, "tile": 16}])
def test_tiff_of_many_channels_is_read(order, planar, form):
    data = encode_tiff(DEEP, order=order, planar=planar, **form)
    assert (read(data, 6, "uint16") == DEEP).all()
    assert read_header(data, name="x") == (DEEP.shape, "uint16")
    small = (DEEP >> 8).astype(np.uint8)
    assert (read(encode_tiff(small, order=order, planar=planar, **form), 6) == small).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_many_channels_in_an_unknown_compression_say_so(channels):
    data = encode_tiff(np.zeros([8, 8, channels], np.uint8)).replace(
        b"\3\1\4\0\1\0\0\0\1", b"\3\1\4\0\1\0\0\0\5"
    )
    with pytest.raises(CorruptImage, match=r"compression 5 .* deflate it, or use .npy"):
        read(data, channels)


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_of_a_tiff_are_not_taken_for_alpha(channels):
    small = (DEEP[..., :channels] >> 8).astype(np.uint8)
    assert (read(encode_tiff(small), channels) == small).all()
    assert read_header(encode_tiff(small), name="x").shape == small.shape
    gray_and_alpha = encode(np.dstack([GRAY, np.full_like(GRAY, 255)]), "TIFF")
    assert (read(gray_and_alpha, 1)[..., 0] == GRAY).all()


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_tiff_reader_agrees_with_files_of_pillow(compression, predictor):
    data = encode(COLOUR, "TIFF", compression=compression, tiffinfo={317: predictor})
    file = io.BytesIO(data)
    assert (tiff.read_pixels(file, tiff.read_layout(file)) == COLOUR).all()


def test_float_tiff_and_npy_are_read_in_zero_to_one():
    floats = RNG.uniform(0, 1, (7, 9, 5)).astype(np.float32)
    for data in (encode_tiff(floats), encode_npy(floats), encode_npy(floats.astype(np.float64))):
        assert (read(data, 5, "float32") == floats).all()
        assert read_header(data, name="x") == ((7, 9, 5), "float32")
    assert np.abs(read(encode_npy(floats), 5) - 255 * floats).max() <= 0.5001
    gray = encode(floats[..., 0], "TIFF")
    assert (read(gray, 1, "float32")[..., 0] == floats[..., 0]).all()
    for bad in (floats * 3, floats - 1, np.full_like(floats, np.nan)):
        with pytest.raises(CorruptImage, match="allowed are 0 to 1"):
            read(encode_npy(bad), 5, "float32")


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_npy_of_any_channels_is_read(channels):
    image = RNG.integers(0, 256, (6, 8, channels), dtype=np.uint8)
    assert (read(encode_npy(image), channels) == image).all()
    assert (read(encode_npy(np.asfortranarray(image)), channels) == image).all()
    assert (read(encode_npy(image), channels, "uint16") == image.astype(np.uint16) * 257).all()
    assert (read(encode_npy(image[..., 0]), 1)[..., 0] == image[..., 0]).all()
    assert (read(encode_npy(image > 9), channels) == 255 * (image > 9)).all()
    big = encode_npy(image.astype(">u2"))
    assert (read(big, channels, "uint16") == image).all()


def test_npy_is_never_unpickled():
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    data = encode_npy(np.array([[Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(CorruptImage, match="dtype object"):
        read(data)


@pytest.mark.parametrize(
    "array", [np.zeros([3], np.uint8), np.zeros([2, 3, 4, 5], np.uint8), np.zeros([3, 3], np.int64)]
)
def test_npy_that_is_no_image_is_refused(array):
    with pytest.raises(CorruptImage, match="allowed are"):
        read(encode_npy(array))


def test_npy_with_the_channels_first_is_refused_and_a_small_image_of_many_channels_is_none():
    with pytest.raises(CorruptImage, match=r"\(3, 24, 24\) has the channels first"):
        read(encode_npy(np.zeros([3, 24, 24], np.uint8)))
    assert read(encode_npy(np.zeros([4, 4, 13], np.uint8)), 13).shape == (4, 4, 13)


JPEG = encode(photo(RNG, 64, 64), "JPEG")
DAMAGED = {
    "empty": (b"", "empty file"),
    "one byte": (b"x", "not an image of a known format: starts with b'x'"),
    "three bytes": (b"\xff\xd8\xff", "."),
    "text": (b"hello, I am a text\n", "not an image of a known format: starts with b'hello"),
    "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "jpeg but its end": (JPEG[:-2], "truncated"),
    "half a progressive jpeg": (encode(COLOUR, "JPEG", progressive=True)[:-50], "truncated"),
    "half a png": (encode(COLOUR)[:-500], "truncated"),
    "half a gif": (encode(COLOUR, "GIF")[:-200], "."),
    "half a bmp": (encode(COLOUR, "BMP")[:-200], "truncated"),
    "half a webp": (encode(COLOUR, "WEBP")[:-100], "."),
    "half a tiff": (encode(COLOUR, "TIFF")[:300], "."),
    "half a ppm": (encode(COLOUR, "PPM")[:-100], "truncated"),
    "half a deep png": (encode_png16(DEEP[..., :3])[:-200], "truncated"),
    "half a npy": (encode_npy(COLOUR)[:-1], "truncated"),
    "npy that lies": (encode_npy(COLOUR).replace(b"(23, 31, 3), ", b"(23, 9999999)"), "."),
    "half a deep tiff": (encode_tiff(DEEP)[:400], "."),
    "tiff without blocks": (encode_tiff(DEEP).replace(b"\x11\x01", b"\x99\x01"), "missing blocks"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_a_corrupt_image_with_a_reason(case):
    data, reason = DAMAGED[case]
    with pytest.raises(CorruptImage, match=reason) as caught:
        decode(data, name="x", channels=3, dtype="uint8")
    assert (
        caught.value.name == "x" and " at 0x" not in caught.value.reason and "\n" not in caught.value.reason
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "npy", "tiff of 6"])
def test_noise_in_a_file_never_raises_anything_else(kind):
    good = {"npy": encode_npy(COLOUR), "tiff of 6": encode_tiff(DEEP, deflate=True)}.get(kind) or encode(
        COLOUR, kind
    )
    rng = np.random.default_rng(1)
    for _ in range(60):
        data = np.frombuffer(good, np.uint8).copy()
        where = rng.integers(0, min(len(data), int(rng.choice([40, 400, 10**6]))), 3)
        data[where] = rng.integers(0, 256, 3)
        cut = len(data) if rng.random() < 0.5 else int(rng.integers(len(data)))
        for step in (
            lambda x: decode(x, name="x", channels=3, dtype="uint8"),
            lambda x: read_header(x, name="x"),
        ):
            try:
                step(data[:cut].tobytes())
            except CorruptImage as error:
                assert error.name == "x" and error.reason


def test_an_image_over_the_limit_is_a_corrupt_image_that_names_the_option():
    """The reader has a limit of its own: that of Pillow is the same for the whole program, and knows no memory."""
    limit = Values(max_image_mib=400 / 2**20)
    for data in (
        encode(COLOUR),
        encode(COLOUR, "JPEG", progressive=True),
        encode(COLOUR, "GIF"),
        encode(Image.fromarray(COLOUR).quantize(8)),
        encode(COLOUR, "TIFF"),
        encode_png16(DEEP[..., :1]),
        encode_npy(COLOUR),
        encode_tiff(DEEP.repeat(2, axis=0)),
    ):
        for step in (read_header, functools.partial(decode, channels=3, dtype="uint8")):
            with pytest.raises(
                CorruptImage,
                match=r"\d+ x \d+ pixels of .* too large for max_image_mib=0.000381, which may be",
            ):
                step(data, name="x", values=limit)
    within = Values(max_image_mib=COLOUR.nbytes / 2**20)
    assert (decode(encode(COLOUR), name="x", channels=3, dtype="uint8", values=within) == COLOUR).all()


@pytest.mark.parametrize("pillows", [100, None])
def test_the_limit_of_pillow_neither_counts_nor_changes(monkeypatch, pillows):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (read(encode(COLOUR)) == COLOUR).all() and read(encode(COLOUR, "JPEG")).shape == COLOUR.shape
    assert pillows == Image.MAX_IMAGE_PIXELS


def test_an_image_that_pillow_takes_for_a_bomb_is_read():
    """9,000 x 12,000 pixels, a scan, counted as corrupt."""
    side = 9_500
    data = encode(Image.new("1", (side, side + 1_000)))
    assert side * (side + 1_000) > (Image.MAX_IMAGE_PIXELS or 0)
    assert read_header(data, name="x").shape == (side + 1_000, side, 1)
    image = read(data, 1)
    assert image.shape == (side + 1_000, side, 1) and not image.any()
    with pytest.raises(CorruptImage, match=r"take 95.1 MiB: too large for max_image_mib=95"):
        read_header(data, name="x", values=Values(max_image_mib=95))


@pytest.mark.parametrize(
    ("limit", "factor"), [(64 * 48 * 3, 1), (64 * 48 * 3 - 1, 2), (40 * 30, 4), (8 * 6 * 3, 8)]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_over_the_limit_is_read_reduced(monkeypatch, limit, factor, orientation):
    said = []
    monkeypatch.setattr("ssl_jax.data.decode._said", set())
    monkeypatch.setattr(
        logging.getLogger("ssl_jax.data.decode"), "warning", lambda text, *args: said.append(text % args)
    )
    picture, exif = photo(RNG, 48, 64), Image.Exif()
    exif[0x0112] = orientation
    data, values = encode(picture, "JPEG", quality=95, exif=exif), Values(max_image_mib=limit / 2**20)
    shape = (48 // factor, 64 // factor, 3) if orientation == 1 else (64 // factor, 48 // factor, 3)
    assert read_header(data, name="x", values=values).shape == shape
    image = decode(data, name="x", channels=3, dtype="uint8", values=values)
    means = picture.reshape(48 // factor, factor, 64 // factor, factor, 3).mean((1, 3))
    assert np.abs(image - (means if orientation == 1 else np.rot90(means, -1))).mean() < 5
    assert len(said) == (factor > 1) and all(f"read at 1/{factor} of the size" in text for text in said)


def test_only_a_jpeg_in_one_scan_is_read_reduced():
    """Others are decoded as a whole, whatever the size of the result."""
    picture = photo(RNG, 48, 64)
    values = Values(max_image_mib=3000 / 2**20)
    one = encode(picture, "JPEG")
    assert decode(one, name="x", channels=3, dtype="uint8", values=values).shape == (24, 32, 3)
    start = one.index(b"\xff\xda")
    several = one[: start + 4] + b"\1" + one[start + 5 :]  # says that the first scan has one component
    for data in (encode(picture, "JPEG", progressive=True), several, one[: start - 1]):
        with pytest.raises(CorruptImage, match=r"too large|."):
            decode(data, name="x", channels=3, dtype="uint8", values=values)
    with pytest.raises(CorruptImage, match=r"48 x 64 pixels of 3 channels .* too large"):
        decode(several, name="x", channels=3, dtype="uint8", values=values)
    with pytest.raises(CorruptImage, match="too large"):  # not even 1/8 fits
        decode(one, name="x", channels=3, dtype="uint8", values=Values(max_image_mib=100 / 2**20))


SCALED = np.array([[0, 1000, 2047], [4095, 5000, 65535]], np.uint16)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i2", "<u4", "<i4", "<i8", "<f2", "<f4", "<f8"])
def test_max_value_scales_what_is_stored_whatever_its_type(dtype):
    stored = np.minimum(SCALED.astype(np.int64), np.iinfo(dtype).max if dtype[-2] != "f" else 60_000).astype(
        dtype
    )
    found = decode(encode_npy(stored), name="x", channels=1, dtype="float32", values=Values(max_value=4095))
    expected = np.array([[min(float(x) / 4095, 1.0) for x in row] for row in stored])
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-6)
    assert found.dtype == np.float32
    as_bytes = decode(encode_npy(stored), name="x", channels=3, dtype="uint8", values=Values(max_value=4095))
    assert (as_bytes == np.rint(255 * expected)[..., None]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "tiff"])
def test_max_value_scales_deep_files(kind):
    deep = (DEEP[..., :1] >> 4).astype(np.uint16)
    data = {"PNG": encode_png16(deep), "tiff": encode_tiff(deep)}.get(kind) or encode(deep[..., 0], "TIFF")
    found = decode(data, name="x", channels=1, dtype="float32", values=Values(max_value=4095))
    np.testing.assert_allclose(found, deep / 4095, rtol=1e-6)
    assert found.max() > 0.9


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u4", "<i4", "<f4", "<f8"])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_percentiles_scale_each_image_by_itself(dtype, channels):
    low = 0 if "u" in dtype else -900
    stored = (RNG.integers(0, 2000, (13, 17, channels)) + low).astype(dtype)
    values = Values(percentiles=(2, 98))
    a, b = np.percentile(stored, (2, 98))
    expected = np.clip((stored - a) / (b - a), 0, 1)
    for data in (encode_npy(stored), encode_tiff(stored.astype(dtype.replace(">", "<")), order=dtype[0])):
        assert read_header(data, name="x", values=values).shape == stored.shape
        found = decode(data, name="x", channels=channels, dtype="float32", values=values)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(CorruptImage, match=r"max_value|percentiles"):
        read_header(encode_npy(stored), name="x") if dtype[1] != "f" else read(encode_npy(stored), channels)


def test_percentiles_of_one_colour_are_zero():
    flat = np.full((4, 4), 700, np.uint16)
    found = decode(
        encode_npy(flat), name="x", channels=1, dtype="float32", values=Values(percentiles=(1, 99))
    )
    assert (found == 0).all()


@pytest.mark.parametrize("given", [{"max_value": 2}, {"percentiles": (1, 99)}, {}])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_no_numbers_are_a_corrupt_image(given, bad):
    stored = np.array([[0.0, 0.5, bad]])
    with pytest.raises(CorruptImage, match="1 of 3 values are NaN or infinite"):
        decode(encode_npy(stored), name="x", channels=1, dtype="float32", values=Values(**given))


def test_values_out_of_range_say_what_to_do():
    for top, message in ((255.0, "max_value=255 "), (4012.0, "max_value=4095 "), (1.5, "max_value=1.5 ")):
        with pytest.raises(CorruptImage, match=f"floats from 0 to .*: allowed are 0 to 1; {message}"):
            read(encode_npy(np.array([[0.0, top]])), 1, "float32")
    with pytest.raises(CorruptImage, match=r"floats from -1 to 1: .*\(x \+ 1\) / 2"):
        read(encode_npy(np.array([[-1.0, 1.0]])), 1, "float32")
    with pytest.raises(CorruptImage, match=r"floats from -50 to 3: .*percentiles=\(1, 99\)"):
        read(encode_npy(np.array([[-50.0, 3.0]])), 1, "float32")
    with pytest.raises(CorruptImage, match="values from -2 to 1: max_value scales values of 0 and more"):
        decode(
            encode_npy(np.array([[-2.0, 1.0]])),
            name="x",
            channels=1,
            dtype="float32",
            values=Values(max_value=1),
        )
    with pytest.raises(CorruptImage, match=r"dtype int16: .* max_value or percentiles scale others"):
        read(encode_npy(np.zeros([3, 3], np.int16)), 1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("max_value", bad) for bad in (0, -1, float("nan"), float("inf"), "4095", True)),
        *(
            ("percentiles", bad)
            for bad in (5, (1,), (99, 1), (1, 1), (-1, 99), (1, 101), (1, 2, 3), "1,99", (None, 99))
        ),
        *(("max_image_mib", bad) for bad in (0, -5, None, float("nan"))),
    ],
)
def test_options_of_values_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option}=.*: allowed is "):
        Values(**{option: value})


def test_either_max_value_or_percentiles():
    with pytest.raises(ValueError, match=r"percentiles=.*: allowed is None where max_value is given"):
        Values(max_value=5, percentiles=(1, 99))


def test_only_gray_and_colour_are_converted():
    with pytest.raises(CorruptImage, match="5 channels where the source has 3"):
        read(encode_npy(np.zeros([4, 4, 5], np.uint8)), 3)
    with pytest.raises(CorruptImage, match="3 channels where the source has 5"):
        read(encode(COLOUR), 5)


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(read(data, 1)[..., 0].astype(int) - GRAY).mean() < 2


def test_open_files_are_read_like_bytes(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encode(COLOUR))
    with open(path, "rb") as file:
        assert (read(file) == COLOUR).all()
    assert (read(io.BytesIO(encode(COLOUR)).getvalue()) == COLOUR).all()


def test_format_is_inferred_from_headers():
    def header(channels, dtype="uint8"):
        data = encode_npy(np.zeros([4, 4, channels], dtype))
        return read_header(data, name="x")

    def infer(*headers, channels=None, dtype=None):
        return infer_format(list(headers), channels=channels, dtype=dtype, where="here")

    assert infer(header(1), header(1)) == (1, "uint8")
    assert infer(header(1), header(3)) == (3, "uint8")
    assert infer(header(5), header(5)) == (5, "uint8")
    assert infer(header(3, "uint16"), header(1, "uint16")) == (3, "uint16")
    assert infer(header(3, "uint16"), header(1, "uint8")) == (3, "uint8")
    assert infer(header(1, "float32")) == (1, "float32")
    assert infer(header(1), header(5), channels=5, dtype="uint16") == (5, "uint16")
    with pytest.raises(ValueError, match=r"here mixes images of \[3, 5\] channels"):
        infer(header(3), header(5))
    with pytest.raises(ValueError, match="dtype='int8'"):
        infer(header(3), dtype="int8")
    with pytest.raises(ValueError, match="channels=0"):
        infer(header(3), channels=0)
