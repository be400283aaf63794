"""Distances, the contrastive loss with a margin, triplets and SupCon: golden numbers and loops over the definitions."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax.losses.contrastive import nt_xent
from ssl_jax.losses.metric import contrastive_margin, distances, label_ids, pair_masks, sup_con, triplet
from tests.golden_files import assert_close, golden

LOSSES = {"contrastive": contrastive_margin, "triplet": triplet}
IDS = jnp.array([0, 0, 1, 1, 1, 2, 3, 3])  # class 2 has one member: it has no positive
X = np.random.default_rng(0).normal(size=(8, 3))
ROWS = jnp.asarray(X, jnp.float32)


@functools.cache
def compiled(name, **options):
    """Loss, shares and the gradient to the rows; margin traced."""

    def loss(x, positives, negatives, margin):
        return LOSSES[name](x, positives, negatives, margin=margin, **options)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def run(name, margin, x=X, masks=None, **options):
    masks = pair_masks(IDS) if masks is None else masks
    (loss, active), gradient = compiled(name, **options)(jnp.asarray(x, jnp.float32), *masks, margin)
    return loss, active, gradient


def pairs(size, rows, columns):
    """A mask of given pairs only."""
    return jnp.zeros((size, size), bool).at[rows, columns].set(True)


def assert_golden(loss, gradients, case, names, *, tolerance=1e-8):
    file = golden("metric_learning")
    np.testing.assert_allclose(loss, file[f"{case}__loss"], rtol=tolerance / 10)
    for gradient, name in zip(gradients, names, strict=True):
        assert_close(gradient, file[f"{case}__grad__{name}"], tolerance=tolerance)


# The oracle's p = 2 distance adds 1e-6 to each difference: it is moved into p and n here.
TRIPLETS = {
    "triplet_m1": (1.0, 1e-8, {}),
    "triplet_m0p2": (0.2, 1e-8, {}),
    "triplet_m1_swap": (1.0, 1e-6, {"swap": True}),  # between p and n the moves cancel
    "triplet_normalised_m1": (1.0, 1e-8, {}),
    "triplet_cosine_m0p5": (
        1.0,
        1e-8,
        {"squared": True},
    ),  # 1 − cos is half the squared distance of unit vectors
}


@pytest.mark.parametrize("case", TRIPLETS)
def test_given_triplets_equal_golden(case):
    (margin, tolerance, options), file = TRIPLETS[case], golden("metric_learning")
    cosine = case == "triplet_cosine_m0p5"
    n, shift = 16, 0.0 if cosine else 1e-6

    def loss(a, p, q):
        if cosine or "normalised" in case:
            a, p, q = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, p, q))
        x = jnp.concatenate([a, p - shift, q - shift])
        masks = (pairs(3 * n, jnp.arange(n), jnp.arange(n) + k * n) for k in (1, 2))
        return triplet(x, *masks, margin=margin, normalize=False, **options)[0] * (0.5 if cosine else 1)

    with jax.enable_x64(True):
        inputs = [jnp.asarray(file[f"in__{name}"]) for name in "apn"]
        value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*inputs)
        assert_golden(value, gradients, case, "apn", tolerance=tolerance)


# Margin, power, squared, shift of p, weight of the loss: CosineEmbeddingLoss is the linear loss of half squared distances.
PAIRS = {
    "contrastive_sq": (5.0, 2, False, 1e-6, 1.0, False),
    "hinge_embedding_m5": (5.0, 1, False, 1e-6, 1.0, False),
    "cosine_embedding_m0p2": (1.6, 1, True, 0.0, 0.5, True),
}


@pytest.mark.parametrize("case", PAIRS)
def test_given_pairs_equal_golden(case):
    (margin, power, squared, shift, weight, normalize), file = PAIRS[case], golden("metric_learning")
    place, alike = jnp.arange(16), file["in__y"] == 1

    def loss(a, p):
        # These oracles average over all pairs, not over each group.
        x, none = jnp.concatenate([a, p - shift]), jnp.zeros((32, 32), bool)
        options = {"margin": margin, "power": power, "squared": squared, "normalize": normalize}
        masks = [pairs(32, place[which], place[which] + 16) for which in (alike, ~alike)]
        positive, _ = contrastive_margin(x, masks[0], none, **options)
        negative, _ = contrastive_margin(x, none, masks[1], **options)
        return weight * (alike.sum() * positive + (~alike).sum() * negative) / 16

    with jax.enable_x64(True):
        inputs = [jnp.asarray(file[f"in__{name}"]) for name in "ap"]
        value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*inputs)
        assert_golden(value, gradients, case, "ap")


BATCHES = {
    "pml_contrastive": lambda x, m: contrastive_margin(x, *m, margin=1.0, power=1, reduction="nonzero")[0],
    "pml_triplet": lambda x, m: triplet(x, *m, margin=0.2, reduction="nonzero")[0],
    "pml_supcon": lambda x, m: sup_con(x, m[0], temperature=0.1),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("case", BATCHES)
def test_whole_batches_with_labels_equal_golden(case, dtype):
    file, tolerance = golden("metric_learning"), 1e-8 if dtype == jnp.float64 else 1e-4
    with jax.enable_x64(dtype == jnp.float64):
        masks = pair_masks(jnp.asarray(file["in__labels"], jnp.int32))
        function = jax.jit(jax.value_and_grad(lambda x: BATCHES[case](x, masks)))
        value, gradient = function(jnp.asarray(file["in__a"], dtype))
        assert_golden(value, [gradient], case, "a", tolerance=tolerance)


@pytest.mark.parametrize("case", ["supcon_two_views", "lightly_ntxent", "pml_ntxent"])
def test_sup_con_of_two_views_equals_golden(case):
    file = golden("metric_learning")
    ids = file["in__labels"] if case == "supcon_two_views" else np.arange(16)
    temperature = 0.1 if case == "supcon_two_views" else 0.5
    with jax.enable_x64(True):
        inputs = [jnp.asarray(file[f"in__{name}"]) for name in "ap"]
        positives, _ = pair_masks(jnp.tile(jnp.asarray(ids), 2))
        loss = lambda a, p: sup_con(jnp.concatenate([a, p]), positives, temperature=temperature)  # noqa: E731
        value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*inputs)
        assert_golden(value, gradients, case, "ap")
        if case != "supcon_two_views":
            np.testing.assert_allclose(value, nt_xent(*inputs, temperature=0.5), rtol=1e-12)


def test_distances_equal_golden():
    file = golden("metric_learning")
    with jax.enable_x64(True):
        a, p = (jnp.asarray(file[f"in__{name}"]) for name in "ap")
        both = jnp.concatenate([a, p])
        assert_close(distances(both)[:16, 16:], file["distances__out__cdist"], tolerance=1e-8)
        assert_close(distances(both, p=1)[:16, 16:], file["distances__out__cdist_l1"], tolerance=1e-8)
        upper = distances(a)[np.triu_indices(16, 1)]
        assert_close(upper, file["distances__out__pdist"], tolerance=1e-8)
        moved = jnp.diag(distances(jnp.concatenate([a, p - 1e-6]))[:16, 16:])
        assert_close(moved, file["distances__out__pairwise"], tolerance=1e-8)
        unit = both / jnp.linalg.norm(both, axis=1, keepdims=True)
        cosine = jnp.diag((1 - distances(unit, squared=True) / 2)[:16, 16:])
        assert_close(cosine, file["distances__out__cosine"], tolerance=1e-8)


# Loops over the definitions.


def loop_distance(x, y, p, squared):
    return np.sum(np.abs(x - y) ** p) ** ((2 if squared else 1) / p)


def loop_rows(normalize):
    return X / np.linalg.norm(X, axis=1, keepdims=True) if normalize else X


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_distances_equal_a_loop(p, squared):
    expected = [[loop_distance(x, y, p, squared) for y in X] for x in X]
    found = distances(ROWS, p=p, squared=squared)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"power": 1, "reduction": "nonzero"},
        {"normalize": False, "p": 1, "reduction": "nonzero"},
        {"power": 1, "squared": True, "positive_margin": 0.5},
    ],
    ids=str,
)
def test_contrastive_margin_equals_a_loop(options):
    margin, power = 1.7, options.get("power", 2)
    x, groups = loop_rows(options.get("normalize", True)), ([], [])
    for i in range(8):
        for j in range(8):
            if i != j:
                d = loop_distance(x[i], x[j], options.get("p", 2), options.get("squared", False))
                far = IDS[i] != IDS[j]
                h = margin - d if far else d - options.get("positive_margin", 0.0)
                groups[int(far)].append(max(h, 0.0) ** power / power)
    kept = [[t for t in g if t > 0] if options.get("reduction") == "nonzero" else g for g in groups]
    expected = sum(np.mean(g) for g in kept)
    loss, active, _ = run("contrastive", margin, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(active, [np.mean(np.array(g) > 0) for g in groups], rtol=1e-6)


def loop_triplet(
    margin,
    *,
    mining,
    max_positives=8,
    soft=False,
    reduction="mean",
    swap=False,
    normalize=True,
    p=2,
    squared=False,
):
    """Loss and share of triplets that are mined and violate the margin."""
    x = loop_rows(normalize)
    d = np.array([[loop_distance(u, v, p, squared) for v in x] for u in x])
    ids, terms, active, candidates = np.asarray(IDS), [], 0, 0
    for a in range(8):
        near = [i for i in range(8) if i != a and ids[i] == ids[a]][:max_positives]
        far = [i for i in range(8) if ids[i] != ids[a]]
        triplets = [(i, j) for i in near for j in far]
        if mining == "batch_hard" and triplets:
            triplets = [(max(near, key=lambda i: d[a, i]), min(far, key=lambda j: d[a, j]))]
        for i, j in triplets:
            candidates += 1
            gap = d[a, j] - d[a, i]
            rules = {"semi_hard": 0 < gap <= margin, "hard": gap <= 0}
            if rules.get(mining, True):
                excess = d[a, i] - (min(d[a, j], d[i, j]) if swap else d[a, j]) + margin
                terms.append(np.log1p(np.exp(excess)) if soft else max(excess, 0.0))
                active += excess > 0
    if reduction == "nonzero":
        terms = [t for t in terms if t > 0]
    return np.mean(terms), active / candidates


@pytest.mark.parametrize(
    "options",
    [
        {"mining": "all"},
        {"mining": "all", "reduction": "nonzero", "swap": True},
        {"mining": "all", "soft": True, "squared": True},
        {"mining": "semi_hard"},
        {"mining": "hard", "normalize": False, "p": 1},
        {"mining": "all", "max_positives": 1, "swap": True},
        {"mining": "semi_hard", "max_positives": 2},
        {"mining": "batch_hard"},
        {"mining": "batch_hard", "swap": True, "reduction": "nonzero"},
        {"mining": "batch_hard", "soft": True, "squared": True},
    ],
    ids=str,
)
def test_triplet_equals_a_loop(options):
    loss, active, gradient = run("triplet", 0.6, **options)
    np.testing.assert_allclose((loss, active), loop_triplet(0.6, **options), rtol=1e-5)
    assert np.isfinite(gradient).all()


# Properties.


def test_an_anchor_without_a_positive_takes_no_part_in_batch_hard():
    """A fake positive at distance 0 would give the lonely anchor the loss margin − nearest negative."""
    x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    _, active, _ = run("triplet", 5.0, x, pair_masks(jnp.array([0, 0, 1])), mining="batch_hard")
    assert float(active) == 1.0  # both anchors that have a positive, and no third
    loss, active, gradient = run("triplet", 5.0, x, pair_masks(jnp.arange(3)), mining="batch_hard")
    assert float(loss) == float(active) == 0.0 and not np.any(gradient)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_gradient_is_finite_where_rows_coincide(p):
    x = jnp.concatenate([jnp.ones((3, 4)), 2 * jnp.ones((1, 4))])
    gradient = jax.grad(lambda x: jnp.sum(distances(x, p=p)))(x)
    assert np.isfinite(gradient).all() and np.any(gradient)
    assert not np.any(distances(x, p=p)[:3, :3])


@pytest.mark.parametrize("constant", [0.0, 1.0])
@pytest.mark.parametrize(
    ("name", "margin", "options", "expected"),
    [
        ("contrastive", 0.7, {"power": 1}, 0.7),
        ("contrastive", 0.7, {"power": 1, "reduction": "nonzero"}, 0.7),
        ("contrastive", 0.7, {}, 0.7**2 / 2),
        ("triplet", 0.7, {"mining": "all"}, 0.7),
        ("triplet", 0.7, {"mining": "hard"}, 0.7),
        ("triplet", 0.7, {"mining": "batch_hard"}, 0.7),
        ("triplet", 0.7, {"mining": "semi_hard"}, 0.0),
        ("triplet", 0.0, {"mining": "all", "soft": True, "squared": True}, np.log(2)),
        ("triplet", 0.7, {"mining": "batch_hard", "soft": True}, np.log1p(np.exp(0.7))),
    ],
    ids=str,
)
def test_collapse_gives_the_constant_of_theory(name, margin, options, expected, constant):
    loss, _, gradient = run(name, margin, np.full((8, 3), constant), **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_well_separated_classes_cost_nothing_and_a_negative_within_the_margin_does():
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    masks = pair_masks(jnp.array([0, 0, 1, 1]))
    for name, margin in (("contrastive", 1.4), ("triplet", 1.4)):
        loss, active, gradient = run(name, margin, x, masks)
        assert float(loss) == 0 and not np.any(gradient) and not np.any(active)
        loss, _, gradient = run(name, 1.5, x, masks)
        assert float(loss) > 0 and np.any(gradient)


@pytest.mark.parametrize("mining", ["all", "batch_hard"])
def test_losses_do_not_change_under_permutation_or_rotation(mining):
    order = np.random.default_rng(1).permutation(8)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    masks = pair_masks(IDS[order])
    for name, options in (("contrastive", {}), ("triplet", {"mining": mining})):
        first, *_ = run(name, 0.6, **options)
        second, *_ = run(name, 0.6, (X @ rotation)[order], masks, **options)
        np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.long
def test_mining_moves_no_gradient():
    """A finite difference in which the mined triplets stay the same."""
    with jax.enable_x64(True):
        masks = pair_masks(IDS)
        for mining in ("semi_hard", "batch_hard"):
            loss = lambda x: triplet(x, *masks, margin=0.6, mining=mining, soft=True)[0]  # noqa: B023, E731
            direction = np.random.default_rng(3).normal(size=X.shape)
            slope = np.sum(np.asarray(jax.grad(loss)(jnp.asarray(X))) * direction)
            ends = [float(loss(jnp.asarray(X + h * direction))) for h in (1e-6, -1e-6)]
            np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_all_triplets_are_never_held_at_once():
    n = 96
    x, masks = jnp.ones((n, 4)), pair_masks(jnp.arange(n) // 2)
    for function in (
        lambda x: triplet(x, *masks, mining="all")[0],
        lambda x: jnp.sum(distances(x, p=1)),
    ):
        memory = jax.jit(jax.grad(function)).lower(x).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 4 * n**3 / 2


@pytest.mark.parametrize("name", LOSSES)
def test_eight_devices_give_the_same_loss_and_gradient_as_one(name):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, masks = np.random.default_rng(4).normal(size=(16, 4)), pair_masks(jnp.arange(16) // 2)
    spread = NamedSharding(mesh, PartitionSpec("data"))
    sharded = [jax.device_put(array, spread) for array in (jnp.asarray(x, jnp.float32), *masks)]
    (loss, active), gradient = compiled(name)(*sharded, 1.0)
    expected = run(name, 1.0, x, masks)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
    np.testing.assert_allclose(active, expected[1], rtol=1e-6)
    assert_close(gradient, np.asarray(expected[2]), tolerance=1e-5)


def test_jit_equals_eager_and_bfloat16_is_computed_in_float32():
    x, masks = jnp.asarray(X, jnp.bfloat16), pair_masks(IDS)
    for name, loss in LOSSES.items():
        narrow, _ = loss(x, *masks, margin=0.6)
        assert narrow.dtype == jnp.float32
        np.testing.assert_allclose(narrow, run(name, 0.6, x.astype(jnp.float32))[0], rtol=1e-6)
    narrow = sup_con(x, masks[0])
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, jax.jit(sup_con)(x.astype(jnp.float32), masks[0]), rtol=1e-6)


def test_sup_con_equals_a_loop_and_collapses_to_the_logarithm_of_the_others():
    u, ids, terms = loop_rows(True), np.asarray(IDS), []
    for i in range(8):
        others = [j for j in range(8) if j != i]
        near = [j for j in others if ids[j] == ids[i]]
        if near:
            partition = np.log(sum(np.exp(u[i] @ u[j] / 0.2) for j in others))
            terms.append(partition - np.mean([u[i] @ u[j] / 0.2 for j in near]))
    positives, _ = pair_masks(IDS)
    found = sup_con(ROWS, positives, temperature=0.2)
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-5)
    np.testing.assert_allclose(sup_con(jnp.ones((8, 3)), positives), np.log(7), rtol=1e-6)
    assert float(sup_con(jnp.ones((8, 3)), jnp.zeros((8, 8), bool))) == 0.0


def test_images_without_a_label_are_alone():
    positives, negatives = pair_masks(label_ids(jnp.array([-1, 2, -1, 2])))
    assert positives.sum() == 2 and positives[1, 3] and negatives[0, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, t, s, d: c(ROWS, jnp.ones((3, 3), bool), jnp.ones((8, 8), bool)), "positives.shape"),
        (lambda c, t, s, d: t(ROWS, jnp.ones((8, 8), bool), jnp.ones((3, 8), bool)), "negatives.shape"),
        (lambda c, t, s, d: c(ROWS, *pair_masks(IDS), margin=0.0), r"margin=0\.0"),
        (lambda c, t, s, d: c(ROWS, *pair_masks(IDS), positive_margin=-1.0), r"positive_margin=-1\.0"),
        (lambda c, t, s, d: c(ROWS, *pair_masks(IDS), power=3), "power=3"),
        (lambda c, t, s, d: c(ROWS, *pair_masks(IDS), reduction="sum"), "reduction='sum'"),
        (lambda c, t, s, d: t(ROWS, *pair_masks(IDS), margin=-0.1), r"margin=-0\.1"),
        (lambda c, t, s, d: t(ROWS, *pair_masks(IDS), mining="semihard"), "did you mean 'semi_hard'"),
        (lambda c, t, s, d: t(ROWS, *pair_masks(IDS), max_positives=0), "max_positives=0"),
        (lambda c, t, s, d: s(ROWS, pair_masks(IDS)[0], temperature=0.0), r"temperature=0\.0"),
        (lambda c, t, s, d: s(ROWS[:1], jnp.zeros((1, 1), bool)), "x.shape"),
        (lambda c, t, s, d: d(ROWS, p=0), "p=0"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(*(inspect.unwrap(f) for f in (contrastive_margin, triplet, sup_con, distances)))
