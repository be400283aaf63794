"""Studies: every variant binds, a run makes a row, tables, claims and figures follow from the rows."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from docs import tables
from experiments.studies import RESULTS, SEEDS, studies
from experiments.studies import all as queue
from experiments.studies.color import first_layer
from experiments.studies.command import folder_of, with_source
from experiments.studies.plan import ORDER, core_seconds
from ssl_jax import models
from ssl_jax.cli import study_figure, study_runs
from ssl_jax.cli.results import outdated_rows
from ssl_jax.cli.study import (
    Claim,
    Difference,
    Measurements,
    Variant,
    Verdict,
    all_of,
    contrast,
    difference,
    differences,
    every_seed,
    gain,
    is_complete,
    opposite,
    smallest_difference,
)
from ssl_jax.cli.study_pages import claim_line, describe_power, describe_runs, study_page, study_table
from ssl_jax.cli.study_runs import (
    ROW_KEY,
    config_of_variant,
    copy_shared,
    current_configs,
    demands_of,
    measuring_more,
    missing_tasks,
    read_results,
    run_config,
    run_tasks,
    run_variant,
)
from ssl_jax.config import build
from ssl_jax.core.rows import read_rows, write_row
from ssl_jax.models import heads
from ssl_jax.models.serialize import save_encoder

STUDIES = studies()
PREPARED = [name for name, study in STUDIES.items() if study.prepare is not None]
"""Studies that need images or weights which are not there before their runs."""
CURVES = {"loss", "embedding_std", "teacher_entropy", "teacher_kl_uniform", "variance"}
HOLDS, FAILS, OPEN = Verdict
DRAWN = {"batch_size", "dimensional_collapse", "guillotine", "masking", "pretext_ladder", "simsiam_ablation"}
"""Studies whose figures have all kinds of panels together."""


def config_of_row(study, variant, seed):
    if study.prepare is None:
        return {**config_of_variant(study, variant), "seed": seed}
    weights = variant.changes.get("encoder.weights", "").format(seed=seed)
    size = {"steps": 600, "batch_size": 128, **study.common}
    return {**size, "seed": seed, "encoder": {"name": "vit_micro", "weights": weights}}


def make_row(study, variant, seed, *, knn=0.8, random=0.7, **last):
    """A row as ``run_variant`` makes it, every accuracy one number, every curve a constant."""
    names = {"step", "loss", *(name for name, _ in study.curves), *study.columns.values(), *study.watched}
    accuracies = ("knn", "linear", "few", "finetune", "rotation")
    measures = {f"{start}{name}": knn for start in ("after_", "hidden_") for name in accuracies}
    measures |= dict.fromkeys(names - CURVES - {"step", "rank"}, knn)
    measures |= {f"{start}{name}_linear": knn for name in study.layers for start in ("", "random_")}
    measures |= dict.fromkeys((*accuracies, "classifier"), knn)
    measures |= {f"random_{name}": random for name in accuracies}
    measures |= {"rank": 20.0, "random_rank": 9.0, "after_rank": 5.0}
    measures |= {name: last[name] for name in last if name in measures}
    config = config_of_row(study, variant, seed)
    return {
        "study": study.name,
        "variant": variant.name,
        "seed": seed,
        "config": config,
        "demands": demands_of(study, config) if study.prepare is None else [],
        "measures": measures,
        "spectra": {name: [0.0, -1.0, -4.0] for name, _ in study.spectra},
        "curves": {**{name: [last.get(name, 0.5)] * 3 for name in names}, "step": [1, 2, 3]},
        "cpu_seconds": 1.0,
        "machine": {"device": "a processor"},
    }


def measured(study, **changes):
    """All variants with two seeds each; ``changes`` by the variant's name."""
    return {
        v.name: Measurements([make_row(study, v, seed, **changes.get(v.name, {})) for seed in (0, 1)])
        for v in study.variants
    }


def with_values(values, name="knn"):
    """Measurements of one measure, in percent, one number a seed."""
    rows = [{"measures": {name: value / 100}, "curves": {}, "seed": i} for i, value in enumerate(values)]
    return Measurements(rows)


def test_the_order_has_every_study_once():
    assert sorted(ORDER) == sorted(STUDIES)
    assert len(STUDIES) >= 27


@pytest.mark.parametrize("name", [name for name in STUDIES if name not in PREPARED])
def test_every_variant_binds_and_has_a_name_of_its_own(name):
    study = STUDIES[name]
    assert study.name == name
    assert len({variant.name for variant in study.variants}) == len(study.variants)
    for variant in study.variants:
        config = config_of_variant(study, variant)
        encoder = config["encoder"]
        if encoder["name"] == "convnet" and "encoder.widths" not in variant.changes:
            assert encoder["widths"] == study.common.get("encoder.widths", (16, 32, 64))
            assert build.method(config).encoder.features == 256
        else:
            assert build.method(config).encoder.features in (64, 128, 512)
        assert config["data"]["source"] == study.data != ""
        assert build.optimizer(config).learning_rate(config["steps"] // 2) > 0
        assert 20 < core_seconds(study, variant) < 1500


def test_a_seed_is_all_that_runs_of_a_variant_differ_in():
    study = STUDIES["projector"]
    first, second = (run_config(study, study.variants[0], seed) for seed in (0, 3))
    assert second == {**first, "seed": 3} != first


@pytest.mark.parametrize("name", STUDIES)
def test_table_claims_and_figure_follow_from_the_rows(name, tmp_path):
    study = STUDIES[name]
    results = measured(study)
    text = study_table(study, results)
    assert all(variant.name in text for variant in study.variants)
    assert "80.0" in text and ("70.0" in text) == ("random encoder" in text)
    text = describe_runs(study, [row for measurements in results.values() for row in measurements.rows])
    assert any(f"steps of {size} images" in text for size in (128, 512))
    assert "a small " in text
    claims = study.claims(results)
    assert claims and all(claim.text and claim.evidence for claim in claims)
    if name not in DRAWN:
        return
    path = study_figure.draw_study(study, results, tmp_path / "figure.svg")
    assert path.read_text().rstrip().endswith("</svg>")


def test_collapse_claims_hold_for_collapsed_rows_and_not_for_healthy_ones():
    study = STUDIES["simsiam_ablation"]
    dead = {"loss": -1.0, "embedding_std": 0.01, "knn": 0.5}
    gone = measured(study, **{"no stop-gradient": dead, "no predictor": dead})
    healthy = measured(study)
    for claims, expected in ((study.claims(gone), HOLDS), (study.claims(healthy), FAILS)):
        assert [claim.verdict for claim in claims[:2]] == [expected, expected]


def test_dino_claims_hold_at_the_two_constants():
    study = STUDIES["dino_collapse"]
    results = measured(
        study,
        **{
            "both": {"teacher_entropy": 2.0, "teacher_kl_uniform": 0.5},
            "no centering": {"teacher_entropy": 0.0, "teacher_kl_uniform": math.log(256)},
            "no sharpening": {"teacher_entropy": math.log(256), "teacher_kl_uniform": 0.0},
        },
    )
    assert all(claim.verdict is HOLDS for claim in study.claims(results))


def test_intervals_are_those_of_students_t():
    first, second = [57.0, 57.9, 56.8], [55.1, 54.2, 55.3]
    found = difference(with_values(first), with_values(second))
    expected = stats.ttest_ind(first, second).confidence_interval(0.95)
    assert found.value - found.smallest == pytest.approx(expected.low)
    assert found.value + found.smallest == pytest.approx(expected.high)
    rows = [
        {"measures": {"knn": a / 100, "random_knn": b / 100}, "curves": {}}
        for a, b in zip(first, second, strict=True)
    ]
    paired = gain(Measurements(rows))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert paired.value - paired.smallest == pytest.approx(expected.low)


def test_a_contrast_pools_the_deviations_of_its_variants():
    values = [
        np.array([50.0, 52.0, 51.0]),
        np.array([48.0, 49.0]),
        np.array([40.0, 40.5, 41.5]),
        np.array([39.0, 41.0]),
    ]
    weights = (1.0, -1.0, -1.0, 1.0)
    pooled = sum(((v - v.mean()) ** 2).sum() for v in values) / 6
    expected = stats.t.ppf(0.975, 6) * math.sqrt(pooled * sum(1 / len(v) for v in values))
    found = contrast(zip(weights, map(with_values, values), strict=True), "knn")
    assert found.value == pytest.approx(sum(w * v.mean() for w, v in zip(weights, values, strict=True)))
    assert found.smallest == pytest.approx(expected)
    same = with_values([50.0, 53.0])
    assert contrast([(1.0, same), (-1.0, same)], "knn") == Difference(0.0, 0.0)
    assert smallest_difference([np.array([50.0])]) == math.inf


def test_two_measures_of_a_run_are_paired_in_a_difference_of_differences():
    first, second = [50.0, 55.0, 60.0], [10.0, 30.0, 50.0]
    rows = [
        [{"measures": {"knn": (v + gap) / 100, "linear": v / 100}, "curves": {}} for v in values]
        for values, gap in ((first, 4.0), (second, 1.0))
    ]
    found = differences(*map(Measurements, rows), "knn", "linear")
    assert found.value == pytest.approx(3.0) and found.smallest == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "smallest", "exceeds", "stays_above", "within"),
    [
        (2.0, 0.5, HOLDS, HOLDS, FAILS),
        (0.7, 0.2, HOLDS, HOLDS, HOLDS),
        (0.0, 0.4, FAILS, HOLDS, HOLDS),
        (0.5, 3.0, OPEN, OPEN, OPEN),
        (-2.0, 0.5, FAILS, FAILS, FAILS),
        (-2.0, 1.5, FAILS, OPEN, OPEN),
        (1.5, math.inf, OPEN, OPEN, OPEN),
    ],
)
def test_a_verdict_has_three_values(value, smallest, exceeds, stays_above, within):
    found = Difference(value, smallest)
    assert (found.exceeds(), found.stays_above(), found.is_within()) == (exceeds, stays_above, within)
    assert opposite(opposite(exceeds)) is exceeds


def test_verdicts_are_joined():
    assert all_of([]) is HOLDS and all_of([HOLDS, OPEN, FAILS]) is FAILS
    assert every_seed([False, False]) is FAILS
    claim = Claim("A is better.", FAILS, "+0.1 ± 0.2", because="B had more steps")
    assert (
        claim_line(claim) == "- **Does not hold here, because B had more steps.** A is better. (+0.1 ± 0.2)"
    )
    assert "because" not in claim_line(claim._replace(verdict=OPEN))


def test_noise_makes_claims_open_and_not_false():
    study = STUDIES["projector"]
    noisy = {
        v.name: Measurements([make_row(study, v, s, knn=0.5 + 0.1 * s) for s in (0, 1, 2)])
        for v in study.variants
    }
    verdicts = [claim.verdict for claim in study.claims(noisy)]
    assert verdicts == [OPEN, OPEN, FAILS, OPEN]
    assert "22.7 points of kNN" in describe_power(study, noisy)


def test_a_study_is_complete_when_its_variants_have_as_many_seeds():
    study = STUDIES["projector"]
    results = measured(study)
    assert is_complete(study, results)
    name = study.variants[0].name
    assert not is_complete(study, {**results, name: Measurements(results[name].rows[:1])})


def test_a_shared_run_is_planned_once_and_measures_what_every_study_asks_for():
    chosen = [STUDIES[name] for name in ("projector", "guillotine", "averaged_weights")]
    paths = {study.name: RESULTS / "nowhere.jsonl" for study in chosen}
    tasks = missing_tasks(chosen, (0, 1), paths, list(STUDIES.values()))
    planned = {(task.study.name, task.variant.name): task for task in tasks}
    assert ("projector", "2 layers") in planned and ("guillotine", "SimCLR") not in planned
    task = planned["projector", "2 layers"]
    assert task.seeds == [0, 1]
    study = measuring_more(task.study, task.sharing)
    config = config_of_variant(task.study, task.variant)
    asked = set(demands_of(study, config))
    for other in task.sharing:
        assert set(demands_of(other, config)) <= asked
    assert study.rotation and set(study.extra(config)) == {"after", "hidden"}
    assert {"features hidden", "rotation", "spectrum after", "measured inverted"} <= asked


def test_runs_that_are_prepared_begin_with_different_seeds():
    study = STUDIES["staged_distillation"]
    tasks = missing_tasks([study], (0, 1, 2), {study.name: RESULTS / "nowhere.jsonl"})
    assert [list(task.seeds) for task in tasks] == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]


def test_rows_of_other_studies_are_copied_if_they_have_what_is_asked_for(tmp_path):
    projector, guillotine = STUDIES["projector"], STUDIES["guillotine"]
    variant = next(v for v in projector.variants if v.name == "2 layers")
    path = tmp_path / "guillotine.jsonl"
    row = make_row(projector, variant, 0)
    write_row(tmp_path / "projector.jsonl", row, ROW_KEY)
    assert copy_shared(guillotine, (0, 1), path, [projector]) == 0  # the hidden layer is missing
    row["demands"] = demands_of(measuring_more(projector, [guillotine]), row["config"])
    write_row(tmp_path / "projector.jsonl", row, ROW_KEY)
    assert copy_shared(guillotine, (0, 1), path, [projector]) == 1
    (copied,) = read_rows(path)
    assert (copied["study"], copied["variant"], copied["shared_with"]) == (
        "guillotine",
        "SimCLR",
        "projector",
    )
    assert copied["measures"] == row["measures"]
    assert list(read_results(guillotine, (0, 1), path)) == ["SimCLR"]
    assert copy_shared(guillotine, (0, 1), path, [projector]) == 0


def test_no_run_begins_that_would_end_too_late(monkeypatch, tmp_path):
    study, made = STUDIES["projector"], []

    def run_now(_, variant, seed):
        made.append(seed)
        return make_row(study, variant, seed)

    monkeypatch.setattr(study_runs, "run_variant", run_now)
    monkeypatch.setattr(study_runs.time, "time", lambda: 100.0)
    task = study_runs.Task(study, study.variants[0], (0, 1), tmp_path / "rows.jsonl")
    assert study_runs._run_seeds(task._replace(expected_seconds=30.0), 129.0) == ""
    assert made == []
    assert "2 seeds" in study_runs._run_seeds(task._replace(expected_seconds=30.0), 131.0)
    assert made == [0, 1] and len(read_rows(tmp_path / "rows.jsonl")) == 2
    assert list(run_tasks([], 1)) == []


def test_the_queue_copies_shared_rows_and_says_what_is_missing(monkeypatch, tmp_path, capsys):
    projector = STUDIES["projector"]

    def run_now(tasks, jobs, *, minutes):
        for task in tasks:
            for seed in task.seeds:
                row = make_row(measuring_more(task.study, task.sharing), task.variant, seed)
                write_row(task.path, row, ROW_KEY)
            yield task.variant.name

    monkeypatch.setattr(queue, "run_tasks", run_now)
    queue.main(["guillotine", "projector"], [0], 1, tmp_path, "", None)
    said = capsys.readouterr().out
    assert "7 runs are missing" in said
    assert "projector: complete" in said and "guillotine: complete" in said
    assert len(read_rows(tmp_path / "projector.jsonl")) == len(projector.variants)
    queue.main(["guillotine"], [0], 1, tmp_path, "", 1.0)
    assert "0 runs are missing" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--studies"):
        queue.main(["nothing"], [0], 1, tmp_path, "", None)


def test_other_images_want_a_folder_of_their_own(tmp_path):
    with pytest.raises(ValueError, match="--out"):
        folder_of(str(RESULTS), "tfds:cifar10")
    assert folder_of(str(tmp_path), "tfds:cifar10") == tmp_path
    chosen = with_source([STUDIES["projector"], STUDIES["adaptation"]], "tfds:cifar10")
    assert [study.data for study in chosen] == ["tfds:cifar10", ""]


def test_the_first_layer_of_a_projector_is_the_one_below_its_output():
    head = heads.mlp((8, 4), hidden_bias=False, last_bias=False)
    inputs = jax.random.normal(jax.random.key(0), (32, 5))
    params, state = head.init(jax.random.key(1), inputs)
    _, state = head.apply(params, state, 3 * inputs + 1, train=True)
    expected, _ = head.apply(params, state, inputs)
    hidden = first_layer(params, state, inputs)
    assert hidden.shape == (32, 8) and float(hidden.min()) == 0.0
    np.testing.assert_allclose(hidden @ params["dense_1"]["kernel"], expected, rtol=1e-4, atol=1e-5)


def test_pages_show_gray_results_until_the_study_is_complete(monkeypatch):
    study = STUDIES["projector"]
    monkeypatch.setattr(tables, "study_results", lambda _: {})
    said = tables.page_of_study(study)
    assert "gray clothes" in said and "](gray/projector.svg)" in said and said.count("- **") == 4
    assert "](studies/gray/projector.md)" in tables.road(study)
    monkeypatch.setattr(tables, "study_results", measured)
    assert "gray" not in tables.page_of_study(study)
    assert "cannot be told." in tables.studies_table()


def test_only_rows_of_the_present_config_are_read(tmp_path):
    study = STUDIES["dino_collapse"]
    variant = study.variants[0]
    path = tmp_path / "rows.jsonl"
    row = make_row(study, variant, 0)
    write_row(path, row, ROW_KEY)
    assert list(read_results(study, (0, 1), path)) == [variant.name]
    row["config"]["steps"] += 1
    write_row(path, row, ROW_KEY)
    assert read_results(study, (0, 1), path) == {}


@pytest.mark.parametrize("name", STUDIES)
def test_committed_rows_are_those_of_the_study_and_have_its_config(name):
    study = STUDIES[name]
    rows = read_rows(RESULTS / f"{name}.jsonl")
    variants = {variant.name: variant for variant in study.variants}
    assert {ROW_KEY(row) for row in rows} <= {(variant, seed) for variant in variants for seed in SEEDS}
    configs = [config for row in rows for config in current_configs(study, variants[row["variant"]], [row])]
    assert outdated_rows(rows, configs) == []


def test_page_without_results_says_how_to_make_them():
    study = STUDIES["projector"]._replace(name="nowhere")
    assert "python -m experiments.studies.nowhere" in study_page(study, {})


@pytest.mark.long
def test_a_run_leaves_accuracies_before_and_after_and_its_curves():
    study = STUDIES["projector"]
    changes = {
        "steps": 2,
        "batch_size": 8,
        "encoder.widths": (4, 8),
        "method.projector_width": 8,
        "watch.log.every": 1,
    }
    changes["data.split"] = "train[:2%]"
    changes["watch.evaluate.train_split"], changes["watch.evaluate.test_split"] = "train[:2%]", "test[:2%]"
    variant = study.variants[2]._replace(changes=changes)
    gray = measuring_more(study, [STUDIES["guillotine"]])._replace(arguments="embedded,short", data="")
    row = run_variant(gray, variant, 0)
    assert set(row["measures"]) == {
        f"{part}{kind}"
        for part in ("", "random_", "after_", "hidden_")
        for kind in ("knn", "linear", "rank", "rotation")
    }
    assert row["demands"] == demands_of(gray, row["config"])
    assert row["curves"]["step"] == [1, 2]
    assert np.isfinite(row["curves"]["loss"]).all()
    assert json.loads(json.dumps(row))["seed"] == 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["Mean Teacher, 100 labels", "SimCLR, then linear, 100 labels"])
def test_runs_with_few_labels_measure_what_was_learnt_from_them(name):
    study = STUDIES["few_labels"]
    (variant,) = (v for v in study.variants if v.name == name)
    small = {"steps": 2, "batch_size": 8, "encoder.widths": (4, 8), "watch.log.every": 1}
    small |= {"watch.evaluate.train_split": "train", "watch.evaluate.test_split": "test[:2%]"}
    gray = study._replace(arguments="embedded,short", data="")
    row = run_variant(gray, variant._replace(changes={**variant.changes, **small}), 0)
    assert 0 <= row["measures"]["classifier"] <= 1
    assert ("student" in row["measures"]) == (variant.method == "mean_teacher")


def test_claims_about_adaptation_follow_from_the_gains():
    study = STUDIES["adaptation"]
    start = {"knn": 0.6, "random": 0.6}
    better = {
        variant.name: {"knn": 0.8, "random": 0.6}
        for variant in study.variants
        if "heads first" in variant.name
    }
    names = {variant.name: {**start, **better.get(variant.name, {})} for variant in study.variants}
    results = measured(study, **names)
    claims = study.claims(results)
    assert [claim.verdict for claim in claims] == [HOLDS] * 7 + [FAILS]
    assert "linear +20.0" in claims[0].evidence and "linear +0.0" in claims[-1].evidence
    unchanged = measured(study, **{variant.name: start for variant in study.variants})
    assert [claim.verdict for claim in study.claims(unchanged)] == [FAILS] * 7 + [HOLDS]


@pytest.mark.long
def test_a_study_may_start_from_weights_that_it_prepares_and_reads_its_rows_without_them(tmp_path):
    def prepare(seed):
        network = models.build("vit_micro", width=16, depth=1, heads=2, patch=7, image_size=28)
        variables = network.init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)))
        facts = {"mean": [0.286], "std": [0.353], "image_shape": [28, 28, 1]}
        save_encoder(tmp_path / f"{seed}.safetensors", network, *variables, metadata=facts)

    small = {"data.split": "train[:2%]", "watch.evaluate.train_split": "train[:5%]"}
    small |= {"watch.evaluate.test_split": "test[:2%]", "encoder.frozen_share": 1.0}
    variant = Variant("frozen", "simclr", {"encoder.weights": f"{tmp_path}/{{seed}}.safetensors", **small})
    study = STUDIES["adaptation"]._replace(
        name="tiny",
        variants=(variant,),
        arguments="embedded,smoke",
        prepare=prepare,
        common={"steps": 2, "batch_size": 8},
    )
    prepare(3)
    row = run_variant(study, variant, 3)
    assert row["measures"]["few"] == pytest.approx(row["measures"]["random_few"])
    write_row(tmp_path / "rows.jsonl", row, ROW_KEY)
    (tmp_path / "3.safetensors").unlink()
    assert list(read_results(study, (3,), tmp_path / "rows.jsonl")) == ["frozen"]
