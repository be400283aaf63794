"""Attentive probes against attention written out, against optax step by step, and on tokens that only attention can read."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate import attentive
from ssl_jax.evaluate.attentive import (
    MEASURE,
    attentive_logits,
    attentive_sweep,
    choose_layers,
    init_heads,
    layer_names,
    layer_tokens,
)
from ssl_jax.evaluate.measure import Candidate, Options, Subject
from ssl_jax.methods.method import Method
from ssl_jax.train.features import Features

compute_logits = jax.jit(attentive_logits)


def random_heads(width=6, heads=2, classes=3, cells=2):
    params = init_heads(jax.random.key(0), width=width, heads=heads, classes=classes, cells=cells)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def logits_by_hand(params, tokens, cell):
    """Keys and values of every token, one query, one head after the other."""
    query, key, value = (np.asarray(params[name][cell], np.float64) for name in ("query", "key", "value"))
    heads, part = query.shape
    logits = np.zeros((len(tokens), params["bias"].shape[-1]))
    for b, example in enumerate(np.asarray(tokens, np.float64)):
        outputs = []
        for h in range(heads):
            keys, values = (
                example @ key[:, h],
                example @ value[:, h] + np.asarray(params["value_bias"][cell, h]),
            )
            scores = np.exp(keys @ query[h] / np.sqrt(part))
            outputs.append(scores / scores.sum() @ values)
        classifier = np.asarray(params["classifier"][cell]).reshape(heads * part, -1)
        logits[b] = np.concatenate(outputs) @ classifier + np.asarray(params["bias"][cell])
    return logits


def test_logits_are_those_of_attention_written_out():
    params, tokens = random_heads(), np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    found = compute_logits(params, tokens)
    for cell in range(2):
        np.testing.assert_allclose(found[:, cell], logits_by_hand(params, tokens, cell), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(compute_logits(params, tokens[:, ::-1]), found, rtol=1e-4, atol=1e-4)


def test_a_query_of_zeros_takes_the_mean_of_the_values():
    params, tokens = random_heads(), np.random.default_rng(1).normal(size=(4, 5, 6)).astype(np.float32)
    params["query"] = jnp.zeros_like(params["query"])
    mean = np.repeat(tokens.mean(axis=1, keepdims=True), 5, axis=1)
    np.testing.assert_allclose(
        compute_logits(params, tokens), compute_logits(random_heads(), mean), rtol=1e-4, atol=1e-4
    )


def test_training_is_adamw_of_each_cell_by_itself():
    """Whole batches: the order of the examples does not matter."""
    rng = np.random.default_rng(2)
    tokens, labels = rng.normal(size=(12, 4, 6)).astype(np.float32), rng.integers(0, 3, 12)
    cells, steps = np.array([(0.01, 0.3), (0.03, 0.0)], np.float32), 20
    start, moments = random_heads(), (jnp.zeros(6), jnp.ones(6))
    found = attentive._train(
        jax.random.key(5), start, jnp.asarray(tokens), jnp.asarray(labels), moments, jnp.asarray(cells),
        epochs=steps, batch_size=12,
    )  # fmt: skip

    def loss(params):
        query, key, value = params["query"], params["key"], params["value"]
        keys, values = jnp.einsum("bld,dhe->blhe", tokens, key), jnp.einsum("bld,dhe->blhe", tokens, value)
        scores = jax.nn.softmax(jnp.einsum("blhe,he->blh", keys, query) / 3**0.5, axis=1)
        mixed = jnp.einsum("blh,blhe->bhe", scores, values + params["value_bias"])
        logits = jnp.einsum("bhe,hec->bc", mixed, params["classifier"]) + params["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()

    # Two steps of warm-up: half the rate, then all of it, which falls from the third step on.
    rates = jnp.array([0.5, 1.0, *(0.5 * (1 + np.cos(np.pi * (t - 2) / 18)) for t in range(2, steps))])
    mask = {name: name in ("key", "value", "classifier") for name in start}
    gradient = jax.jit(jax.grad(loss))
    for cell, (rate, decay) in enumerate(cells):
        params = {name: value[cell] for name, value in start.items()}
        rule = optax.adamw(
            lambda count, rate=rate: rate * rates[count], 0.9, 0.95, weight_decay=decay, mask=mask
        )
        state, update = rule.init(params), jax.jit(rule.update)
        for _ in range(steps):
            updates, state = update(gradient(params), state, params)
            params = optax.apply_updates(params, updates)
        for name, value in params.items():
            np.testing.assert_allclose(found[name][cell], value, atol=2e-4, err_msg=name)


def marked_tokens(n, rng, length=6, classes=4):
    """Every token says a class; only the marked one says that of the example."""
    labels = rng.integers(0, classes, n)
    said = rng.integers(0, classes, (n, length))
    mark = rng.integers(0, length, n)
    said[np.arange(n), mark] = labels
    tokens = np.zeros((n, length, classes + 1), np.float32)
    tokens[np.arange(n)[:, None], np.arange(length), said] = 1
    tokens[np.arange(n), mark, classes] = 1
    return tokens, labels


@pytest.mark.long
def test_attention_reads_what_the_mean_of_the_tokens_hides():
    rng = np.random.default_rng(3)
    train, labels = marked_tokens(600, rng)
    test, right = marked_tokens(300, rng)
    found = attentive_sweep(
        train, labels, test, right, classes=4, heads=1, learning_rates=(0.0003, 0.03), weight_decays=(0.0,),
        epochs=15, batch_size=60,
    )  # fmt: skip
    assert found.accuracy > 0.95
    assert found.learning_rate == 0.03 and found.at_edge == ("learning_rate",)
    from ssl_jax.evaluate.ridge import ridge

    assert ridge(train.mean(1), labels, test.mean(1), right, classes=4).accuracy < 0.75


@pytest.mark.long
def test_scale_and_shift_of_the_tokens_and_the_test_set_change_nothing_that_is_chosen():
    rng = np.random.default_rng(4)
    train, labels = marked_tokens(60, rng)
    options = {"classes": 4, "heads": 1, "learning_rates": (0.01, 0.1), "weight_decays": (0.0, 0.1)}
    options |= {"epochs": 2, "batch_size": 20}
    first = attentive_sweep(train, labels, train[:9], labels[:9], **options)
    moved = attentive_sweep(train * 8 + 4, labels, train[9:30] * 8 + 4, labels[9:30], **options)
    np.testing.assert_allclose(first.grid, moved.grid, atol=0.2)
    assert first.grid.shape == (2, 2)


def test_arguments_out_of_range_are_refused():
    x, y = np.zeros((8, 2, 6), np.float32), np.zeros(8, int)
    for options, text in (
        ({"heads": 4}, "heads=4: allowed is a divisor of the width, 6"),
        ({"batch_size": 8}, "batch_size=8"),
        ({"learning_rates": ()}, "learning_rates="),
        ({"weight_decays": (-1.0,)}, "weight_decays="),
        ({"epochs": 0}, "epochs=0"),
    ):
        with pytest.raises(ValueError, match=text):
            attentive_sweep(x, y, x, y, classes=2, **{"batch_size": 4, **options})


@pytest.mark.long
def test_layers_of_a_vit_are_its_blocks_and_the_normalized_tokens():
    network = models.build("vit_micro", width=16, depth=4, heads=2, patch=4, image_size=8, registers=2)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    variables = network.init(jax.random.key(0), images)
    names = layer_names(network, *variables, images)
    assert names == ("blocks_0", "blocks_1", "blocks_2", "tokens")
    assert choose_layers(names) == ("blocks_0", "blocks_1", "tokens")
    for name, option in (("tokens", "tokens"), ("blocks_1", "layers")):
        found, (whole, _) = (
            layer_tokens(network, *variables, images, name),
            network.apply(*variables, images, output=option),
        )
        whole = whole if option == "tokens" else whole[name]
        np.testing.assert_array_equal(found.class_token, whole[:, 0])
        np.testing.assert_array_equal(found.patches, whole[:, 3:])


def test_large_maps_are_averaged_over_windows():
    network = models.build("convnet", widths=(4,), grid=1)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 46, 70, 3)), jnp.float32)
    variables = network.init(jax.random.key(0), images)
    (name,) = layer_names(network, *variables, images)
    whole = np.asarray(network.apply(*variables, images, output="layers")[0][name])
    found = np.asarray(layer_tokens(network, *variables, images, name).patches)
    factor = next(f for f in range(1, 9) if -(-whole.shape[1] // f) * -(-whole.shape[2] // f) <= 256)
    rows, columns = -(-whole.shape[1] // factor), -(-whole.shape[2] // factor)
    assert factor > 1 and found.shape == (1, rows * columns, 4)
    # Windows at the end are smaller; what "SAME" adds is divided between both sides.
    top = (rows * factor - whole.shape[1]) // 2
    left = (columns * factor - whole.shape[2]) // 2
    for i, j in np.ndindex(rows, columns):
        window = whole[
            0,
            max(i * factor - top, 0) : (i + 1) * factor - top,
            max(j * factor - left, 0) : (j + 1) * factor - left,
        ]
        np.testing.assert_allclose(found[0, i * columns + j], window.mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)


def make_subject(network):
    rng = np.random.default_rng(5)
    images, labels = rng.integers(0, 256, (48, 8, 8, 3), dtype=np.uint8), np.arange(48) % 2
    images[labels == 1] //= 2
    variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    method = Method(
        views=(View(size=8, mean=(0.5,), std=(0.25,)),),
        init=lambda key, batch: variables,
        loss=None,
        encoder=network,
        encoder_variables=lambda params, state: (params, state),
    )
    train, test = (ArraySource(images[part], labels[part]) for part in (slice(0, 32), slice(32, 48)))
    options = Options(k=5, temperature=0.07, per_class=(1,), draws=1, crop_ratio=1.0)
    features = (Features(np.zeros((n, 1)), labels[:n], np.arange(n)) for n in (32, 16))
    return Subject(*features, (train, test), options, Candidate("e", "encoder", method, *variables))


@pytest.mark.long
def test_the_measure_fits_both_heads_to_the_places_of_maps():
    row = MEASURE.run(make_subject(models.build("convnet", widths=(4,), grid=1)))
    assert [(r["head"], r["tokens"]) for r in row["attentive_sweep"]["rows"]] == [
        ("linear", "patches"),
        ("attentive", "patches"),
    ]
    assert row["attentive_sweep"]["images"] == (32, 16)
    assert row["attentive"] > 0.7 and row["attentive_linear"] > 0.7


@pytest.mark.long
def test_the_measure_has_every_layer_token_and_head_and_chooses_by_validation():
    network = models.build("vit_micro", width=16, depth=2, heads=2, patch=4, image_size=8)
    row = MEASURE.run(make_subject(network))
    rows = row["attentive_sweep"]["rows"]
    assert [(r["layer"], r["head"], r["tokens"]) for r in rows] == [
        (layer, head, tokens)
        for layer in ("blocks_0", "tokens")
        for head, tokens in (
            ("linear", "patches"), ("linear", "class"), ("linear", "both"),
            ("attentive", "patches"), ("attentive", "both"),
        )
    ]  # fmt: skip
    for head, key in (("attentive", "attentive"), ("linear", "attentive_linear")):
        best = max((r for r in rows if r["head"] == head), key=lambda r: r["validation"])
        assert row[key] == best["accuracy"] and 0 <= row[key] <= 1
