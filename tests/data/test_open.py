import subprocess
import sys

import numpy as np
import pytest

from ssl_jax.data.fashion_mnist import EMBEDDED
from ssl_jax.data.open import check_size, open_source
from ssl_jax.data.sources import ArraySource
from tests.data.images import encode


def test_every_kind_of_source_opens_by_name(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(np.zeros([9, 9], np.uint8)))
    assert open_source("embedded").name == "embedded/train"
    assert len(open_source("embedded", "test[:50]")) == 50
    assert len(open_source(f"tfds:{EMBEDDED}", "test")) == 2000
    assert open_source(f"folder:{tmp_path}", channels=3).channels == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("embeded", "did you mean 'embedded'"),
        ("foldr:/data", "did you mean 'folder'"),
        ("/data/photos", "a path needs its kind in front: folder:/data/photos"),
        ("folder", "say which: folder:<path>"),
        ("parquet:", "say which: parquet:<path or hub name>"),
        ("embedded:test", "embedded takes nothing after a colon"),
        ("array:x", "ArraySource"),
        ("", "allowed: embedded"),
    ],
)
def test_a_wrong_name_says_what_is_right(spec, message):
    with pytest.raises(ValueError, match=r"source=.*" + message):
        open_source(spec)


def test_a_misspelt_option_names_the_right_one(tmp_path):
    with pytest.raises(ValueError, match=r"folder.chanels is not an option: did you mean 'channels'"):
        open_source(f"folder:{tmp_path}", chanels=3)
    with pytest.raises(ValueError, match=r"embedded.channels is not an option"):
        open_source("embedded", channels=3)


def test_images_that_are_all_too_small_are_refused(tmp_path):
    for name, size in (("a.png", 9), ("b.png", 12)):
        (tmp_path / name).write_bytes(encode(np.zeros([size, 30], np.uint8)))
    (tmp_path / "c.png").write_bytes(b"text")
    open_source(f"folder:{tmp_path}", min_size=12)
    with pytest.raises(ValueError, match="smaller than 13 pixels, the largest is 12 x 30: choose a smaller"):
        open_source(f"folder:{tmp_path}", min_size=13)
    with pytest.raises(ValueError, match="smaller than 29 pixels, the largest is 28 x 28"):
        open_source("embedded", min_size=29)
    check_size(ArraySource(np.zeros([1, 28, 28], np.uint8)), 28)


def test_opening_the_embedded_data_starts_no_backend_and_no_optional_package():
    code = (
        "import sys\n"
        "from ssl_jax.data.open import open_source\n"
        "open_source('embedded')\n"
        "assert not {'tensorflow', 'torch', 'datasets', 'pyarrow'} & set(sys.modules)\n"
        "if 'jax' in sys.modules:\n"
        "  from jax._src import xla_bridge\n"
        "  assert not xla_bridge._backends\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
