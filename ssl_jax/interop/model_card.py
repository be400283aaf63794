"""Model cards: what an exported encoder is, how good it is, how to use it; ``README.md`` as the Hugging Face hub reads it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NO_LICENSE = "unknown"
WORDS_OF_YAML = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
"""What YAML reads as other than strings."""


class Card(NamedTuple):
    """What a model card says.

    Attributes:
      title: one line.
      summary: one or two sentences.
      facts: rows of a table, by what they are about.
      evaluation: a table in Markdown; ``""``: there is none.
      license: of the weights, as the hub names licences.
      tags: for the search of the hub.
    """

    title: str
    summary: str
    facts: Mapping[str, str]
    evaluation: str = ""
    license: str = NO_LICENSE
    tags: Sequence[str] = ()


def write_card(card: Card, uses: Mapping[str, str], *, library: str) -> str:
    """Write a model card in Markdown.

    Args:
      card: what it says.
      uses: lines of Python by the framework that they are for; shown as they are.
      library: ``library_name`` of the hub.

    Returns:
      The text of ``README.md``, with the header in YAML that the hub reads.

    >>> card = Card("photos-simclr", "An encoder.", {"method": "simclr"}, tags=("simclr",))
    >>> print(write_card(card, {"timm": "import timm"}, library="timm"))  # doctest: +ELLIPSIS
    ---
    library_name: timm
    license: unknown
    pipeline_tag: image-feature-extraction
    tags:
    - "ssl_jax"
    - "self-supervised-learning"
    - "simclr"
    ---
    <BLANKLINE>
    # photos-simclr
    ...
    """
    tags = dict.fromkeys(("ssl_jax", "self-supervised-learning", *card.tags))
    header = [
        "---",
        f"library_name: {library}",
        f"license: {_scalar(card.license)}",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        # JSON's strings are YAML's too.
        *(f"- {json.dumps(tag, ensure_ascii=False)}" for tag in tags),
        "---",
    ]
    license_text = (
        "The licence of the weights was not stated at export (`--license=`). It depends on the images and on the weights that "
        "training started from."
        if card.license == NO_LICENSE
        else f"{card.license}."
    )
    parts = [
        f"# {_line(card.title)}",
        card.summary,
        "## Use",
        "In this folder, with a picture `photo.png` in it:",
        *(f"{framework}\n\n```python\n{code}\n```" for framework, code in uses.items()),
        "## What it is",
        "\n".join(
            ["| | |", "|---|---|", *(f"| {name} | {_cell(text)} |" for name, text in card.facts.items())]
        ),
        "## Evaluation",
        card.evaluation or "Not measured before export: `experiments.evaluate` does it.",
        "## Licence",
        license_text,
    ]
    return "\n".join(header) + "\n\n" + "\n\n".join(parts) + "\n"


def read_uses(text: str) -> list[str]:
    """Return the lines of Python of a model card, one string for each framework.

    >>> card = write_card(Card("a", "b", {}), {"timm": "import timm"}, library="timm")
    >>> read_uses(card)
    ['import timm']
    """
    blocks = text.split("```python\n")[1:]
    return [block.split("\n```")[0] for block in blocks]


def _scalar(text: str) -> str:
    """Write a string of YAML, in quotes where it would be read as something else.

    >>> _scalar("apache-2.0"), _scalar("1.0"), _scalar("no")
    ('apache-2.0', '"1.0"', '"no"')
    """
    plain = re.fullmatch(r"[A-Za-z][\w.-]*", text) and text.lower() not in WORDS_OF_YAML
    return text if plain else json.dumps(text, ensure_ascii=False)


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
