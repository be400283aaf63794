"""The conformance table: what every method must show (docs/architecture.md). Methods are found by module path."""

import importlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import optim
from ssl_jax.config import build
from ssl_jax.core import trees
from ssl_jax.evaluate.online import Health, OnlineEvaluation
from ssl_jax.methods.registry import names
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.loop import fit
from ssl_jax.train.program import make_program
from ssl_jax.train.run import Host, Run, Watch
from ssl_jax.train.sharding import batch_sharding, make_mesh
from ssl_jax.train.state import TrainState
from tests.methods.case import (
    BATCH,
    QUICK,
    Case,
    begun,
    config_of,
    floats,
    loss_inputs,
    make_gradient,
    real_batch,
    source_of,
    with_views,
)

METHODS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in names()]


@pytest.fixture(scope="module", params=METHODS)
def case(request):
    config = config_of(request.param)
    method, optimizer, batch = build.method(config), build.optimizer(config), real_batch(config=config)
    # Adam makes steps of full size from the rounding noise of gradients that are 0 in theory (a bias before BatchNorm).
    sgd = optim.from_options("sgd", steps=4, learning_rate=0.05, scaling="none", batch_size=BATCH)
    one, eight = (make_program(method, sgd, batch, make_mesh(devices=jax.devices()[:n])) for n in (1, 8))
    start = begun(method, one.init(0))
    inputs = (start.params, start.state, with_views(method, batch))
    return Case(config, method, optimizer, sgd, batch, one, eight, make_gradient(method), inputs)


def placed(batch, devices):
    return jax.device_put(batch, batch_sharding(make_mesh(devices=jax.devices()[:devices])))


def run(case, program, batch, steps, state=None):
    state = begun(case.method, program.init(0)) if state is None else state
    losses = []
    for _ in range(steps):
        state, metrics = program.step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses


def leaves(state: TrainState):
    """Every array of a state, by path; keys as their data."""
    data = state._replace(key=jax.random.key_data(state.key))
    return {path: np.asarray(leaf) for path, leaf in trees.flatten(data).items()}


def assert_same_bits(first, second):
    first, second = leaves(first), leaves(second)
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, second[path], err_msg=path, strict=True)


def test_loss_and_gradients_are_finite_and_no_gradient_reaches_the_state(case):
    params, state, batch = loss_inputs(case)
    (value, _), (to_params, to_state) = case.gradient(params, state, batch)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(to_params))
    assert sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(to_params)) > 0
    for path, gradient in to_state.items():
        assert not np.any(gradient), f"a gradient reaches {path}"


def own_tests_of(case):
    """The method's own tests."""
    module = names()[case.config["method"]["name"]].split(".")
    return importlib.import_module(".".join(["tests", *module[1:3], f"test_{module[3]}"]))


def test_collapse_gives_the_constant_of_theory(case):
    """``collapsed`` of the method's tests: loss at a degenerate point and the constant that theory predicts there."""
    found, expected = own_tests_of(case).collapsed(case)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    declared = [value.at(BATCH).value for value in case.method.collapse if value.metric == "loss"]
    # The constants of masked and generative methods are those of predictions 0, which depend on the images, or of two players
    # of equal strength: no sign of collapse. Those of semi-supervised ones depend on the share of labels in the batch: their
    # sign is the mean cross-entropy where there is one.
    family = names()[case.config["method"]["name"]].split(".")[2]
    unsigned = family in ("masked", "generative", "consistency")
    assert declared == ([] if unsigned else [pytest.approx(expected)])


def test_one_device_equals_eight_and_state_keeps_tree_dtype_and_sharding(case):
    first, losses = run(case, case.one, placed(case.batch, 1), 3)
    second, others = run(case, case.eight, placed(case.batch, 8), 3)
    np.testing.assert_allclose(losses, others, rtol=2e-5)
    before = case.eight.abstract
    assert jax.tree.structure(before) == jax.tree.structure(second)
    for (path, old), new in zip(trees.flatten(before).items(), jax.tree.leaves(second), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype), path
        assert new.sharding.is_equivalent_to(old.sharding, new.ndim), path
    assert_close(first, second)


def assert_close(first, second):
    for path, leaf in leaves(first).items():
        if np.issubdtype(leaf.dtype, np.floating):
            # One rounding of a pixel (6e-8) grows a thousandfold where MAE divides dark patches by √(variance + 1e-6).
            scale = max(np.abs(leaf).max(), 0.1)
            np.testing.assert_allclose(leaf, leaves(second)[path], rtol=0, atol=1e-4 * scale, err_msg=path)


@pytest.mark.long
def test_state_that_is_split_over_devices_gives_the_same_run(case):
    mesh = make_mesh(data=2, fsdp=4)
    split = make_program(case.method, case.sgd, case.batch, mesh, fsdp_min_size=64)
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(split.abstract.params))
    first, losses = run(case, case.one, placed(case.batch, 1), 3)
    second, others = run(case, split, jax.device_put(case.batch, batch_sharding(mesh)), 3)
    np.testing.assert_allclose(losses, others, rtol=2e-5)
    assert_close(first, second)


def test_the_configs_own_optimizer_takes_the_parameters(case):
    """Patterns that match nothing, such as of what is frozen, are refused here."""
    params, optimizer = case.inputs[0], case.optimizer
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), params)
    updates, _ = jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == shapes


def test_many_steps_need_one_compilation(case):
    batch = placed(case.batch, 1)
    state, _ = run(case, case.one, batch, 1)
    compilations = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run(case, case.one, batch, 3, state)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compilations


def test_encode_is_deterministic_and_leaves_the_batch_independent(case):
    state = case.one.init(0)
    images = jnp.asarray(case.batch["image"][:4], jnp.float32) / 255
    encode = jax.jit(case.method.encode)
    features = encode(state.params, state.state, images)
    assert features.dtype == jnp.float32
    assert features.shape == (4, case.method.encoder.features)
    np.testing.assert_array_equal(features, encode(state.params, state.state, images))
    np.testing.assert_allclose(
        features[1:3], case.method.encode(state.params, state.state, images[1:3]), atol=1e-5
    )


def test_loss_falls_on_a_small_real_batch(case):
    """With teacher, queue and centre held still: they move the goal, so the loss of a run need not fall.

    The loss of two players need not fall either, nor an energy: ``FALLS`` of their tests names who moves and which metric
    falls.
    """
    optimizer = optax.adam(3e-3)

    @jax.jit
    def update(gradients, moments, params):
        updates, moments = optimizer.update(gradients, moments)
        return optax.apply_updates(params, updates), moments

    for players, metric in getattr(own_tests_of(case), "FALLS", ((None, "loss"),)):
        params, state, batch = loss_inputs(case)
        moments, losses = optimizer.init(params), []
        for _ in range(30):
            (value, (_, metrics)), (gradients, _) = case.gradient(params, state, batch)
            if players is not None:
                gradients = {
                    name: part if name in players else jax.tree.map(jnp.zeros_like, part)
                    for name, part in gradients.items()
                }
            params, moments = update(gradients, moments, params)
            losses.append(float({"loss": value, **metrics}[metric]))
        assert losses[-1] < 0.9 * losses[0], (players, metric)


def test_bfloat16_runs_and_agrees_loosely(case):
    config = {**case.config, "encoder": {**case.config["encoder"], "dtype": "bfloat16"}}
    params, state, batch = loss_inputs(case)
    half = build.method(config)
    value, (new_state, _) = jax.jit(half.loss)(params, state, batch, jax.random.key(2), jnp.int32(0))
    (expected, _), _ = case.gradient(params, state, batch)
    assert value.dtype == jnp.float32
    # SimSiam's loss, a cosine, starts near 0.
    assert float(value) == pytest.approx(float(expected), rel=0.05, abs=0.005)
    assert all(leaf.dtype == jnp.float32 for leaf in floats(new_state).values())


def train(case, folder, hooks=()):
    """Four steps of ``fit`` on a few real images, saved after every second; goes on where the folder's checkpoints end."""
    source = source_of(case.config, "train[:1%]")
    refresh_every = case.config.get("refresh_every", 0)
    run = Run(case.method, case.sgd, source, steps=4, batch_size=BATCH, seed=3, refresh_every=refresh_every)
    host = Host(mesh=make_mesh(devices=jax.devices()[:1]), program=case.one)
    with Checkpoints(folder, every=2, keep=2, metadata={}) as checkpoints:
        return fit(run, host, Watch(hooks=hooks, checkpoints=checkpoints, log_every=1)).state


def test_resumed_run_and_probed_run_end_in_the_same_bits(case, tmp_path):
    """A run that loses what came after step 2, as by a kill, and is watched from there on."""
    whole = train(case, tmp_path)
    shutil.rmtree(tmp_path / "4")
    source = source_of(case.config)
    probe = OnlineEvaluation(case.method, source, every=1, bank=40, queries=20, k=5)
    health = Health(case.method, source, every=1, images=8)
    assert_same_bits(train(case, tmp_path, hooks=[probe, health]), whole)
