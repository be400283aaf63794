"""Linear probes: the optimum, what may choose the penalty, balanced draws, determinism."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from ssl_jax.data.labels import balanced_draw
from ssl_jax.evaluate import few_labels, linear, logistic, ridge

RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 3
CENTERS = RNG.normal(size=(3, 6))
FEATURES = (CENTERS[LABELS] + RNG.normal(size=(90, 6)) * 0.7).astype(np.float32)
TEST_LABELS = np.arange(60) % 3
TEST = (CENTERS[TEST_LABELS] + RNG.normal(size=(60, 6)) * 0.7).astype(np.float32)
SETS = (FEATURES, LABELS, TEST, TEST_LABELS)


def scipy_optimum(x, y, l2, classes):
    """Weights, intercepts and the value of the objective at its minimum, by scipy."""
    n, d = x.shape

    def objective(flat):
        w, b = flat[: d * classes].reshape(d, classes), flat[d * classes :]
        log_p = scipy.special.log_softmax(x @ w + b, axis=1)
        error = (np.exp(log_p) - np.eye(classes)[y]) / n
        gradient = np.concatenate([(x.T @ error + l2 * w).ravel(), error.sum(0)])
        return -log_p[np.arange(n), y].mean() + l2 / 2 * (w**2).sum(), gradient

    start = np.zeros((d + 1) * classes)
    result = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", tol=1e-12)
    return result.x[: d * classes].reshape(d, classes), result.fun


def scipy_intercept(scores, y):
    """Intercepts that minimise the cross entropy of fixed scores."""
    classes = scores.shape[1]

    def objective(b):
        log_p = scipy.special.log_softmax(scores + b, axis=1)
        return -log_p[np.arange(len(y)), y].mean(), (np.exp(log_p) - np.eye(classes)[y]).mean(0)

    return scipy.optimize.minimize(objective, np.zeros(classes), jac=True, tol=1e-12).x


@pytest.mark.parametrize("solver", logistic.SOLVERS)
@pytest.mark.parametrize("rows", [90, 12], ids=["many_rows", "two_rows_a_dimension"])
@pytest.mark.parametrize("width", [6, 20], ids=["narrow", "wide"])
def test_every_penalty_of_the_grid_reaches_the_optimum_that_scipy_finds(rows, width, solver):
    rng = np.random.default_rng(1)
    x = (FEATURES[:rows] @ rng.normal(size=(6, width)) + 0.3 * rng.normal(size=(rows, width)) + 1.0).astype(
        np.float32
    )
    y, grid = LABELS[:rows], (1.0, 0.1)
    weights, _ = logistic.logistic_regression(
        jnp.asarray(x),
        jnp.asarray(y),
        classes=3,
        l2=jnp.array(grid),
        iterations=300 if solver == "bound" else 60,
        solver=solver,
    )
    for result, l2 in zip(weights, grid, strict=True):
        expected, _ = scipy_optimum(x.astype(np.float64), y, l2, 3)
        np.testing.assert_allclose(result, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("solver", "iterations"), [("bound", 300), ("lbfgs", 30)])
def test_the_objective_is_reached_where_classes_are_separable_and_the_penalty_small(solver, iterations):
    x, y = jnp.asarray(FEATURES[:9]), jnp.asarray(LABELS[:9])
    weights, intercept = logistic.logistic_regression(
        x, y, classes=3, l2=jnp.array([1e-2]), iterations=iterations, solver=solver
    )
    log_p = jax.nn.log_softmax(x @ weights[0] + intercept[0])
    value = -log_p[jnp.arange(9), y].mean() + 0.5e-2 * jnp.sum(weights[0] ** 2)
    _, expected = scipy_optimum(FEATURES[:9].astype(np.float64), LABELS[:9], 1e-2, 3)
    np.testing.assert_allclose(value, expected, rtol=1e-3)


def test_the_intercept_is_not_penalised():
    # Features that say nothing and three quarters of class 1: only the intercept can tell.
    x, y = jnp.zeros((8, 2)), jnp.array([0, 0, 1, 1, 1, 1, 1, 1])
    _, intercept = logistic.logistic_regression(x, y, classes=2, l2=jnp.array([100.0]))
    np.testing.assert_allclose(jax.nn.softmax(intercept[0]), [0.25, 0.75], rtol=1e-4)


def test_standardisation_reads_the_training_set_only_and_silences_constant_dimensions():
    train = np.array([[1.0, 5.0, 1e4], [3.0, 5.0, 1e4 * (1 + 1e-7)]], np.float32)
    test = np.array([[5.0, 7.0, 0.0]], np.float32)
    result, other = linear.standardize(train, test)
    np.testing.assert_allclose(result, [[-1, 0, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(other, [[3, 0, 0]], atol=1e-6)


def test_logistic_probe_is_deterministic_and_good_on_separable_classes():
    first, second = (logistic.logistic_probe(*SETS, classes=3, iterations=50) for _ in range(2))
    assert first == second
    assert first.accuracy > 0.8 and first.l2 in [pytest.approx(p) for p in logistic.PENALTIES]


def test_scale_and_shift_of_the_features_do_not_matter():
    scale, shift = np.float32([1e-3, 1, 10, 100, 1, 1]), np.float32([0, 5, 0, -3, 0, 0])
    moved = (FEATURES * scale + shift, LABELS, TEST * scale + shift, TEST_LABELS)
    plain, other = (logistic.logistic_probe(*sets, classes=3, iterations=50) for sets in (SETS, moved))
    assert other.accuracy == pytest.approx(plain.accuracy, abs=0.02)


def test_the_penalty_does_not_depend_on_the_test_set():
    flipped = (FEATURES, LABELS, -TEST, (TEST_LABELS + 1) % 3)
    honest, other = (logistic.logistic_probe(*sets, classes=3, iterations=50) for sets in (SETS, flipped))
    assert (honest.l2, honest.validation) == (other.l2, other.validation)


def test_the_held_out_part_is_not_fitted_when_the_penalty_is_chosen():
    # Labels that are pure noise in features with room to memorise: held-out accuracy must stay near chance.
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(120, 60)).astype(np.float32), rng.integers(0, 2, 120)
    result = logistic.logistic_probe(x, y, x, y, classes=2, holdout=0.5, iterations=50, l2=(1e-3,))
    assert result.accuracy > 0.9 and result.validation < 0.7


def test_draws_are_balanced_distinct_and_a_function_of_the_seed():
    draw = balanced_draw(LABELS, classes=3, per_class=10, seed=(0, 1))
    assert draw.shape == (3, 10) and len(np.unique(draw)) == 30
    for label, row in enumerate(draw):
        assert (LABELS[row] == label).all()
    np.testing.assert_array_equal(draw, balanced_draw(LABELS, classes=3, per_class=10, seed=(0, 1)))
    assert (draw != balanced_draw(LABELS, classes=3, per_class=10, seed=(0, 2))).any()


def test_few_labels_is_deterministic_and_reports_mean_and_spread_of_its_draws():
    options = {"classes": 3, "per_class": 4, "draws": 3, "iterations": 30}
    first, second = (few_labels.few_labels(*SETS, **options) for _ in range(2))
    assert first == second
    assert first.mean == pytest.approx(np.mean(first.accuracies))
    assert first.std == pytest.approx(np.std(first.accuracies, ddof=1))
    assert few_labels.few_labels(*SETS, **options, seed=1).accuracies != first.accuracies


def test_few_labels_reads_no_label_outside_its_draw():
    options = {"classes": 3, "per_class": 4, "draws": 1, "iterations": 30}
    taken = balanced_draw(LABELS, classes=3, per_class=4, seed=(0, 0)).ravel()
    # Swapping the features of examples that were not drawn within one class changes nothing that may be read.
    rest = [i for i in np.flatnonzero(LABELS == 0) if i not in taken]
    swapped = FEATURES.copy()
    swapped[rest] = FEATURES[rest[::-1]]
    moved = few_labels.few_labels(swapped, LABELS, TEST, TEST_LABELS, **options)
    assert moved == few_labels.few_labels(*SETS, **options)


@pytest.mark.parametrize(("per_class", "held"), [(1, []), (2, [1, 1]), (7, [2, 2, 1, 1, 1]), (50, [10])])
def test_folds_inside_a_draw_hold_each_label_out_once_at_most(per_class, held):
    fold = few_labels._folds(per_class)
    assert len(fold) == per_class and np.bincount(fold[fold >= 0]).tolist() == held


@pytest.mark.long
def test_few_labels_chooses_the_penalty_that_cross_validation_by_hand_chooses():
    taken = balanced_draw(LABELS, classes=3, per_class=7, seed=(5, 0))
    x, grid = np.asarray(linear.standardize(FEATURES)[0]), (3.0, 0.3, 0.01)
    right = np.zeros(3)
    for fold in range(5):
        held = np.arange(7) % 5 == fold
        fit, chooser = taken[:, ~held].ravel(), taken[:, held].ravel()
        for i, l2 in enumerate(grid):
            # The intercept of scipy's optimum is not returned; it is found again on its weights alone.
            weights, _ = scipy_optimum(x[fit].astype(np.float64), LABELS[fit], l2, 3)
            intercept = scipy_intercept(x[fit] @ weights, LABELS[fit])
            right[i] += (np.argmax(x[chooser] @ weights + intercept, axis=1) == LABELS[chooser]).sum()
    result = few_labels.few_labels(
        *SETS, classes=3, per_class=7, draws=1, l2=grid, iterations=500, seed=5, solver="lbfgs"
    )
    assert result.l2[0] == pytest.approx(grid[int(np.argmax(right))])


def test_one_label_a_class_takes_the_strongest_penalty():
    result = few_labels.few_labels(*SETS, classes=3, per_class=1, draws=2, l2=(0.1, 2.0), iterations=30)
    assert result.l2 == (2.0, 2.0) and result.mean > 0.5


def test_ridge_probe_equals_the_normal_equations_and_is_good():
    accuracy = ridge.ridge_probe(*SETS, classes=3, l2=0.2)
    mean, std = FEATURES.mean(0), FEATURES.std(0)
    x, t = (FEATURES - mean) / std, (TEST - mean) / std
    y = np.eye(3)[LABELS]
    weights = np.linalg.solve(x.T @ x / 90 + 0.2 * np.eye(6), x.T @ (y - y.mean(0)) / 90)
    expected = np.mean(np.argmax(t @ weights + y.mean(0), axis=1) == TEST_LABELS)
    assert float(accuracy) == pytest.approx(expected) and expected > 0.8


def test_ridge_probe_of_collapsed_features_is_chance_and_finite():
    ones = np.ones((90, 6), np.float32)
    assert float(ridge.ridge_probe(ones, LABELS, ones[:60], TEST_LABELS, classes=3)) == pytest.approx(1 / 3)


def test_bfloat16_features_agree_loosely_with_float32():
    narrow = (jnp.asarray(FEATURES, jnp.bfloat16), LABELS, jnp.asarray(TEST, jnp.bfloat16), TEST_LABELS)
    for probe in (
        lambda sets: float(ridge.ridge_probe(*sets, classes=3)),
        lambda sets: logistic.logistic_probe(*sets, classes=3, iterations=50).accuracy,
    ):
        assert probe(narrow) == pytest.approx(probe(SETS), abs=0.1)


def test_ridge_equals_the_normal_equations_and_chooses_on_the_held_out_examples():
    grid = (10.0, 1.0, 1e-3)
    held, rest = linear.hold_out(90, holdout=0.3, seed=1)
    mean, std = FEATURES.mean(0), FEATURES.std(0)
    x, t, y = (FEATURES - mean) / std, (TEST - mean) / std, np.eye(3)[LABELS]

    def accuracy(rows, features, labels, l2):
        centered, target = x[rows] - x[rows].mean(0), y[rows] - y[rows].mean(0)
        gram = centered.T @ centered / len(rows) + l2 * np.eye(6)
        weights = np.linalg.solve(gram, centered.T @ target / len(rows))
        scores = (features - x[rows].mean(0)) @ weights + y[rows].mean(0)
        return np.mean(np.argmax(scores, axis=1) == labels)

    validation = [accuracy(rest, x[held], LABELS[held], l2) for l2 in grid]
    best = int(np.argmax(validation))
    result = ridge.ridge(*SETS, classes=3, l2=grid, holdout=0.3, seed=1)
    assert result.l2 == pytest.approx(grid[best]) and result.validation == pytest.approx(validation[best])
    assert result.accuracy == pytest.approx(accuracy(np.arange(90), t, TEST_LABELS, grid[best]))


@pytest.mark.parametrize("solver", logistic.SOLVERS)
def test_constant_features_give_the_most_frequent_class_and_stay_finite(solver):
    x, y = jnp.ones((8, 2)), jnp.array([0, 0, 1, 1, 1, 1, 1, 1])
    weights, intercept = logistic.logistic_regression(
        x, y, classes=2, l2=jnp.array([0.1]), iterations=40, solver=solver
    )
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(jax.nn.softmax(intercept[0]), [0.25, 0.75], rtol=1e-3)
    assert ridge.ridge(x, y, x, y, classes=2, holdout=0.5).accuracy == 0.75


@pytest.mark.long
def test_inputs_spread_over_devices_give_the_same_probes():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = [jax.device_put(part, rows) for part in SETS]
    for function, options in (
        (ridge.ridge, {"l2": (0.1,)}),
        (few_labels.few_labels, {"per_class": 4, "draws": 1, "iterations": 30}),
    ):
        assert function(*spread, classes=3, **options) == function(*SETS, classes=3, **options)
    result, expected = (
        logistic.logistic_probe(*s, classes=3, l2=(0.1,), iterations=30) for s in (spread, SETS)
    )
    assert result.accuracy == pytest.approx(expected.accuracy)


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (logistic.logistic_probe, {"l2": ()}, "l2"),
        (logistic.logistic_probe, {"l2": (0.0,)}, "l2"),
        (logistic.logistic_probe, {"holdout": 1.0}, "holdout"),
        (logistic.logistic_probe, {"classes": 2}, "train_labels"),
        (few_labels.few_labels, {"per_class": 0}, "per_class=0"),
        (logistic.logistic_probe, {"solver": "newton"}, "solver='newton'.*bound, lbfgs"),
        (ridge.ridge, {"l2": (0.0,)}, "l2"),
        (ridge.ridge, {"holdout": 0.0}, "holdout=0.0"),
        (ridge.ridge, {"classes": 2}, "train_labels"),
        (few_labels.few_labels, {"per_class": 31}, "at most 30, the training examples of class 0"),
        (few_labels.few_labels, {"draws": 0}, "draws=0"),
    ],
)
def test_wrong_arguments_are_refused(function, change, message):
    with pytest.raises(ValueError, match=message):
        function(*SETS, **{"classes": 3, **change})
