"""Sentences: what is said first, and what is not claimed."""

import math
from pathlib import Path

import pytest

from ssl_jax.evaluate.label_free_rule import Estimate, Rule, Standard
from ssl_jax.report.runs import Run, config_differences, groups, read_run, unique_names
from ssl_jax.report.verdict import comparison, error, judge_encoder, judge_without_labels, measures, verdict


def run(name="a", *, config=None, records=(), warnings=(), knn=None, std=None, source="embedded", seed=0):
    evaluation = None
    if knn is not None:
        rows = [{"features": "raw pixels", "knn": 0.8}, {"features": "simclr, 9 steps", "knn": knn}]
        rows[1] |= {} if std is None else {"knn_std": std}
        evaluation = {"rows": rows, "examples": [10, 10_000], "source": source, "splits": ["train", "test"]}
    config = {"steps": 9, "seed": seed, "method": {"name": "simclr"}, **(config or {})}
    return Run(Path("runs") / name, name, config, list(records), list(warnings), evaluation)


def test_clear_difference_and_chance_are_told_apart():
    clear, near = judge_encoder(run(knn=0.85).evaluation)[0], judge_encoder(run(knn=0.805).evaluation)[0]
    assert clear.tone == "good" and "kNN 85.0 against 80.0 for raw pixels: 5.0 points better" in clear.text
    assert near.tone == "warn" and "may be chance" in near.text
    assert judge_encoder(run(knn=0.75).evaluation)[0].tone == "bad"


def test_the_best_baseline_is_the_one_to_beat_and_supervision_is_named():
    rows = [
        {"features": "raw pixels", "knn": 0.6},
        {"features": "random encoder", "knn": 0.7},
        {"features": "supervised", "role": "supervised", "knn": 0.9},
        {"features": "byol, 9 steps", "role": "encoder", "knn": 0.8},
    ]
    first, second = judge_encoder({"rows": rows, "examples": [9, 10_000]})
    assert "70.0 for random encoder: 10.0 points better" in first.text
    assert "90.0 for supervised: 10.0 points worse" in second.text


def test_a_supervised_run_is_measured_against_the_baselines_only():
    rows = [
        {"features": "raw pixels", "knn": 0.6},
        {"features": "supervised", "role": "supervised", "knn": 0.9},
    ]
    lines = judge_encoder({"rows": rows, "examples": [9, 10_000]})
    assert len(lines) == 1 and "kNN 90.0 against 60.0 for raw pixels" in lines[0].text


def test_error_is_that_of_a_share_of_so_many_images_or_what_the_row_says():
    assert error({"knn": 0.8}, "knn", 400) == pytest.approx(0.02)
    assert error({"knn": 0.8, "knn_std": 0.1}, "knn", 400) == 0.1
    assert error({"knn": 0.8}, "knn", 0) == 0.0


def test_health_comes_first_each_kind_once():
    warnings = [{"step": s, "kind": "constant", "message": "the features have collapsed"} for s in (3, 6)]
    lines = verdict(run(knn=0.85, warnings=warnings, records=[{"step": 6, "loss": None}]))
    assert [line.tone for line in lines[:3]] == ["bad", "bad", "good"]
    assert "collapsed, at step 3 (2 times)" in lines[0].text
    assert "Not finite" in lines[1].text


def test_run_without_evaluation_says_how_to_get_one_and_how_far_it_is():
    lines = verdict(run(records=[{"step": 1, "loss": 3.0}, {"step": 4, "loss": 2.0}]))
    assert "experiments.evaluate --workdir=runs/a" in lines[0].text
    assert lines[-1].text == "4 of 9 steps done; loss 3 at step 1, 2 at step 4."


def test_measures_leave_companions_counts_and_text_out():
    row = {
        "features": "x",
        "knn": 0.5,
        "knn_std": 0.1,
        "dim": 64,
        "k": 20,
        "linear_l2": 0.1,
        "role": "encoder",
    }
    assert measures([row, {"features": "y", "rotation": 0.3}]) == ["knn", "rotation"]


def test_comparison_names_the_leader_and_what_does_not_compare():
    other = {"method": {"name": "mae"}}
    runs = [run("a", knn=0.84), run("b", knn=0.86, seed=1), run("c", knn=0.7, config=other, source="cifar")]
    grouped = groups(runs)
    assert grouped == [[0, 1], [2]]
    texts = [line.text for line in comparison(runs, grouped, ["simclr", "mae"])]
    assert texts[0].startswith("By kNN simclr 85.0 ± 1.4 is ahead of mae 70.0 ± 0.5 by 15.0 points")
    assert texts[1].startswith("simclr: kNN 85.0 against 80.0 for raw pixels: 5.0 points better")
    assert any("different images" in text for text in texts)
    assert any("losses do not compare" in text for text in texts)


def test_comparison_does_not_call_noise_a_lead():
    lines = comparison([run("a", knn=0.84), run("b", knn=0.845)], [[0], [1]], ["a", "b"])
    assert lines[0].tone == "warn" and "may be chance" in lines[0].text


def test_two_seeds_that_agree_by_luck_make_no_certainty():
    runs = [run("a", knn=0.84), run("b", knn=0.84, seed=1), run("c", knn=0.845, config={"steps": 5})]
    assert "may be chance" in comparison(runs, groups(runs), ["two", "one"])[0].text


def test_config_differences_know_absent_options_and_true_from_one():
    found = config_differences([{"a": 1, "b": {"c": 1.0}}, {"a": True, "b": {"c": 1}, "d": None}])
    assert found == {"a": [1, True], "d": ["–", None]}


def test_names_are_as_short_as_they_can_be():
    assert unique_names(["x/runs/a", "y/runs/a", "z/b"]) == ["x/runs/a", "y/runs/a", "b"]
    assert unique_names(["same", "same"])[0].endswith("same")


def test_running_run_is_read_and_damage_is_named(tmp_path):
    with pytest.raises(ValueError, match="no run in it"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"written_by": "ssl_jax 0.2", "steps": 5, "method": {"name": "byol"}}'
    )
    found = read_run(tmp_path)
    assert (found.method, found.step, found.records, found.evaluation) == ("byol", 0, [], None)
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    assert read_run(tmp_path).step == 3
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_run(tmp_path)


def started(knn, of_start, *, beside=()):
    """An evaluation of a run that started from weights."""
    rows = [
        {"features": "raw pixels", "role": "baseline", "knn": 0.6},
        *beside,
        {"features": "started from vit.safetensors", "role": "start", "knn": of_start},
        {"features": "simclr, 9 steps", "role": "encoder", "knn": knn},
    ]
    return {"rows": rows, "examples": [9, 10_000], "source": "embedded", "splits": ["train", "test"]}


@pytest.mark.parametrize(
    ("knn", "tone", "said"),
    [
        (
            0.85,
            "good",
            "Training gained over the weights that it started from: kNN 85.0 against 80.0 for started from",
        ),
        (0.75, "bad", "Training made it worse than the weights that it started from: kNN 75.0 against 80.0"),
        (0.8, "warn", "No gain over the weights that it started from is shown: kNN 80.0 against 80.0"),
    ],
)
def test_the_weights_that_a_run_started_from_come_first(knn, tone, said):
    first, second = judge_encoder(started(knn, 0.8))
    assert first.tone == tone and first.text.startswith(said)
    assert second.text.startswith(f"kNN {100 * knn:.1f} against 60.0 for raw pixels")


def test_an_encoder_beside_is_not_the_run_and_not_its_start():
    other = {"features": "timm:vit", "role": "encoder", "knn": 0.9}
    first, _ = judge_encoder(started(0.85, 0.8, beside=[other]))
    assert "kNN 85.0 against 80.0" in first.text


def test_a_comparison_names_the_gain_of_the_leader_over_its_start():
    leader = run("a", knn=0.9)._replace(evaluation=started(0.9, 0.8))
    lines = comparison([leader, run("b", knn=0.7, config={"steps": 8})], [[0], [1]], ["a", "b"])
    texts = [line.text for line in lines]
    assert any(text.startswith("a: Training gained over the weights that it started from") for text in texts)


def test_a_start_that_was_not_measured_is_named():
    weights = {"encoder": {"weights": "hf:owner/name"}}
    lines = [line.text for line in verdict(run(knn=0.85, config=weights))]
    assert any(
        line.startswith("Not compared with hf:owner/name, from which the run started") for line in lines
    )
    assert not any("Not compared" in line.text for line in verdict(run(knn=0.85)))


RULE = Rule({"rotation": Standard(0.0, 1.0)}, "runs", 9, 1, {}, Estimate(1.0, 0.5, 2.0))


def without_labels(*rotations, names=("random encoder", "simclr, 9 steps")):
    """Rows with the rotation probe at these log odds."""
    return {
        "rows": [
            {"features": name, "label_free_values": {"rotation": 1 / (1 + math.exp(-odds))}}
            for name, odds in zip(names, rotations, strict=True)
        ],
        "examples": [9, 9],
    }


@pytest.mark.parametrize(
    ("rotations", "tone", "text"),
    [
        (
            (0.0, 4.0),
            "good",
            "above random encoder by 4.0. On runs, where the rule was chosen, the linear probe agreed in 98 % [88, 100]",
        ),
        ((4.0, 0.0), "bad", "below random encoder by 4.0"),
        ((0.0, 1.0), "warn", "73 % [62, 88] of such pairs: too few to tell them apart"),
    ],
)
def test_without_labels_the_rule_compares_and_says_how_sure_it_is(rotations, tone, text):
    (line,) = judge_without_labels(without_labels(*rotations), RULE)
    assert line.tone == tone and text in line.text


def test_the_rule_says_nothing_of_methods_that_learn_rotations_and_where_there_are_labels():
    names = ("random encoder", "rotation, 9 steps")
    assert judge_without_labels(without_labels(0.0, 4.0, names=names), RULE) == []
    evaluation = without_labels(0.0, 4.0)
    evaluation["rows"][0] |= {"knn": 0.5}
    evaluation["rows"][1] |= {"knn": 0.9, "label_free": 0.9}
    assert ["Without" in line.text for line in judge_encoder(evaluation)] == [False]
    assert measures(evaluation["rows"]) == ["knn"]
