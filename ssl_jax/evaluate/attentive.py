"""Attentive probes: one learned query that looks at the tokens of an encoder, beside linear heads, for several layers."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Key, Params, State
from ssl_jax.data.sources import take_evenly
from ssl_jax.evaluate.knn import check_labels
from ssl_jax.evaluate.linear import hold_out
from ssl_jax.evaluate.measure import Column, Measure, Row, Subject, probe_arrays
from ssl_jax.evaluate.sweep import BATCH_SIZE, HOLDOUT, SweepResult, edges_of_grid, linear_sweep
from ssl_jax.models.network import Network, prefix_of
from ssl_jax.train.features import AnyArray

LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
WEIGHT_DECAYS = (0.0, 0.1)
BETAS = (0.9, 0.95)
WARMUP = 0.1
"""Share of the steps in which the learning rate rises."""
DEVIATION = 0.02
"""Standard deviation of the weights at the start, cut off at twice as much."""
STEPS = 400
"""Steps at least of the measure's heads, on few images by more passes over them than 10."""
HEAD_WIDTH = 64
"""Width of an attention head, where it divides the tokens'."""
IMAGES = 10_000
"""Training images at most, and test images at most, whose tokens the measure keeps."""
MIB = 1024
"""Memory at most, in MiB, that the tokens of one layer of either may take; fewer images are taken where it does not do."""
POSITIONS = 256
"""Patches of a map at most: larger ones are averaged over windows."""
LAYERS = 3
"""Number of layers of the measure, at even distances, the last one among them."""
_EPSILON = 1e-6
_BLOCK = 256  # examples whose logits are computed at a time


def init_heads(key: Key, *, width: int, heads: int, classes: int, cells: int) -> dict[str, Array]:
    """Draw attentive probes, one for each cell of a grid, all alike at the start.

    Args:
      key: used once.
      width: d, width of the tokens.
      heads: number of attention heads, a divisor of the width.
      classes: number of classes.
      cells: g, number of probes.

    Returns:
      ``query [g, heads, d/heads]``, ``key`` and ``value [g, d, heads, d/heads]``, ``classifier [g, heads, d/heads, classes]``,
      normal with deviation .02, cut off at twice as much; ``value_bias`` and ``bias``, zeros.

    >>> {name: part.shape for name, part in init_heads(jax.random.key(0), width=4, heads=2, classes=3, cells=5).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'query': (5, 2, 2), 'key': (5, 4, 2, 2), 'value': (5, 4, 2, 2), 'classifier': (5, 2, 2, 3), 'value_bias': (5, 2, 2),
     'bias': (5, 3)}
    """
    check.require(heads >= 1 and width % heads == 0, "heads", heads, f"a divisor of the width, {width}")
    part = width // heads
    shapes = {
        "query": (heads, part),
        "key": (width, heads, part),
        "value": (width, heads, part),
        "classifier": (heads, part, classes),
    }
    drawn = {
        name: DEVIATION * jax.random.truncated_normal(jax.random.fold_in(key, i), -2.0, 2.0, shape)
        for i, (name, shape) in enumerate(shapes.items())
    }
    drawn |= {"value_bias": jnp.zeros((heads, part)), "bias": jnp.zeros(classes)}
    return {name: jnp.broadcast_to(value, (cells, *value.shape)) for name, value in drawn.items()}


def attentive_logits(
    params: Mapping[str, Array], tokens: Float[AnyArray, "b l d"]
) -> Float[Array, "b g classes"]:
    """Compute the logits of g attentive probes.

    ``logits = [o_1; ...; o_H] W_c + b_c`` with ``o_h = Σ_l a_hl (W_v,h x_l + b_v,h)`` and
    ``a_h = softmax_l(q_h · W_k,h x_l / √(d/H))``: attention of one query without projections of query and output, MLP or
    residual. The order of the tokens does not matter.

    A bias of the keys would change nothing, as it adds one number to all scores. Computed in an order that is cheap with one
    query, ``q_h W_k,h`` first and ``W_v,h`` of the mixed tokens last: the same function and gradients.

    Args:
      params: see :func:`init_heads`.
      tokens: l tokens of each example.

    Reference: Darcet et al., CAPI (2025), eval_classification.py; El-Nouby et al., AIM (2024).
    """
    width = params["query"].shape[-1]
    keys = jnp.einsum("gdhe,ghe->dgh", params["key"], params["query"]) * width**-0.5
    attention = jax.nn.softmax(jnp.einsum("bld,dgh->blgh", tokens, keys), axis=1)
    mixed = jnp.einsum("blgh,bld->bghd", attention, tokens)
    values = jnp.einsum("bghd,gdhe->bghe", mixed, params["value"]) + params["value_bias"]
    return jnp.einsum("bghe,ghec->bgc", values, params["classifier"]) + params["bias"]


def attentive_sweep(
    train_tokens: Float[AnyArray, "n l d"],
    train_labels: Int[AnyArray, " n"],
    test_tokens: Float[AnyArray, "m l d"],
    test_labels: Int[AnyArray, " m"],
    *,
    classes: int,
    heads: int | None = None,
    learning_rates: tuple[float, ...] = LEARNING_RATES,
    weight_decays: tuple[float, ...] = WEIGHT_DECAYS,
    epochs: int = 10,
    batch_size: int = BATCH_SIZE,
    holdout: float = HOLDOUT,
    seed: int = 0,
) -> SweepResult:
    """Measure the accuracy of an attentive probe, its learning rate and weight decay from a grid.

    The probe is that of :func:`attentive_logits`, of tokens that are standardized: mean 0 and variance 1 of each dimension over
    the tokens of all training examples. Trained by AdamW (.9, .95) on the mean cross entropy of minibatches, with a learning
    rate that rises linearly in the first tenth of the steps and falls to 0 by a cosine; no decay of query and biases. All cells
    of the grid are trained at once and see the same minibatches. The best is chosen on a random ``holdout`` share of the
    *training* set (of equals the smallest learning rate, then the largest decay), and trained again on all of it. The test set
    is used once.

    Args:
      train_tokens: tokens that the probe is trained on, any float type.
      train_labels: their labels, in [0, ``classes``).
      test_tokens: tokens of the final accuracy.
      test_labels: their labels, in [0, ``classes``).
      classes: number of classes.
      heads: attention heads, a divisor of d; ``None``: d/64, or 1 where 64 does not divide it.
      learning_rates: learning rates of the grid, each above 0; they are not scaled with the batch.
      weight_decays: weight decays of the grid, each 0 or more.
      epochs: passes over the examples, 1 or more; an epoch's last incomplete minibatch is left out.
      batch_size: examples a step, 1 to the number that is left to fit.
      holdout: share in (0, 1) of the training set that chooses.
      seed: seed of the held-out draw, the start and the order of the examples.

    Returns:
      As of :func:`ssl_jax.evaluate.sweep.linear_sweep`.

    Raises:
      ValueError: labels, a rate, a decay, a size or a number of heads out of range, an empty grid or part.

    >>> x, y = np.eye(2, dtype=np.float32)[np.arange(64) % 2][:, None], np.arange(64) % 2
    >>> attentive_sweep(x, y, x, y, classes=2, learning_rates=(0.1,), weight_decays=(0.0,), epochs=5, batch_size=16).accuracy
    1.0

    Reference: Darcet et al., CAPI (2025), whose probe and grid in one program it is; El-Nouby et al., AIM (2024), for the
      standardized tokens (BatchNorm there). Deviations: frozen features of images without augmentation, so that the encoder
      runs once, shorter training, and a learning rate that is not scaled with the batch.
    """
    check_labels("train_labels", train_labels, classes)
    check_labels("test_labels", test_labels, classes)
    rates, decays = sorted(learning_rates), sorted(weight_decays)
    check.require(bool(rates) and rates[0] > 0, "learning_rates", learning_rates, "numbers above 0")
    check.require(bool(decays) and decays[0] >= 0, "weight_decays", weight_decays, "numbers of 0 or more")
    check.require(epochs >= 1, "epochs", epochs, "an integer of 1 or more")
    held_out, rest = hold_out(len(train_labels), holdout=holdout, seed=seed)
    allowed = f"an integer in [1, {len(rest)}], the training examples that are not held out"
    check.require(1 <= batch_size <= len(rest), "batch_size", batch_size, allowed)
    width = train_tokens.shape[-1]
    if heads is None:
        heads = width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else 1
    moments = _moments(train_tokens)
    cells = np.array([(rate, decay) for rate in rates for decay in reversed(decays)], np.float32)
    key, labels = jax.random.key(seed), np.asarray(train_labels)

    def fit(rows: np.ndarray | slice, chosen: np.ndarray) -> Params:
        start = init_heads(
            jax.random.fold_in(key, 0), width=width, heads=heads, classes=classes, cells=len(chosen)
        )
        arrays = jnp.asarray(train_tokens[rows]), jnp.asarray(labels[rows]), moments, jnp.asarray(chosen)
        return _train(jax.random.fold_in(key, 1), start, *arrays, epochs=epochs, batch_size=batch_size)

    validation = _accuracies(fit(rest, cells), train_tokens[held_out], labels[held_out], moments)
    best = int(np.argmax(validation))
    head = fit(slice(None), cells[best : best + 1])
    accuracy = float(_accuracies(head, test_tokens, np.asarray(test_labels), moments)[0])
    rate, decay = rates[best // len(decays)], decays[::-1][best % len(decays)]
    return SweepResult(
        accuracy,
        rate,
        decay,
        float(validation[best]),
        validation.reshape(len(rates), len(decays))[:, ::-1],
        tuple(rates),
        tuple(decays),
        edges_of_grid(rate, decay, rates, decays),
    )


def _moments(tokens: AnyArray) -> tuple[Array, Array]:
    """Mean and 1 / deviation of each dimension over all tokens; 0 for constant ones. A block at a time."""
    blocks = [np.asarray(tokens[i : i + _BLOCK], np.float64) for i in range(0, len(tokens), _BLOCK)]
    count = tokens.shape[0] * tokens.shape[1]
    mean = sum(block.sum(axis=(0, 1)) for block in blocks) / count
    std = np.sqrt(sum(((block - mean) ** 2).sum(axis=(0, 1)) for block in blocks) / count)
    constant = std <= _EPSILON * np.abs(mean)
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, std))
    return jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)


def _standardize(tokens: Array, moments: tuple[Array, Array]) -> Array:
    return (at_least_float32(tokens) - moments[0]) * moments[1]


@functools.partial(jax.jit, static_argnames=("epochs", "batch_size"))
def _train(
    key: Key,
    params: Params,
    tokens: Array,
    labels: Array,
    moments: tuple[Array, Array],
    cells: Array,
    *,
    epochs: int,
    batch_size: int,
) -> Params:
    """Train probes with ``cells`` [g, (rate, decay)] from ``params``."""
    examples = len(tokens)
    steps = examples // batch_size
    rule = optax.scale_by_adam(*BETAS)
    decayed = {name: name in ("key", "value", "classifier") for name in params}

    def loss(params: Params, rows: Array) -> Array:
        logits = attentive_logits(params, _standardize(tokens[rows], moments))
        # Each cell's parameters meet its own logits only: the gradient of the sum is that of each.
        right = jnp.take_along_axis(
            jax.nn.log_softmax(logits), labels[rows][:, None, None].astype(jnp.int32), axis=-1
        )
        return -jnp.sum(jnp.mean(right, axis=0))

    def step(carry: tuple[Params, Any], now: tuple[Array, Array]):
        (params, state), (time, rows) = carry, now
        rates = cells[:, 0] * _schedule(time, epochs * steps)
        updates, state = rule.update(jax.grad(loss)(params, rows), state)

        def move(value: Array, update: Array, decays: bool) -> Array:
            shape = (-1,) + (1,) * (value.ndim - 1)
            decay = cells[:, 1].reshape(shape) * value if decays else 0.0
            return value - rates.reshape(shape) * (update + decay)

        return (jax.tree.map(move, params, updates, decayed), state), None

    def epoch(carry: tuple[Params, Any], number: Array):
        order = jax.random.permutation(jax.random.fold_in(key, number), examples)[: steps * batch_size]
        times = (number * steps + jnp.arange(steps)).astype(jnp.float32)
        return jax.lax.scan(step, carry, (times, order.reshape(steps, batch_size)))

    return jax.lax.scan(epoch, (params, rule.init(params)), jnp.arange(epochs))[0][0]


def _schedule(time: Array, steps: int) -> Array:
    """Share of the learning rate at a step: up by a line, down by a cosine to 0 at the end."""
    rise = max(WARMUP * steps, 1.0)
    fall = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.maximum(time - rise, 0.0) / max(steps - rise, 1.0)))
    return jnp.minimum((time + 1.0) / rise, 1.0) * fall


@jax.jit
def _right(params: Params, tokens: Array, labels: Array, moments: tuple[Array, Array]) -> Array:
    """Count the examples that each cell [g] gets right; what is not finite is not right."""
    logits = attentive_logits(params, _standardize(tokens, moments))
    right = (jnp.argmax(logits, axis=-1) == labels[:, None]) & jnp.isfinite(logits).all(axis=-1)
    return jnp.sum(right, axis=0)


def _accuracies(
    params: Params, tokens: AnyArray, labels: np.ndarray, moments: tuple[Array, Array]
) -> np.ndarray:
    """Compute the share of the examples that each cell [g] gets right, a block at a time."""
    counts = [
        np.asarray(_right(params, tokens[i : i + _BLOCK], labels[i : i + _BLOCK], moments))
        for i in range(0, len(labels), _BLOCK)
    ]
    return np.sum(counts, axis=0) / len(labels)


class LayerTokens(NamedTuple):
    """Tokens of a layer.

    Attributes:
      class_token: ``[b, d]``; ``None``: the encoder has none.
      patches: ``[b, l, d]``, of a ViT or the places of a map.
    """

    class_token: AnyArray | None
    patches: AnyArray


def layer_names(network: Network, params: Params, state: State, images: Any) -> tuple[str, ...]:
    """Name the layers whose tokens can be read, from the first to the last; ``tokens`` is a ViT's last after its normalization.

    Args:
      network: encoder with ``output="layers"``.
      params: its params, or their shapes.
      state: its state, likewise.
      images: images ``[b, h, w, c]``, or their shape.

    Raises:
      ValueError: an encoder without any.
    """
    names: list[str] = []

    def note(params: Params, state: State, images: Array) -> None:
        try:
            outputs, _ = network.apply(params, state, images, train=False, output="layers")
        except ValueError as error:
            if "output='layers'" not in str(error):
                raise
            name = network.config.get("name")
            raise ValueError(f"{name} has no tokens of layers, as ViTs and CNNs have") from error
        names.extend(outputs)

    jax.eval_shape(note, params, state, images)
    return (*names[:-1], "tokens") if "class_token" in network.config else tuple(names)


def layer_tokens(network: Network, params: Params, state: State, images: Array, layer: str) -> LayerTokens:
    """Compute the tokens of one layer; may be traced.

    Maps of more than 256 places are averaged over the smallest square windows that leave at most so many.

    Args:
      network: encoder with ``output="layers"``.
      params: its params.
      state: its state.
      images: normalized images ``[b, h, w, c]``.
      layer: name of :func:`layer_names`.

    >>> from ssl_jax.models import build
    >>> network, images = build("convnet", widths=(4, 6), grid=1), jnp.zeros((2, 8, 12, 3))
    >>> variables = network.init(jax.random.key(0), images)
    >>> name = layer_names(network, *variables, images)[0]
    >>> jax.eval_shape(lambda *given: layer_tokens(network, *given, name), *variables, images).patches.shape
    (2, 24, 4)
    """
    own = layer == "tokens"
    outputs, _ = network.apply(params, state, images, train=False, output="tokens" if own else "layers")
    tokens = at_least_float32(outputs if own else outputs[layer])
    if tokens.ndim == 4:
        return LayerTokens(None, _shrink(tokens))
    has_class = bool(network.config["class_token"])
    return LayerTokens(tokens[:, 0] if has_class else None, tokens[:, prefix_of(network) :])


def _shrink(maps: Array) -> Array:
    """Average maps over windows, and list their places ``[b, l, c]``."""
    factor = 1
    while -(-maps.shape[1] // factor) * -(-maps.shape[2] // factor) > POSITIONS:
        factor += 1
    window, ones = (1, factor, factor, 1), jnp.ones_like(maps[:1, :, :, :1])
    sums, counts = (
        jax.lax.reduce_window(part, 0.0, jax.lax.add, window, window, "SAME") for part in (maps, ones)
    )
    small = sums / counts
    return small.reshape(len(small), -1, small.shape[-1])


def probe_inputs(tokens: LayerTokens) -> dict[str, dict[str, Array]]:
    """List what probes are given of a layer: ``linear`` heads a vector, ``attentive`` ones tokens.

    ``class`` is the class token (a single token leaves attention nothing to choose), ``patches`` the patches, their mean for
    linear heads, ``both`` all of them, class token and mean side by side for linear heads.

    >>> tokens = LayerTokens(jnp.zeros((2, 3)), jnp.ones((2, 4, 3)))
    >>> {head: {name: x.shape for name, x in inputs.items()} for head, inputs in probe_inputs(tokens).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'linear': {'patches': (2, 3), 'class': (2, 3), 'both': (2, 6)},
     'attentive': {'patches': (2, 4, 3), 'both': (2, 5, 3)}}
    """
    first, patches = tokens
    patches = jnp.asarray(patches)
    mean = jnp.mean(patches, axis=1)
    linear, attentive = {"patches": mean}, {"patches": patches}
    if first is not None:
        first = jnp.asarray(first)
        linear |= {"class": first, "both": jnp.concatenate([first, mean], axis=1)}
        attentive["both"] = jnp.concatenate([first[:, None], patches], axis=1)
    return {"linear": linear, "attentive": attentive}


def choose_layers(names: tuple[str, ...], count: int = LAYERS) -> tuple[str, ...]:
    """Choose layers at even distances, the last one among them.

    >>> choose_layers(tuple("abcdefghijkl"), 3), choose_layers(("a", "b"), 3)
    (('d', 'h', 'l'), ('a', 'b'))
    """
    count = min(count, len(names))
    return tuple(names[(i + 1) * len(names) // count - 1] for i in range(count))


def _measure(subject: Subject) -> Row:
    """Both kinds of heads for every kind of tokens of several layers; the numbers of the table are chosen by validation."""
    method = subject.encoder.method
    network, variables = method.encoder, (subject.encoder.params, subject.encoder.state)
    size = method.views[0].size
    image = jax.ShapeDtypeStruct((1, size, size, subject.sources[0].channels), jnp.float32)
    own: tuple[Params, State] = jax.eval_shape(method.encoder_variables, *variables)
    rows: list[Row] = []
    counts: tuple[int, int] = (0, 0)
    layers = choose_layers(layer_names(network, own[0], own[1], image))
    shapes = [_shapes_of(network, own, image, layer) for layer in layers]
    fit = min(MIB * 2**20 // (4 * shape[0] * shape[1]) for shape in shapes)
    parts = [take_evenly(source, max(min(IMAGES, fit), 2)) for source in subject.sources]
    for layer, (places, width, has_class) in zip(layers, shapes, strict=True):

        def encode(params: Params, state: State, images: Array, layer: str = layer) -> Array:
            found = layer_tokens(network, *method.encoder_variables(params, state), images, layer)
            first = [] if found.class_token is None else [found.class_token[:, None]]
            return jnp.concatenate([*first, found.patches], axis=1).reshape(len(images), -1)

        train, test = (subject.encode(part, encode) for part in parts)
        arrays = probe_arrays(train, test, subject.sources[0].classes)
        counts = (len(arrays[1]), len(arrays[3]))
        tokens = [np.asarray(part).reshape(-1, places, width) for part in (arrays[0], arrays[2])]
        rows += _probe_layer(layer, tokens, arrays[1::2], has_class=has_class, classes=subject.classes)
    best = {
        head: max((row for row in rows if row["head"] == head), key=lambda row: row["validation"])
        for head in ("linear", "attentive")
    }
    return {
        "attentive": best["attentive"]["accuracy"],
        "attentive_linear": best["linear"]["accuracy"],
        "attentive_sweep": {"images": counts, "chosen": best, "rows": rows},
    }


def _shapes_of(network: Network, variables: Any, image: Any, layer: str) -> tuple[int, int, bool]:
    """Count the tokens of a layer, class token included, their width, and tell whether there is a class token."""
    compute = functools.partial(layer_tokens, network, layer=layer)
    found = jax.eval_shape(compute, *variables, image)
    has_class = found.class_token is not None
    return found.patches.shape[1] + has_class, found.patches.shape[2], has_class


def _probe_layer(
    layer: str, tokens: list[np.ndarray], labels: Any, *, has_class: bool, classes: int
) -> list[Row]:
    """Fit all heads to the tokens of a layer, of training and test images."""
    split = [LayerTokens(x[:, 0] if has_class else None, x[:, int(has_class) :]) for x in tokens]
    train, test = (probe_inputs(part) for part in split)
    _, rest = hold_out(len(labels[0]), holdout=HOLDOUT, seed=0)
    batch_size = min(BATCH_SIZE, len(rest))
    epochs = max(10, -(-STEPS // (len(rest) // batch_size)))
    rows = []
    for head, sweep in (("linear", linear_sweep), ("attentive", attentive_sweep)):
        for name in train[head]:
            arrays = train[head][name], labels[0], test[head][name], labels[1]
            found = sweep(*arrays, classes=classes, epochs=epochs, batch_size=batch_size)
            chosen = {
                key: getattr(found, key)
                for key in ("accuracy", "validation", "learning_rate", "weight_decay", "at_edge")
            }
            rows.append({"layer": layer, "tokens": name, "head": head, **chosen})
    return rows


MEASURE = Measure(
    "attentive",
    frozenset({"encoder", "labels"}),
    (
        Column("attentive", "attentive", "attentive probe"),
        Column("attentive_linear", "linear, same layers", "linear probe of the same layers"),
    ),
    _measure,
)
