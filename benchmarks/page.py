"""How long a report with a map of 10,000 examples takes to open in headless Chromium: until the second frame is drawn.

The map is PCA of the pixels of the embedded images, with all their thumbnails in the page. Target: under 2 seconds.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks import pairs
from ssl_jax.data.open import open_source
from ssl_jax.report import embedding, figures
from ssl_jax.report.page import Report, render
from ssl_jax.report.sample import Sample
from ssl_jax.report.verdict import Line

GAINS = {
    "": "the report of a whole data set is looked at in a browser, without a server",
}
"""What the user gains, by a part of a row's name."""

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
)
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def made(points: int) -> str:
    """A page with the map."""
    source = open_source("embedded", "train")
    examples = [source[i] for i in range(points)]
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    features = images.reshape(points, -1).astype(np.float32)
    names = [source.file_name(i) for i in range(points)]
    sample = Sample(features, labels, images, names, images[:4])
    found = embedding.project(features, method="pca")
    section = figures.embedding_map(found, sample, source.classes)
    return render(Report("Map", [Line("plain", f"{points} examples.")], [section]))


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    points = 200 if options.quick else 10_000
    page, seconds = made(points), []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=options.chromium, args=list(ARGUMENTS))
        for _ in range(2 if options.quick else 7):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            begin = time.perf_counter()
            tab.goto(file.as_uri())
            tab.evaluate(FRAMES)
            seconds.append(time.perf_counter() - begin)
            tab.close()
        browser.close()
    return [
        pairs.valued(
            f"report with a map of {points:,} examples opens",
            seconds,
            unit="s",
            at_most=2.0,
            megabytes=len(page) / 1e6,
        )
    ]


if __name__ == "__main__":
    parser = pairs.parser("page", __doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    pairs.main("page", parser, run)
