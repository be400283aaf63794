"""NT-Xent, InfoNCE, DCL and hard negatives: golden numbers, a loop written from the definition, and the blockwise form."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax.losses.contrastive import dcl, hard_negative, info_nce, nt_xent
from tests.golden_files import assert_close, golden

LOSSES = {
    "nt_xent": lambda a, b, c, t, block: nt_xent(a, b, temperature=t, block_size=block),
    "cross_view": lambda a, b, c, t, block: info_nce(a, b, temperature=t, block_size=block),
    "queue": lambda a, b, c, t, block: info_nce(a, b, c, temperature=t, block_size=block),
    "dcl": lambda a, b, c, t, block: dcl(a, b, temperature=t, block_size=block),
    "dclw": lambda a, b, c, t, block: dcl(a, b, temperature=t, sigma=0.5, block_size=block),
    "dclw_attached": lambda a, b, c, t, block: dcl(
        a, b, temperature=t, sigma=0.5, detach_weights=False, block_size=block
    ),
    "hard": lambda a, b, c, t, block: hard_negative(
        a, b, temperature=t, beta=1.5, tau_plus=0.1, block_size=block
    ),
}


@functools.cache
def compiled(name, block_size):
    """Loss and its gradients to both inputs, the queue and the temperature."""
    return jax.jit(jax.value_and_grad(lambda *x: LOSSES[name](*x, block_size), argnums=(0, 1, 2, 3)))


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mean_cross_entropy(rows_of_logits):
    """Of rows whose first logit is the positive's."""
    return np.mean([np.log(np.exp(logits).sum()) - logits[0] for logits in rows_of_logits])


def loop_nt_xent(z1, z2, temperature):
    z = np.concatenate([unit(z1), unit(z2)])
    n = len(z1)
    orders = [
        [(i + n) % (2 * n)] + [j for j in range(2 * n) if j not in (i, (i + n) % (2 * n))]
        for i in range(2 * n)
    ]
    return mean_cross_entropy([[z[i] @ z[j] / temperature for j in order] for i, order in enumerate(orders)])


def loop_info_nce(q, k, negatives, temperature):
    q, k = unit(q), unit(k)
    rest = [np.delete(k, i, axis=0) if negatives is None else unit(negatives) for i in range(len(q))]
    return mean_cross_entropy([np.array([k[i], *rest[i]]) @ q[i] / temperature for i in range(len(q))])


def loop_dcl(z1, z2, temperature, sigma):
    z, n = np.stack([unit(z1), unit(z2)], axis=1), len(z1)
    products = np.array([pair[0] @ pair[1] for pair in z])
    shares = np.ones(n) / n if sigma is None else np.exp(products / sigma)
    weights = 2 - n * shares / shares.sum()
    losses = []
    for i in range(n):
        others = np.delete(z, i, axis=0).reshape(2 * n - 2, -1)
        for anchor in z[i]:
            negatives = np.log(np.exp(others @ anchor / temperature).sum())
            losses.append(negatives - weights[i] * products[i] / temperature)
    return np.mean(losses)


def loop_hard_negative(z1, z2, temperature, beta, tau_plus):
    z, n = np.stack([unit(z1), unit(z2)], axis=1), len(z1)
    losses = []
    for i in range(n):
        others = np.delete(z, i, axis=0).reshape(2 * n - 2, -1)
        positive = np.exp(z[i, 0] @ z[i, 1] / temperature)
        for anchor in z[i]:
            negatives = np.exp(others @ anchor / temperature)
            weights = negatives**beta / np.mean(negatives**beta)
            estimate = (np.sum(weights * negatives) - tau_plus * len(others) * positive) / (1 - tau_plus)
            bounded = max(estimate, len(others) * np.exp(-1 / temperature))
            losses.append(-np.log(positive / (positive + bounded)))
    return np.mean(losses)


@pytest.mark.parametrize("block_size", [None, 7])
@pytest.mark.parametrize("case", ["dcl_t0p1", "dcl_t0p5", "dclw_t0p1", "dclw_t0p5"])
def test_dcl_equals_golden(case, block_size):
    file, temperature = golden("dcl"), float(case[-4:].replace("t0p", "0."))
    for dtype, loss_tolerance, tolerance in ((jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)):
        with jax.enable_x64(dtype == jnp.float64):
            z = [jnp.asarray(file[f"in__z{i}"], dtype) for i in (0, 1)]
            loss, gradients = compiled(case[:-5], block_size)(*z, z[0], dtype(temperature))
            np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=loss_tolerance)
            for i in (0, 1):
                assert_close(gradients[i], file[f"{case}__grad__z{i}"], tolerance=tolerance)


@pytest.mark.parametrize("temperature", ["0p2", "1"])
def test_moco_v3_is_info_nce_of_both_directions_times_twice_the_temperature(temperature):
    file, case = golden("mocov3_msf"), f"mocov3_T{temperature}"
    q1, q2, k1, k2 = (jnp.asarray(file[f"in__{name}"], jnp.float32) for name in ("q1", "q2", "k1", "k2"))
    tau = float(temperature.replace("p", "."))
    found, gradients = zip(
        *(compiled("cross_view", None)(q, k, k, tau) for q, k in ((q1, k2), (q2, k1))), strict=True
    )
    np.testing.assert_allclose(2 * tau * sum(found), file[f"{case}__loss"], rtol=1e-5)
    for i in (0, 1):
        assert_close(2 * tau * gradients[i][0], file[f"{case}__grad__q{i + 1}"], tolerance=1e-5)


@pytest.mark.parametrize("block_size", [None, 7])
@pytest.mark.parametrize("case", ["t0p1", "t0p1_solo", "t0p5", "t0p5_solo"])
def test_nt_xent_equals_golden(case, block_size):
    file, temperature = golden("ntxent"), float(case[:4].replace("t0p", "0."))
    for dtype, loss_tolerance, tolerance in ((jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)):
        with jax.enable_x64(dtype == jnp.float64):
            z = [jnp.asarray(file[f"in__z{i}"], dtype) for i in (0, 1)]
            loss, gradients = compiled("nt_xent", block_size)(*z, z[0], dtype(temperature))
            np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=loss_tolerance)
            for i in (0, 1):
                assert_close(gradients[i], file[f"{case}__grad__z{i}"], tolerance=tolerance)


@pytest.mark.parametrize("block_size", [None, 16])
@pytest.mark.parametrize("case", ["lightly", "lightly_kstop", "solo_t0p07", "solo_t0p1", "solo_t0p2"])
def test_info_nce_with_queue_equals_golden(case, block_size):
    file, unit_ = golden("moco_queue"), "_unit" if case.startswith("solo") else ""
    temperature = float(case[5:].replace("t0p", "0.")) if unit_ else 0.1
    bank = file["in__queue_T"].T if unit_ else file["in__bank"]
    for dtype, loss_tolerance, tolerance in ((jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)):
        with jax.enable_x64(dtype == jnp.float64):
            q, k, queue = (
                jnp.asarray(x, dtype) for x in (file[f"in__q{unit_}"], file[f"in__k{unit_}"], bank)
            )
            loss, gradients = compiled("queue", block_size)(q, k, queue, dtype(temperature))
            np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=loss_tolerance)
            if not unit_:  # the others' gradients do not pass through a normalisation
                assert_close(gradients[0], file[f"{case}__grad__q"], tolerance=tolerance)
            if case == "lightly":
                assert_close(gradients[1], file[f"{case}__grad__k"], tolerance=tolerance)


@pytest.mark.parametrize("block_size", [None, 1, 5])
def test_losses_equal_a_loop_over_the_definition(block_size):
    z1, z2, queue = rows(0, 6, 4), rows(1, 6, 4), rows(2, 9, 4)
    found = [compiled(name, block_size)(z1, z2, queue, 0.3)[0] for name in LOSSES]
    expected = (
        loop_nt_xent(z1, z2, 0.3),
        loop_info_nce(z1, z2, None, 0.3),
        loop_info_nce(z1, z2, queue, 0.3),
        loop_dcl(z1, z2, 0.3, None),
        loop_dcl(z1, z2, 0.3, 0.5),
        loop_dcl(z1, z2, 0.3, 0.5),
        loop_hard_negative(z1, z2, 0.3, 1.5, 0.1),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("block_size", [7, 1000])
@pytest.mark.parametrize("name", LOSSES)
def test_blockwise_equals_plain_with_all_gradients(name, block_size):
    z1 = rows(0, 24, 8)
    inputs = z1, z1 + 0.5 * rows(1, 24, 8), rows(2, 40, 8), jnp.float32(0.07)
    plain, plain_gradients = compiled(name, None)(*inputs)
    blockwise, gradients = compiled(name, block_size)(*inputs)
    np.testing.assert_allclose(blockwise, plain, rtol=1e-5)
    for found, expected in zip(gradients, plain_gradients, strict=True):
        assert_close(found, np.asarray(expected), tolerance=1e-5)


@pytest.mark.parametrize("block_size", [None, 5])
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("dcl", "dclw")])
def test_gradient_agrees_with_a_finite_difference(name, block_size):
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        inputs = [jnp.asarray(random.normal(size=shape)) for shape in ((6, 4), (6, 4), (9, 4))] + [
            jnp.float64(0.5)
        ]
        direction = [jnp.asarray(random.normal(size=x.shape)) for x in inputs]
        ends = [[x + h * d for x, d in zip(inputs, direction, strict=True)] for h in (1e-5, -1e-5)]
        above, below = (compiled(name, block_size)(*end)[0] for end in ends)
        _, gradients = compiled(name, block_size)(*inputs)
        slope = sum(jnp.sum(g * d) for g, d in zip(gradients, direction, strict=True))
        np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6)


def array_sizes(jaxpr):
    """Sizes of all arrays in a jaxpr and in the jaxprs inside it."""
    for equation in jaxpr.eqns:
        yield from (var.aval.size for var in (*equation.invars, *equation.outvars))
        parameters = jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        )
        for inner in (getattr(parameter, "jaxpr", parameter) for parameter in parameters):
            if hasattr(inner, "eqns"):
                yield from array_sizes(inner)


@pytest.mark.parametrize("name", ["nt_xent", "queue"])
def test_blockwise_never_holds_all_pairs(name):
    n, block_size = 256, 16
    inputs = rows(0, n, 4), rows(1, n, 4), rows(2, n, 4), jnp.float32(0.1)

    def largest(block):
        """Elements of the largest array of loss and gradients, and of all temporaries together."""
        function = compiled(name, block)
        temporaries = function.lower(*inputs).compile().memory_analysis().temp_size_in_bytes / 4
        return max(array_sizes(jax.make_jaxpr(function)(*inputs).jaxpr)), temporaries

    array, temporaries = largest(block_size)
    assert array <= 2 * n * block_size
    assert temporaries < n * n
    array, temporaries = largest(None)
    assert min(array, temporaries) >= n * n, "the test would not see an N x N array"


@pytest.mark.parametrize(
    ("name", "block_size"),
    [("nt_xent", None), ("nt_xent", 24), ("queue", 24), ("dclw", None), ("hard", None)],
)
def test_eight_devices_give_the_same_loss_and_gradients_as_one(name, block_size):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    inputs = rows(0, 32, 4), rows(1, 32, 4), rows(2, 40, 4), jnp.float32(0.1)
    specs = PartitionSpec("data"), PartitionSpec("data"), PartitionSpec(), PartitionSpec()
    sharded = [jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip(inputs, specs, strict=True)]
    loss, gradients = compiled(name, block_size)(*sharded)
    expected, expected_gradients = compiled(name, block_size)(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for found, gradient in zip(gradients, expected_gradients, strict=True):
        assert_close(found, np.asarray(gradient), tolerance=1e-5)


@pytest.mark.parametrize("block_size", [None, 5])
@pytest.mark.parametrize("constant", [1.0, 0.0])
def test_collapsed_rows_give_the_logarithm_of_the_number_of_candidates(constant, block_size):
    z, queue = jnp.full((6, 4), constant), jnp.full((9, 4), constant)
    found = [compiled(name, block_size)(z, z, queue, 0.1)[0] for name in LOSSES]
    np.testing.assert_allclose(found, np.log([2 * 6 - 1, 6, 9 + 1, 10, 10, 10, 11]), rtol=1e-6)


def test_one_negative_is_a_softplus_of_the_margin():
    q, k, negative = rows(0, 1, 4), rows(1, 1, 4), rows(2, 1, 4)
    margin = (unit(q) @ (unit(k) - unit(negative)).T).item()
    expected = np.log1p(np.exp(-margin / 0.2))
    np.testing.assert_allclose(info_nce(q, k, negative, temperature=0.2), expected, rtol=1e-5)


@functools.cache
def hard(block_size):
    """Loss and gradients to both inputs, with β, τ⁺ and the temperature free."""
    return jax.jit(
        jax.value_and_grad(
            lambda a, b, t, beta, plus: hard_negative(
                a, b, temperature=t, beta=beta, tau_plus=plus, block_size=block_size
            ),
            argnums=(0, 1, 2, 3),
        )
    )


@pytest.mark.parametrize("block_size", [None, 5])
def test_without_concentration_and_correction_hard_negatives_are_nt_xent(block_size):
    z1, z2 = rows(0, 6, 4), rows(1, 6, 4)
    loss, gradients = hard(block_size)(z1, z2, 0.2, 0.0, 0.0)
    expected, expected_gradients = compiled("nt_xent", block_size)(z1, z2, z1, 0.2)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for i in (0, 1):
        assert_close(gradients[i], np.asarray(expected_gradients[i]), tolerance=1e-5)


@pytest.mark.parametrize(("beta", "tau_plus"), [(0.0, 0.1), (0.5, 0.0), (2.0, 0.3), (6.0, 0.9)])
def test_hard_negatives_equal_a_loop_for_any_concentration_and_correction(beta, tau_plus):
    z1 = rows(0, 6, 4)
    z2 = z1 + 0.5 * rows(1, 6, 4)  # close positives: the bound is active for some anchors
    found = hard(None)(z1, z2, 0.4, beta, tau_plus)[0]
    np.testing.assert_allclose(found, loop_hard_negative(z1, z2, 0.4, beta, tau_plus), rtol=1e-5)


def test_where_the_bound_is_active_only_the_positives_are_pulled():
    z = jnp.eye(4)  # positives at cosine 1, negatives at 0: τ⁺ M e is more than R
    loss, gradients = hard(None)(z, z, 0.1, 1.0, 0.1)
    np.testing.assert_allclose(loss, np.log1p(6 * np.exp(-20)), atol=1e-7)
    moved = z.at[:, 0].add(0.1)
    value, others = hard(None)(moved, moved, 0.1, 1.0, 0.1)
    np.testing.assert_allclose(
        [value, *(jnp.abs(g).max() for g in (*gradients[:2], *others[:2]))], 0, atol=1e-6
    )


@pytest.mark.parametrize("block_size", [None, 5])
@pytest.mark.parametrize("plus", [0.0, 0.1])
def test_strong_concentration_at_a_low_temperature_stays_finite(plus, block_size):
    z = rows(0, 6, 4)
    for partner in (z, -z, jnp.roll(z, 1, axis=0)):
        loss, gradients = hard(block_size)(z, partner, 0.01, 10.0, plus)
        assert all(np.isfinite(x).all() for x in (loss, *gradients))


@pytest.mark.parametrize("block_size", [None, 5])
def test_dcl_pulls_on_a_positive_with_the_full_inverse_temperature(block_size):
    # Orthogonal to all else, so that moving z1 along z2 changes the positive's product only.
    z1, z2 = jnp.eye(8)[:4], jnp.eye(8)[4:]
    _, gradients = compiled("dcl", block_size)(z1, z2, z1, 0.1)
    np.testing.assert_allclose(jnp.sum(gradients[0] * z2, axis=1) * 4, -1 / 0.1, rtol=1e-6)


def test_detached_weights_change_gradients_and_not_the_value():
    z1, z2 = rows(0, 6, 4), rows(1, 6, 4)
    (loss, gradients), (same, attached) = (
        compiled(n, None)(z1, z2, z1, 0.2) for n in ("dclw", "dclw_attached")
    )
    assert loss == same
    assert not np.allclose(gradients[0], attached[0], rtol=1e-2)


@pytest.mark.parametrize("name", ["nt_xent", "dcl", "dclw", "hard"])
@pytest.mark.parametrize("block_size", [None, 5])
def test_loss_does_not_change_under_permutation_swap_of_views_or_scale_of_rows(block_size, name):
    z1, z2, queue, order = rows(0, 6, 4), rows(1, 6, 4), rows(2, 9, 4), np.array([3, 0, 5, 1, 4, 2])
    scale = jnp.arange(1.0, 7.0)[:, None]
    losses = [
        compiled(name, block_size)(a, b, queue, 0.1)[0]
        for a, b in ((z1, z2), (z1[order], z2[order]), (z2, z1), (scale * z1, z2 / scale))
    ]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


@pytest.mark.parametrize("block_size", [None, 5])
def test_confident_mistakes_at_a_low_temperature_stay_finite(block_size):
    z = rows(0, 6, 4)
    loss, gradients = compiled("nt_xent", block_size)(z, -z, rows(2, 9, 4), 1e-3)
    assert loss > 1000
    assert all(np.isfinite(gradient).all() for gradient in (loss, *gradients))


@pytest.mark.parametrize("block_size", [None, 5])
def test_jit_equals_eager_and_vmap_over_temperatures_equals_a_loop(block_size):
    inputs, temperatures = (rows(0, 6, 4), rows(1, 6, 4), rows(2, 9, 4)), jnp.array([0.1, 0.5])
    function = compiled("nt_xent", block_size)
    one_by_one = jnp.stack([function(*inputs, t)[1][3] for t in temperatures])
    mapped = jax.vmap(lambda t: function(*inputs, t)[1][3])(temperatures)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-5)
    eager = nt_xent(*inputs[:2], temperature=0.1, block_size=block_size)
    np.testing.assert_allclose(function(*inputs, 0.1)[0], eager, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_inputs_are_computed_in_float32(name):
    narrow = [rows(i, 6, 4).astype(jnp.bfloat16) for i in range(3)]
    loss, gradients = compiled(name, 5)(*narrow, 0.1)
    expected, _ = compiled(name, 5)(*(x.astype(jnp.float32) for x in narrow), 0.1)
    assert loss.dtype == jnp.float32
    assert {x.dtype.name for x in gradients[:3]} == {"bfloat16"}
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "shapes", "options", "message"),
    [
        (nt_xent, ((4, 3), (1, 3)), {}, "z2.shape"),
        (nt_xent, ((4, 3), (4, 3)), {"temperature": 0.0}, r"temperature=0\.0"),
        (nt_xent, ((4, 3), (4, 3)), {"block_size": 0}, "block_size=0"),
        (info_nce, ((4, 3), (4, 2)), {}, "keys.shape"),
        (info_nce, ((4, 3), (4, 3), (3, 5)), {}, "negatives.shape"),
        (dcl, ((1, 3), (1, 3)), {}, r"z1\.shape=\(1, 3\).*no negatives"),
        (dcl, ((4, 3), (4, 3)), {"sigma": 0.0}, r"sigma=0\.0"),
        (hard_negative, ((1, 3), (1, 3)), {}, r"z1\.shape=\(1, 3\).*no negatives"),
        (hard_negative, ((4, 3), (4, 3)), {"beta": -1.0}, r"beta=-1\.0"),
        (hard_negative, ((4, 3), (4, 3)), {"tau_plus": 1.0}, r"tau_plus=1\.0"),
    ],
)
def test_bad_input_is_refused_by_name(loss, shapes, options, message):
    # Production has no run-time shape checks: there the functions' own must speak.
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(loss)(*(jnp.ones(shape) for shape in shapes), **options)
