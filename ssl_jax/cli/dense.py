"""Rows and table of what encoders know of pixels: the body of ``experiments.dense``."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.cli.configs import make_config
from ssl_jax.cli.evaluate import RAW_PIXELS, random_candidate, run_candidate
from ssl_jax.cli.pixel_targets import NEEDS, PixelOptions, open_pixel_targets
from ssl_jax.config import build
from ssl_jax.core import check
from ssl_jax.core.machine import machine
from ssl_jax.core.rows import Row, read_rows, write_row
from ssl_jax.core.table import table
from ssl_jax.evaluate.measure import Candidate, Options, PixelTargets, Subject
from ssl_jax.evaluate.measures import ON_REQUEST, parse_measures, row_columns, run_measures
from ssl_jax.train.features import Features

OPTIONS = Options(k=20, temperature=0.07, per_class=(1,), draws=1, crop_ratio=1.0)
"""Of measures that are not of pixels, of which none is taken here."""


class Named(NamedTuple):
    """An encoder to measure.

    Attributes:
      method: name of its method; ``raw pixels`` and ``random encoder`` for the baselines.
      encoder: name of its architecture; ``""``: none.
      seed: seed of the run, or of the draw.
      candidate: makes the encoder; ``None``: there is none, as for pixels.
      facts: what else its row says.
    """

    method: str
    encoder: str
    seed: int
    candidate: Callable[[], Candidate] | None
    facts: Row


def row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Name a row: source, how images become inputs, and encoder."""
    names = ("source", "map_size", "map_align", "map_layers", "method", "encoder", "seed")
    return tuple(str(row.get(name, "")) for name in names)


def measure_dense(
    source: str,
    out: Path,
    *,
    runs: Sequence[Path] = (),
    random: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    splits: tuple[str, str] = ("train", "test"),
    pixels: PixelOptions,
    measures: Sequence[str] = ("segmentation",),
    minutes: float | None = None,
) -> list[Row]:
    """Measure pixels, random encoders and runs on one source with targets for pixels, a row each.

    Rows that are there already are not made again, so that a command that was stopped goes on.

    Args:
      source: images with targets.
      out: file of the rows.
      runs: folders of runs.
      random: configs, such as ``mae:color64,short``, whose encoders are measured as they are drawn.
      seeds: of these.
      splits: training and test split.
      pixels: where the targets are, and how images become inputs.
      measures: names of measures of pixels.
      minutes: no encoder is begun after so many.

    Returns:
      All rows of this source and these inputs.

    Raises:
      ValueError: a measure that is not of pixels, images or runs that cannot be opened.
    """
    chosen = [measure for measure in parse_measures(measures) if measure.name in measures]
    of_pixels = sorted(measure.name for measure in ON_REQUEST.values() if measure.needs & NEEDS)
    for measure in chosen:
        check.choice("measures", measure.name, of_pixels)
    started = time.monotonic()
    targets = open_pixel_targets({"data": {"channels": 3}}, source, splits, pixels, chosen, measures)
    assert targets is not None
    given = {
        "source": source,
        "splits": list(splits),
        "map_size": pixels.framing.size,
        "map_align": pixels.framing.align,
        "map_layers": pixels.layers,
    }
    known = {row_key(row): row for row in read_rows(out)}
    for named in [
        Named(RAW_PIXELS, "", 0, None, {}),
        *random_encoders(random, seeds, source),
        *trained(runs),
    ]:
        facts = {**given, "method": named.method, "encoder": named.encoder, "seed": named.seed}
        have = known.get(row_key(facts), {}).get("measures", [])
        if set(measures) <= set(have):
            continue
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            break
        begun, processor = time.monotonic(), time.process_time()
        found = run_measures(dense_subject(named, targets), chosen)
        cost = {
            "wall_seconds": round(time.monotonic() - begun, 1),
            "processor_seconds": round(time.process_time() - processor, 1),
        }
        old = known.get(row_key(facts), {})
        every = sorted({*have, *(measure.name for measure in chosen)})
        row = {**old, **facts, **named.facts, **found, **cost, "measures": every, "machine": machine()}
        write_row(out, row, row_key)
        print(f"measured {named.method} {named.encoder} {named.seed} in {cost['wall_seconds']} s", flush=True)
    return [row for row in read_rows(out) if all(row.get(name) == value for name, value in given.items())]


def dense_subject(named: Named, targets: PixelTargets) -> Subject:
    """Make the subject of measures of pixels: no feature of whole images is computed."""
    none = Features(np.zeros((0, 1), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))
    train, test = (part.images for part in targets.sources)
    candidate = None if named.candidate is None else named.candidate()
    return Subject(none, none, (train, test), OPTIONS, candidate, pixel_targets=targets)


def random_encoders(configs: Sequence[str], seeds: Sequence[int], source: str) -> Iterator[Named]:
    """List the encoders of configs, ``METHOD[:ARGUMENTS]``, as they are drawn with each seed."""
    for spec in configs:
        method, _, arguments = spec.partition(":")
        config = make_config(method, arguments, {"data.source": source})
        config.data.source = source
        plain = build.to_dict(config)
        plain = build.with_changes(plain, {"data.channels": 3})
        for seed in seeds:
            seeded = build.with_changes(plain, {"seed": seed})

            def draw(config: build.Config = seeded) -> Candidate:
                return random_candidate(config, build.method(config))

            yield Named("random encoder", encoder_name(plain), seed, draw, {"config": spec})


def trained(runs: Sequence[Path]) -> Iterator[Named]:
    """List the encoders of runs."""
    for folder in runs:
        config, method, model = build.restore(folder, "latest")

        def load(config: Any = config, method: Any = method, model: Any = model) -> Candidate:
            return run_candidate(config, method, model)

        facts = {"step": model.step, "trained_on": config["data"]["source"], "size": config["views"]["size"]}
        yield Named(config["method"]["name"], encoder_name(config), config["seed"], load, facts)


def encoder_name(config: Mapping[str, Any]) -> str:
    """Name an architecture in short: its name and what tells its patch or width.

    >>> encoder_name({"encoder": {"name": "vit_micro", "patch": 8, "depth": 4, "image_size": 64}})
    'vit_micro, patch 8'
    """
    options = config["encoder"]
    if "patch" in options:
        return f"{options['name']}, patch {options['patch']}"
    width = options.get("width", 1.0)
    return options["name"] if width in (None, 1.0) else f"{options['name']}, width {width:g}"


def dense_table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate rows, seeds of one encoder together with their deviation, in percent; the best linear first.

    Args:
      rows: of one source and one kind of inputs.
      markdown: as Markdown.
    """
    if not rows:
        return "no row"
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["encoder"]), []).append(row)
    lines = []
    for (method, encoder), group in groups.items():
        line: dict[str, Any] = {"in %": method, "encoder": encoder or "–", "seeds": len(group)}
        for key, column in row_columns(group[0]).items():
            values = [100 * row[key] for row in group if key in row]
            mean = float(np.mean(values))
            line[column.heading] = mean if len(values) < 2 else (mean, float(np.std(values, ddof=1)))
        if "segmentation" in group[0]:
            line["ceiling"] = 100 * group[0]["segmentation"]["ceiling"]["miou"]
        lines.append(line)
    first = next((name for name in lines[0] if name not in ("in %", "encoder", "seeds")), None)

    def rank(line: Mapping[str, Any]) -> float:
        value = line.get(first or "", 0.0)
        return -(value[0] if isinstance(value, tuple) else value)

    return table(sorted(lines, key=rank), markdown=markdown)


def tables_of(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Tabulate all rows, a table for each source and kind of inputs."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        size = "as stored" if row["map_size"] is None else f"shorter side {row['map_size']} pixels"
        last = "" if row["map_layers"] == 1 else f", last {row['map_layers']} layers"
        groups.setdefault(f"{Path(row['source']).name}, {size}{last}", []).append(row)
    if not groups:
        return "Not run yet."
    bold = "**{}**" if markdown else "{}"
    return "\n\n".join(
        f"{bold.format(name)}\n\n{dense_table(group, markdown=markdown)}" for name, group in groups.items()
    )
