"""The optimizer from numbers: schedules, decay, clipping, freezing, and a table over every rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import optim
from ssl_jax.ops import schedules
from ssl_jax.optim import rules
from ssl_jax.optim.options import RULES

PARAMS = {
    "body": {"kernel": jnp.arange(1.0, 5.0).reshape(2, 2), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
}
GRADIENTS = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), PARAMS)
COMMON = {"steps": 10, "learning_rate": 0.1, "batch_size": 256}


def run(optimizer, steps, gradients=GRADIENTS, params=PARAMS):
    """The updates of every step."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), updates

    trail = jax.jit(lambda: jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[1])()
    return [jax.tree.map(lambda x, t=t: np.asarray(x[t]), trail) for t in range(steps)]


def types(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


def rates(optimizer, *steps):
    return [float(optimizer.learning_rate(step)) for step in steps]


@pytest.mark.parametrize("name", RULES)
def test_bfloat16_gradients_move_float32_parameters_and_the_state_keeps_its_types(name):
    optimizer = optim.from_options(name, weight_decay=0.1, **COMMON)
    update = jax.jit(optimizer.update)
    state = optimizer.init(PARAMS)
    gradients = jax.tree.map(lambda g: g.astype(jnp.bfloat16), GRADIENTS)
    updates, new = update(gradients, state, PARAMS)
    assert types(updates) == types(PARAMS)
    assert types(new) == types(state)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    full, _ = update(GRADIENTS, state, PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2), updates, full)


@pytest.mark.parametrize("name", RULES)
def test_zero_gradients_without_decay_move_nothing_and_zero_parameters_stay_finite(name):
    optimizer = optim.from_options(name, **COMMON)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for update in jax.tree.leaves(run(optimizer, 2, gradients=zeros)):
        np.testing.assert_array_equal(update, 0.0)
    for update in jax.tree.leaves(run(optimizer, 2, params=zeros)):
        assert np.isfinite(update).all()


@pytest.mark.parametrize("name", RULES)
def test_jit_equals_eager_with_everything_switched_on(name):
    optimizer = optim.from_options(
        name,
        weight_decay=0.1,
        weight_decay_end=0.2,
        clip_norm=0.3,
        clip_tensor=0.2,
        freeze=(("head", 1), ("body/bias", -1)),
        warmup_steps=2,
        start_learning_rate=0.01,
        **COMMON,
    )
    state = optimizer.init(PARAMS)
    compiled_update = jax.jit(optimizer.update)
    for _ in range(2):
        eager, compiled = (f(GRADIENTS, state, PARAMS) for f in (optimizer.update, compiled_update))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), eager, compiled)
        state = compiled[1]


@pytest.mark.parametrize("name", RULES)
def test_a_quadratic_is_descended(name):
    optimizer = optim.from_options(name, steps=40, learning_rate=0.1, batch_size=256, schedule="constant")
    start = {"kernel": jnp.array([[3.0, -2.0]]), "bias": jnp.array([1.0])}
    loss = lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p))  # noqa: E731

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), loss(params)

    losses = jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), length=21)[1])()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", RULES)
def test_hyper_parameters_may_be_traced_and_swept_by_vmap(name):
    @jax.jit
    def kernel(learning_rate, weight_decay):
        optimizer = optim.from_options(
            name, steps=10, learning_rate=learning_rate, weight_decay=weight_decay, batch_size=256
        )
        return optimizer.update(GRADIENTS, optimizer.init(PARAMS), PARAMS)[0]["body"]["kernel"]

    swept = jax.vmap(kernel)(jnp.array([0.1, 0.2]), jnp.array([0.0, 0.1]))
    np.testing.assert_allclose(swept[0], kernel(0.1, 0.0), rtol=1e-5)
    np.testing.assert_allclose(swept[1], kernel(0.2, 0.1), rtol=1e-5)


def test_it_serves_as_an_optax_transformation_in_a_chain():
    optimizer = optim.from_options("sgd", **COMMON)
    chained = optax.chain(optax.scale(2.0), optimizer)
    updates, _ = chained.update(GRADIENTS, chained.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["head"]["bias"], -0.1 * 2.0 * 0.1, rtol=1e-6)


def test_learning_rate_is_exact_at_the_start_the_end_of_the_warm_up_and_the_last_step():
    options = {"warmup_steps": 4, "start_learning_rate": 0.25, "end_learning_rate": 0.125}
    optimizer = optim.from_options("sgd", steps=12, learning_rate=0.5, batch_size=512, **options)
    assert rates(optimizer, 0, 2, 4, 12, 99) == [0.25, 0.625, 1.0, 0.125, 0.125]
    last = 0.125 + 0.875 * 0.5 * (1 + np.cos(np.pi * 7 / 8))
    np.testing.assert_allclose(rates(optimizer, 11), last, rtol=1e-6)


@pytest.mark.parametrize(
    ("scaling", "batch_size", "reference", "expected"),
    [("linear", 1024, 256, 0.4), ("sqrt", 1024, 256, 0.2), ("none", 1024, 256, 0.1), ("sqrt", 4096, 1, 6.4)],
)
def test_learning_rate_scales_with_the_batch(scaling, batch_size, reference, expected):
    optimizer = optim.from_options(
        steps=1, learning_rate=0.1, batch_size=batch_size, scaling=scaling, reference_batch=reference
    )
    np.testing.assert_allclose(rates(optimizer, 0), expected, rtol=1e-6)


def test_square_root_scaling_with_reference_one_is_the_rule_of_simclr():
    optimizer = optim.from_options(
        "lars", steps=1, learning_rate=0.075, batch_size=4096, scaling="sqrt", reference_batch=1
    )
    np.testing.assert_allclose(rates(optimizer, 0), 4.8, rtol=1e-6)


def test_the_cosine_may_move_by_the_epoch():
    optimizer = optim.from_options("sgd", steps_per_epoch=5, **COMMON)
    assert len(set(rates(optimizer, *range(5)))) == 1
    np.testing.assert_allclose(rates(optimizer, 4, 5), [0.1, 0.05], rtol=1e-6)


def test_step_schedule_drops_at_boundaries_counted_from_the_start_of_the_run():
    optimizer = optim.from_options("sgd", schedule="step", boundaries=(4, 8), warmup_steps=2, **COMMON)
    np.testing.assert_allclose(
        rates(optimizer, 0, 1, 2, 3, 4, 7, 8), [0, 0.05, 0.1, 0.1, 0.01, 0.01, 1e-3], rtol=1e-5
    )


def test_ramps_rise_and_fall_on_bells():
    optimizer = optim.from_options("sgd", schedule="ramps", warmup_steps=4, rampdown_steps=2, **COMMON)
    steps, peak = COMMON["steps"], optimizer.learning_rate(4)
    found = [float(optimizer.learning_rate(k)) / float(peak) for k in (0, 2, steps - 2, steps - 1)]
    np.testing.assert_allclose(found, np.exp([-5.0, -1.25, 0.0, -12.5 / 4]), rtol=1e-5)


def test_the_update_uses_the_scheduled_learning_rate_and_decay_of_its_step():
    optimizer = optim.from_options("adamw", weight_decay=0.04, weight_decay_end=0.4, warmup_steps=2, **COMMON)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(4):
        updates, state = optimizer.update(zeros, state, params)
        decay = 0.4 - 0.36 * 0.5 * (1 + np.cos(np.pi * step / 10))
        np.testing.assert_allclose(float(optimizer.weight_decay(step)), decay, rtol=1e-6)
        expected = -float(optimizer.learning_rate(step)) * decay * params["body"]["kernel"]
        np.testing.assert_allclose(updates["body"]["kernel"], expected, rtol=1e-5)
        np.testing.assert_array_equal(updates["body"]["bias"], 0.0)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("name", RULES)
def test_frozen_parameters_do_not_move_by_a_bit_and_then_do(name):
    optimizer = optim.from_options(name, weight_decay=0.5, freeze=(("^head", 2), ("body/bias", -1)), **COMMON)
    trail = run(optimizer, 4)
    for step, updates in enumerate(trail):
        assert all((np.asarray(u) != 0).all() == (step >= 2) for u in jax.tree.leaves(updates["head"])), step
        assert all((np.asarray(u) == 0).all() == (step < 2) for u in jax.tree.leaves(updates["head"])), step
        assert (updates["body"]["bias"] == 0).all()
        assert (updates["body"]["kernel"] != 0).all()


@pytest.mark.parametrize("name", RULES)
def test_a_parameter_that_thaws_starts_like_a_fresh_one(name):
    options = {"weight_decay": 0.5, "schedule": "constant", **COMMON}
    thawed = run(optim.from_options(name, freeze=(("head", 3),), **options), 5)[3:]
    fresh = run(optim.from_options(name, **options), 2)
    for late, early in zip(thawed, fresh, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), late["head"], early["head"])


def test_freezing_leaves_other_parameters_as_they_were():
    options = {"weight_decay": 0.5, **COMMON}
    frozen = run(optim.from_options("adamw", freeze=(("head", 3),), **options), 4)
    free = run(optim.from_options("adamw", **options), 4)
    for with_freeze, without in zip(frozen, free, strict=True):
        np.testing.assert_array_equal(with_freeze["body"]["kernel"], without["body"]["kernel"])


def test_frozen_gradients_do_not_count_in_the_global_norm():
    gradients = {**GRADIENTS, "head": jax.tree.map(lambda g: 1e6 * g, GRADIENTS["head"])}
    options = {"momentum": 0.0, "clip_norm": 1.0, **COMMON}
    frozen = run(optim.from_options("sgd", freeze=(("head", -1),), **options), 1, gradients)[0]
    np.testing.assert_allclose(frozen["body"]["bias"], -0.1 * 0.1, rtol=1e-6)


def test_parameters_frozen_for_ever_cost_no_state():
    size = lambda o: sum(x.size for x in jax.tree.leaves(o.init(PARAMS)))  # noqa: E731
    frozen = optim.from_options("adamw", freeze=(("head", -1),), **COMMON)
    assert size(optim.from_options("adamw", **COMMON)) - size(frozen) == 2 * (4 + 2)


def test_clipping_comes_before_the_rule_per_tensor_and_globally():
    options = {"momentum": 0.0, "schedule": "constant", "steps": 10, "learning_rate": 1.0, "batch_size": 256}
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 7.0), PARAMS)
    each = run(optim.from_options("sgd", clip_tensor=3.0, **options), 1, gradients)[0]
    for update in jax.tree.leaves(each):
        np.testing.assert_allclose(np.linalg.norm(update), 3.0, rtol=1e-5)
    both = run(optim.from_options("sgd", clip_norm=2.0, **options), 1, gradients)[0]
    np.testing.assert_allclose(float(optax.tree.norm(both)), 2.0, rtol=1e-5)


def test_layer_decay_scales_the_whole_update_decay_included():
    params = {"blocks_0": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}
    gradients = jax.tree.map(jnp.ones_like, params)
    optimizer = optim.from_options("adamw", layer_decay=0.5, weight_decay=0.3, **COMMON)
    update = run(optimizer, 1, gradients, params)[0]
    np.testing.assert_allclose(2 * update["blocks_0"]["kernel"], update["head"]["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adamW"}, "name='adamW'"),
        ({"momentun": 0.9, "name": "sgd"}, "did you mean 'momentum'"),
        ({"nesterov": True, "name": "adamw"}, "nesterov is not an option"),
        ({"scaling": "square"}, "scaling='square'"),
        ({"schedule": "cos"}, "did you mean 'cosine'"),
        ({"schedule": "step"}, "boundaries"),
        ({"schedule": "ramps", "rampdown_steps": 99}, "rampdown_steps=99"),
        ({"exclude": "biases"}, "exclude='biases'"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"warmup_steps": 11}, "warmup_steps=11"),
    ],
)
def test_wrong_options_are_refused_with_the_nearest_right_one(options, message):
    with pytest.raises(ValueError, match=message):
        optim.from_options(**{**COMMON, **options})


def test_update_without_parameters_is_refused():
    optimizer = optim.from_options("sgd", **COMMON)
    with pytest.raises(ValueError, match="params"):
        optimizer.update(GRADIENTS, optimizer.init(PARAMS))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("steps_per_epoch", [None, 3])
def test_constant_lr_parameters_keep_the_peak_after_the_warm_up_with_every_rule(name, steps_per_epoch):
    """The rule by itself at the closed form of the rate: a line to the peak, then the peak for ever."""
    options = {**COMMON, "warmup_steps": 4, "weight_decay": 0.1, "steps_per_epoch": steps_per_epoch}
    found = run(optim.from_options(name, constant_lr=("^head",), **options), 10)
    decaying = run(optim.from_options(name, **options), 10)
    hold = steps_per_epoch or 1
    line = lambda t: 0.1 * jnp.minimum((t // hold * hold) / 4, 1.0)  # noqa: E731
    alone = optim.build(optim.ParamGroup(RULES[name](), line, schedules.constant(0.1)))
    by_hand = run(alone, 10, gradients=GRADIENTS["head"], params=PARAMS["head"])
    for t in range(10):
        expected = {"head": by_hand[t], "body": decaying[t]["body"]}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), found[t], expected)
    assert np.abs(found[9]["head"]["kernel"]).sum() > np.abs(decaying[9]["head"]["kernel"]).sum()


def test_constant_lr_and_frozen_parameters_go_together_and_the_main_rate_is_reported():
    optimizer = optim.from_options(
        "sgd", constant_lr=("kernel",), freeze=(("head", 2), ("head/bias", -1)), momentum=0.0, **COMMON
    )
    updates = run(optimizer, 4)
    assert [float(u["head"]["kernel"][0, 0]) for u in updates] == pytest.approx([0, 0, -0.01, -0.01])
    assert [float(u["body"]["kernel"][0, 0]) for u in updates] == pytest.approx([-0.01] * 4)
    body_bias = [float(u["body"]["bias"][0]) for u in updates]
    assert body_bias == pytest.approx([-0.1 * rate for rate in rates(optimizer, 0, 1, 2, 3)])
    assert not any(u["head"]["bias"].any() for u in updates)


def test_constant_lr_names_what_it_does_not_find():
    with pytest.raises(ValueError, match=r"constant_lr='predictor'.*body/kernel"):
        optim.from_options("sgd", constant_lr=("predictor",), **COMMON).init(PARAMS)
    rate = schedules.constant(0.1)
    with pytest.raises(ValueError, match=r"learning_rate=.*a LearningRate, as constant_lr is given"):
        optim.build(optim.ParamGroup(rules.sgd(), rate, rate), constant_lr=("head",))


def test_normalize_rows_are_plain_updates_normalised_in_place_and_frozen_ones_keep_their_bits():
    """A loop of momentum SGD with weight decay that normalises before each step: what torch code does to its weights."""
    params = {"body": PARAMS["body"], "head": {"kernel": jnp.array([[0.6, 0.8], [0.0, -1.0]])}}
    gradients = {"body": GRADIENTS["body"], "head": {"kernel": jnp.array([[0.5, -0.2], [0.3, 0.1]])}}
    options = {
        "weight_decay": 0.1,
        "momentum": 0.9,
        "schedule": "constant",
        "freeze": (("head", 2),),
        **COMMON,
    }
    optimizer = optim.from_options("sgd", normalize_rows=("head",), **options)
    updates = run(optimizer, 5, gradients, params)
    plain = run(optim.from_options("sgd", **options), 5, gradients, params)
    found = np.asarray(params["head"]["kernel"], np.float64)
    weights, buffer = found.copy(), 0.0
    for t in range(5):
        np.testing.assert_array_equal(updates[t]["body"]["kernel"], plain[t]["body"]["kernel"])
        found += updates[t]["head"]["kernel"]
        if t < 2:
            assert not updates[t]["head"]["kernel"].any()
            continue
        buffer = 0.9 * buffer + np.asarray(gradients["head"]["kernel"]) + 0.1 * weights
        weights = weights - 0.1 * buffer
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        np.testing.assert_allclose(found, weights, atol=1e-6)
    with pytest.raises(ValueError, match=r"normalize_rows='prototypes'.*body/kernel"):
        run(optim.from_options("sgd", normalize_rows=("prototypes",), **COMMON), 1)


ADAM_GROUP = {
    "learning_rate": 0.02,
    "b1": 0.5,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup_steps": 0,
}


def test_groups_are_two_optimizers_on_the_parts():
    """As two of optax by itself: AdamW of the one learning rate on the body, of the other on the head."""
    optimizer = optim.from_options("adamw", weight_decay=0.1, groups={"^head": ADAM_GROUP}, **COMMON)
    found = run(optimizer, 5)
    cosine = lambda t: 0.1 * 0.5 * (1 + jnp.cos(jnp.pi * t / 10))  # noqa: E731
    decayed = lambda p: jax.tree.map(lambda x: x.ndim > 1, p)  # noqa: E731
    parts = {
        "body": optax.adamw(cosine, weight_decay=0.1, mask=decayed),
        "head": optax.adam(0.02, b1=0.5),
    }
    for name, alone in parts.items():
        expected = run(alone, 5, gradients=GRADIENTS[name], params=PARAMS[name])
        for t in range(5):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8),
                found[t][name],
                expected[t],
            )
    np.testing.assert_allclose(rates(optimizer, 3), float(cosine(3)), rtol=1e-6)


def test_groups_go_with_other_rules_freezing_clipping_and_the_peak_rate():
    group = {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    options = {"freeze": (("kernel", 2),), "clip_norm": 1.0, "constant_lr": ("head/bias",), **COMMON}
    optimizer = optim.from_options("adamw", b2=0.99, groups={"head": group}, **options)
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 3.0), PARAMS)
    found = run(optimizer, 4, gradients)
    assert not any(found[t][part]["kernel"].any() for t in (0, 1) for part in ("body", "head"))
    # Of the frozen kernels no part is in the norm: 2 + 2 numbers first, then 12 of them.
    share = [3.0 / np.sqrt(9 * n) for n in (4, 4, 12, 12)]
    np.testing.assert_allclose([float(u["head"]["bias"][0]) for u in found], -np.array(share), rtol=1e-5)
    falling = 0.5 * (1 + np.cos(np.pi * 3 / 10))
    np.testing.assert_allclose(found[3]["head"]["kernel"], -falling * share[3], rtol=1e-5)
    assert found[3]["body"]["kernel"].all()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"heat": {}}, "groups='heat'.*body/kernel"),
        ({"head": {}, "kernel": {}}, "groups=.*one expression at most that finds head/kernel"),
        ({"head": {"lerning_rate": 1.0}}, r"groups\['head'\]\.lerning_rate .*did you mean 'learning_rate'"),
        ({"head": {"steps": 3}}, r"groups\['head'\]\.steps is not an option"),
        ({"head": {"momentum": 0.5}}, r"groups\['head'\]\.momentum is not an option"),
        ({"head": {"name": "sdg"}}, "did you mean 'sgd'"),
    ],
)
def test_groups_that_match_nothing_or_are_misspelt_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        optim.from_options("adamw", groups=groups, **COMMON).init(PARAMS)


@pytest.mark.parametrize("name", RULES)
def test_skip_zero_grads_parameters_stand_still_with_their_moments_where_all_their_gradients_are_zero(name):
    """The head has gradients in steps 0 to 2, the body in steps 3 to 5, with decay and momentum on for both."""
    optimizer = optim.from_options(
        name, weight_decay=0.5, schedule="constant", skip_zero_grads=("^(body|head)",), **COMMON
    )
    zeros = jax.tree.map(jnp.zeros_like, GRADIENTS)
    stages = ({**zeros, "head": GRADIENTS["head"]}, {**zeros, "body": GRADIENTS["body"]})
    params, state = PARAMS, optimizer.init(PARAMS)
    update, trail = jax.jit(optimizer.update), []
    for t in range(6):
        before = state
        updates, state = update(stages[t // 3], state, params)
        still, moving = (("body", "head"), ("head", "body"))[t // 3]
        assert not any(u.any() for u in jax.tree.leaves(updates[still]))
        assert all(u.all() for u in jax.tree.leaves(updates[moving]))
        kept, places = (s.rule.inner_states[f"from_0_skip_{still == 'head':d}"] for s in (before, state))
        jax.tree.map(np.testing.assert_array_equal, kept, places)
        params = optax.apply_updates(params, updates)
        trail.append(updates)
    # The body starts as if it had not been there before.
    plain = optim.from_options(name, weight_decay=0.5, schedule="constant", **COMMON)
    fresh = run(plain, 3, gradients=GRADIENTS["body"], params=PARAMS["body"])
    for late, early in zip(trail[3:], fresh, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), late["body"], early)


def test_skip_zero_grads_names_what_it_does_not_find():
    with pytest.raises(ValueError, match=r"skip_zero_grads='dense_.*body/kernel"):
        optim.from_options("sgd", skip_zero_grads=(r"dense_\d+",), **COMMON).init(PARAMS)
