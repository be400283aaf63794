"""Writes what is generated in the docs: ``python -m docs.tables``.

* README.md, table ``quickstart``: from ``results/quickstart.jsonl``, the run of its first command;
* ``docs/methods.md``, table ``methods``: from the first lines of the method files;
* README.md, table ``families``: from ``results/color32.jsonl``;
* ``docs/results.md``, tables ``results``, ``elsewhere``, ``cost``, those of the bench: from
  ``results/<dataset>.jsonl``, the rows of ``experiments.results``; ``searches``: from ``results/searches.jsonl``;
  ``label_free``: from all of these, ``results/clothing.jsonl`` and ``results/label_free.jsonl``, the rows of
  ``experiments.label_free``;
* ``docs/results.md``, table ``invariance``: from ``results/invariance.jsonl``, the rows of ``experiments.invariance``;
* ``docs/benchmarks.md``, tables ``benchmarks``, ``gpu`` and ``peers``: from ``results/benchmarks.jsonl``,
  ``results/gpu.jsonl`` and ``results/peers.jsonl``;
* ``docs/studies.md``, tables ``studies`` and ``study plan``, and ``docs/studies/<name>.md``: from the modules of
  ``experiments.studies`` and ``results/studies/<name>.jsonl``;
* ``docs/road.md``, tables ``road <study>``: each study's claims and figure, from the same;
* ``docs/guides/planning.md``, table ``plans``: from ``results/plans.jsonl``, the rows of ``experiments.plan``;
* ``docs/guides/faults.md``, table ``long tests``: from ``results/long_tests.xml``, which pytest writes;
* ``docs/methods/<name>.md``: from the docstring and the signature of each method's ``build``, and its measured row.
"""

import ast
import inspect
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import gpu
from benchmarks.formats import formats_table
from benchmarks.peers import peers_table
from benchmarks.table import markdown as benchmarks_table
from experiments.studies import SEEDS, studies
from experiments.studies.plan import plan_table
from ssl_jax.cli.bench_tables import KINDS, bench_table, cost_table
from ssl_jax.cli.dense import tables_of
from ssl_jax.cli.invariance import invariance_rows_table
from ssl_jax.cli.label_free import findings
from ssl_jax.cli.plan_text import plans_table
from ssl_jax.cli.results import BENCHES, read_budget
from ssl_jax.cli.study import Results, Study, Verdict, is_complete
from ssl_jax.cli.study_pages import study_findings, study_page
from ssl_jax.cli.study_runs import read_results
from ssl_jax.cli.tables import (
    DATASET,
    ELSEWHERE,
    dataset_of,
    evaluation_table,
    group_rows,
    method_table,
    results_table,
)
from ssl_jax.cli.tuning import FILE as SEARCHES
from ssl_jax.cli.tuning import searches_table
from ssl_jax.core.check import is_group
from ssl_jax.core.rows import Row, read_rows
from ssl_jax.data.files import counted
from ssl_jax.evaluate.measure import BASELINE
from ssl_jax.methods.registry import method_module, names

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
BUDGETS = {"short": "On CPU cores", "paper": "On an accelerator"}


def quickstart() -> str:
    """Tabulate the evaluation of the README's first command."""
    (row,) = read_rows(RESULTS / "quickstart.jsonl")
    return evaluation_table(row["evaluation"], markdown=True)


def methods() -> str:
    """Tabulate the methods: page, config, family and what its file says it is."""
    rows = ["| method | config | family | what |", "|---|---|---|---|"]
    for name, module in names().items():
        path = ROOT / (module.replace(".", "/") + ".py")
        line = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        family = module.split(".")[2]
        config = f"[`configs/{name}.py`](../configs/{name}.py)"
        rows.append(f"| [{name}](methods/{name}.md) | {config} | {family} | {line} |")
    return "\n".join(rows)


def rows_of(dataset: str, budget: str) -> list[Row]:
    """Read the rows of a results table."""
    return read_budget(RESULTS / f"{dataset}.jsonl", budget)


def results(datasets: Sequence[str] = (DATASET,)) -> str:
    """Tabulate the results of all budgets that were run."""
    tables = [
        f"{heading}, `{dataset}`:\n\n{results_table(rows, markdown=True)}"
        for dataset in datasets
        for budget, heading in BUDGETS.items()
        if (rows := rows_of(dataset, budget))
    ]
    return "\n\n".join(tables) or "not measured yet"


def bench(dataset: str, kind: str) -> str:
    """Tabulate the results of a bench with one kind of encoder."""
    return bench_table(rows_of(dataset, "short"), kind, markdown=True)


def cost() -> str:
    """Tabulate what the bench took: its tables, the searches behind its recipes, the studies."""
    taken = {f"table `{dataset}`": rows_of(dataset, "short") for dataset in BENCHES}
    taken["searches"] = read_rows(RESULTS / SEARCHES)
    return cost_table({name: rows for name, rows in taken.items() if rows}, markdown=True)


def searches() -> str:
    """Tabulate the searches behind the recipes of the bench."""
    return searches_table(read_rows(RESULTS / SEARCHES), markdown=True)


def families() -> str:
    """Tabulate the best method of each family by the linear probe on color-32, beside the baselines: means over seeds."""
    columns = {"knn": "kNN", "linear": "linear", "linear_100": "linear, 100 labels a class"}
    table_rows = rows_of("color32", "short")
    groups = group_rows(table_rows)
    means = {
        name: [float(np.mean([100 * row[column] for row in rows])) for column in columns]
        for name, rows in groups.items()
    }
    members: dict[str, list[str]] = {}
    for name in groups:
        method = name.partition(" (")[0]
        family = names()[method].split(".")[2] if method in names() else ""
        members.setdefault(family, []).append(name)
    baselines = sorted(members.pop("", []), key=lambda name: means[name][1])
    best = [(family, max(of, key=lambda name: means[name][1])) for family, of in members.items()]
    best.sort(key=lambda pair: -means[pair[1]][1])
    encoders = {name.partition(" (")[2].removesuffix(")") for _, name in best}
    baselines = [n for n in baselines if not n.startswith("random ") or n.removeprefix("random ") in encoders]
    lines = [
        f"| family | measured | best by the linear probe | {' | '.join(columns.values())} |",
        f"|---|---:|---|{'---:|' * len(columns)}",
    ]
    for family, name in [("", name) for name in baselines] + best:
        method, opening, encoder = name.partition(" (")
        text = f"[{method}](docs/methods/{method}.md){opening}{encoder}" if family else name
        cells = " | ".join(f"{value:.1f}" for value in means[name])
        count = len(members[family]) if family else ""
        lines.append(f"| {family.replace('_', ' ') or '–'} | {count} | {text} | {cells} |")
    runs = sum(row["role"] != BASELINE for rows in groups.values() for row in rows)
    seeds = len({row["seed"] for row in table_rows})
    measured = f"{sum(map(len, members.values()))} of {len(names())} methods"
    note = f"{counted(runs, 'run')}: {measured}, {counted(seeds, 'seed')}."
    return "\n".join([*lines, "", note])


def label_free() -> str:
    """Say how measures without labels rank runs, what rule came out, and how it does on runs that it has not seen."""
    return findings(RESULTS)


def invariance() -> str:
    """Tabulate how far features move when images are changed, a table for each set of images."""
    rows = read_rows(RESULTS / "invariance.jsonl")
    sources = dict.fromkeys(row["source"] for row in rows)
    tables = [invariance_rows_table([r for r in rows if r["source"] == s], markdown=True) for s in sources]
    if (ROOT / "docs/images/invariance.svg").exists():
        tables.append("![The same as a heat map, with all strengths](images/invariance.svg)")
    return "\n\n".join(tables) or "not measured yet"


def benchmarks() -> str:
    """Tabulate every benchmark, its target and whether it was met."""
    return benchmarks_table(read_rows(RESULTS / "benchmarks.jsonl"))


def study_results(study: Study) -> Results:
    """Read what was measured of a study."""
    return read_results(study, SEEDS, RESULTS / f"studies/{study.name}.jsonl")


def studies_table() -> str:
    """Tabulate the studies: page, question and how many of the paper's claims hold here, and count the claims."""
    rows = [
        "| study | question | holds | does not hold | cannot be told |",
        "|---|---|---:|---:|---:|",
    ]
    total: Counter[Verdict] = Counter()
    for name, study in studies().items():
        measurements = study_results(study)
        cells = ["not measured yet", "", ""]
        if is_complete(study, measurements):
            said = Counter(claim.verdict for claim in study.claims(measurements))
            cells = [str(said[verdict]) for verdict in Verdict]
            total += said
        rows.append(f"| [{study.title}](studies/{name}.md) | {study.question} | {' | '.join(cells)} |")
    holds, fails, untold = (total[verdict] for verdict in Verdict)
    count = f"{total.total()} claims: {holds} hold here, {fails} do not, {untold} cannot be told."
    return "\n".join([*rows, "", count])


def road(study: Study, folder: str = "studies/") -> str:
    """Write what the study of a step of the road says, for a page beside the folder of studies."""
    measurements = study_results(study)
    link = f"[{study.title}]({folder}{study.name}.md)"
    if is_complete(study, measurements):
        return "\n".join([f"Measured: {link}", "", *study_findings(study, measurements, folder=folder)])
    return "\n".join([f"Not measured yet: {link}", *gray_findings(study.name, folder)])


def gray_findings(name: str, folder: str) -> list[str]:
    """Write what an earlier version of a study found on gray images, in lines; none where there was no such version."""
    page = ROOT / f"docs/studies/gray/{name}.md"
    if not page.exists():
        return []
    claims = [line for line in page.read_text().splitlines() if line.startswith("- **")]
    said = f"On 28-pixel gray clothes an [earlier version]({folder}gray/{name}.md) of it found:"
    return ["", said, "", *claims, "", f"![{name}]({folder}gray/{name}.svg)"]


def page_of_study(study: Study) -> str:
    """Write the docs page of a study; until it is complete, with what was found on gray images."""
    measurements = study_results(study)
    page = study_page(study, measurements)
    if is_complete(study, measurements):
        return page
    return "\n".join([page.rstrip("\n"), *gray_findings(study.name, ""), ""])


def plans() -> str:
    """Tabulate the plans, recipe by recipe; of one recipe, what computes least first."""
    rows = read_rows(RESULTS / "plans.jsonl")
    rows.sort(
        key=lambda plan: (plan["config"]["method"]["name"], plan["chip"], plan["devices"], plan["flops"])
    )
    return plans_table(rows, markdown=True) if rows else "no plans"


def long_tests() -> str:
    """Tabulate the files of the long tests that were run last: how their tests ended."""
    path = RESULTS / "long_tests.xml"
    if not path.exists():
        return "not run yet"
    suite = next(ElementTree.parse(path).iter("testsuite"))
    ended: dict[str, Counter[str]] = {}
    for case in suite.iter("testcase"):
        kind = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        ended.setdefault(case.attrib["classname"].replace(".", "/") + ".py", Counter())[kind] += 1
    rows = ["| file | tests | passed | failed | skipped |", "|---|---:|---:|---:|---:|"]
    for file, count in sorted(ended.items()):
        failed = count["failure"] + count["error"]
        rows.append(f"| `{file}` | {count.total()} | {count['passed']} | {failed} | {count['skipped']} |")
    minutes = float(suite.attrib["time"]) / 60
    return "\n".join([*rows, "", f"Run on {suite.attrib['timestamp'][:10]}, {minutes:.0f} minutes."])


def measured(name: str) -> list[str]:
    """Write the lines of a method's page that hold its measured rows."""
    lines = ["", "## Measured", ""]
    for budget, heading in BUDGETS.items():
        for dataset in (*BENCHES, dataset_of(name)):
            table = method_table(rows_of(dataset, budget), name, markdown=True)
            lines += [f"{heading}, `{dataset}`:", "", table, ""] if table else []
    return [*lines, "All methods and how this was measured: [results](../results.md).", ""]


def group_section(option: str, kind: type) -> list[str]:
    """Write the lines of a method's page that explain a group of options, from the docstrings of its dataclass and bases."""
    lines = ["", f"## Options of `{option}`", ""]
    for owner in reversed(kind.__mro__[:-1]):
        _, _, attributes = (inspect.getdoc(owner) or "").partition("Attributes:\n")
        text = format_entries(attributes.partition("\n\n")[0])
        lines += text.rstrip().splitlines()
    return lines


def format_entries(text: str) -> str:
    """Turn the entries of a docstring's section into a list in Markdown."""
    text = re.sub(r":(?:func|mod|class):`~?([^`]*)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"^  (\w+): ", r"- **`\1`**: ", text, flags=re.MULTILINE)


def method_page(name: str) -> str:
    """Write the docs page of a method."""
    module = method_module(name)
    text = inspect.getdoc(module.build) or ""
    title, _, body = text.partition("\n")
    body = re.sub(r"^(Args|Returns|Raises):$", r"## \1\n", body, flags=re.MULTILINE)
    body = format_entries(body)
    rows = ["| option | default |", "|---|---|"]
    groups = []
    for option, parameter in inspect.signature(module.build).parameters.items():
        if is_group(parameter.default):
            values = {f"{option}.{name}": value for name, value in vars(parameter.default).items()}
            groups += group_section(option, type(parameter.default))
        else:
            values = {option: parameter.default}
        if option not in ("encoder", "views"):
            rows += [f"| `{name}` | `{value!r}` |" for name, value in values.items()]
    source = "../../" + names()[name].replace(".", "/") + ".py"
    return "\n".join(
        [
            f"# {title.rstrip('.')}",
            "",
            f"Code: [`{source.rsplit('/', 1)[1]}`]({source}). Config: [`configs/{name}.py`](../../configs/{name}.py). Run:",
            "",
            "```sh",
            f"python -m experiments.pretrain --config=configs/{name}.py --workdir=runs/{name}",
            "```",
            body.rstrip(),
            *groups,
            "",
            "## Defaults",
            "",
            "Each is overridden by `--config.method.<option>=<value>`.",
            "",
            *rows,
            *measured(name),
        ]
    )


def fill(text: str) -> str:
    """Write each table of a page between its markers anew."""
    makers = {
        "quickstart": quickstart,
        "methods": methods,
        "families": families,
        "results": results,
        **{f"{name} {kind}": partial(bench, name, kind) for name in BENCHES for kind in KINDS},
        "cost": cost,
        "searches": searches,
        "elsewhere": lambda: results(sorted(set(ELSEWHERE.values()))),
        "label_free": label_free,
        "invariance": invariance,
        "dense": lambda: tables_of(read_rows(RESULTS / "dense.jsonl"), markdown=True),
        "benchmarks": benchmarks,
        "formats": lambda: formats_table(read_rows(RESULTS / "benchmarks.jsonl")),
        "gpu": lambda: gpu.markdown(read_rows(gpu.RESULTS)),
        "peers": lambda: peers_table(read_rows(RESULTS / "peers.jsonl")),
        "studies": studies_table,
        "study plan": lambda: plan_table(markdown=True),
        "plans": plans,
        "long tests": long_tests,
        **{f"road {name}": partial(road, study) for name, study in studies().items()},
        "adaptation": lambda: road(studies()["adaptation"], folder="../studies/"),
    }
    for name, make in makers.items():
        if f"<!-- table: {name} -->" not in text:
            continue
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        table = make()
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL)
    return text


def generated() -> dict[Path, str]:
    """Make every generated file: its path and what it should contain."""
    pages = [
        ROOT / "README.md",
        ROOT / "docs/methods.md",
        ROOT / "docs/results.md",
        ROOT / "docs/benchmarks.md",
        ROOT / "docs/studies.md",
        ROOT / "docs/road.md",
        ROOT / "docs/guides/data.md",
        ROOT / "docs/guides/faults.md",
        ROOT / "docs/guides/foundation.md",
        ROOT / "docs/guides/planning.md",
    ]
    files = {page: fill(page.read_text()) for page in pages}
    files |= {ROOT / f"docs/studies/{name}.md": page_of_study(study) for name, study in studies().items()}
    return files | {ROOT / f"docs/methods/{name}.md": method_page(name) for name in names()}


if __name__ == "__main__":
    for path, content in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
