"""Studies: every variant binds, a run makes a row, tables, claims and figures follow from the rows."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import RESULTS, SEEDS, studies
from ssl_jax import models
from ssl_jax.cli import study_figure
from ssl_jax.cli.results import outdated_rows
from ssl_jax.cli.study import Measurements, Variant, is_better
from ssl_jax.cli.study_pages import describe_runs, study_page, study_table
from ssl_jax.cli.study_runs import ROW_KEY, current_configs, read_results, run_config, run_variant
from ssl_jax.config import build
from ssl_jax.core.rows import read_rows, write_row
from ssl_jax.models.serialize import save_encoder

STUDIES = studies()
PREPARED = [name for name, study in STUDIES.items() if study.prepare is not None]
"""Studies of images and weights that lie outside of the project."""
NOT_YET_RUN = {"adaptation"}


def config_of_row(study, variant, seed):
    if study.prepare is None:
        return run_config(study, variant, seed)
    weights = variant.changes.get("encoder.weights", "").format(seed=seed)
    return {**study.common, "seed": seed, "encoder": {"name": "vit_micro", "weights": weights}}


def make_row(study, variant, seed, *, knn=0.8, random=0.7, **last):
    """A row as ``run_variant`` makes it, with every curve at a constant."""
    names = {"step", "loss", *(name for name, _ in study.curves), *study.columns.values(), *study.watched}
    measures = {"knn": knn, "linear": knn, "random_knn": random, "random_linear": random}
    measures |= {"after_knn": knn - 0.2, "after_linear": knn - 0.2}
    measures |= {
        "few": knn,
        "random_few": random,
        "finetune": knn,
        "random_finetune": random,
        "classifier": knn,
        "rank": 20.0,
        "random_rank": 9.0,
        "embedding_rank": 5.0,
    }
    measures |= {f"{start}{name}_linear": knn for name in study.layers for start in ("", "random_")}
    curves = {name: [last.get(name, 0.5)] * 3 for name in names}
    return {
        "study": study.name,
        "variant": variant.name,
        "seed": seed,
        "config": config_of_row(study, variant, seed),
        "measures": measures,
        "spectra": {name: [0.0, -1.0, -4.0] for name, _ in study.spectra},
        "curves": {**curves, "step": [1, 2, 3], "teacher_entropy": [last.get("teacher_entropy", 2.0)] * 3},
        "cpu_seconds": 1.0,
        "machine": {"device": "a processor"},
    }


def measured(study, **changes):
    """All variants with two seeds each; ``changes`` by the variant's name."""
    return {
        v.name: Measurements([make_row(study, v, seed, **changes.get(v.name, {})) for seed in (0, 1)])
        for v in study.variants
    }


def test_the_studies_are_found():
    assert set(STUDIES) == {
        "simsiam_ablation",
        "teacher_momentum",
        "dino_collapse",
        "batch_size",
        "masking",
        "projector",
        "memory_bank",
        "redundancy",
        "dimensional_collapse",
        "multi_crop",
        "few_labels",
        "pretext_ladder",
        "adaptation",
    }


@pytest.mark.parametrize("name", [name for name in STUDIES if name not in PREPARED])
def test_every_variant_binds_and_has_a_name_of_its_own(name):
    study = STUDIES[name]
    assert study.name == name
    assert len({variant.name for variant in study.variants}) == len(study.variants)
    for variant in study.variants:
        config = run_config(study, variant, 3)
        assert config["seed"] == 3
        encoder = config["encoder"]
        if encoder["name"] == "convnet":
            assert encoder["widths"] == study.common.get("encoder.widths", (16, 32, 64))
        features = {"vit_micro": 64, "ladder": 250}.get(encoder["name"], 256)
        assert build.method(config).encoder.features == features
        assert build.optimizer(config).learning_rate(config["steps"] // 2) > 0


@pytest.mark.parametrize("name", STUDIES)
def test_table_claims_and_figure_follow_from_the_rows(name, tmp_path):
    study = STUDIES[name]
    results = measured(study)
    text = study_table(study, results)
    assert all(variant.name in text for variant in study.variants)
    assert "80.0" in text and "70.0" in text
    text = describe_runs(study, [row for measurements in results.values() for row in measurements.rows])
    assert any(f"steps of {size} images" in text for size in (64, 128, 256))
    assert "a small " in text
    claims = study.claims(results)
    assert claims and all(claim.text and claim.evidence for claim in claims)
    path = study_figure.draw_study(study, results, tmp_path / "figure.svg")
    assert path.read_text().rstrip().endswith("</svg>")


def test_collapse_claims_hold_for_collapsed_rows_and_not_for_healthy_ones():
    study = STUDIES["simsiam_ablation"]
    dead = {"loss": -1.0, "embedding_std": 0.01, "knn": 0.5}
    gone = measured(study, **{"no stop-gradient": dead, "no predictor": dead})
    healthy = measured(study)
    for claims, expected in ((study.claims(gone), True), (study.claims(healthy), False)):
        assert [claim.holds for claim in claims[:2]] == [expected, expected]


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
    assert all(claim.holds for claim in study.claims(results))


def test_better_wants_more_than_the_seeds_vary():
    study = STUDIES["projector"]
    variant = study.variants[0]
    near = [
        Measurements([make_row(study, variant, s, knn=k) for s, k in enumerate(ks)])
        for ks in ((0.80, 0.82), (0.79, 0.81))
    ]
    far = Measurements([make_row(study, variant, s, knn=0.6 + s / 100) for s in range(2)])
    assert not is_better(*near)
    assert is_better(near[0], far)
    assert not is_better(far, near[0])


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


@pytest.mark.parametrize("name", [name for name in STUDIES if name not in NOT_YET_RUN])
def test_committed_rows_are_those_of_the_study_and_have_its_config(name):
    study = STUDIES[name]
    rows = read_rows(RESULTS / f"{name}.jsonl")
    variants = {variant.name: variant for variant in study.variants}
    assert [ROW_KEY(row) for row in rows] == sorted((variant, seed) for variant in variants for seed in SEEDS)
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
    row = run_variant(study, variant, 0)
    assert set(row["measures"]) == {
        f"{part}{kind}" for part in ("", "random_", "after_") for kind in ("knn", "linear", "rank")
    }
    assert row["curves"]["step"] == [1, 2]
    assert np.isfinite(row["curves"]["loss"]).all()
    assert json.loads(json.dumps(row))["seed"] == 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["Mean Teacher, 20 labels", "SimCLR, then linear, 20 labels"])
def test_runs_with_few_labels_measure_what_was_learnt_from_them(name):
    study = STUDIES["few_labels"]
    (variant,) = (v for v in study.variants if v.name == name)
    small = {"steps": 2, "batch_size": 8, "encoder.widths": (4, 8), "watch.log.every": 1}
    small |= {"watch.evaluate.train_split": "train", "watch.evaluate.test_split": "test[:2%]"}
    row = run_variant(study, variant._replace(changes={**variant.changes, **small}), 0)
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
    assert [claim.holds for claim in claims] == [True] * 7 + [False]
    assert "linear +20.0" in claims[0].evidence and "linear +0.0" in claims[-1].evidence
    unchanged = measured(study, **{variant.name: start for variant in study.variants})
    assert [claim.holds for claim in study.claims(unchanged)] == [False] * 7 + [True]


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
