"""Measures without labels, the rule that comes out of them, and how sure it is: against closed forms and loops."""

import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.sources import ArraySource
from ssl_jax.evaluate import label_free_rule as rules
from ssl_jax.evaluate.correlation import bootstrap_correlation
from ssl_jax.evaluate.label_free import SCALAR, LabelFree, OnlineLabelFree, cluster_scores, silhouette
from ssl_jax.evaluate.label_free_rule import UNTRAINED, Estimate, Measured, Points, Rule, Standard
from ssl_jax.evaluate.measure import Candidate, Options, Subject
from ssl_jax.evaluate.measures import MEASURES, run_measures
from ssl_jax.methods.contrastive import simclr
from ssl_jax.train.features import Features, extract_source
from ssl_jax.train.state import TrainState

ROOT = Path(__file__).parent.parent.parent
RULE = Rule(
    {"rankme": Standard(1.0, 0.5), "alignment": Standard(-0.5, 0.25)},
    "toy",
    9,
    2,
    {},
    Estimate(2.0, 1.0, 3.0),
)


def spearman(x, y):
    return float(scipy.stats.spearmanr(x, y).statistic)


# Bootstrap


def test_seeds_of_a_method_are_one_point_and_strata_are_ranked_apart():
    """Two encoders: within each the order is perfect in one and reversed in the other; sizes weigh."""
    strata = ["a"] * 8 + ["b"] * 3
    groups = [f"m{i // 2}" for i in range(8)] + ["m0", "m1", "m2"]
    measure = np.r_[0, 0.4, 1, 1.4, 2, 2.4, 3, 3.4, 5, 6, 7]
    accuracy = np.r_[0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.8, 0.7]
    found = bootstrap_correlation(measure, accuracy, groups=groups, strata=strata, resamples=50)
    assert found.value == pytest.approx((4 * 1 + 3 * -1) / 7) and found.groups == 7
    # Together, a name in two strata is one group where no strata are given.
    members = [np.flatnonzero(np.array(groups) == name) for name in dict.fromkeys(groups)]
    means = [(measure[i].mean(), accuracy[i].mean()) for i in members]
    together = bootstrap_correlation(measure, accuracy, groups=groups, resamples=50)
    assert together.value == pytest.approx(spearman(*np.array(means).T)) and together.groups == 4


def test_draws_equal_a_loop_over_them():
    x, y = np.random.default_rng(0).normal(size=(2, 9))
    found = bootstrap_correlation(x, y, groups=list("abcdefghi"), resamples=30, level=0.8, seed=3)
    rng = np.random.default_rng(3)
    draws = [spearman(x[i], y[i]) for i in rng.integers(0, 9, (30, 9))]
    np.testing.assert_allclose(found.samples, draws, atol=1e-12)
    np.testing.assert_allclose((found.low, found.high), np.quantile(draws, [0.1, 0.9]))


def test_the_interval_covers_the_correlation_of_normal_variables():
    """Spearman's ρ of a normal pair with correlation r is ``6/π asin(r/2)``."""
    r, hits = 0.7, 0
    rng = np.random.default_rng(1)
    for trial in range(100):
        x, y = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], 40).T
        found = bootstrap_correlation(x, y, groups=[str(i) for i in range(40)], resamples=200, seed=trial)
        hits += found.low <= 6 / math.pi * math.asin(r / 2) <= found.high
    assert 86 <= hits <= 100


def test_what_is_not_finite_or_too_few_is_left_out():
    x, y = np.r_[1.0, 2.0, 3.0, np.nan], np.r_[1.0, 2.0, 3.0, 0.0]
    assert bootstrap_correlation(x, y, groups=list("abcd"), resamples=5).value == 1.0
    few = bootstrap_correlation(x, y, groups=list("aabb"), resamples=5)
    assert math.isnan(few.value) and few.groups == 0
    constant = bootstrap_correlation(np.ones(4), y, groups=list("abcd"), resamples=5)
    assert math.isnan(constant.value) and math.isnan(constant.low)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": ["a"]}, "measure=.*one number, accuracy, group and stratum"),
        ({"groups": list("abc"), "resamples": 0}, "resamples=0"),
        ({"groups": list("abc"), "level": 1.0}, "level=1.0"),
    ],
)
def test_wrong_arguments_of_the_bootstrap_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_correlation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], **options)


# The rule


def make_runs(count=12, *, noise=0.0, encoders=("net", "vit"), seeds=3, seed=0):
    """Runs whose RankMe follows the accuracy, up to noise, and whose uniformity does not."""
    rng = np.random.default_rng(seed)
    runs = []
    for shift, encoder in enumerate(encoders):
        for i in range(count):
            quality = rng.normal()
            values = {
                "rankme": math.exp(2 * shift + quality + noise * rng.normal()),
                "uniformity": rng.normal(),
            }
            for s in range(seeds):
                accuracy = 0.5 + 0.1 * quality - 0.2 * shift + 0.001 * s
                runs.append(
                    Measured(f"m{i}", encoder, s, 9, True, values, {"knn": accuracy, "linear": accuracy})
                )
    return runs


def test_the_measure_that_follows_the_accuracy_is_chosen_and_the_simplest_of_equals():
    rule = rules.choose_rule(make_runs(), fixed_on="toy", resamples=100)
    assert rule.name == "rankme" and (rule.methods, rule.encoders) == (12, 2)
    assert rule.correlation["knn"].value == 1.0
    assert rule.slope.value == pytest.approx(rules.STEEPEST, rel=1e-3)
    noisy = rules.choose_rule(make_runs(noise=0.5), fixed_on="toy", resamples=100)
    assert noisy.correlation["linear"].low < noisy.correlation["linear"].value < 1


def test_between_encoders_the_order_may_be_the_other_way_round():
    """Simpson's paradox: within each encoder perfect, across them the encoder with the larger rank is worse."""
    found = rules.check_rule(
        rules.choose_rule(make_runs(count=4), fixed_on="toy", resamples=20), make_runs(count=4), resamples=20
    )
    assert found.within["linear"].value == 1.0 > found.across["linear"].value
    assert found.right == 1.0 and found.regret == 0.0 and math.isnan(found.untrained)


def test_score_and_standards_equal_their_definitions():
    runs = make_runs(noise=0.5)
    points = rules.average_seeds(runs)
    standards = rules.standards_of(points, ("rankme", "uniformity"))
    values = np.log([run.values["rankme"] for run in runs if run.seed == 0]).reshape(2, 12)
    deviations = values - values.mean(axis=1, keepdims=True)
    assert standards["rankme"].mean == pytest.approx(values.mean())
    assert standards["rankme"].std == pytest.approx(math.sqrt((deviations**2).sum() / 22))
    scores = rules.combine(points, standards)
    rule = RULE._replace(measures=standards)
    np.testing.assert_allclose(scores, [rule.score(run.values) for run in runs if run.seed == 0])
    assert math.isnan(rule.score({"rankme": 3.0}))
    assert RULE.score({"rankme": math.e**2, "alignment": 0.25}) == pytest.approx((2 + 1) / 2)


def test_certainty_grows_with_the_gap_and_shares_keep_the_order():
    values = ({"rankme": math.e, "alignment": 0.5}, {"rankme": math.e**2, "alignment": 0.25})
    gap = RULE.score(values[1]) - RULE.score(values[0])
    assert 0 < RULE.share(values[0]) < RULE.share(values[1]) < 1
    shares = [RULE.share({**values[0], "alignment": -(10.0**k)}) for k in range(1, 9)]
    assert all(low < high < 1 for low, high in itertools.pairwise(shares))
    assert (
        RULE.certainty(gap).value == RULE.certainty(-gap).value == pytest.approx(1 / (1 + math.exp(-2 * gap)))
    )
    assert RULE.certainty(gap).low < RULE.certainty(gap).value < RULE.certainty(gap).high


def test_the_slope_maximises_the_likelihood_of_the_pairs():
    rng = np.random.default_rng(0)
    score = rng.normal(size=14)
    accuracy = score + rng.normal(size=14)
    points = Points(tuple("abcdefghijklmn"), ("x",) * 7 + ("y",) * 7, {}, {"linear": accuracy})
    pairs = [
        (abs(score[i] - score[j]), (score[i] - score[j]) * (accuracy[i] - accuracy[j]) > 0)
        for i, j in itertools.combinations(range(14), 2)
        if (i < 7) == (j < 7)
    ]

    def likelihood(slope):
        return sum(-math.log1p(math.exp(-slope * gap if right else slope * gap)) for gap, right in pairs)

    found = rules.fit_slope(points, score, "linear", resamples=50)
    assert likelihood(found.value) >= max(likelihood(s) for s in np.linspace(0, 10, 2001)) - 1e-6
    assert 0 <= found.low < found.value < found.high
    checked = rules.pair_up(points, score, "linear")
    assert len(checked.gap) == len(pairs) and checked.right.sum() == sum(right for _, right in pairs)


def test_methods_that_learn_rotations_are_not_judged_by_rotations():
    runs = [
        run._replace(values={**run.values, "rotation": 0.9 + 0.001 * i}) for i, run in enumerate(make_runs())
    ]
    worst = {"knn": 0.1, "linear": 0.1}
    turned = {"rotation": 0.99, "rankme": 1.0}
    runs.append(runs[0]._replace(method="rotation", values=turned, accuracy=worst))
    rule = RULE._replace(measures={"rotation": Standard(2.0, 0.5)})
    assert rules.check_rule(rule, runs, resamples=5).methods == 24
    assert (
        rules.check_rule(RULE._replace(measures={"rankme": Standard(0.0, 1.0)}), runs, resamples=5).methods
        == 25
    )


def test_untrained_encoders_take_part_in_pairs_only():
    runs = make_runs(count=4, encoders=("net",))
    low = Measured(
        UNTRAINED, "net", 0, 0, True, {"rankme": 1e-3, "uniformity": 0.0}, {"knn": 0.0, "linear": 0.0}
    )
    rule = rules.choose_rule([*runs, low], fixed_on="toy", resamples=20)
    assert rule.methods == 4
    assert rules.check_rule(rule, [*runs, low], resamples=5).untrained == 1.0
    high = low._replace(accuracy={"knn": 1.0, "linear": 1.0})
    assert rules.check_rule(rule, [*runs, high], resamples=5).untrained == 0.0


def test_too_few_methods_are_refused():
    with pytest.raises(ValueError, match=r"runs='2 methods'.*runs of 3 methods or more"):
        rules.choose_rule(make_runs(count=2, encoders=("net",)), fixed_on="toy", resamples=5)
    bare = [run._replace(accuracy={"knn": 0.5}) for run in make_runs()]
    with pytest.raises(ValueError, match="runs='no linear'"):
        rules.choose_rule(bare, fixed_on="toy", resamples=5)


def test_checkpoints_of_a_run_are_ranked_within_it():
    """The score rises and falls back; the accuracy follows it in one method and falls in the other."""
    runs = [
        Measured(method, "net", seed, step, step == 3, {"rankme": value}, {"linear": accuracy})
        for method, curve in (("follows", [0.1, 0.2, 0.4, 0.3]), ("falls", [0.4, 0.3, 0.1, 0.2]))
        for seed in (0, 1)
        for step, (value, accuracy) in enumerate(zip([1.0, 2.0, 4.0, 3.0], curve, strict=True))
    ]
    found = rules.check_checkpoints(runs, lambda run: run.values["rankme"], resamples=20)
    assert found.runs == 4 and found.correlation.value == pytest.approx(0.0)
    assert found.regret == pytest.approx((0 + 0.3) / 2)
    assert found.regret_of_last == pytest.approx((0.1 + 0.2) / 2)
    assert rules.check_checkpoints(runs[:2], lambda run: 1.0).runs == 0


def test_the_committed_rule_is_read_and_others_are_refused():
    rule = rules.read_rule()
    assert rules.parse_rule(rules.rule_text(rule)) == rule
    assert set(rule.measures) <= set(rules.ORIENT) and rule.slope.low <= rule.slope.value <= rule.slope.high
    with pytest.raises(ValueError, match=r"measures='luck'"):
        rules.parse_rule(rules.rule_text(rule).replace(next(iter(rule.measures)), "luck"))
    with pytest.raises(ValueError, match=r"allowed is what experiments\.label_free --fix writes"):
        rules.parse_rule("{}")


# The measures


def test_silhouettes_equal_sklearns():
    points = np.random.default_rng(0).normal(size=(30, 4)) + np.repeat(np.eye(3, 4) * 3, 10, axis=0)
    clusters = np.r_[np.repeat([0, 1, 2], 10)[:-1], 7]
    expected = sklearn.metrics.silhouette_score(points, clusters, metric="cosine")
    assert silhouette(points.astype(np.float32), clusters) == pytest.approx(expected, abs=1e-6)
    assert math.isnan(silhouette(points, np.zeros(30, int)))


def test_agreement_is_one_for_equal_views_and_near_zero_for_unrelated_ones():
    rng = np.random.default_rng(0)
    first = (rng.normal(size=(200, 8)) + np.repeat(np.eye(4, 8) * 40, 50, axis=0)).astype(np.float32)
    scores = cluster_scores(first, first + 0.01, clusters=4)
    assert scores["agreement"] == 1.0 and scores["silhouette"] > 0.6
    assert cluster_scores(first, rng.permutation(first), clusters=4)["agreement"] < 0.1
    with pytest.raises(ValueError, match="first='1 images'"):
        cluster_scores(first[:1], first[:1])


@pytest.fixture(scope="module")
def toy():
    views = (View(size=8), View(size=8))
    method = simclr.build(models.build("convnet", widths=(8,)), views=views)
    variables = method.init(jax.random.key(0), {"views": (jnp.zeros((2, 2, 8, 8, 1)),)})
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), dtype=np.uint8)
    images[:, :4] //= 4  # an upright: the upper half is dark
    return method, variables, ArraySource(images)


def test_the_measure_gives_all_values_and_the_share_of_the_rule(toy):
    method, variables, source = toy
    features = Features(np.zeros((60, 2)), np.full(60, -1), np.arange(60))
    options = Options(5, 0.07, (1,), 1, 1.0)
    candidate = Candidate("simclr, 9 steps", "encoder", method, *variables)
    row = run_measures(
        Subject(features, features, (source, source), options, candidate), [MEASURES["label_free"]]
    )
    values = row["label_free_values"]
    assert set(values) == set(rules.ORIENT)
    assert row["label_free"] == pytest.approx(rules.read_rule().share(values))
    of_rotation = candidate._replace(name="rotation, 9 steps")
    row = run_measures(
        Subject(features, features, (source, source), options, of_rotation), [MEASURES["label_free"]]
    )
    assert (
        "learns to tell rotations" in row["left_out"]["label_free"]
        or "rotation" not in rules.read_rule().measures
    )


def test_the_score_of_a_run_is_that_of_its_images_at_every_call(toy, caplog):
    method, (params, state), source = toy
    hook = OnlineLabelFree(method, source, every=5, method_name="simclr", images=60)
    train_state = TrainState(jnp.int32(0), params, state, (), jax.random.key(0), jnp.bool_(True))
    first, second = hook(5, train_state), hook(10, train_state)
    assert first == second and 0 <= first[SCALAR] <= 1
    chosen = np.arange(60)
    parts = [source_part(source, chosen[chosen % 3 != 1]), source_part(source, chosen[chosen % 3 == 1])]
    measures = LabelFree(rules.read_rule().measures, method, tuple(parts), images=256)

    def encode_source(part, encode):
        return extract_source(encode, part, view=method.views[0], variables=(params, state), sharding=None)

    values = measures(params, state, encode_source)
    assert first[SCALAR] == pytest.approx(rules.read_rule().share(values), abs=1e-5)
    few = OnlineLabelFree(method, source_part(source, np.arange(9)), every=5, method_name="simclr", images=60)
    assert few(5, train_state) == {} and "9 images" in caplog.text
    with pytest.raises(ValueError, match=r"images=9.*30 or more"):
        OnlineLabelFree(method, source, every=5, method_name="simclr", images=9)


def source_part(source, indices):
    return ArraySource(np.stack([source[int(i)]["image"] for i in indices]))


@pytest.mark.long
def test_values_are_those_of_the_measures_that_take_them_one_by_one(toy):
    method, variables, source = toy
    features = Features(np.zeros((60, 2)), np.full(60, -1), np.arange(60))
    candidate = Candidate("simclr, 9 steps", "encoder", method, *variables)
    subject = Subject(features, features, (source, source), Options(5, 0.07, (1,), 1, 1.0), candidate)
    row = run_measures(subject, [MEASURES[name] for name in ("label_free", "rotation", "health")])
    values = row["label_free_values"]
    assert values["rotation"] == row["rotation"]
    for name in set(values) & set(row["health"]):
        assert values[name] == pytest.approx(row["health"][name], rel=1e-5)
