"""Pages in a real browser: nothing is fetched, nothing overflows, nothing complains, and the map answers."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_jax.augment.views import View
from ssl_jax.evaluate.invariance import CHANGES
from ssl_jax.methods.method import Reconstruction
from ssl_jax.report import charts, embedding, figures, invariance, patches, sections, verdict
from ssl_jax.report.page import Report, Section, picture, render, table
from ssl_jax.report.pictures import heat
from ssl_jax.report.runs import Run, groups
from ssl_jax.report.sample import Sample, Views

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
CLASSES = ("T-shirt/top", "trouser", "<pullover> & co", *(f"class {i}" for i in range(7)))
NASTY = "</script><script>fail()</script>"
POINTS = 10_000


def made_up_run(name, *, seed=0, method="mae"):
    steps = range(1, 400)
    records = [
        {
            "step": s,
            "loss": 5 / s + 0.1,
            "grad_norm": 1.0,
            "alignment": None if s == 7 else 0.3,
            "new/thing": s,
        }
        for s in steps
    ]
    records += [
        {"step": s, "online/knn": s / 500, "health/spread": 0.9, "health/alpha": 1.2} for s in steps[::40]
    ]
    own = {"features": f"{method}, 399 steps", "role": "encoder", "knn": 0.84 + seed / 100, "linear_10": 0.7}
    own["health"] = {"rankme": 123.456, "alpha": 1.25}
    rows = [{"features": "raw pixels", "knn": 0.79, "linear_10": 0.6}, {**own, "linear_10_std": 0.02}]
    layers = [{"layer": f"block {i}", "knn": 0.5 + i / 20, "ridge": 0.4 + i / 20} for i in range(4)]
    evaluation = {
        "rows": rows,
        "layers": layers,
        "examples": [10_000, 2_000],
        "source": "embedded",
        "step": 399,
    }
    config = {"seed": seed, "steps": 399, "method": {"name": method, "note": NASTY}, "long": list(range(60))}
    warnings = [{"step": 30, "kind": "low_rank", "message": "features vary in few directions"}]
    return Run(Path("runs") / name, name, config, records, warnings, evaluation)


def made_up_sample(n):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, len(CLASSES), n).astype(np.int32)
    features = (3 * np.eye(16)[labels] + rng.normal(size=(n, 16))).astype(np.float32)
    pictures = rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
    names = [f"folder/{NASTY}{i}.png" if i == 5 else f"folder/{i}.png" for i in range(n)]
    return Sample(features, labels, pictures, names, pictures[:4])


def made_up_patches():
    """Features of 3 images: a square in the middle, another object in each, before one background."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(3, 7, 7, 16)) * 0.1 + np.eye(16)[0]
    for i in range(3):
        features[i, 2:5, 2:5] += 3 * np.eye(16)[1] + np.eye(16)[2 + i]
    return features


def made_up_changes(name, offset=0.0):
    """Rows of an evaluation with invariance, of an encoder and its projector."""
    rng = np.random.default_rng(3)
    moved = {f"{c} {s:g}": rng.random() + offset for c, change in CHANGES.items() for s in change.strengths}
    read = {f"{c} {p}": rng.random() - offset for c, change in CHANGES.items() for p in change.parameters}
    row = {"invariance": moved, "equivariance": read}
    return name, {**row, **{f"projector_{key}": numbers for key, numbers in row.items()}}


def run_page():
    sample, run, view = made_up_sample(POINTS), made_up_run("first"), View()
    rng = np.random.default_rng(1)
    images = rng.random((4, 28, 28, 1), dtype=np.float32)
    few = Sample(*(part[:300] for part in sample))
    parts = [
        sections.evaluation(run),
        *sections.curves([run], [0]),
        figures.embedding_map(embedding.project(sample.features), sample, CLASSES),
        figures.neighbors(few, CLASSES),
        figures.spectrum([("first", sample.features)], [0]),
        figures.views([Views(images[0], [images[1], images[2][:14, :14]])] * 2),
        figures.reconstructions(Reconstruction(images, images, images > 0.5), view),
        figures.attention(images, rng.random((4, 6, 7, 7)), pool="cls"),
        patches.patch_section(images[:3], made_up_patches()),
        invariance.invariance(
            [made_up_changes("random encoder"), made_up_changes("<b>mae</b>, 399 steps", 0.5)]
        ),
        sections.configuration(run),
    ]
    return render(Report("Run first", verdict.verdict(run), parts, {"Folder": "runs/first"}, "made up"))


def comparison_page():
    runs = [made_up_run(f"a/rather/long/folder/name/{i}", seed=i) for i in range(2)]
    runs += [made_up_run("other", method="simclr"), made_up_run("third", method="byol")]
    grouped = groups(runs)
    names = [runs[group[0]].name for group in grouped]
    colors = [0, 0, 1, 2]
    features = made_up_sample(500).features
    parts = [
        sections.comparison(runs, grouped, names),
        sections.difference(runs),
        invariance.invariance([made_up_changes(run.name, i / 5) for i, run in enumerate(runs)]),
        *sections.curves(runs, colors),
        figures.spectrum([(run.name, features) for run in runs], colors),
    ]
    return render(Report("Comparison", verdict.comparison(runs, grouped, names), parts))


PAGES = {"run": run_page, "comparison": comparison_page}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_text(make(), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip("no Chromium at /usr/bin/chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield browser
        browser.close()


def opened(browser, file, *, width=1280, scheme="light", **options):
    """A page, and what it complained about or asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if _leaves(request.url, file) else None)
    page.goto(file.as_uri())
    return page, complaints


def _leaves(url, file):
    return not url.startswith("data:") and url != file.as_uri()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_is_quiet_asks_for_nothing_and_does_not_overflow(browser, files, name, scheme, width):
    page, complaints = opened(browser, files[name], width=width, scheme=scheme)
    if page.locator(".map").count():
        page.locator(".map").hover()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    page.context.close()


def test_map_shows_examples_to_pointer_and_keys_and_hides_classes(browser, files):
    page, complaints = opened(browser, files["run"])
    tip = page.locator(".tip")
    assert not tip.is_visible()
    page.locator(".map").hover()
    assert re.search(r"folder/\d+\.png", tip.inner_text())
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    drawn = page.locator('path[data-label="1"]')
    page.get_by_label("trouser", exact=True).uncheck()
    assert not drawn.is_visible()
    page.locator(".map").hover()
    assert "trouser" not in tip.inner_text()
    assert complaints == []
    page.context.close()


def test_picture_in_the_tip_is_the_example_that_it_names(browser, files):
    page, _ = opened(browser, files["run"])
    page.locator(".map").hover()
    number = int(re.search(r"folder/(\d+)\.png", page.locator(".tip").inner_text())[1])
    found = page.evaluate(
        "[...document.querySelector('.tip canvas').getContext('2d').getImageData(0,0,28,28).data]"
    )
    expected = made_up_sample(POINTS).thumbnails[number, :, :, 0]
    np.testing.assert_array_equal(np.reshape(found, (28, 28, 4))[..., 0], expected)
    page.context.close()


def test_a_clicked_patch_is_compared_with_all_others(browser, files):
    page, complaints = opened(browser, files["run"])
    box = page.locator("[data-patches]")
    said, start = box.get_by_role("status"), patches.patch_similarity(made_up_patches(), (0, 3, 3))
    assert said.inner_text() == patches.describe_similarity((0, 3, 3), start.min(), start.max())
    scene = box.locator(".scene").nth(2)
    size = scene.bounding_box()
    scene.click(position={"x": size["width"] * 0.5 / 7, "y": size["height"] * 1.5 / 7})
    expected = patches.patch_similarity(made_up_patches(), (2, 1, 0))
    assert said.inner_text().startswith("Row 2, column 1 of image 3: cosines from ")
    found = re.findall(r"-?\d\.\d\d", said.inner_text())
    np.testing.assert_allclose([float(x) for x in found], [expected.min(), 1], atol=0.02)
    uri = box.locator(".answer").nth(1).get_attribute("src")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"), float)
    np.testing.assert_allclose(drawn, heat(expected[1], low=expected.min(), high=1.0), atol=8)
    scene.press("ArrowRight")
    assert said.inner_text().startswith("Row 2, column 2 of image 3")
    for _ in range(9):
        scene.press("ArrowUp")
    assert said.inner_text().startswith("Row 1, column 2 of image 3")
    box.locator(".scene").nth(1).press("ArrowDown")
    assert said.inner_text().startswith("Row 5, column 4 of image 2")
    assert complaints == []
    page.context.close()


def test_page_reads_without_script_and_prints_on_white(browser, files):
    page, complaints = opened(browser, files["run"], scheme="dark", java_script_enabled=False)
    assert page.locator(".points path").first.is_visible()
    assert complaints == []
    page.context.close()
    page, _ = opened(browser, files["run"], scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert (
        page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')") == "#ffffff"
    )
    page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_page_names_nothing_outside_and_escapes_what_it_shows(files, name):
    text = files[name].read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", text)
    assert "url(" not in text and "@import" not in text and "fetch(" not in text
    assert "fail()</script>" not in text.replace("&lt;", "<").split("<script>fail()")[0]
    assert "<script>fail()" not in text
    assert re.findall(r"<h(\d)", text)[:2] == ["1", "2"]
    assert not re.findall(r"<img (?![^>]*alt=)", text)


def test_sections_say_what_is_missing_and_how_to_make_it():
    run = Run(Path("runs/new"), "new", {"method": {"name": "byol"}}, [], [], None)
    assert "experiments.evaluate --workdir=runs/new" in sections.evaluation(run).body
    assert "No record yet" in sections.curves([run], [0])[0].body
    assert "None of the runs is evaluated" in sections.comparison([run], [[0]], ["new"]).body
    assert "do not vary" in figures.spectrum([("new", np.ones((5, 3), np.float32))], [0]).body
    assert "are the same" in sections.difference([run, run]).body


def test_table_shows_errors_and_stresses_the_encoder():
    body = sections.evaluation(made_up_run("a")).body
    assert "84.0 ± 0.8" in body and "70.0 ± 2.0" in body
    assert body.count('<tr class="strong">') == 1
    assert "<td>123</td><td>1.25</td>" in body


def test_repetitions_are_one_row_with_their_deviation():
    runs = [made_up_run("a", seed=0), made_up_run("b", seed=2)]
    body = sections.comparison(runs, groups(runs), ["mae"]).body
    assert "85.0 ± 1.4" in body and "raw pixels" in body


def test_pieces_escape():
    assert "<b>" not in table(["<b>"], [["<b>", "<b>"]], caption="<b>") + picture("data:,", "<b>", width=1)
    page = render(
        Report("<b>", [verdict.Line("good", "<b>")], [Section("<b>", "", "<b>")], {"<b>": "<b>"}, "<b>")
    )
    assert "<b>" not in page
    assert charts.legend([("<b>", 0), ("c", 1)]).count("<b>") == 0
