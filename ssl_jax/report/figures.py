"""The parts of a page that show pictures and features: map, neighbours, views, reconstructions, attention, spectrum."""

import base64
import html
import json
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax.augment.views import View
from ssl_jax.core.types import Array
from ssl_jax.evaluate import spectrum as measure
from ssl_jax.evaluate.retrieval import nearest
from ssl_jax.methods.method import Reconstruction
from ssl_jax.report import charts, pictures
from ssl_jax.report.embedding import Map, extremes
from ssl_jax.report.page import Section, figure, picture
from ssl_jax.report.sample import Sample, Views

AnyArray = Array | np.ndarray
BOX = (1000, 760)
NAMED = 14
"""Classes up to which their names stand on the map."""
TOGGLED = 40
"""Classes up to which there is a box to hide each."""


def embedding_map(projection: Map, sample: Sample, classes: Sequence[str]) -> Section:
    """Draw points coloured by label, with pictures on hover, and the same map made of pictures.

    Args:
      projection: positions of the examples.
      sample: examples.
      classes: names of the labels; () for none.
    """
    positions = fit_to_box(projection.points)
    present = [int(label) for label in np.unique(sample.labels)]
    drawn = "".join(_cloud(positions[sample.labels == label], label) for label in present)
    names = "".join(
        _class_name(positions[sample.labels == label], classes[label])
        for label in present
        if 0 <= label < len(classes)
    )
    svg = (
        f'<svg viewBox="0 0 {BOX[0]} {BOX[1]}" role="img" aria-label="{projection.name} map of {len(positions)} examples">'
        f'<g class="points" stroke-width="{dot_size(len(positions)):.1f}">{drawn}</g>'
        f"{names if len(present) <= NAMED else ''}</svg>"
    )
    data = json_text(_map_data(positions, sample, classes))
    sheet = pictures.data_uri(pictures.sprite(sample.thumbnails))
    box = (
        f'<div data-map><div class="map" tabindex="0" role="group" aria-label="Map: arrow keys go from example to example">'
        f'{svg}</div>{_toggles(present, classes)}<img class="sheet off" alt="" src="{sheet}">'
        f'<script type="application/json">{data}</script></div>'
    )
    mosaic = pictures.data_uri(pictures.atlas(positions / np.array(BOX), sample.thumbnails))
    alt = f"The same map made of {len(positions)} pictures: in each cell the example nearest to its middle"
    pictured = figure(picture(mosaic, alt, width=BOX[0], kind="atlas"), "The same map in pictures")
    hint = "Point at it, tap, or use the arrow keys to see an example."
    points = figure(box, f"{len(positions):,} examples by {projection.name}", note=hint)
    lead = f"{projection.name} of the features, L2-normalised: {projection.note}."
    if len(present) > charts.COLORS:
        lead += f" There are {len(present)} classes, so the {charts.COLORS} colours come again."
    return Section("Map of the features", f'<div class="wide">{points}{pictured}</div>', lead)


def fit_to_box(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Scale points to the map's box, both axes on one scale, the second pointing up.

    >>> fit_to_box(np.array([[0.0, 0.0], [2.0, 1.0]])).round().tolist()
    [[25.0, 618.0], [975.0, 142.0]]
    """
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array(BOX) - 50.0
    scale = float(np.min(room / np.maximum(high - low, 1e-12)))
    flipped = (points - (low + high) / 2) * [scale, -scale]
    return flipped + np.array(BOX) / 2


def dot_size(n: int) -> float:
    """Compute the diameter of a point on the map: the more there are, the smaller.

    >>> dot_size(100) > dot_size(2000) > dot_size(10000) >= 5
    True
    """
    return float(np.clip(300 / np.sqrt(n), 5.0, 16.0))


def neighbors(sample: Sample, classes: Sequence[str], *, k: int = 6, count: int = 5) -> Section:
    """Show queries with good and with bad neighbours, nearest first.

    Args:
      sample: examples; each is a query against the others.
      classes: names of the labels; () for none.
      k: number of neighbours.
      count: number of queries of each kind.

    Raises:
      ValueError: fewer than two examples.
    """
    if len(sample.features) < 2:
        raise ValueError("neighbours need two images or more, and there is 1")
    k = min(k, len(sample.features) - 1)
    neighborhood = nearest(sample.features, sample.features, k, exclude_self=True)
    chosen = extremes(neighborhood, sample.labels, count=count)
    indices, similarities = (np.asarray(part) for part in neighborhood)
    labeled = len(np.unique(sample.labels[sample.labels >= 0])) > 1

    def rows(queries: Sequence[int]) -> str:
        return "".join(_row(sample, classes, q, indices[q], similarities[q]) for q in queries)

    if labeled:
        lead = (
            f"The {k} nearest by the cosine, with its value below. {chosen.agreement:.0%} of all neighbours have their query's "
            "label; these are the two ends, not typical ones. Dashed frames: another label."
        )
        heads = ("Most alike", "Most confused")
    else:
        found = "All labels are one" if (sample.labels >= 0).any() else "There are no labels"
        lead = f"The {k} nearest by the cosine, with its value below. {found}, so the ends are by distance."
        heads = ("Nearest neighbours", "Farthest neighbours")
    ends = (rows(chosen.best), rows(chosen.worst))
    columns = "".join(f"<div><h3>{head}</h3>{strips}</div>" for head, strips in zip(heads, ends, strict=True))
    body = f'<div class="wide rows">{columns}</div>'
    return Section("Nearest neighbours", body, lead)


def views(drawn: Sequence[Views]) -> Section:
    """Show images and the views of them that training draws, in true proportion."""
    largest = max((view.shape[0] for image in drawn for view in image.views), default=1)
    rows = []
    for i, example in enumerate(drawn):
        height, width = example.original.shape[:2]
        narrow = max(
            min(72, round(144 * width / height)), 1
        )  # no more than twice as high as it is usually wide
        tiles = [tile(example.original, "original", narrow, "query", f"image {i + 1}")]
        for j, view in enumerate(example.views):
            alt = f"view {j + 1}"
            tiles.append(
                tile(view, alt, max(round(72 * view.shape[0] / largest), 20), "", f"{alt} of image {i + 1}")
            )
        rows.append(f'<div class="strip">{"".join(tiles)}</div>')
    lead = "As training draws them, before the normalisation. Could you still tell what it is, and not just by its colour?"
    return Section("Sampled views", flow(rows), lead)


def reconstructions(reconstruction: Reconstruction, view: View) -> Section:
    """Show the input, what the encoder saw, the prediction, and the prediction with the visible patches put back."""
    images, predictions = (
        pictures.raw(np.asarray(x), view) for x in (reconstruction.images, reconstruction.predictions)
    )
    masked = np.asarray(reconstruction.masked).astype(bool)
    seen = np.where(masked, 0.5, images)
    merged = np.where(masked, predictions, images)
    parts = ((images, "input"), (seen, "seen"), (predictions, "predicted"), (merged, "merged"))
    rows = [
        "".join(tile(array[i], alt, 70, "", f"{alt}, image {i + 1}") for array, alt in parts)
        for i in range(len(images))
    ]
    body = flow([f'<div class="strip">{row}</div>' for row in rows])
    lead = (
        f"{masked.mean():.0%} of the pixels were masked (grey). Predictions are shown with the brightness and contrast of the "
        "true patches where the method predicts standardised ones. Merged: visible patches put back."
    )
    return Section("Reconstructions", body, lead)


def attention(images: np.ndarray, maps: Float[np.ndarray, "b heads rows columns"], *, pool: str) -> Section:
    """Show the attention of the last block beside its image, a map a head.

    Args:
      images: images ``[b, h, w, c]`` as :func:`ssl_jax.report.pictures.visible` takes them.
      maps: maps of :func:`ssl_jax.report.attention.head_maps`.
      pool: pooling of the encoder, which says whose attention it is.
    """
    rows = []
    for i, (image, heads) in enumerate(zip(images, maps, strict=True)):
        tiles = [tile(image, "input", 66, "query", f"image {i + 1}")]
        for j, attention_map in enumerate(heads):
            alt = f"head {j + 1}, image {i + 1}"
            tiles.append(tile(pictures.heat(attention_map), f"head {j + 1}", 66, "", alt))
        rows.append(f'<div class="strip">{"".join(tiles)}</div>')
    who = "the class token takes" if pool == "cls" else "the patches, on average, take"
    lead = (
        f"Last block: how much {who} from each patch. Each map has a scale of its own, dark for its least to light for "
        "its greatest."
    )
    return Section("Attention", flow(rows), lead)


def spectrum(features: Sequence[tuple[str, np.ndarray]], colors: Sequence[int]) -> Section:
    """Draw the eigenvalues of the centred covariance, largest first, as shares of their sum, on log axes.

    Args:
      features: name and ``[n, d]`` of each run.
      colors: index into the palette, one each.

    Raises:
      ValueError: fewer than two examples of a run.
    """
    series, notes = [], []
    for (name, x), color in zip(features, colors, strict=True):
        if len(x) < 2:
            raise ValueError("a spectrum needs two images or more, and there is 1")
        values = eigenvalue_shares(x)
        series.append(charts.Series(name, list(range(1, len(values) + 1)), values.tolist(), color))
        rank = float(measure.effective_rank(jnp.asarray(x - x.mean(axis=0))))
        alpha = float(measure.alpha_req(jnp.asarray(x)))
        decay = f"decay α {alpha:.2f}" if np.isfinite(alpha) else "too few directions for a decay"
        notes.append(f"{name}: effective rank {rank:.1f} of {x.shape[1]}, {decay}, {len(x):,} examples")
    if not any(len(s.x) for s in series):
        return Section(
            "Spectrum", '<p class="missing">The features do not vary: all of them are one vector.</p>'
        )
    drawn = charts.line(
        series, title="Spectrum", x_label="index", y_label="share of the variance", log_x=True, log_y=True
    )
    key = charts.legend([(s.name, s.color) for s in series])
    lead = (
        "A steep fall: few directions carry all. A cliff: the others are dead. Straight with slope −1 is what good encoders "
        "tend to."
    )
    body = f'<div class="figures">{figure(key + drawn, "Eigenvalues (log scales)", note="; ".join(notes) + ".")}</div>'
    return Section("Spectrum", body, lead)


def eigenvalue_shares(features: Float[AnyArray, "n d"]) -> np.ndarray:
    """Compute the eigenvalues of the centred covariance over their sum, falling, without rounding noise.

    >>> eigenvalue_shares(np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)).tolist()
    [1.0]
    """
    x = np.asarray(features, np.float64)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    noise = values[0] * max(x.shape) * np.finfo(np.float32).eps
    variances = values[(values > noise) & (values > 0)] ** 2
    return variances / max(variances.sum(), 1e-300)


def _cloud(positions: np.ndarray, label: int) -> str:
    """One path a class, a dot of no length for each point: small on disk, sharp in print, coloured by the page."""
    steps = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in positions)
    return (
        f'<path data-label="{label}" style="--k:{charts.color_of(label)}" stroke-opacity=".75" d="{steps}"/>'
    )


def _class_name(positions: np.ndarray, name: str) -> str:
    x, y = np.clip(np.median(positions, axis=0), [90, 40], [BOX[0] - 90, BOX[1] - 20])
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" fill="var(--ink)" '
        f'stroke="var(--paper)" stroke-width="7" paint-order="stroke" font-size="26">{html.escape(name)}</text>'
    )


def _toggles(present: Sequence[int], classes: Sequence[str]) -> str:
    if not 1 < len(present) <= TOGGLED:
        return ""
    boxes = "".join(
        f'<label style="--k:{charts.color_of(label)}"><input type="checkbox" value="{label}" '
        f'checked autocomplete="off"><span class="swatch"></span>{html.escape(_label_name(label, classes))}</label>'
        for label in present
    )
    return f'<fieldset class="toggles"><legend>Classes shown</legend>{boxes}</fieldset>'


def _map_data(positions: np.ndarray, sample: Sample, classes: Sequence[str]) -> dict[str, Any]:
    relative = np.clip(positions / np.array(BOX), 0, 1)
    packed = (65535 * relative + 0.5).astype("<u2")
    _, height, width, _ = sample.thumbnails.shape
    return {
        "points": base64.b64encode(packed.tobytes()).decode(),
        "labels": sample.labels.tolist(),
        "classes": list(classes),
        "names": sample.names,
        "columns": pictures.sprite_columns(len(positions)),
        "width": width,
        "height": height,
    }


def flow(rows: Sequence[str]) -> str:
    """Rows of pictures side by side where there is room."""
    return f'<div class="flow">{"".join(rows)}</div>'


def json_text(value: Any) -> str:
    """JSON that cannot end its script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _label_name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else ("no label" if label < 0 else str(label))


def _row(
    sample: Sample, classes: Sequence[str], query: int, index: np.ndarray, similarity: np.ndarray
) -> str:
    query_label = int(sample.labels[query])
    name = _label_name(query_label, classes) if query_label >= 0 else ""
    tiles = [
        tile(
            sample.thumbnails[query],
            name or "query",
            50,
            "query",
            f"query: {sample.names[query]} {name}",
            least=68,
        )
    ]
    for i, value in zip(index, similarity, strict=True):
        label = int(sample.labels[i])
        kind = "" if query_label < 0 or label < 0 else ("same" if label == query_label else "other")
        name = _label_name(label, classes) if label >= 0 else ""
        alt = f"{sample.names[i]} {name}"
        tiles.append(tile(sample.thumbnails[i], name, 50, kind, alt, below=f"{value:.3f}", least=68))
    return f'<div class="strip">{"".join(tiles)}</div>'


def tile(
    image: np.ndarray, text: str, width: int, kind: str, alt: str, *, below: str = "", least: int = 48
) -> str:
    tag = picture(pictures.data_uri(image), alt, width=width)
    lines = f"<b>{html.escape(text)}</b>{html.escape(below)}"
    style = f"width:{max(width + 6, least)}px"
    return f'<span class="tile {kind}" style="{style}" title="{html.escape(alt)}">{tag}{lines}</span>'
