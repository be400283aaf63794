"""Random damage to what users and strangers give: the readers of images, configurations, checkpoints and records."""

import contextlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from configs import simclr
from ssl_jax.config import build
from ssl_jax.config.build import with_changes
from ssl_jax.config.load import load_config
from ssl_jax.config.make import parse_arguments
from ssl_jax.core.version import LAYOUT, LAYOUT_KEY
from ssl_jax.data.decode import decode, read_header
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import CorruptImage, parse_split
from ssl_jax.data.values import Values
from ssl_jax.train import storage
from ssl_jax.train.step import make_init
from ssl_jax.train.writers import JsonlWriter
from tests.data.images import encode, encode_npy, encode_png16, encode_tiff, photo

ROOT = Path(__file__).parent.parent
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


WORDS = """0 -1 1 2 3 5 7 0.5 1.5 -0.5 1e3 1e9 1e10 1e39 1e-9 nan inf -inf None none a a,b True false ... 1_000 5.0 \u0663 13
    2147483647 2147483648 1048576 0.2,0.1 0.2,0.3 1,2,3 0,0 -1,-2 8,8,8 () (1,) [] {} {'a':1} {'name':1} 'x' b'x' 1j [1,[2]]
    (('.',5),) mlp cosine 1/0 __import__('os')"""
HOSTILE = st.sampled_from([*WORDS.split(), "", " ", "lambda: 1"])
CONFIGS = ("simclr", "byol", "dino", "mae", "swav", "bigan", "deepcluster", "ladder", "time_contrastive")


def options_of(part, prefix=""):
    """List the dotted names of the options of a config, parts and groups among them."""
    inner = [name for k, v in part.items() if isinstance(v, dict) for name in options_of(v, f"{prefix}{k}.")]
    return [prefix + name for name in part] + inner


@AMOUNTS
def test_no_override_breaks_the_command_line(examples):
    """Any option of any config: refused in one line, or a value of its own type with which the run can be built."""
    options = [
        (name, option)
        for name in CONFIGS
        for option in options_of(build.to_dict(load_config(f"configs/{name}.py:smoke")))
    ]

    def check(option, text):
        name, path = option
        try:
            found = config = build.to_dict(load_config(f"configs/{name}.py:smoke", {path: text}))
            for part in path.split("."):
                found = found[part]
            assert found is None or isinstance(found, str | int | float | tuple | dict)
            method, optimizer = build.method(config), build.optimizer(config)
            # Deep networks take minutes to trace.
            if config["encoder"].get("depth", 1) <= 8 and config["method"].get("decoder_depth", 1) <= 8:
                jax.eval_shape(make_init(method, optimizer, sample_of(config)), 0)
        except ValueError as error:
            assert "\n" not in str(error)
            assert "wrong type" not in str(error), "no range caught it"

    fuzz(check, st.sampled_from(options), st.one_of(HOSTILE, HOSTILE, TEXTS), examples=examples)


def sample_of(config):
    """Make the shapes of one raw example of an embedded set."""
    return build.sample(with_changes(config, {"data.channels": config["data"]["channels"] or 1}))


def test_no_value_of_a_flag_breaks_a_launcher():
    """Each flag of each launcher: taken, or refused in one line that names it and what is allowed."""
    done = subprocess.run(
        [sys.executable, "-c", FLAGS_OF_LAUNCHERS],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "SSL_JAX_TUNE_CPU": "0"},
    )
    assert done.returncode == 0, done.stderr
    refused = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({row["launcher"] for row in refused}) >= 8
    for row in refused:
        message = row["message"].strip()
        assert row["code"] == 2 and message.count("\n") == 0, row
        assert message.startswith(f"error: --{row['flag']}=") and ": allowed is " in message, row


FLAGS_OF_LAUNCHERS = """
import contextlib, importlib, io, json, pkgutil
from absl import flags
import experiments
from ssl_jax.cli import launch

SHARED = set(flags.FLAGS)
for module in pkgutil.iter_modules(experiments.__path__):
    if module.ispkg:
        continue
    importlib.import_module(f"experiments.{module.name}")
    own = sorted(set(flags.FLAGS) - SHARED)
    for flag in own:
        for value in ("abc", "nan", "-1", "", "1e3", "\u0663", "9" * 30, "a,b", "1.5", "()", "maybe"):
            told = io.StringIO()
            with contextlib.redirect_stderr(told):
                try:
                    launch._parse([module.name, f"--{flag}={value}"])
                    continue
                except SystemExit as error:
                    code = error.code
            row = {"launcher": module.name, "flag": flag, "code": code, "message": told.getvalue()}
            print(json.dumps(row))
    for flag in own:
        delattr(flags.FLAGS, flag)
"""
