"""Images that cannot be read: one share that is put up with everywhere, and rows that keep their index."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ssl_jax.augment.views import View
from ssl_jax.cli import embed, evaluate
from ssl_jax.config import build
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION, TooManyCorrupt
from ssl_jax.data.loader import epoch, stream
from ssl_jax.data.open import open_source
from ssl_jax.evaluate.classifier import classifier_accuracy
from ssl_jax.evaluate.clusters import score_clusters
from ssl_jax.evaluate.finetune import draw_share, finetune
from ssl_jax.evaluate.measure import Options, encode_source
from ssl_jax.report.sample import encode_sample
from ssl_jax.train.features import extract_source
from ssl_jax.train.refresh import Refresher
from ssl_jax.train.run import Run
from tests.data.images import encode
from tests.methods.case import config_of

ROOT = Path(__file__).parent.parent.parent
READERS = (
    *(stream, epoch, extract_source, Run, Refresher),
    *(Options, encode_source, classifier_accuracy, score_clusters, finetune, encode_sample),
)
CORRUPT = ("a/1.png", "b/0.png", "b/4.png", "c/5.png")
VIEW = View(size=4, mean=(0.5,), std=(0.5,))
pytestmark = pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")


@pytest.fixture
def folder(tmp_path):
    """Six images of each of three classes, image i of the value i, four of which cannot be read."""
    for i in range(18):
        path = tmp_path / "images" / "abc"[i // 6] / f"{i % 6}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(np.full((4, 4), i, np.uint8)))
        if f"{path.parent.name}/{path.name}" in CORRUPT:
            path.write_bytes(path.read_bytes()[:50])
    return tmp_path / "images"


def first_pixel(params, state, images):
    """The value of the image, from 0 to 255."""
    return (images[:, 0, 0] * 0.5 + 0.5) * 255


@pytest.fixture
def run(monkeypatch):
    """A run whose encoder reads the value of an image."""
    config = build.with_changes(config_of("simclr"), {"data.channels": 1})
    model = SimpleNamespace(params={}, state={}, step=1)
    method = SimpleNamespace(views=(VIEW,), encode=first_pixel)

    def restored(share):
        changed = build.with_changes(config, {"data.max_corrupt_fraction": share})
        monkeypatch.setattr(build, "restore", lambda workdir, step: (changed, method, model))

    return restored


def test_whatever_reads_images_puts_up_with_the_same_share():
    shares = [inspect.signature(reader).parameters["max_corrupt_fraction"].default for reader in READERS]
    assert set(shares) == {MAX_CORRUPT_FRACTION, config_of("simclr")["data"]["max_corrupt_fraction"]} == {0.1}


@pytest.mark.parametrize("launcher", ["evaluate", "finetune", "report", "embed"])
def test_a_launcher_takes_the_share_of_the_run_unless_it_is_given_one(launcher):
    text = (ROOT / "experiments" / f"{launcher}.py").read_text()
    assert "--max_corrupt_fraction" not in text and '"max_corrupt_fraction"' in text
    body = __import__(f"ssl_jax.cli.{launcher}", fromlist=["x"])
    owner = (
        body.Pictures
        if launcher == "report"
        else getattr(body, {"embed": "embed_images"}.get(launcher, f"{launcher}_run"))
    )
    assert inspect.signature(owner).parameters["max_corrupt_fraction"].default is None


def test_the_share_of_a_run_is_that_of_its_measures():
    config = config_of("simclr")
    assert evaluate.measure_options(config).max_corrupt_fraction == 0.1
    assert evaluate.measure_options(build.with_corrupt_fraction(config, 0.4)).max_corrupt_fraction == 0.4
    assert build.with_corrupt_fraction(config, None) == config
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"max_corrupt_fraction=.*from 0 to 1"):
            build.with_corrupt_fraction(config, share)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embedded_rows_keep_their_name_label_and_position(folder, tmp_path, run, suffix, capsys):
    run(0.5)
    out = tmp_path / f"out{suffix}"
    embed.embed_images(tmp_path, f"folder:{folder}", out, batch_size=5)
    if suffix == ".npz":
        found = dict(np.load(out))
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        found = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    names = [f"{kind}/{i}.png" for kind in "abc" for i in range(6)]
    readable = [i for i, name in enumerate(names) if name not in CORRUPT]
    assert found["index"].tolist() == readable
    assert found["file_name"].tolist() == [names[i] for i in readable]
    assert found["label"].tolist() == [i // 6 for i in readable]
    np.testing.assert_allclose(found["features"][:, 0], readable, atol=1e-3)
    assert "4 unreadable left out" in capsys.readouterr().out


def test_embed_puts_up_with_what_the_run_does_unless_told(folder, tmp_path, run):
    run(0.1)
    out = tmp_path / "out.npz"
    with pytest.raises(TooManyCorrupt, match=r"4 of the 18 images .*max_corrupt_fraction=0\.1"):
        embed.embed_images(tmp_path, f"folder:{folder}", out)
    assert not out.exists()
    embed.embed_images(tmp_path, f"folder:{folder}", out, max_corrupt_fraction=0.25)
    assert len(np.load(out)["label"]) == 14
    with pytest.raises(TooManyCorrupt):
        embed.embed_images(tmp_path, f"folder:{folder}", out, max_corrupt_fraction=0.2)


def test_a_balanced_draw_is_of_images_of_its_classes_whatever_cannot_be_read(folder):
    """Labels by row number would be those of other images after the first that cannot be read."""
    source = open_source(f"folder:{folder}")
    found = extract_source(lambda x: x[:, 0, 0], source, view=VIEW, max_corrupt_fraction=0.5)
    drawn = draw_share(found.labels_in(source), 0.5, 0)
    names = [source.file_name(int(i)) for i in drawn]
    assert sorted(name[0] for name in names) == ["a", "a", "b", "b", "c", "c"]
    assert not set(names) & set(CORRUPT)
