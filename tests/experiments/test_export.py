"""Exports of a run: model cards, whose weights they are, all formats or none, and nothing of others replaced."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from ssl_jax.cli import export, pretrain
from ssl_jax.interop import load_pretrained
from ssl_jax.interop.model_card import Card, read_uses, write_card
from ssl_jax.interop.write_files import Target
from ssl_jax.models.serialize import load_encoder
from ssl_jax.train.checkpoint import RestoredModel
from tests.experiments.test_launchers import launch
from tests.interop.exported import draw_picture, random_encoder, run_use
from tests.methods.case import config_of, method_of, real_batch

ROW = {"features": "simclr, 2 steps", "role": "encoder", "dims": 16, "knn": 0.75}

RESULT = {"step": 2, "source": "folder:/home/me/photos", "examples": [10, 5], "rows": [ROW]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps, with a result."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    config = config_of("simclr") | {"steps": 2, "batch_size": 8}
    config["encoder"]["widths"] = (4,)
    pretrain.pretrain(config, workdir)
    (workdir / "evaluation.json").write_text(json.dumps(RESULT))
    return workdir


@pytest.fixture(scope="module")
def subject():
    encoder = random_encoder("convnet", widths=(4,), grid=1)
    return export.Subject(encoder, {"weights": "student"}, export.Card("title", "summary", {}))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "new" / "folder"
    export.export_encoder(run, out, license="cc-by-4.0")
    return out


@pytest.mark.long
def test_a_model_card_says_what_was_done_how_good_it_is_and_under_which_licence(exported):
    names = ("README.md", "encoder.json", "encoder.safetensors", "encoder.stablehlo")
    assert tuple(sorted(path.name for path in exported.iterdir())) == names
    card = (exported / "README.md").read_text()
    header, body = card.split("---\n")[1:3]
    assert "library_name: ssl_jax\nlicense: cc-by-4.0\n" in header and '- "simclr"' in header
    assert "| budget | 2 steps of 8 images: 16 images seen, 0.0 epochs |" in body
    assert "| weights | those that the optimizer trained (student) |" in body
    assert "| started from | random weights |" in body
    assert "| simclr, 2 steps | 75.0 |" in body
    assert "folder:photos" in body and "/home/me" not in card
    facts = json.loads((exported / "encoder.json").read_text())
    assert facts == load_encoder(exported / "encoder.safetensors")[3]
    assert (facts["weights"], facts["step"], facts["license"]) == ("student", 2, "cc-by-4.0")


@pytest.mark.long
def test_the_lines_of_use_of_the_card_give_what_load_pretrained_gives(exported):
    loaded = load_pretrained(str(exported))
    expected = draw_picture(loaded_encoder(loaded), exported)
    uses = read_uses((exported / "README.md").read_text())
    assert len(uses) == 2
    for code in uses:
        np.testing.assert_allclose(run_use(code, exported), expected, rtol=1e-4, atol=1e-5)


def loaded_encoder(loaded):
    return export.encoder_of(loaded.network, loaded.params, loaded.state, loaded.preprocessing)


def test_an_evaluation_of_another_step_is_not_shown(tmp_path):
    assert export.evaluation_of(tmp_path, 2) == ""
    (tmp_path / "evaluation.json").write_text(json.dumps(RESULT))
    assert "| simclr, 2 steps | 75.0 |" in export.evaluation_of(tmp_path, 2)
    assert export.evaluation_of(tmp_path, 3) == ""
    (tmp_path / "evaluation.json").write_text("{")
    assert export.evaluation_of(tmp_path, 2) == ""


def test_a_format_that_cannot_express_the_encoder_leaves_nothing(subject, tmp_path):
    with pytest.raises(ValueError, match=r"timm has no convnet: export it to ssl_jax or stablehlo"):
        export.write(subject, tmp_path / "new" / "out", ("ssl_jax", "timm"))
    assert not list(tmp_path.iterdir())


def test_a_format_that_fails_leaves_what_was_there(subject, tmp_path, monkeypatch):
    def fail(subject, folder):
        (folder / "half").write_text("half")
        raise OSError("disk full")

    monkeypatch.setitem(export.WRITERS, "stablehlo", fail)
    with pytest.raises(OSError, match="disk full"):
        export.write(subject, tmp_path / "new" / "out", export.DEFAULT)
    assert not list(tmp_path.iterdir())
    (tmp_path / "encoder.json").write_text("before")
    with pytest.raises(OSError, match="disk full"):
        export.write(subject, tmp_path, export.DEFAULT)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.json"]
    assert (tmp_path / "encoder.json").read_text() == "before"


def test_the_folder_of_a_format_is_replaced_as_a_whole_if_an_export_wrote_it(subject, tmp_path, monkeypatch):
    def write(encoder, folder):
        (folder / "weights").write_text("new")
        return "import timm"

    monkeypatch.setitem(export.FOLDERS, "timm", Target(lambda encoder: None, write))
    folder = tmp_path / "timm"
    folder.mkdir()
    export.write(subject, tmp_path, ("timm",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["timm"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "encoder.json", "weights"]
    (folder / "old").write_text("left over")
    export.write(subject, tmp_path, ("timm", "timm"))
    assert not (folder / "old").exists()
    (folder / "encoder.json").unlink()
    with pytest.raises(ValueError, match=r"holds what no export wrote: choose another folder"):
        export.write(subject, tmp_path, ("timm",))
    assert (folder / "weights").exists()


def test_a_readme_that_no_export_wrote_is_not_replaced(subject, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"README.md that no export wrote"):
        export.write(subject, tmp_path, export.DEFAULT)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"out=.*a folder, and this is a file"):
        export.write(subject, file, export.DEFAULT)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (("tim",), "to='tim' is not one of the allowed values: did you mean 'timm'"),
        ((), r"to=\[\]: allowed is one or"),
    ],
)
def test_unknown_formats_are_refused_before_the_run_is_read(formats, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.export_encoder(tmp_path / "none", tmp_path / "out", formats=formats)


def test_a_blank_licence_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"license=' ': allowed is a name such as apache-2.0, or unknown"):
        export.export_encoder(tmp_path / "none", tmp_path / "out", license=" ")


@pytest.mark.parametrize("license", ["apache-2.0", "1.0", "no", "0x10", "2024-01-01", 'a "b": c', "- é"])
def test_yaml_reads_the_header_of_a_card_as_it_was_meant(license):
    card = Card("title", "summary", {}, license=license, tags=("\N{CAT FACE}", "a: b"))
    header = yaml.safe_load(write_card(card, {}, library="timm").split("---\n")[1])
    assert (header["license"], header["tags"][2:]) == (license, ["\N{CAT FACE}", "a: b"])


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("simclr", "student"),
        ("dino", "teacher"),
        ("ijepa", "teacher"),
    ],
)
def test_whose_weights_are_exported_follows_from_the_method(name, whose):
    method = method_of(name)
    batch = {"views": tuple(jnp.zeros((2, 1, v.size, v.size, 1)) for v in method.views[:1])}
    params, state = jax.eval_shape(method.init, jax.random.key(0), {**real_batch(2), **batch})
    assert export.whose_weights(method, RestoredModel(params, state, {}, 0)) == whose


def test_weights_of_others_are_exported_with_where_they_come_from(subject, tmp_path, capsys):
    export.write(subject, tmp_path / "first", ("ssl_jax",))
    export.export_pretrained(str(tmp_path / "first"), tmp_path / "second", formats=("ssl_jax",))
    card = (tmp_path / "second" / "README.md").read_text()
    assert "converted by ssl_jax from `first`" in card and str(tmp_path) not in card
    assert json.loads((tmp_path / "second" / "encoder.json").read_text())["provenance"]["name"] == "first"
    again = load_pretrained(str(tmp_path / "second"))
    for given, found in zip(
        jax.tree.leaves(subject.encoder.params), jax.tree.leaves(again.params), strict=True
    ):
        np.testing.assert_array_equal(given, found)
    assert "second: encoder.safetensors, encoder.json, README.md" in capsys.readouterr().out


@pytest.mark.long
def test_a_run_and_weights_of_others_are_not_exported_together():
    done = launch("export", "--workdir=run", "--encoder=file", "--out=out")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: encoder='file': allowed is one of --encoder and --workdir"
