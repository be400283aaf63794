"""SGD, Adam, AdamW and LARS against golden numbers of torch, lightly and solo-learn, and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax.optim import rules
from ssl_jax.optim.lars import lars
from tests.golden_files import assert_close, golden

LEAVES = ("kernel", "bias", "scale", "zero")
PARTS = {"trust_norm": "parts"}
CASES = {
    "sgd_reference": (rules.sgd(), 0.3, 0.01),
    "adamw_reference": (rules.adamw(b2=0.95), 0.01, 0.05),
    "lightly": (lars(**PARTS), 0.3, 0.01),
    "lightly_nesterov": (lars(nesterov=True, **PARTS), 0.3, 0.01),
    "lightly_eta0p02": (lars(trust_coefficient=0.02, **PARTS), 0.3, 0.01),
    "torch_optimizer": (lars(**PARTS), 0.3, 0.01),
    "solo_exclude": (lars(**PARTS), 0.3, 0.01),
    "solo_all": (lars(exclude="none", **PARTS), 0.3, 0.01),
}


def tree_of(prefix):
    return {leaf: jnp.asarray(golden("lars")[f"in__{prefix}_{leaf}"]) for leaf in LEAVES}


def run(rule, learning_rates, weight_decay):
    """Parameters after each of three updates with the golden gradients, and the last state."""
    params, trail = tree_of("p"), []
    state, update = rule.init(params), jax.jit(rule.update)
    for step, learning_rate in enumerate(learning_rates):
        updates, state = update(
            tree_of(f"g{step}"), state, params, learning_rate=learning_rate, weight_decay=weight_decay
        )
        params = optax.apply_updates(params, updates)
        trail.append(params)
    return trail, state


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
def test_three_updates_equal_the_golden_parameters(case, wide):
    rule, learning_rate, weight_decay = CASES[case]
    with jax.enable_x64(wide):
        trail, state = run(rule, [learning_rate] * 3, weight_decay)
        for step, params in enumerate(trail):
            for leaf in LEAVES:
                expected = golden("lars")[f"{case}__out__{leaf}_step{step}"]
                assert_close(params[leaf], expected, tolerance=1e-8 if wide else 1e-5)
        for leaf in LEAVES if case != "adamw_reference" else ():
            expected = golden("lars")[f"{case}__out__{leaf}_momentum"]
            assert_close(state.trace[leaf], expected, tolerance=1e-8 if wide else 1e-5)


def official_lars(learning_rates, *, weight_decay, momentum, eta, nesterov, in_buffer):
    """BYOL's and Barlow Twins' order in numpy, one parameter at a time."""
    result = {}
    for leaf in LEAVES:
        w = golden("lars")[f"in__p_{leaf}"].copy()
        buffer = np.zeros_like(w)
        for step, lr in enumerate(learning_rates):
            g = golden("lars")[f"in__g{step}_{leaf}"].copy()
            if w.ndim > 1:
                g = g + weight_decay * w
                norms = np.sqrt(np.sum(w**2)), np.sqrt(np.sum(g**2))
                g = g * (eta * norms[0] / norms[1] if min(norms) > 0 else 1.0)
            inner, outer = (lr, 1.0) if in_buffer else (1.0, lr)
            buffer = momentum * buffer + inner * g
            w = w - outer * (inner * g + momentum * buffer if nesterov else buffer)
        result[leaf] = w
    return result


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("in_buffer", [False, True])
def test_lars_equals_a_loop_over_the_official_equations(nesterov, in_buffer):
    rates = [0.1, 0.3, 0.2]
    with jax.enable_x64(True):
        trail, _ = run(lars(nesterov=nesterov, learning_rate_in_buffer=in_buffer), rates, 0.01)
        expected = official_lars(
            rates, weight_decay=0.01, momentum=0.9, eta=1e-3, nesterov=nesterov, in_buffer=in_buffer
        )
        for leaf in LEAVES:
            assert_close(trail[-1][leaf], expected[leaf], tolerance=1e-12)


def test_lars_with_the_learning_rate_in_the_buffer_equals_optax_with_its_masks_set():
    matrices = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)  # noqa: E731
    schedule = optax.linear_schedule(0.1, 0.3, 2)
    theirs = optax.lars(schedule, 0.01, matrices, trust_ratio_mask=matrices, eps=0.0)
    params = tree_of("p")
    state = theirs.init(params)
    for step in range(3):
        updates, state = theirs.update(tree_of(f"g{step}"), state, params)
        params = optax.apply_updates(params, updates)
    trail, _ = run(lars(learning_rate_in_buffer=True), [0.1, 0.2, 0.3], 0.01)
    for leaf in LEAVES:
        assert_close(trail[-1][leaf], np.asarray(params[leaf]), tolerance=1e-6)


def test_lars_step_of_a_kernel_does_not_depend_on_the_scale_of_its_gradient():
    params = {"kernel": jnp.ones((2, 3))}
    gradients = {"kernel": jnp.arange(6.0).reshape(2, 3)}
    rule = lars()
    options = {"learning_rate": 0.5, "weight_decay": 0.0}
    small, _ = rule.update(gradients, rule.init(params), params, **options)
    large, _ = rule.update({"kernel": 1e4 * gradients["kernel"]}, rule.init(params), params, **options)
    np.testing.assert_allclose(small["kernel"], large["kernel"], rtol=1e-5)


def test_adam_couples_its_decay_and_adamw_does_not():
    params, zeros = {"kernel": jnp.full((1, 1), 2.0)}, {"kernel": jnp.zeros((1, 1))}
    options = {"learning_rate": 0.1, "weight_decay": 0.5}
    coupled, _ = rules.adam().update(zeros, rules.adam().init(params), params, **options)
    decoupled, _ = rules.adamw().update(zeros, rules.adamw().init(params), params, **options)
    # Coupled: the decay is a gradient, and the first step of Adam is the learning rate whatever the gradient.
    np.testing.assert_allclose(coupled["kernel"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(decoupled["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-6)


def test_an_unknown_trust_norm_is_refused_by_name():
    with pytest.raises(ValueError, match=r"trust_norm='part' .* did you mean 'parts'"):
        lars(trust_norm="part")
