"""Files of rows: order, replacement, several writers."""

import json
import operator
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssl_jax.core.rows import read_rows, write_row

KEY = operator.itemgetter("method", "seed")


def test_rows_are_in_the_order_of_their_keys_and_a_new_one_replaces_its_predecessor(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    for method, seed, value in (("b", 0, 1.5), ("a", 10, 2.5), ("a", 9, 3.5), ("b", 0, 4.5)):
        write_row(path, {"method": method, "seed": seed, "value": value}, KEY)
    assert [(*KEY(row), row["value"]) for row in read_rows(path)] == [
        ("a", 9, 3.5),
        ("a", 10, 2.5),
        ("b", 0, 4.5),
    ]
    assert [json.loads(line) for line in path.read_text().splitlines()] == read_rows(path)
    assert [file.name for file in path.parent.iterdir()] == ["rows.jsonl"]


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("line", ["{", "[1]", "nothing"])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"seed": 0}}\n{line}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: allowed is a JSON object"):
        read_rows(path)


def test_a_row_that_json_cannot_hold_leaves_the_file_as_it_is(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_row(path, {"seed": 0}, operator.itemgetter("seed"))
    with pytest.raises(TypeError):
        write_row(path, {"seed": 1, "value": object()}, operator.itemgetter("seed"))
    assert read_rows(path) == [{"seed": 0}]


def test_threads_lose_no_row_of_each_other(tmp_path):
    path = tmp_path / "rows.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_row(path, {"seed": i}, operator.itemgetter("seed")), range(40)))
    assert [row["seed"] for row in read_rows(path)] == list(range(40))


def test_processes_lose_no_row_of_each_other(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = (
        "import operator, sys\n"
        "from ssl_jax.core.rows import write_row\n"
        "for i in range(20): write_row(sys.argv[1], {'seed': 20 * int(sys.argv[2]) + i}, operator.itemgetter('seed'))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), str(i)]) for i in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [row["seed"] for row in read_rows(path)] == list(range(60))
