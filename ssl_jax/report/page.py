"""One self-contained page: HTML with its style, script and pictures inside; it loads nothing from anywhere."""

import functools
import html
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssl_jax.report.verdict import Line

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy of the page: even a picture from outside would be refused."""


class Section(NamedTuple):
    """A part of a page.

    Attributes:
      title: heading of the part.
      body: content, HTML.
      lead: sentence on how to read it, plain text.
    """

    title: str
    body: str
    lead: str = ""


class Report(NamedTuple):
    """What a page shows.

    Attributes:
      title: heading of the page.
      verdict: sentences, the most important first.
      sections: parts in order.
      facts: values by name, such as the step and the data; shown under the title.
      footer: last line, plain text.
    """

    title: str
    verdict: Sequence[Line]
    sections: Sequence[Section]
    facts: Mapping[str, str] = {}
    footer: str = ""


def render(report: Report) -> str:
    """Render a report as one HTML document.

    >>> page = render(Report("simclr", [Line("good", "kNN 84.1")], [Section("Loss", "<p>x</p>")]))
    >>> page.startswith("<!doctype html>"), page.count("<h2"), "://" in page
    (True, 2, False)
    """
    ids = [f"s{i}" for i in range(len(report.sections))]
    links = "".join(
        f'<li><a href="#{i}">{html.escape(section.title)}</a></li>'
        for i, section in zip(ids, report.sections, strict=True)
    )
    sections = "".join(_section(i, section) for i, section in zip(ids, report.sections, strict=True))
    facts = "".join(
        f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in report.facts.items()
    )
    lines = "".join(f'<li class="{line.tone}">{html.escape(line.text)}</li>' for line in report.verdict)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{html.escape(report.title)}</title><style>{asset('report.css')}</style></head>\n"
        f"<body><header><h1>{html.escape(report.title)}</h1><dl>{facts}</dl></header>\n"
        f'<main><section aria-labelledby="verdict"><h2 id="verdict">Verdict</h2><ul class="verdict">{lines}</ul></section>\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n{sections}</main>\n'
        f"<footer>{html.escape(report.footer)}</footer>\n<script>{asset('report.js')}</script></body></html>\n"
    )


def figure(inner: str, caption: str, *, value: str = "", note: str = "") -> str:
    """Make a figure with its caption above, perhaps with a value beside it, and a note below.

    >>> figure("<svg></svg>", "loss < 1")
    '<figure><figcaption>loss &lt; 1</figcaption><svg></svg></figure>'
    """
    below = f'<p class="note">{html.escape(note)}</p>' if note else ""
    beside = f" <span>{html.escape(value)}</span>" if value else ""
    return f"<figure><figcaption>{html.escape(caption)}{beside}</figcaption>{inner}{below}</figure>"


def grid(figures: Sequence[str]) -> str:
    """Put figures side by side, as many as fit."""
    return f'<div class="figures">{"".join(figures)}</div>'


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str, strong: Sequence[int] = ()
) -> str:
    """Make a table that scrolls inside its own box where it is too wide; the first cell of a row is its heading.

    Args:
      header: headings, one a column.
      rows: cells as text; numbers stand right.
      caption: caption above the table, and for screen readers.
      strong: indices of the rows to stress.

    >>> table(["run", "kNN"], [["a", "84.5 ± 0.8"]], caption="accuracy").count("<td")
    1
    """
    head = "".join(f'<th scope="col">{html.escape(str(cell))}</th>' for cell in header)
    body = "".join(
        f'<tr class="strong">{_cells(row)}</tr>' if i in strong else f"<tr>{_cells(row)}</tr>"
        for i, row in enumerate(rows)
    )
    return (
        f'<p class="caption">{html.escape(caption)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def picture(uri: str, alt: str, *, width: int, kind: str = "") -> str:
    """Make an image shown ``width`` pixels wide, pixels kept sharp.

    >>> picture("data:,", "a shoe", width=56)
    '<img src="data:," alt="a shoe" width="56">'
    """
    attribute = f' class="{kind}"' if kind else ""
    return f'<img{attribute} src="{uri}" alt="{html.escape(alt)}" width="{width}">'


def missing(sentence: str, command: str = "") -> str:
    """Say what does not exist yet, and the command that makes it.

    >>> missing("No evaluation yet.", "python -m experiments.evaluate")
    '<p class="missing">No evaluation yet. <code>python -m experiments.evaluate</code></p>'
    """
    code = f" <code>{html.escape(command)}</code>" if command else ""
    return f'<p class="missing">{html.escape(sentence)}{code}</p>'


@functools.cache
def asset(name: str) -> str:
    """Read a file in ``assets/``."""
    return (importlib.resources.files("ssl_jax.report") / "assets" / name).read_text(encoding="utf-8")


def _section(identifier: str, section: Section) -> str:
    lead = f'<p class="lead">{html.escape(section.lead)}</p>' if section.lead else ""
    heading = f'<h2 id="{identifier}">{html.escape(section.title)}</h2>'
    return f'<section aria-labelledby="{identifier}">{heading}{lead}{section.body}</section>\n'


def _cells(row: Sequence[Any]) -> str:
    first, *rest = [html.escape(str(cell)) for cell in row]
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest)
