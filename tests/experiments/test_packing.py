"""``experiments.pack``: planted duplicates, balance and selection, from the flags to the shards."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_jax.cli import pack as cli
from ssl_jax.cli.pack import Curation, Encoder, curate, default_levels, pack_images
from ssl_jax.data.fashion_mnist import open_embedded
from ssl_jax.data.folder import open_folder
from ssl_jax.data.open import open_source
from ssl_jax.data.pack import Shards
from ssl_jax.data.select import even_quotas, k_center
from tests.weights_file import write_weights


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """24 images, copies of some of their files, of some as JPEG, one of these with another class, and one that is damaged."""
    root = tmp_path_factory.mktemp("planted")
    source = open_embedded("train")
    for i in range(24):
        folder = root / "images" / ("odd" if i % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.repeat(source[i]["image"], 3, axis=2))
        image.save(folder / f"{i:02d}.png")
        if i % 8 == 0:
            (folder / f"{i:02d}_equal.png").write_bytes((folder / f"{i:02d}.png").read_bytes())
        if i % 8 == 1:
            image.save(folder / f"{i:02d}_near.jpg", quality=95)
        if i == 2:
            image.save(root / "images/zz.tmp", "JPEG", quality=95)
    (root / "images/zz.tmp").rename(root / "images/odd/zz_near.jpg")
    (root / "images/odd/damaged.png").write_bytes(b"no image")
    write_weights(root / "vit.safetensors")
    return root


NEAR = {"odd/01_near.jpg": "odd/01.png", "odd/09_near.jpg": "odd/09.png", "odd/17_near.jpg": "odd/17.png"}
EQUAL = {f"even/{i:02d}_equal.png": f"even/{i:02d}.png" for i in (0, 8, 16)}


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_planted_duplicates_are_left_out_and_shown(planted, tmp_path, capsys):
    source, out = f"folder:{planted}/images", tmp_path / "out"
    options = Curation(dedup="near", threshold=0.999)
    encoder = Encoder(str(planted / "vit.safetensors"), batch_size=32)
    pack_images(source, out, Shards(images=10), options, encoder=encoder)
    assert (
        "3 images with the bytes of another, 4 close to another, 1 unreadable left out of 32"
        in capsys.readouterr().out
    )
    lines = (out / ".pack-train/duplicates.jsonl").read_text().splitlines()
    removed = {line["removed"]: line["kept"] for line in map(json.loads, lines)}
    assert removed == {**EQUAL, **NEAR, "odd/zz_near.jpg": "even/02.png"}
    again = open_source(f"tar:{out}")
    assert len(again) == 24
    images = open_folder(planted / "images")
    originals = [
        i for i in range(32) if "_" not in images.file_name(i) and "damaged" not in images.file_name(i)
    ]
    for place, index in enumerate(originals):
        np.testing.assert_array_equal(again[place]["image"], images[index]["image"])
    about = json.loads((out / ".pack-train/manifest.json").read_text())["about"]
    expected = {"images": 32, "equal": 3, "near": 4, "unreadable": 1, "labels_differ": 1, "chosen": 24}
    assert expected.items() <= about.items()
    page = (out / ".pack-train/duplicates.html").read_text()
    assert page.count("<img") == 2 * 7 + 2 * 23, "every pair that is removed, and the closest that stay"
    assert page.index("zz_near.jpg") < page.index("00_equal.png"), "the least similar first"
    # The choice is made once: neither features nor digests are computed again.
    pack_images(source, out, Shards(images=10), options, encoder=encoder)
    said = capsys.readouterr().out
    assert (
        "24 images as chosen before" in said and "(3 were there)" in said and "bytes of another" not in said
    )


def test_equal_files_need_no_encoder(planted, tmp_path):
    pack_images(f"folder:{planted}/images", tmp_path, Shards(), Curation(dedup="exact"))
    assert len(open_source(f"tar:{tmp_path}")) == 28


@pytest.fixture
def features(planted, monkeypatch):
    """Features that are known: 31 images that can be read, in three groups of 20, 8 and 3."""
    groups = np.repeat([0, 1, 2], [20, 8, 3])
    rows = 10 * np.eye(3)[groups] + 0.1 * np.random.default_rng(0).normal(size=(31, 3))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    readable = np.array([i for i in range(32) if i != 20])

    def known(source, split, chosen, encoder, max_corrupt_fraction):
        rest = np.isin(readable, chosen)
        return readable[rest], rows[rest]

    monkeypatch.setattr(cli, "_features", known)
    return readable, rows, groups


def choose(planted, tmp_path, **options):
    images = open_folder(planted / "images")
    found = curate(
        "", images, Curation(**options), split="train", encoder=Encoder("x"), page=tmp_path / "page.html"
    )
    return found.indices


def test_balance_takes_the_same_from_every_cluster(planted, tmp_path, features):
    readable, _, groups = features
    taken = choose(planted, tmp_path, balance=3)
    assert np.bincount(groups[np.searchsorted(readable, taken)]).tolist() == [8, 8, 3]
    taken = choose(planted, tmp_path, balance=3, select=12, seed=1)
    counts = np.bincount(groups[np.searchsorted(readable, taken)])
    assert counts.tolist() == even_quotas([20, 8, 3], 12).tolist()
    assert len(set(taken.tolist())) == 12


def test_select_takes_what_is_far_apart(planted, tmp_path, features):
    readable, rows, groups = features
    taken = choose(planted, tmp_path, select=3)
    assert sorted(groups[np.searchsorted(readable, taken)]) == [0, 1, 2]
    taken = choose(planted, tmp_path, select=10)
    assert taken.tolist() == sorted(readable[k_center(rows, 10).indices])
    taken = choose(planted, tmp_path, select=9, selection="hierarchical", levels=(6, 3))
    assert np.bincount(groups[np.searchsorted(readable, taken)]).tolist() == [3, 3, 3]


def test_shuffle_changes_the_order_only(planted, tmp_path, features):
    plain, shuffled = (choose(planted, tmp_path, shuffle=shuffle, seed=3) for shuffle in (False, True))
    assert plain.tolist() == list(range(32)) == sorted(shuffled)
    assert shuffled.tolist() != plain.tolist()


def test_levels_fall_by_ten():
    assert default_levels(10**6) == (100_000, 10_000, 1000, 100, 10)
    assert default_levels(7) == (1,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dedup": "some"}, "dedup='some'"),
        ({"threshold": 2.0}, "threshold=2.0"),
        ({"balance": 0}, "balance=0"),
        ({"select": 0}, "select=0"),
        ({"selection": "hierarchical"}, "select=None"),
        ({"selection": "hierarchical", "select": 3, "balance": 2}, "balance=2"),
        ({"levels": (5,)}, r"levels=\(5,\)"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Curation(**options)


def test_more_than_there_are_is_refused(planted, tmp_path, features):
    with pytest.raises(ValueError, match=r"^select=40: allowed is at most 31"):
        choose(planted, tmp_path, select=40)
    with pytest.raises(ValueError, match=r"^encoder=None with dedup='near'"):
        pack_images(f"folder:{planted}/images", tmp_path, Shards(), Curation(dedup="near"))
    with pytest.raises(ValueError, match=r"^source='frames:moving'"):
        pack_images("frames:moving", tmp_path, Shards(), Curation())


@pytest.mark.long
def test_the_launcher_packs_and_names_what_is_wrong(planted, tmp_path):
    def launch(*flags):
        words = [sys.executable, "-P", "-m", "ssl_jax", "pack", f"--source=folder:{planted}/images", *flags]
        root = Path(__file__).parents[2]
        return subprocess.run(words, capture_output=True, text=True, cwd=root, check=False)

    done = launch(
        f"--out={tmp_path}/out", "--format=parquet", "--shorter_side=20", "--threads=2", "--shard_images=12"
    )
    assert done.returncode == 0, done.stderr
    assert "31 images in 3 shards of parquet" in done.stdout and "1 unreadable left out" in done.stdout
    assert open_source(f"parquet:{tmp_path}/out").shape == (20, 20, 3)
    for flags, message in (
        ([f"--out={tmp_path}/out"], "error: out='"),
        (["--levels=a", "--select=3", f"--out={tmp_path}/c"], "error: levels='a': allowed is integers"),
        (["--format=zip"], "error: --format=zip: allowed is tar, parquet or array_record"),
    ):
        refused = launch(*flags)
        assert refused.returncode in (1, 2) and message in refused.stderr, (flags, refused.stderr)
