"""The part of a page that shows what ``experiments.invert`` made: decoded images, samples, numbers."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ssl_jax.report.page import Section, picture, table

FOLDER = "inversion"
FILE = "inversion.json"
PICTURE = "inversion.png"
LEAD = (
    "A row a test image: the image, what a decoder makes of its features (the mean of all images with these features: what is "
    "blurred is not determined by them), and images drawn by a flow that is given the features (what differs between them is "
    "not determined either)."
)


def inversion(workdir: Path) -> list[Section]:
    """Make the section of a run whose features were inverted; nothing where they were not.

    Args:
      workdir: folder of the run, in which ``inversion/`` may lie.

    Raises:
      ValueError: files that cannot be read.
    """
    folder = workdir / FOLDER
    if not (folder / FILE).exists() or not (folder / PICTURE).exists():
        return []
    try:
        result = json.loads((folder / FILE).read_text("utf-8"))
        data = (folder / PICTURE).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            width = opened.size[0]
        body = _picture(data, width) + _numbers(result["rows"]) + _transformations(result["transformations"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} cannot be read ({type(error).__name__}: {error})") from error
    return [Section("Inversion", body, LEAD)]


def _picture(data: bytes, width: int) -> str:
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    shown = picture(uri, "images, what decoders make of their features, and samples", width=width)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="decoded images">{shown}</div>'


def _numbers(rows: list[Mapping[str, Any]]) -> str:
    shares = {
        "explained": "pixels explained",
        "free": "free between samples",
        "reciprocal_rank": "reciprocal rank",
    }
    shares = {name: heading for name, heading in shares.items() if any(name in row for row in rows)}
    cells = [
        [
            str(row["read"]),
            f"{row['features']:,}",
            *(f"{100 * row[name]:.1f}" if name in row else "–" for name in shares),
        ]
        for row in rows
    ]
    return table(["read", "features", *shares.values()], cells, caption="of test images, in %")


def _transformations(rows: list[Mapping[str, Any]]) -> str:
    names = [name for name in rows[0] if name not in ("transformation", "chance")] if rows else []
    cells = [
        [str(row["transformation"]), *(f"{100 * row[name]:.1f}" for name in ("chance", *names))]
        for row in rows
    ]
    caption = "accuracy in % of a linear probe that predicts how an image was transformed"
    return table(["which was applied", "chance", *names], cells, caption=caption) if rows else ""
