"""A source as shards, without duplicates and balanced where it is asked for: the body of ``experiments.pack``."""

import collections
import contextlib
import dataclasses
import hashlib
import html
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ssl_jax.cli.embed import encode_images, open_embedder
from ssl_jax.config.images import log_description
from ssl_jax.core import check
from ssl_jax.core.bucket import BucketPath
from ssl_jax.core.files import write_atomically
from ssl_jax.core.types import Array
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.dedup import (
    Duplicates,
    content_digests,
    exact_duplicates,
    join_duplicates,
    near_duplicates,
)
from ssl_jax.data.fingerprint import fingerprint
from ssl_jax.data.labels import labels_of
from ssl_jax.data.open import open_source
from ssl_jax.data.pack import Shards, pack, work_folder
from ssl_jax.data.select import balance, hierarchical_kmeans, k_center, sample_hierarchy
from ssl_jax.data.sources import CorruptImage, Source, Subset
from ssl_jax.ops.kmeans import kmeans
from ssl_jax.report.pictures import data_uri, shrink
from ssl_jax.train.lease import Lease, WorkdirInUseError

DEDUP = ("none", "exact", "near")
SELECTIONS = ("k_center", "hierarchical")
_GROUPS = 60
"""Groups of duplicates that the page shows, and pairs that stay."""
_PICTURES = 8
"""Pictures of a group."""
_SIDE = 112
"""Pixels of the longer side of a picture."""
_BINS = np.linspace(0.5, 1.0, 26)


@dataclasses.dataclass(frozen=True)
class Curation:
    """Which images of a source are packed, in which order.

    Attributes:
      dedup: ``none``; ``exact``: of images with the same bytes the first is kept; ``near``: of those with close features too.
      threshold: cosine of features from which on two images are duplicates.
      balance: number of clusters of k-means from which images are taken evenly; ``None``: they are not balanced.
      select: number of images to take; ``None``: all, or as ``balance`` gives.
      selection: without ``balance``, ``k_center`` or ``hierarchical``.
      levels: numbers of clusters of the hierarchy, from the finest; (): a tenth of the images, a hundredth, ..., down to 10.
      shuffle: whether the images are put in a random order.
      seed: seed of everything drawn.

    Raises:
      ValueError: a value out of range, or two that do not go together.
    """

    dedup: str = "none"
    threshold: float = 0.95
    balance: int | None = None
    select: int | None = None
    selection: str = "k_center"
    levels: tuple[int, ...] = ()
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check.choice("dedup", self.dedup, DEDUP)
        check.require_number(
            "threshold", self.threshold, lambda t: -1 < t <= 1, "a cosine above -1, at most 1"
        )
        for name in ("balance", "select"):
            value = getattr(self, name)
            check.require(value is None or value >= 1, name, value, "None or an integer of 1 or more")
        check.choice("selection", self.selection, SELECTIONS)
        hierarchical = self.selection == "hierarchical"
        check.require(
            not (hierarchical and self.balance), "balance", self.balance, "None with selection='hierarchical'"
        )
        check.require(
            not hierarchical or self.select is not None,
            "select",
            None,
            "a number with selection='hierarchical'",
        )
        check.require(
            hierarchical or not self.levels, "levels", self.levels, "() without selection='hierarchical'"
        )

    @property
    def needs_features(self) -> bool:
        """Whether an encoder is needed."""
        return self.dedup == "near" or self.balance is not None or self.select is not None


class Encoder(NamedTuple):
    """Whose features tell images apart.

    Attributes:
      name: folder of a run (a path), or name of an encoder (a text).
      step: checkpoint of a run.
      size: side of the images in pixels, for an encoder by its name; ``None``: that of its file.
      batch_size: images at a time.
    """

    name: Path | str
    step: str = "latest"
    size: int | None = None
    batch_size: int = 256


class Curated(NamedTuple):
    """What a curation has chosen.

    Attributes:
      indices: int64 ``[n]``, images of the source, in the order in which they are packed.
      about: what was done, in numbers, as JSON takes it.
    """

    indices: Int[np.ndarray, " n"]
    about: dict[str, Any]


def pack_images(
    source: str,
    out: Path,
    shards: Shards,
    curation: Curation,
    *,
    split: str = "train",
    encoder: Encoder | None = None,
    threads: int = 1,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> None:
    """Write the images of a source as shards.

    Called again it goes on where it was interrupted: with the same choice of images, and the shards that are whole.

    Args:
      source: images, as :func:`ssl_jax.data.open.open_source` takes them.
      out: folder of the shards, or a path in a bucket.
      shards: what is written.
      curation: which images.
      split: split of the source.
      encoder: for what needs features; ``None``: nothing does.
      threads: images that are read and encoded at a time.
      max_corrupt_fraction: share of unreadable images above which nothing is finished.

    Raises:
      ValueError: options that do not go together, or what the source, the encoder or the folder finds wrong.
    """
    if curation.needs_features and encoder is None:
        asked = "dedup='near'" if curation.dedup == "near" else "balance or select"
        raise ValueError(
            f"encoder=None with {asked}: allowed is an encoder or the folder of a run, whose features are compared"
        )
    if source.startswith("frames:"):
        raise ValueError(
            f"source={source!r}: allowed are single images; folder: reads the frames of clips as such"
        )
    images = open_source(source, split)
    log_description(images, source, split)
    work = work_folder(out, split)
    work.mkdir(parents=True, exist_ok=True)
    with _held(work):
        curated = _curate_once(source, images, out, curation, split, encoder, threads, max_corrupt_fraction)
        packed = pack(
            images,
            out,
            shards,
            split=split,
            indices=curated.indices,
            about=curated.about,
            threads=threads,
            max_corrupt_fraction=max_corrupt_fraction,
            say=_say,
        )
    corrupt = f", {len(packed.corrupt)} unreadable left out" if packed.corrupt else ""
    again = f" ({packed.reused} were there)" if packed.reused else ""
    count = len(packed.files)
    print(
        f"{packed.examples:,} images in {count} shard{'s' * (count > 1)} of {shards.form}{again}, "
        f"{packed.size / 2**20:,.1f} MiB, in {out}{corrupt}"
    )


@contextlib.contextmanager
def _held(work: Path) -> Iterator[None]:
    """Let no other process pack there; a folder of the file system is locked by :func:`ssl_jax.data.pack.pack`."""
    if not isinstance(work, BucketPath):
        yield
        return
    try:
        lease = Lease(work)
    except WorkdirInUseError as error:
        raise OSError(f"{work.parent} is being packed by another process") from error
    try:
        yield
    finally:
        lease.close()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _curate_once(
    source: str,
    images: Source,
    out: Path,
    curation: Curation,
    split: str,
    encoder: Encoder | None,
    threads: int,
    max_corrupt_fraction: float,
) -> Curated:
    """Choose the images, or read which were chosen before an interruption."""
    key = {
        "images": hashlib.blake2b(fingerprint(images).to_bytes(), digest_size=16).hexdigest(),
        "curation": dataclasses.asdict(curation),
        "encoder": None
        if encoder is None or not curation.needs_features
        else [str(part) for part in encoder[:3]],
    }
    key = json.loads(json.dumps(key))
    kept = work_folder(out, split) / "curation.npz"
    try:
        with np.load(io.BytesIO(kept.read_bytes()), allow_pickle=False) as arrays:
            told = json.loads(str(arrays["told"]))
            if told["key"] == key:
                if told["about"]["chosen"] < len(images):
                    print(
                        f"{told['about']['chosen']:,} images as chosen before; delete {kept} to choose again"
                    )
                return Curated(arrays["indices"], told["about"])
    except (OSError, ValueError, KeyError):
        pass
    curated = curate(
        source,
        images,
        curation,
        split=split,
        encoder=encoder,
        page=work_folder(out, split) / "duplicates.html",
        threads=threads,
        max_corrupt_fraction=max_corrupt_fraction,
    )
    file = io.BytesIO()
    np.savez(file, indices=curated.indices, told=np.array(json.dumps({"key": key, "about": curated.about})))
    write_atomically(kept, file.getvalue())
    return curated


def curate(
    source: str,
    images: Source,
    curation: Curation,
    *,
    split: str,
    encoder: Encoder | None,
    page: Path,
    threads: int = 1,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> Curated:
    """Choose images of a source: first duplicates are removed, then what is left is balanced or selected.

    Images that cannot be read are never chosen where features are needed; otherwise they are left to the packing.

    Args:
      source: name of the images.
      images: they themselves.
      curation: what is done.
      split: split of the source.
      encoder: whose features are compared.
      page: file that shows the duplicates; beside it a ``.jsonl`` lists them.
      threads: images that are read at a time.
      max_corrupt_fraction: share of unreadable images above which nothing is chosen.

    Raises:
      ValueError: more images are asked for than there are, or what the encoder finds wrong.
    """
    about: dict[str, Any] = {"images": len(images)}
    chosen = np.arange(len(images))
    duplicates: Duplicates | None = None
    if curation.dedup != "none":
        _say(f"looking for equal files among {len(images):,} images")
        duplicates = exact_duplicates(content_digests(images, chosen, threads=threads))
        about["equal"] = len(duplicates.removed)
        chosen = duplicates.kept
    features = np.zeros((0, 0), np.float32)
    if curation.needs_features:
        assert encoder is not None
        started = time.monotonic()
        readable, features = _features(source, split, chosen, encoder, max_corrupt_fraction)
        about["unreadable"] = len(chosen) - len(readable)
        _say(f"features of {len(readable):,} images in {time.monotonic() - started:.0f} s")
        if curation.dedup == "near":
            assert duplicates is not None
            near = near_duplicates(features, curation.threshold)
            about["near"] = len(near.removed)
            duplicates = join_duplicates(duplicates, _spread(near, chosen, readable))
            readable, features = readable[near.kept], features[near.kept]
        chosen = readable
    if duplicates is not None:
        about["labels_differ"] = _write_duplicates(images, duplicates, curation, page)
        print(f"{about['equal']} images with the bytes of another", end="")
        print(f", {about['near']} close to another" if curation.dedup == "near" else "", end="")
        print(f", {about['unreadable']} unreadable" if about.get("unreadable") else "", end="")
        print(f" left out of {len(images):,}, shown in {page}", flush=True)
    if curation.balance is not None or curation.select is not None:
        chosen = chosen[_select(features, curation)]
    about["chosen"] = len(chosen)
    if curation.shuffle:
        chosen = np.random.default_rng(curation.seed).permutation(chosen)
    return Curated(chosen.astype(np.int64), {**about, **dataclasses.asdict(curation)})


def _features(
    source: str, split: str, chosen: np.ndarray, encoder: Encoder, max_corrupt_fraction: float
) -> tuple[np.ndarray, Float[np.ndarray, "n d"]]:
    """The images that can be read, and unit features of each."""
    embedder, seen = open_embedder(
        encoder.name,
        source,
        split=split,
        step=encoder.step,
        size=encoder.size,
        max_corrupt_fraction=max_corrupt_fraction,
    )
    encoded, _ = encode_images(embedder, Subset(seen, chosen), tokens=False, batch_size=encoder.batch_size)
    norms = np.linalg.norm(encoded.features, axis=1, keepdims=True)
    return chosen[encoded.index], encoded.features / np.maximum(norms, 1e-12)


def _spread(near: Duplicates, chosen: np.ndarray, readable: np.ndarray) -> Duplicates:
    """Say of all chosen images what was found of those that can be read."""
    number = np.searchsorted(chosen, readable)
    kept_as, closest = np.arange(len(chosen), dtype=np.int32), np.full(len(chosen), -1, np.int32)
    similarity = np.full(len(chosen), -1.0, np.float32)
    kept_as[number] = number[near.kept_as]
    closest[number] = np.where(near.closest < 0, -1, number[near.closest])
    similarity[number] = near.similarity
    return Duplicates(kept_as, closest, similarity)


def _select(features: np.ndarray, curation: Curation) -> np.ndarray:
    """Positions of the images that are taken, in their order."""
    count = len(features)
    if curation.select is not None:
        check.require(
            curation.select <= count, "select", curation.select, f"at most {count}, the images that are left"
        )
    key = jax.random.key(curation.seed)
    if curation.balance is not None:
        fits = curation.balance <= count
        check.require(fits, "balance", curation.balance, f"at most {count}, the images that are left")
        labels = np.asarray(_cluster(key, features, curation.balance))
        return balance(labels, total=curation.select, seed=curation.seed)
    assert curation.select is not None
    if curation.selection == "k_center":
        return np.sort(k_center(features, curation.select).indices)
    levels = curation.levels or default_levels(count)
    return sample_hierarchy(hierarchical_kmeans(key, features, levels), curation.select, seed=curation.seed)


def _cluster(key: Array, features: np.ndarray, clusters: int) -> Array:
    return jax.jit(kmeans, static_argnames="clusters")(key, features, clusters=clusters).labels


def default_levels(count: int) -> tuple[int, ...]:
    """Return the numbers of clusters of a hierarchy: a tenth of the images, a hundredth, ..., down to 10; at least one level.

    >>> default_levels(25_000), default_levels(50)
    ((2500, 250, 25), (5,))
    """
    levels = [max(count // 10, 1)]
    while levels[-1] >= 100:
        levels.append(levels[-1] // 10)
    return tuple(levels)


def parse_levels(values: Sequence[str]) -> tuple[int, ...]:
    """Parse the numbers of clusters of a flag ``--levels``.

    Raises:
      ValueError: one is no integer of 1 or more.

    >>> parse_levels(["1000", " 10"])
    (1000, 10)
    """
    words = [value.strip() for value in values]
    fits = all(word.isascii() and word.isdigit() and len(word) <= 9 and int(word) for word in words)
    check.require(fits, "levels", ",".join(words), "integers of 1 or more, such as 1000,100")
    return tuple(map(int, words))


# The page


def _write_duplicates(images: Source, duplicates: Duplicates, curation: Curation, page: Path) -> int:
    """Write which images were removed, and a page that shows some; return how many have another label than what is kept."""
    labels = labels_of(images)
    removed = duplicates.removed
    kept = duplicates.kept_as[removed]
    lines = [
        json.dumps(
            {
                "removed": images.file_name(int(i)),
                "kept": images.file_name(int(j)),
                "cosine": round(float(duplicates.similarity[i]), 5),
                "index": int(i),
                "kept_index": int(j),
            }
        )
        for i, j in zip(removed, kept, strict=True)
    ]
    write_atomically(page.with_suffix(".jsonl"), "".join(f"{line}\n" for line in lines))
    differ = int(((labels[removed] != labels[kept]) & (labels[removed] >= 0) & (labels[kept] >= 0)).sum())
    write_atomically(page, duplicates_page(images, duplicates, curation.threshold, labels))
    return differ


def duplicates_page(
    images: Source, duplicates: Duplicates, threshold: float, labels: Int[np.ndarray, " n"]
) -> str:
    """Make the page that shows what was removed in place of what, and which pairs are the closest that stay.

    Groups come with those first in which the least similar image was removed: there a threshold that is too low shows.

    Args:
      images: the source.
      duplicates: what was found.
      threshold: cosine from which on images were removed.
      labels: ``[n]`` of the images.
    """
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for i in duplicates.removed.tolist():
        groups[int(duplicates.kept_as[i])].append(i)
    for members in groups.values():
        members.sort(key=lambda i: float(duplicates.similarity[i]))
    doubtful = sorted(groups, key=lambda kept: (float(duplicates.similarity[groups[kept][0]]), kept))
    compared = duplicates.kept[duplicates.closest[duplicates.kept] >= 0]
    close = compared[np.argsort(-duplicates.similarity[compared], kind="stable")][:_GROUPS]
    stay = [(int(duplicates.closest[i]), [int(i)]) for i in close]
    removed, shown = len(duplicates.removed), min(len(groups), _GROUPS)
    rows = "".join(
        f"<tr><td>{low:.2f} to {high:.2f}</td><td>{count}</td></tr>"
        for low, high, count in _histogram(duplicates.similarity[duplicates.closest >= 0])
    )
    parts = [
        f"<h1>Duplicates in {html.escape(images.name)}</h1>",
        f"<p>{len(images):,} images, {removed:,} removed in {len(groups):,} groups. Two images are duplicates where their "
        f"bytes are equal, or the cosine of their features is {threshold:g} or more.</p>",
        f"<h2>Removed: {shown} groups, the least similar first</h2>",
        *(_group(images, duplicates, labels, kept, groups[kept]) for kept in doubtful[:_GROUPS]),
    ]
    if stay:
        parts += [
            f"<h2>Kept: the {len(stay)} closest pairs</h2>",
            *(_group(images, duplicates, labels, first, rest) for first, rest in stay),
        ]
    parts.append(
        "<h2>Cosine of each image with the nearest one before it</h2>"
        f"<table><tr><th>cosine</th><th>images</th></tr>{rows}</table>"
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Duplicates</title><style>"
        "body{font:14px system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color-scheme:light dark}"
        ".group{display:flex;flex-wrap:wrap;gap:8px;padding:8px 0;border-bottom:1px solid #8885}"
        "figure{margin:0;width:130px;font-size:11px;overflow-wrap:anywhere}img{max-width:112px}"
        f"td,th{{padding:0 1em;text-align:right}}</style><body>{''.join(parts)}</body></html>"
    )


def _histogram(values: np.ndarray) -> list[tuple[float, float, int]]:
    counts, edges = np.histogram(np.clip(values, _BINS[0], _BINS[-1]), _BINS)
    return [
        (float(low), float(high), int(count))
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]


def _group(
    images: Source, duplicates: Duplicates, labels: np.ndarray, kept: int, others: Sequence[int]
) -> str:
    figures = [_figure(images, labels, kept, "kept")]
    figures += [
        _figure(images, labels, i, f"cosine {float(duplicates.similarity[i]):.4f}")
        for i in others[:_PICTURES]
    ]
    more = f"<p>and {len(others) - _PICTURES} more</p>" if len(others) > _PICTURES else ""
    return f"<div class=group>{''.join(figures)}{more}</div>"


def _figure(images: Source, labels: np.ndarray, index: int, told: str) -> str:
    label, name = int(labels[index]), images.file_name(index)
    named = f", {images.classes[label]}" if 0 <= label < len(images.classes) else ""
    try:
        picture = f'<img alt="" src="{data_uri(shrink(images[index]["image"], _SIDE))}">'
    except CorruptImage as error:
        picture = html.escape(error.reason)
    return f"<figure>{picture}<figcaption>{told}{html.escape(named)}<br>{html.escape(name)}</figcaption></figure>"
