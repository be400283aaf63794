"""What is measured of encoders and yardsticks, and how: the body of ``experiments.evaluate``."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.config import build
from ssl_jax.core.check import choice
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Source, evenly
from ssl_jax.evaluate import health
from ssl_jax.evaluate import measures as suite
from ssl_jax.evaluate.baselines import pca, pixels
from ssl_jax.evaluate.finetune import finetune
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.layers import pooled
from ssl_jax.evaluate.linear import ridge
from ssl_jax.evaluate.rotation import rotation_proxy
from ssl_jax.methods.method import Method
from ssl_jax.ops import clustering_scores as clusters
from ssl_jax.ops.tiles import rotate
from ssl_jax.train.features import Features, extract_source
from ssl_jax.train.sharding import batch_sharding, make_mesh

YARDSTICKS = ("pixels", "pca", "random")
COMPONENTS = 64
"""Principal components of the yardstick: probes scale each to the same variance, so that many would be mostly noise."""
OF_ENCODERS = ("rotation", "health", "layers", "finetune")
"""Measures that need an encoder, not only features."""
Row = dict[str, Any]


class Candidate(NamedTuple):
    """Something to be measured: an encoder with its weights."""

    name: str
    role: str
    method: Method
    params: Any
    state: Any


def asked(measures: Sequence[str]) -> tuple[str, ...]:
    """The measures of ``--measures``, or all.

    Raises:
      ValueError: an unknown one; names the nearest.
    """
    known = (*suite.MEASURES, *OF_ENCODERS)
    if tuple(measures) == ("all",):
        return known
    return tuple(choice("measures", name, (*known, "all")) for name in measures)


def evaluate(
    config: build.Config,
    candidates: Sequence[Candidate],
    sources: Sequence[Source],
    *,
    measures: Sequence[str],
    yardsticks: Sequence[str],
) -> dict[str, Any]:
    """Rows of pixels and principal components, as asked for, and of all candidates; the layers of the last one.

    Args:
      config: of the run: its ``evaluate`` options.
      candidates: encoders; the last is the one that the evaluation is about.
      sources: training and test images.
      measures: by name.
      yardsticks: of ``pixels`` and ``pca``.

    Returns:
      ``{"examples": [n_train, n_test], "rows": [...], "layers": [...]}``, JSON-able.
    """
    options = config["watch"]["evaluate"]
    wanted = [name for name in measures if name in suite.MEASURES]
    classes = len(sources[0].classes)

    def row(name: str, role: str, train: Features, test: Features) -> Row:
        found = suite.measure(
            train,
            test,
            classes=classes,
            measures=wanted,
            k=options["k"],
            temperature=options["temperature"],
            per_class=options["per_class"],
            draws=options["draws"],
        )
        tell(f"measured {name}")
        return {"features": name, "role": role, "dims": train.features.shape[1], **found}

    crop_ratio, last = options["crop_ratio"], candidates[-1]
    rows = []
    if "pixels" in yardsticks or "pca" in yardsticks:
        raw = [features(s, pixels, (), last.method, crop_ratio) for s in sources]
        if "pixels" in yardsticks:
            rows.append(row("raw pixels", "yardstick", *raw))
        if "pca" in yardsticks:
            dims = min(COMPONENTS, raw[0].features.shape[1])
            axes = pca(raw[0].features, raw[1].features, dims=dims)
            reduced = [part._replace(features=x) for part, x in zip(raw, axes, strict=True)]
            rows.append(row(f"PCA of pixels, {dims} components", "yardstick", *reduced))
    for candidate in candidates:
        variables = (candidate.params, candidate.state)
        train, test = (
            features(s, candidate.method.encode, variables, candidate.method, crop_ratio) for s in sources
        )
        found = row(candidate.name, candidate.role, train, test)
        rows.append(found | of_encoder(candidate, sources, train.labels, measures, crop_ratio))
    layers = layer_rows(last, sources, options) if "layers" in measures else []
    return {"examples": [len(source) for source in sources], "rows": rows, "layers": layers}


def tell(text: str) -> None:
    """Print, once for all processes."""
    if jax.process_index() == 0:
        print(text, flush=True)


def labelled(config: build.Config, spec: str, split: str) -> Source:
    """A split of the images to evaluate on.

    Raises:
      ValueError: it has no labels.
    """
    source = build.source(config, spec, split)
    if not source.classes:
        raise ValueError(
            f"{spec} ({split}) has no labels, which evaluation needs: put the images into one folder a class, or give "
            "--source with labels; experiments.embed works without"
        )
    return source


def features(
    source: Source, encode: Callable[..., Any], variables: tuple[Any, ...], method: Method, crop_ratio: float
) -> Features:
    """Features of every example of a source, encoded by all devices."""
    return extract_source(
        encode,
        source,
        view=method.views[0],
        variables=variables,
        sharding=batch_sharding(make_mesh()),
        crop_ratio=crop_ratio,
    )


def classified(
    source: Source, method: Method, variables: tuple[Any, ...], crop_ratio: float
) -> dict[str, float]:
    """Share of the images that each classifier of a method gets right, by its name; nothing for methods without any.

    Args:
      source: labelled images.
      method: with or without ``classify``.
      variables: params and state.
      crop_ratio: see :func:`ssl_jax.data.loader.epoch`.
    """
    classify, size = method.classify, method.views[0].size
    if classify is None:
        return {}
    shape = jax.ShapeDtypeStruct((1, size, size, source.channels), jnp.float32)
    names = sorted(jax.eval_shape(classify, *variables, shape))

    def chosen(params: Any, state: Any, images: jax.Array) -> jax.Array:
        logits = classify(params, state, images)
        return jnp.stack([jnp.argmax(logits[name], axis=-1) for name in names], axis=1)

    found = features(source, chosen, variables, method, crop_ratio)
    right = np.mean(found.features == found.labels[:, None], axis=0)
    return {name: float(share) for name, share in zip(names, right, strict=True)}


def of_encoder(
    candidate: Candidate,
    sources: Sequence[Source],
    labels: np.ndarray,
    measures: Sequence[str],
    crop_ratio: float,
) -> Row:
    """Measures that need the encoder itself."""
    method, row = candidate.method, Row()
    if candidate.role != "yardstick":
        row |= classified(sources[1], method, (candidate.params, candidate.state), crop_ratio)
    if "health" in measures:
        views = health.two_views(sources[1], method.views[0], images=1024, crop_ratio=crop_ratio)
        encode = jax.jit(method.encode)
        both = jnp.stack([encode(candidate.params, candidate.state, view) for view in views], axis=1)
        row["health"] = {name: float(value) for name, value in health.measure(both).items()}
    if "rotation" in measures:
        row["rotation"] = rotation(candidate, sources, crop_ratio)
    if "finetune" in measures:
        weights = method.encoder_variables(candidate.params, candidate.state)
        for percent in (1, 10):
            if percent * len(sources[0]) >= 100 * len(sources[0].classes):
                options: dict[str, Any] = {"view": method.views[0], "crop_ratio": crop_ratio}
                done = finetune(
                    method.encoder, *weights, *sources, labels=labels, share=percent / 100, **options
                )
                row[f"finetune_{percent}_percent"] = done.accuracy
    return row


def cluster_rows(config: build.Config, candidate: Candidate) -> list[Row]:
    """Scores of the clusters in which a run has put its training images, one row a head; nothing for other methods.

    Scores against classes are ``None`` where those images have none.
    """
    refresh = candidate.method.refresh
    if refresh is None or refresh.cluster_labels is None:
        return []
    now, before = (np.asarray(x) for x in refresh.cluster_labels(candidate.state))
    source = build.source(config, config["data"]["source"], config["data"]["split"])
    with epoch(
        source, batch_size=256, size=candidate.method.views[0].size, max_corrupt_fraction=1.0
    ) as batches:
        seen = [(batch["index"][batch["mask"]], batch["label"][batch["mask"]]) for batch in batches]
    index, labels = (np.concatenate(column) for column in zip(*seen, strict=True))
    return [
        {
            "head": head + 1,
            "used": len(np.unique(own[own >= 0])),
            "purity": number(clusters.purity(own, labels)),
            "nmi_classes": number(clusters.normalized_mutual_information(own, labels)),
            "nmi_before": number(clusters.normalized_mutual_information(own, last)),
            "changed": number(clusters.changed(own, last)),
        }
        for head, (own, last) in enumerate(zip(now[:, index], before[:, index], strict=True))
    ]


def number(value: float) -> float | None:
    """``None`` for NaN, which JSON does not have.

    >>> number(float("nan")), number(0.5)
    (None, 0.5)
    """
    return None if np.isnan(value) else value


def rotation(candidate: Candidate, sources: Sequence[Source], crop_ratio: float) -> float:
    """Accuracy of telling by how much an image was turned, from frozen features of a few thousand images."""

    def encode(params: Any, state: Any, images: jax.Array) -> jax.Array:
        turned = rotate(images)
        found = candidate.method.encode(params, state, turned.reshape(-1, *turned.shape[2:]))
        return found.reshape(images.shape[0], -1)

    variables = (candidate.params, candidate.state)
    train, test = (
        features(evenly(source, count), encode, variables, candidate.method, crop_ratio).features
        for source, count in zip(sources, (4000, 2000), strict=True)
    )
    width = candidate.method.encoder.features
    return rotation_proxy(train.reshape(-1, 4, width), test.reshape(-1, 4, width)).accuracy


def layer_rows(candidate: Candidate, sources: Sequence[Source], options: build.Config) -> list[Row]:
    """kNN and ridge accuracy of every layer and pooling, on at most 10,000 training images."""
    method = candidate.method
    facts = method.encoder.config
    prefix = int(facts.get("class_token", 0)) + int(facts.get("registers", 0))
    weights = method.encoder_variables(candidate.params, candidate.state)

    def parts(params: Any, state: Any, images: jax.Array) -> dict[str, jax.Array]:
        return pooled(method.encoder.apply(params, state, images, output="layers")[0], prefix)

    def encode(params: Any, state: Any, images: jax.Array) -> jax.Array:
        return jnp.concatenate(list(parts(params, state, images).values()), axis=-1)

    view = method.views[0]
    image = jax.ShapeDtypeStruct((1, view.size, view.size, sources[0].channels), jnp.float32)
    # Names from the shapes alone; a jitted dict would come back in the order of its keys.
    widths: dict[str, int] = {}

    def note(params: Any, state: Any, images: jax.Array) -> None:
        widths.update({name: part.shape[-1] for name, part in parts(params, state, images).items()})

    jax.eval_shape(note, *weights, image)
    train, test = (
        features(s, encode, weights, method, options["crop_ratio"])
        for s in (evenly(sources[0], 10_000), sources[1])
    )
    classes, rows, at = len(sources[0].classes), [], 0
    for name, width in widths.items():
        cut = functools.partial(np.take, indices=range(at, at + width), axis=1)
        arrays = (cut(train.features), train.labels, cut(test.features), test.labels)
        near = knn_accuracy(*arrays, classes=classes, k=min(options["k"], len(train.labels)))
        rows.append(
            {"layer": name, "dims": width, "knn": near, "ridge": ridge(*arrays, classes=classes).accuracy}
        )
        at += width
    tell(f"measured {len(rows)} layers and poolings")
    return rows
