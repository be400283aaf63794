"""Writes the tables of README.md: ``python -m docs.tables``.

``quickstart`` comes from ``docs/results/quickstart.json``, the ``evaluation.json`` of the README's first command; ``methods`` from the
first lines of the method files.
"""

import ast
import json
import re
from pathlib import Path

from experiments.evaluate import render
from ssl_jax.methods.find import names

ROOT = Path(__file__).parent.parent


def quickstart() -> str:
    """The evaluation of the README's first command."""
    return render(json.loads((ROOT / "docs/results/quickstart.json").read_text()), markdown=True)


def methods() -> str:
    """One row a method: its config, its family and what its file says it is."""
    rows = ["| config | family | what |", "|---|---|---|"]
    for name, module in names().items():
        path = ROOT / (module.replace(".", "/") + ".py")
        line = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        family = module.split(".")[2]
        rows.append(f"| [`{name}`](configs/{name}.py) | {family} | {line} |")
    return "\n".join(rows)


def fill(text: str) -> str:
    """A page with each table between its markers written anew."""
    for name, make in {"quickstart": quickstart, "methods": methods}.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        table = make()
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(fill(page.read_text()))
