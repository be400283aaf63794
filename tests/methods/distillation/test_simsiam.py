"""SimSiam: each ablation of the paper against arithmetic of its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax.core import trees
from ssl_jax.methods.distillation import simsiam
from ssl_jax.models import heads
from ssl_jax.models.network import chain
from tests.methods.case import loss_of, method_of, start

IMAGES, PIXELS = 12, 10
ENCODER = heads.mlp((16,), last_norm="batch")
"""Small enough to compile in a moment; its images are vectors."""


def collapsed(case):
    """No predictor, identical views: every projection meets itself."""
    del case
    method = method_of("simsiam", predictor="none")
    params, state, batch = start(method)
    view = batch["views"][0][:, :1]
    return loss_of(method, params, state, {**batch, "views": (jnp.concatenate([view, view], axis=1),)})[
        0
    ], -1.0


SMALL = simsiam.Heads(projection=8, predictor_width=16, projector_layers=2)


def small(heads=SMALL, **options):
    return simsiam.build(ENCODER, heads=heads, **options)


def normalized(batch_norm):
    return dataclasses.replace(SMALL, batch_norm=batch_norm)


def batch_of(seed, *, views=2, index=None):
    images = jax.random.normal(jax.random.key(seed), (IMAGES, views, PIXELS))
    return {"views": (images,), "index": jnp.arange(IMAGES) if index is None else index}


def started(method):
    return method.init(jax.random.key(0), batch_of(0))


@functools.cache
def compiled(**options):
    """Loss with its aux, and the gradient to the params."""
    return jax.jit(jax.value_and_grad(small(**options).loss, has_aux=True))


def call(params, state, batch, step=0, **options):
    return compiled(**options)(params, state, batch, jax.random.key(1), jnp.int32(step))


@jax.jit
def by_hand(params, views):
    """Projections and predictions of each view by networks put together here."""
    projector = heads.mlp((8, 8), hidden_bias=False, last_bias=False, last_norm="batch_no_affine")
    network, predictor = chain(encoder=ENCODER, projector=projector), heads.mlp((16, 8), hidden_bias=False)
    start, (_, head_state) = (
        network.init(jax.random.key(0), views[:, 0]),
        predictor.init(jax.random.key(0), jnp.zeros((1, 8))),
    )
    z = [network.apply(params, start[1], x, train=True)[0][1] for x in views.swapaxes(0, 1)]
    return z, [predictor.apply(params["predictor"], head_state, x, train=True)[0] for x in z]


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def distance(p, z):
    return -np.mean(np.sum(unit(p) * unit(z), axis=-1))


def test_the_loss_is_the_mean_of_both_directions_or_one_of_them_or_of_more_pairs():
    params, state = started(small())
    batch = batch_of(3, views=4)
    z, p = by_hand(params, batch["views"][0])
    two = {**batch, "views": (batch["views"][0][:, :2],)}
    both = (distance(p[0], z[1]) + distance(p[1], z[0])) / 2
    np.testing.assert_allclose(call(params, state, two)[0][0], both, rtol=1e-5)
    np.testing.assert_allclose(
        call(params, state, two, symmetric=False)[0][0], distance(p[0], z[1]), rtol=1e-5
    )
    found = call(params, state, batch, symmetric=False, samples=2)[0][0]
    np.testing.assert_allclose(found, (distance(p[0], z[1]) + distance(p[2], z[3])) / 2, rtol=1e-5)
    assert len(small(samples=2).views) == 4


def test_without_predictor_the_stopped_gradient_is_half_of_the_whole_one():
    """The paper's section 4.2: the symmetric loss without h is the one without stop-gradient, but for a factor."""
    params, state = started(small(predictor="none"))
    stopped, whole = (
        call(params, state, batch_of(3), predictor="none", stop_gradient=stop) for stop in (True, False)
    )
    np.testing.assert_allclose(stopped[0][0], whole[0][0], rtol=1e-6)
    largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(whole[1]))
    assert largest > 1e-3
    jax.tree.map(  # a bias before batch norm has gradient 0, so rounding alone: its measure is the largest one
        lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-4, atol=1e-5 * largest),
        stopped[1],
        whole[1],
    )


def test_a_fixed_predictor_is_no_parameter_and_never_moves():
    method = small(predictor="fixed")
    params, state = started(method)
    assert set(params) == {"encoder", "projector"}
    before = {**params, "predictor": state["predictor"]}
    z, p = by_hand(before, batch_of(3)["views"][0])
    (loss, (state, _)), gradient = call(params, state, batch_of(3), predictor="fixed")
    np.testing.assert_allclose(loss, (distance(p[0], z[1]) + distance(p[1], z[0])) / 2, rtol=1e-5)
    state = method.after_update(params, state, jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, state["predictor"], before["predictor"])
    assert np.abs(gradient["encoder"]["dense_0"]["kernel"]).max() > 1e-3


def train(method, value_and_grad, batches, rate=0.5):
    """Plain SGD with the method's own bookkeeping."""
    params, state = started(method)
    losses = []
    for step, batch in enumerate(batches):
        (loss, (state, _)), gradient = value_and_grad(
            params, state, batch, jax.random.key(1), jnp.int32(step)
        )
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
        state = method.after_update(params, state, jnp.int32(step))
        losses.append(float(loss))
    return params, losses


def test_alternation_is_a_loop_that_computes_the_targets_of_k_batches_and_keeps_them():
    batches, k = [batch_of(seed) for seed in range(5)], 2

    @jax.jit
    @jax.value_and_grad
    def loss_against(params, views, targets):
        _, p = by_hand(params, views)
        total = jnp.float32(0)
        for a, b in ((p[0], targets[1]), (p[1], targets[0])):
            lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
            total -= jnp.mean(jnp.sum(a * b, axis=-1) / lengths) / 2
        return total

    params, expected = started(small())[0], []
    for step, batch in enumerate(batches):
        if step % k == 0:
            cached = [by_hand(params, later["views"][0])[0] for later in batches[step : step + k]]
        loss, gradient = loss_against(params, batch["views"][0], cached[step % k])
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
        expected.append(float(loss))
    found, losses = train(small(alternate_steps=k), compiled(alternate_steps=k), batches)
    np.testing.assert_allclose(losses, expected, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, params)
    _, always_fresh = train(small(), compiled(), batches)
    assert always_fresh[0] == pytest.approx(expected[0], rel=1e-5)
    assert abs(always_fresh[1] - expected[1]) > 1e-4


def test_a_momentum_encoder_gives_the_targets_and_moves_by_its_decay():
    method = small(decay=0.75)
    params, state = started(method)
    other = jax.tree.map(lambda x: x + 0.3, params)
    z, p = by_hand(params, batch_of(3)["views"][0])[0], by_hand(other, batch_of(3)["views"][0])[1]
    loss = call(other, state, batch_of(3), decay=0.75)[0][0]
    np.testing.assert_allclose(loss, (distance(p[0], z[1]) + distance(p[1], z[0])) / 2, rtol=1e-4)
    moved = method.after_update(other, state, jnp.int32(0))["teacher"].params
    assert set(moved) == {"encoder", "projector"}
    expected = {name: jax.tree.map(lambda x: x + 0.25 * 0.3, params[name]) for name in moved}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), moved, expected)


def test_expectations_are_averages_of_an_images_unit_projections():
    options = {"predictor": "none", "expectation_decay": 0.8, "num_examples": 40}
    params, state = started(small(**options))
    expected = np.zeros((40, 8))
    shared = {**params, "predictor": started(small())[0]["predictor"]}
    for seed, index in ((3, np.arange(IMAGES) * 3), (4, np.arange(IMAGES) * 3)):
        batch = batch_of(seed, index=jnp.asarray(index))
        z, _ = by_hand(shared, batch["views"][0])
        targets = [0.8 * expected[index] + 0.2 * unit(x) for x in z]
        (loss, (state, _)), _ = call(params, state, batch, **options)
        np.testing.assert_allclose(
            loss, (distance(z[0], targets[1]) + distance(z[1], targets[0])) / 2, rtol=1e-5
        )
        expected[index] = np.mean(targets, axis=0)
        np.testing.assert_allclose(state["expectation"], expected, atol=1e-6)
    assert not state["expectation"][1::3].any()


@pytest.mark.parametrize(
    "options",
    [
        {"decay": 0.9, "predictor": "fixed", "expectation_decay": 0.8, "num_examples": IMAGES},
        {"alternate_steps": 2, "similarity": "softmax"},
    ],
)
def test_no_gradient_reaches_teacher_snapshot_expectations_or_fixed_predictor(options):
    params, state = started(small(**options))
    floats = {p: x for p, x in trees.flatten(state).items() if jnp.issubdtype(x.dtype, jnp.floating)}

    def loss(floats):
        leaves = [floats.get(path, x) for path, x in trees.flatten(state).items()]
        whole = jax.tree.unflatten(jax.tree.structure(state), leaves)
        return small(**options).loss(params, whole, batch_of(3), jax.random.key(1), jnp.int32(1))[0]

    for path, gradient in jax.jit(jax.grad(loss))(floats).items():
        assert not np.any(gradient), path


@pytest.mark.parametrize(
    ("batch_norm", "projector", "predictor"),
    [
        ("none", {"dense_0/bias", "dense_1/bias"}, {"dense_0/bias", "dense_1/bias"}),
        (
            "hidden",
            {"norm_0/scale", "norm_0/bias", "dense_1/bias"},
            {"norm_0/scale", "norm_0/bias", "dense_1/bias"},
        ),
        ("projections", {"norm_0/scale", "norm_0/bias"}, {"norm_0/scale", "norm_0/bias", "dense_1/bias"}),
        (
            "predictions",
            {"norm_0/scale", "norm_0/bias"},
            {"norm_0/scale", "norm_0/bias", "norm_1/scale", "norm_1/bias"},
        ),
    ],
)
def test_batch_norm_stands_where_the_papers_table_has_it(batch_norm, projector, predictor):
    params, state = started(small(normalized(batch_norm)))
    kernels = {"dense_0/kernel", "dense_1/kernel"}
    assert set(trees.flatten(params["projector"])) == projector | kernels
    assert set(trees.flatten(params["predictor"])) == predictor | kernels
    on_projections = "norm_1" in state["online"]["projector"].get("batch_stats", {})
    assert on_projections == (batch_norm in ("projections", "predictions"))


def test_depth_and_widths_of_the_heads():
    method = small(simsiam.Heads(projection=6, projector_width=20, predictor_width=3))
    params, _ = started(method)
    kernels = [params["projector"][f"dense_{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(16, 20), (20, 20), (20, 6)]
    assert [params["predictor"][f"dense_{i}"]["kernel"].shape for i in range(2)] == [(6, 3), (3, 6)]


def std_after_training(*, stop_gradient, steps=100):
    """``embedding_std`` of 64 points near a plane of 4 dimensions, after SGD at rate 0.2."""
    method = small(normalized("hidden"), stop_gradient=stop_gradient)
    points, directions = (
        jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(64, 4), (4, PIXELS)])
    )

    def views(key):
        noise = 0.3 * jax.random.normal(key, (64, 2, PIXELS))
        return {"views": ((points @ directions)[:, None] + noise,)}

    optimizer = optax.sgd(0.2, 0.9)

    def step(carry, t):
        params, state, moments = carry
        key = jax.random.fold_in(jax.random.key(1), t)
        gradient, (state, metrics) = jax.grad(method.loss, has_aux=True)(params, state, views(key), key, t)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), state, moments), metrics["embedding_std"]

    params, state = method.init(jax.random.key(0), views(jax.random.key(0)))
    start = (params, state, optimizer.init(params))
    return jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(steps))[1])()


def test_without_stop_gradient_the_projections_collapse_and_with_it_they_do_not():
    """BatchNorm on the hidden layers only: on the projections it hinders the collapse of so small a problem."""
    collapsing, healthy = (std_after_training(stop_gradient=stop) for stop in (False, True))
    assert collapsing[0] == healthy[0] > 0.5
    assert collapsing[-1] < 0.2
    assert healthy[-1] > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictor": "mpl"}, "predictor='mpl'.*did you mean 'mlp'"),
        ({"similarity": "dot"}, "similarity='dot'"),
        ({"heads": normalized("all")}, r"heads\.batch_norm='all'"),
        ({"alternate_steps": 0}, "alternate_steps=0"),
        ({"samples": 0}, "samples=0"),
        ({"decay": 0.9, "alternate_steps": 2}, "decay and alternate_steps"),
        ({"decay": 0.9, "stop_gradient": False}, "stop_gradient=False and decay"),
        ({"alternate_steps": 2, "stop_gradient": False}, "stop_gradient=False and alternate_steps"),
        ({"expectation_decay": 0.8, "stop_gradient": False}, "stop_gradient=False and expectation_decay"),
        ({"expectation_decay": 0.8, "similarity": "softmax"}, "softmax' and expectation_decay"),
        ({"expectation_decay": 0.8}, "num_examples=None"),
    ],
)
def test_options_that_do_not_exist_or_exclude_each_other_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)
