from benchmarks import pairs, table


def result(*measurements, quick=False, **machine):
    return {
        "benchmark": "some",
        "command": "python -m benchmarks.some",
        "quick": quick,
        "date": "2030-01-01 00:00 UTC",
        "load_average": [0.1, 0.2, 0.3],
        "machine": {"cpu": "A processor", "cores": 2, "memory_gib": 8, **machine},
        "versions": {"python": "3.11", "jax": "0.10.2"},
        "measurements": list(measurements),
    }


def test_a_row_has_the_median_its_quartiles_the_target_and_whether_it_is_met():
    times = pairs.Times((1.0, 1.0, 1.0), (0.5, 0.7, 0.9))
    (row,) = table.rows(result(pairs.paired("step", times, against="them", at_least=0.65)))
    assert row == ("step", "", "them", "0.7 x [0.6, 0.8]", "≥ 0.65 x", "met")


def test_the_gain_stands_beside_the_definition_and_the_longest_key_counts(tmp_path, monkeypatch):
    (tmp_path / "some.py").write_text(
        "import nothing_that_exists\nGAINS = {'': 'all', 'step': 'few', 'a step': 'one'}\n"
    )
    (tmp_path / "other.py").write_text("x = 1\n")
    monkeypatch.setattr(table, "__file__", str(tmp_path / "table.py"))
    table.gains.cache_clear()
    found = [table.gain("some", name) for name in ("loop", "step", "a step")]
    assert (found, table.gain("some: part", "step"), table.gain("other", "step")) == (
        ["all", "few", "one"],
        "few",
        "",
    )
    (row,) = table.rows(result(pairs.valued("a step", [1.0], unit="s")))
    table.gains.cache_clear()
    assert row[:3] == ("a step", "one", "")


def test_targets_hold_from_their_own_side():
    assert table.met({"median": 1.1}, {"at_most": 1.1}) == "met"
    assert table.met({"median": 1.2}, {"at_most": 1.1}) == "missed"
    assert table.met({"median": 0.97}, {"at_least": 0.97}) == "met"


def test_quick_runs_are_left_out():
    text = table.markdown([result(pairs.valued("real", [1.0], unit="s")), result(quick=True)])
    assert "real" in text
    assert text.count("benchmarks.some") == 1


def test_the_accelerator_is_named_instead_of_the_processor():
    assert "A processor" in table.where(result())
    assert "1 x Some GPU" in table.where(result(accelerator="1 x Some GPU"))


def test_every_line_of_the_table_has_as_many_cells():
    text = table.markdown([result(pairs.valued("a", [1.0, 2.0], unit="share", at_most=0.1))])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "150.0 % [125.0 %, 175.0 %]" in text
