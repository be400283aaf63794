"""Generated pages are up to date, the README's commands and example are true."""

import re
from pathlib import Path

import pytest

from docs import tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


GENERATED = tables.generated()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path):
    assert path.read_text() == GENERATED[path], "run: python -m docs.tables"


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
