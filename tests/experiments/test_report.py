"""The report launcher on a smoke run: one page while there is no evaluation, and a comparison of two seeds."""

import json
import shutil

import pytest

from tests.experiments.test_launchers import launch, succeed


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mae"
    succeed("pretrain", "--config=configs/mae.py:smoke", f"--workdir={folder}")
    return folder


def test_run_gets_a_page_with_everything_that_the_method_offers(workdir):
    done = succeed("report", f"--workdirs={workdir}", "--points=40")
    page = (workdir / "report.html").read_text()
    for title in ("Verdict", "Evaluation", "Training", "Health", "Map of the features", "Nearest neighbours"):
        assert f">{title}</h2>" in page
    for title in ("Spectrum", "Sampled views", "Reconstructions", "Attention", "Patches", "Configuration"):
        assert f">{title}</h2>" in page
    assert "Not evaluated yet" in done.stdout
    assert f"experiments.evaluate --workdir={workdir}" in page
    assert f"experiments.evaluate --workdir={workdir} --measures=invariance" in page
    assert page.count('class="scene"') == 8


@pytest.mark.long
def test_two_seeds_are_compared_as_one_config(workdir, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(workdir, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "seed": 1}))
    rows = [{"features": "mae, 4 steps", "knn": 0.5}, {"features": "raw pixels", "knn": 0.6}]
    for folder, knn in ((workdir, 0.4), (other, 0.6)):
        found = {"rows": [{**rows[0], "knn": knn}, rows[1]], "examples": [100, 100], "source": "embedded"}
        (folder / "evaluation.json").write_text(json.dumps(found))
    out = tmp_path / "comparison.html"
    succeed("report", f"--workdirs={workdir}", f"--workdirs={other}", f"--out={out}", "--points=40")
    page = out.read_text()
    assert "50.0 ± 14.1" in page
    assert "The 1 options that differ" not in page and "1 option that differs" in page
    assert ">Spectrum</h2>" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--workdirs is missing"),
        (("--workdirs=/nowhere",), "no run in it"),
        (("--workdirs=/nowhere", "--points=2"), "points"),
        (("--workdirs=/nowhere", "--map=umap"), "map"),
    ],
)
def test_mistakes_are_answered_in_plain_words(arguments, message):
    done = launch("report", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_run_without_a_checkpoint_still_gets_a_page(workdir, tmp_path):
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    shutil.copy(workdir / "config.json", fresh)
    succeed("report", f"--workdirs={fresh}")
    page = (fresh / "report.html").read_text()
    assert "No pictures yet" in page and "No record yet" in page
