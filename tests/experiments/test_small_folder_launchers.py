"""Evaluation, fine-tuning, embedding and the report of folders of a few images: an answer, and what could not be measured."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from ssl_jax.cli import embed, evaluate, finetune
from ssl_jax.cli.report import Pictures, picture_sections
from ssl_jax.config import build
from ssl_jax.core.version import LAYOUT, LAYOUT_KEY
from ssl_jax.data.open import open_source
from ssl_jax.evaluate import measures
from ssl_jax.evaluate.finetune import draw_share
from ssl_jax.report import sections
from ssl_jax.report.runs import Run, read_run
from ssl_jax.train.checkpoint import NoUsableCheckpointError, RestoredModel
from ssl_jax.train.step import make_init
from tests.methods.case import config_of

SPLITS = ("train[:80%]", "train[80%:]")


def write_folder(folder, counts, *, size=28, corrupt=()):
    """Gray images, of class c about as bright as c; those named in ``corrupt`` are cut short."""
    rng = np.random.default_rng(0)
    for number, (name, count) in enumerate(sorted(counts.items())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.clip(rng.normal(60 + 90 * number, 20, (size, size)), 0, 255).astype(np.uint8)
            path = folder / name / f"{i:03d}.png"
            Image.fromarray(pixels).save(path)
            if f"{name}/{path.name}" in corrupt:
                path.write_bytes(path.read_bytes()[:20])
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def restored():
    config = config_of("simclr")
    config["encoder"]["widths"], config["data"]["channels"] = (4,), 1
    method = build.method(config)
    state = jax.jit(make_init(method, build.optimizer(config), build.sample(config)))(0)
    return config, method, RestoredModel(*jax.tree.map(np.asarray, (state.params, state.state)), {}, 4)


@pytest.fixture
def run(restored, monkeypatch, tmp_path):
    """A folder that stands for that of a run."""
    config, *rest = restored
    config = json.loads(json.dumps(config))
    config["watch"]["evaluate"] |= {"train_split": SPLITS[0], "test_split": SPLITS[1]}
    monkeypatch.setattr(build, "restore", lambda folder, step: (config, *rest))
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({LAYOUT_KEY: LAYOUT, **config}))
    return workdir, config


def result_of(workdir):
    return json.loads((workdir / evaluate.FILE).read_text())


@pytest.mark.parametrize(
    ("counts", "left_out"),
    [
        ({"a": 1, "b": 1}, {"knn", "ridge", "pca"}),
        ({"a": 10}, {"knn", "ridge"}),
        ({"a": 9, "b": 1, "c": 5}, set()),
    ],
    ids=["two images", "one class", "very different sizes"],
)
def test_evaluation_of_a_small_folder_ends_well_and_the_page_shows_what_was_not_measured(
    counts, left_out, run, tmp_path, capsys
):
    workdir, _ = run
    source = write_folder(tmp_path / "images", counts)
    evaluate.evaluate_run(workdir, source=source, measures=["knn", "ridge"], baselines=["pixels", "pca"])
    result = result_of(workdir)
    assert sum(result["examples"]) == sum(counts.values()) and "incomplete" not in result
    found = {name for row in result["rows"] for name in row.get("left_out", {})} | set(
        result.get("left_out", {})
    )
    assert found == left_out
    for row in result["rows"]:
        assert {"knn", "ridge"} - left_out <= set(row)
    assert ("Not measured:" in capsys.readouterr().out) == bool(left_out)
    page = sections.evaluation(read_run(workdir)).body
    for line in measures.left_out_lines(result):
        assert line.split(":")[0] in page
    assert page.count("Not measured") == len(measures.left_out_lines(result))


def test_what_was_measured_is_written_before_a_later_measure_breaks(run, tmp_path, monkeypatch):
    workdir, _ = run
    source = write_folder(tmp_path / "images", {"a": 6, "b": 6})

    def crash(subject):
        raise KeyError("a bug")

    broken = measures.MEASURES["ridge"]._replace(run=crash)
    monkeypatch.setattr(measures, "MEASURES", {**measures.MEASURES, "ridge": broken})
    with pytest.raises(KeyError, match="a bug"):
        evaluate.evaluate_run(workdir, source=source, measures=["knn", "ridge"], baselines=[])
    result = result_of(workdir)
    assert result["incomplete"] is True
    assert 0 <= result["rows"][-1]["knn"] <= 1 and "ridge" not in result["rows"][-1]
    body = sections.evaluation(read_run(workdir)).body
    assert "was not finished" in body and "knn" in body.lower()


def test_pixels_of_large_images_are_shrunk_and_the_row_says_so(restored, monkeypatch):
    def encode(source, function, variables, *, view, **options):
        image = (view.size, view.size, source.channels)
        shape = jax.eval_shape(function, jax.ShapeDtypeStruct((4, *image), np.float32)).shape
        features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        return evaluate.Features(features, np.zeros(4, np.int32), np.arange(4, dtype=np.int32))

    monkeypatch.setattr(evaluate, "encode_source", encode)
    method = SimpleNamespace(views=(SimpleNamespace(size=224),))
    sources = (SimpleNamespace(channels=3),) * 2
    options = evaluate.measure_options(restored[0])
    features = evaluate.feature_baselines(method, sources, options, ("pixels", "pca"), {})
    assert list(features) == ["raw pixels at 36 x 36", "PCA of pixels at 36 x 36, 3 components"]
    assert features["raw pixels at 36 x 36"][0].features.shape == (4, 36 * 36 * 3)


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_a_balanced_draw_stays_balanced_with_a_corrupt_file_in_the_folder(tmp_path):
    """Two labels of each of ten classes; an unreadable image must neither be drawn nor shift the rows behind it."""
    counts = {f"c{i}": 10 for i in range(10)}
    source = open_source(write_folder(tmp_path, counts, corrupt=["c1/003.png", "c7/000.png"]), "train")
    labels = finetune.read_labels(source, 28)
    expected = np.repeat(np.arange(10), 10)
    expected[[13, 70]] = -1
    np.testing.assert_array_equal(labels, expected)
    for seed in range(20):
        drawn = draw_share(labels, 0.2, seed)
        names = [source.file_name(int(i)).split("/")[0] for i in drawn]
        assert names == sorted([f"c{i}" for i in range(10)] * 2)
        assert not {13, 70} & set(drawn.tolist())
        assert [source[int(i)]["label"] for i in drawn] == labels[drawn].tolist()


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_fine_tuning_on_a_folder_with_classes_of_other_sizes_uses_every_label(run, tmp_path):
    workdir, config = run
    config["data"]["source"] = write_folder(tmp_path / "images", {"a": 12, "b": 7}, corrupt=["a/001.png"])
    config["data"]["max_corrupt_fraction"] = 0.5
    finetune.finetune_run(workdir, overrides=["epochs=1"], random_start=False)
    (row,) = json.loads((workdir / finetune.FILE).read_text())["rows"]
    readable = finetune.read_labels(
        open_source(config["data"]["source"], SPLITS[0]), 28, max_corrupt_fraction=1.0
    )
    assert row["labels"] == (readable >= 0).sum() >= 14
    assert 0 <= row["accuracy"][0] <= 1


def test_embedding_names_the_class_of_each_number(run, tmp_path):
    workdir, _ = run
    source = write_folder(tmp_path / "images", {"2": 2, "10": 3})
    for suffix in ("npz", "parquet"):
        embed.embed_images(workdir, source, tmp_path / f"out.{suffix}")
    with np.load(tmp_path / "out.npz") as file:
        names, labels, files = (file[key].tolist() for key in ("class_name", "label", "file_name"))
    assert names == [name.split("/")[0] for name in files] and set(names) == {"2", "10"}
    assert len(set(zip(names, labels, strict=True))) == 2
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out.parquet")
    assert table.column("class_name").to_pylist() == names
    assert embed.class_names(np.array([-1, 0]), ()) == ["", "0"]


@pytest.mark.parametrize("counts", [{"a": 1}, {"a": 1, "b": 1}, {"a": 3}, {".": 4}], ids=str)
def test_the_page_shows_what_a_few_images_have_to_show(counts, run, tmp_path):
    workdir, _ = run
    source = write_folder(tmp_path / "images", counts)
    stand_in = Run(workdir, "few", {}, [], [], None, (4,))
    parts = picture_sections(stand_in, Pictures(source=source, split="train", map="pca"))
    titles = [part.title for part in parts]
    assert titles[:4] == ["Map of the features", "Nearest neighbours", "Spectrum", "Sampled views"]
    images = sum(counts.values())
    assert [("Not shown" in part.body) for part in parts[:4]] == [images < 3, images < 2, images < 2, False]
    text = "".join(re.sub(r"<script.*?</script>|data:[^\"]*", "", part.body) for part in parts)
    assert not re.search(r"\b(nan|inf)\b", text)


def test_the_page_of_a_run_whose_checkpoints_are_damaged_shows_the_rest(run, monkeypatch):
    def restore(folder, step):
        raise NoUsableCheckpointError(f"no usable checkpoint in {folder}")

    monkeypatch.setattr(build, "restore", restore)
    (part,) = picture_sections(Run(run[0], "few", {}, [], [], None, (4,)), Pictures())
    assert part.title == "Features" and "No pictures: no usable checkpoint in" in part.body


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_what_an_accuracy_is_of_stands_below_the_table(run, tmp_path, capsys):
    """Of five classes' training images some cannot be read, one class is in the test folder only."""
    workdir, _ = run
    corrupt = ["a/000.png"]
    write_folder(tmp_path / "images" / "train", {"a": 12, "b": 12, "d": 2}, corrupt=corrupt)
    write_folder(tmp_path / "images" / "test", {"a": 3, "b": 3, "c": 2})
    source = f"folder:{tmp_path / 'images'}"
    evaluate.evaluate_run(workdir, source=source, splits=("train", "test"), measures=["knn"], baselines=[])
    notes = result_of(workdir)["notes"]
    assert notes == [
        "1 of 26 training images cannot be read: left out.",
        "2 of 8 labelled test images are of classes without a labelled training image (c): they count as wrong.",
        "Classes without a labelled test image: d.",
    ]
    shown = capsys.readouterr().out
    assert all(note in shown for note in notes)
    assert result_of(workdir)["rows"][-1]["knn"] <= 0.75
