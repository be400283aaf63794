"""Random damage to what users and strangers give: the readers of images, configurations, checkpoints and records."""

import contextlib
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from configs import simclr
from ssl_jax.config import build
from ssl_jax.config.make import parse_arguments
from ssl_jax.config.overrides import apply_overrides
from ssl_jax.core.version import LAYOUT, LAYOUT_KEY
from ssl_jax.data.decode import decode, read_header
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import CorruptImage, parse_split
from ssl_jax.data.values import Values
from ssl_jax.train import storage
from ssl_jax.train.writers import JsonlWriter
from tests.data.images import encode, encode_npy, encode_png16, encode_tiff, photo

AMOUNTS = pytest.mark.parametrize("examples", [40, pytest.param(4000, marks=pytest.mark.long)])
"""Of hypothesis's examples: always the same few, or many new ones."""

COLOUR = photo(np.random.default_rng(0), 12, 17)
DEEP = np.random.default_rng(0).integers(0, 65536, (9, 8, 6), dtype=np.uint16)
FILES = [
    *(encode(COLOUR, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")),
    encode(COLOUR, "JPEG", progressive=True),
    encode(COLOUR, "TIFF", compression="tiff_lzw"),
    encode(Image.fromarray(COLOUR).quantize(8)),
    encode(Image.fromarray(COLOUR).convert("CMYK"), "TIFF"),
    encode_png16(DEEP[..., :3]),
    encode_npy(COLOUR),
    encode_npy(DEEP),
    *(encode_tiff(DEEP, planar=planar, deflate=True, predict=True, tile=16) for planar in (False, True)),
]
SPOTS = st.one_of(st.floats(0, 1), st.integers(0, 400))
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["write", "insert", "delete", "cut"]),
        SPOTS,
        st.one_of(
            st.binary(min_size=1, max_size=6), st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        ),
    ),
    max_size=6,
)


def fuzz(check, *strategies, examples):
    """Call ``check`` with drawn values; warnings are as users have them, not errors."""
    health = list(HealthCheck)
    chosen = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=health,
        derandomize=examples < 1000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen(given(*strategies)(check))()


def edited(data, edits):
    for kind, spot, piece in edits:
        at = min(int(spot * len(data)) if isinstance(spot, float) else spot, len(data))
        end = {"write": at + len(piece), "insert": at, "delete": at + 7 * len(piece), "cut": len(data)}[kind]
        data = data[:at] + (piece if kind in ("write", "insert") else b"") + data[end:]
    return data


@AMOUNTS
def test_no_file_breaks_the_image_reader(examples, monkeypatch):
    """An image or a `CorruptImage`: no other error, no larger than allowed, and of the size that its header says."""
    limit = 10**5
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # the reader's own limit is what holds
    values = Values(max_image_mib=limit / 2**20)

    def check(data, edits):
        data = edited(data, edits)
        header = None
        with contextlib.suppress(CorruptImage):
            header = read_header(data, name="x", values=values)
        for channels, dtype in ((3, "uint8"), (6, "uint16")):
            try:
                image = decode(data, name="x", channels=channels, dtype=dtype, values=values)
            except CorruptImage as error:
                assert error.name == "x" and error.reason and "\n" not in error.reason
                continue
            assert image.dtype == dtype and image.shape[2] == channels
            assert image.shape[0] * image.shape[1] <= limit
            assert header is not None and image.shape[:2] == header.shape[:2]

    fuzz(check, st.one_of(st.sampled_from(FILES), st.binary(max_size=200)), EDITS, examples=examples)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=12,
)


@AMOUNTS
def test_nothing_in_the_place_of_a_configuration_breaks_its_reader(examples, tmp_path):
    path = tmp_path / "config.json"
    whole = json.dumps({LAYOUT_KEY: LAYOUT, **build.to_dict(simclr.get_config("smoke"))}).encode()

    def check(content):
        path.write_bytes(content)
        try:
            assert isinstance(build.read_config(tmp_path), dict)
        except ValueError as error:
            assert "config.json" in str(error)

    texts = st.builds(lambda value: json.dumps(value).encode(), JSON)
    fuzz(check, st.one_of(st.binary(), texts, st.builds(edited, st.just(whole), EDITS)), examples=examples)


@AMOUNTS
def test_nothing_in_the_place_of_a_manifest_or_of_records_breaks_their_readers(examples, tmp_path):
    manifest, records = tmp_path / "manifest" / "manifest.json", tmp_path / "metrics.jsonl"
    manifest.parent.mkdir()

    def check(content, signed):
        if signed and isinstance(content, dict):
            content = json.dumps({**content, "crc32": storage._checksum_of_json(content)}).encode()
        elif not isinstance(content, bytes):
            content = json.dumps(content).encode()
        manifest.write_bytes(content)
        with contextlib.suppress(storage.DamagedError):
            found = storage.read_manifest(tmp_path)
            assert isinstance(found["facts"]["step"], int) and isinstance(found["items"], dict)
        records.write_bytes(content)
        JsonlWriter(records, resume_step=5).close()

    facts = st.fixed_dictionaries({"facts": JSON, "items": JSON})
    fuzz(check, st.one_of(st.binary(), JSON, facts), st.booleans(), examples=examples)


TEXTS = st.one_of(
    st.text(max_size=20),
    st.text("()[]{},:'\"-.0123456789eE%ntrai", max_size=20),
    st.sampled_from(["(" * 300, "9" * 5000]),
)


@AMOUNTS
def test_no_words_split_or_source_break_their_readers(examples):
    def check(text):
        for read in (lambda: simclr.get_config(text), lambda: parse_split(text), lambda: open_source(text)):
            with contextlib.suppress(ValueError):
                read()

    fuzz(
        check, TEXTS.filter(lambda text: text.partition(":")[0] not in ("parquet", "tfds")), examples=examples
    )
    assert parse_arguments("smoke").budget == "smoke"


@AMOUNTS
def test_no_override_breaks_the_command_line(examples):
    """Refused by what the launchers turn into one line, or taken as a value of the option's own type."""
    paths = (
        "seed",
        "optimizer.learning_rate",
        "watch.checkpoint.best",
        "data.source",
        "data.channels",
        "encoder.widths",
    )

    def check(path, text):
        config = simclr.get_config("smoke")
        try:
            apply_overrides(config, {path: text})
        except ValueError:
            return
        found = build.to_dict(config)
        for part in path.split("."):
            found = found[part]
        assert found is None or isinstance(found, str | int | float | tuple)

    fuzz(check, st.sampled_from(paths), TEXTS, examples=examples)
