"""Generated pages are up to date, the README's commands and example are true."""

import re
from pathlib import Path

import pytest

from docs import tables
from experiments.studies import studies

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


GENERATED = tables.generated()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path):
    assert path.read_text() == GENERATED[path], "run: python -m docs.tables"


def test_a_study_has_at_most_one_step_of_the_road_or_a_guide_of_its_own():
    steps = re.findall(r"<!-- table: road (.*?) -->", (ROOT / "docs/road.md").read_text())
    assert "<!-- table: adaptation -->" in (ROOT / "docs/guides/foundation.md").read_text()
    assert len(steps) == len(set(steps)) and set(steps) < set(studies()) - {"adaptation"}


def test_a_step_of_the_road_says_what_the_page_of_its_study_says():
    step = tables.road(studies()["projector"])
    said = (ROOT / "docs/studies/projector.md").read_text()
    claims = re.findall(r"^- \*\*.*$", step, flags=re.MULTILINE)
    assert len(claims) == 4 and all(claim in said for claim in claims)
    assert "](studies/projector.md)" in step


def test_a_step_of_the_road_whose_study_lacks_a_variant_has_neither_claims_nor_figure(monkeypatch):
    study = studies()["width"]
    results = dict(tables.study_results(study))
    results.pop(study.variants[-1].name, None)
    monkeypatch.setattr(tables, "study_results", lambda _: results)
    step = tables.road(study)
    assert step == f"Not measured yet: [{study.title}](studies/width.md)"


def test_long_tests_are_counted_by_file_and_by_how_they_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.long_tests() == "not run yet"
    cases = [
        ("tests.train.test_stop", ""),
        ("tests.train.test_stop", "<failure message='no'>text</failure>"),
        ("tests.train.test_stop", "<error message='no'/>"),
        ("tests.test_fuzz", "<skipped message='why'/>"),
    ]
    inner = "".join(f"<testcase classname='{name}' name='a'>{child}</testcase>" for name, child in cases)
    suite = f"<testsuites><testsuite time='150.2' timestamp='2026-11-23T00:20:00'>{inner}</testsuite></testsuites>"
    (tmp_path / "long_tests.xml").write_text(suite)
    assert tables.long_tests().splitlines()[2:] == [
        "| `tests/test_fuzz.py` | 1 | 0 | 0 | 1 |",
        "| `tests/train/test_stop.py` | 3 | 1 | 2 | 0 |",
        "",
        "Run on 2026-11-23, 3 minutes.",
    ]


@pytest.mark.long
def test_python_example_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["features"].shape == (8, 512)


def test_links_of_the_pages_lead_somewhere():
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_ci_runs_the_test_command_of_the_readme():
    commands = re.findall(r"^python3 -m venv .* -m pytest$", README, flags=re.MULTILINE)
    assert len(commands) == 1
    assert "-m pytest\\)$" in (ROOT / ".ci/run").read_text()
