import itertools

import pytest

from benchmarks import environment, pairs, table
from ssl_jax.cli import cpu
from ssl_jax.core.rows import read_rows


def test_calls_alternate_after_the_warm_up():
    calls = []
    times = pairs.alternate(lambda: calls.append("a"), lambda: calls.append("b"), pairs=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert len(times.ours) == len(times.other) == 3


def test_each_call_is_timed_by_itself():
    clock = itertools.accumulate(itertools.count()).__next__
    times = pairs.alternate(lambda: None, lambda: None, pairs=2, warmup=0, clock=clock)
    # Start 0; budget not asked in the least pairs; readings 1, 3 | 6, 10 | 15, 21 | 28, 36.
    assert times == pairs.Times((2, 6), (4, 8))


def test_no_pair_begins_after_the_seconds_but_the_least_are_made():
    now = itertools.count().__next__
    times = pairs.alternate(lambda: None, lambda: None, pairs=50, seconds=0, least=4, warmup=0, clock=now)
    assert len(times.ours) == 4
    fewer = pairs.alternate(lambda: None, lambda: None, pairs=2, seconds=0, least=4, warmup=0)
    assert len(fewer.ours) == 2


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="pairs=0"):
        pairs.alternate(lambda: None, lambda: None, pairs=0)


def test_a_speed_up_above_one_means_that_ours_is_faster():
    found = pairs.paired(
        "x", pairs.Times((1.0, 2.0, 1.0), (2.0, 2.0, 3.0)), against="y", at_least=1.5, items=4
    )
    assert found["value"]["median"] == 2.0
    assert (found["value"]["low"], found["value"]["high"]) == (1.5, 2.5)
    assert found["facts"] == {"ours_per_second": 4.0, "other_per_second": 2.0}
    assert found["raw"] == {"ours_seconds": (1.0, 2.0, 1.0), "other_seconds": (2.0, 2.0, 3.0)}
    assert found["target"] == {"at_least": 1.5}


def test_the_summary_of_one_value_is_that_value():
    assert set(pairs.summary([4.0]).values()) == {4.0, 1}
    with pytest.raises(ValueError, match="one value or more"):
        pairs.summary([])


def test_a_record_names_the_class_of_hardware_and_no_host(tmp_path):
    options = pairs.parser("nothing", "Nothing.").parse_args(["--quick", f"--out={tmp_path}/sub/rows.jsonl"])
    pairs.record("nothing", options, lambda _: [pairs.valued("v", [1.0], unit="s")])
    (result,) = read_rows(tmp_path / "sub/rows.jsonl")
    assert {"date", "load_average", "machine", "versions", "environment", "command"} <= set(result)
    assert (
        {"cpu", "cores", "memory_gib"}
        <= set(result["machine"])
        <= {"cpu", "cores", "memory_gib", "accelerator"}
    )
    assert result["quick"] is True
    assert result["measurements"][0]["raw"] == {"values": [1.0]}


def test_a_quick_run_leaves_the_committed_results_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "rows.jsonl")
    pairs.record("nothing", pairs.parser("nothing", "").parse_args(["--quick"]), lambda _: [])
    assert list(tmp_path.iterdir()) == []
    pairs.record("nothing", pairs.parser("nothing", "").parse_args([]), lambda _: [])
    assert [row["benchmark"] for row in read_rows(tmp_path / "rows.jsonl")] == ["nothing"]


def test_a_benchmark_that_is_run_again_replaces_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "rows.jsonl")
    for name, value in (("b", 1.0), ("a", 2.0), ("b", 3.0)):
        options = pairs.parser(name, "").parse_args([])
        pairs.record(name, options, lambda _, v=value: [pairs.valued("v", [v], unit="s")])
    rows = read_rows(tmp_path / "rows.jsonl")
    assert [(row["benchmark"], row["measurements"][0]["value"]["median"]) for row in rows] == [
        ("a", 2.0),
        ("b", 3.0),
    ]


def test_the_environment_is_that_of_the_launchers_with_passive_threads():
    found = environment.prepared({"MALLOC_TOP_PAD_": "1", "XLA_FLAGS": "--other"}, accelerated=False)
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["MALLOC_TOP_PAD_"] == "1", "what is set already stays"
    assert set(cpu.MALLOC) <= set(found)
    assert found["XLA_FLAGS"].startswith("--other")


def test_an_accelerator_keeps_its_flags_and_shares_its_memory():
    found = environment.prepared({}, accelerated=True)
    assert "XLA_FLAGS" not in found
    assert not set(cpu.MALLOC) & set(found)
    assert found["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
