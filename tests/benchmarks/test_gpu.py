import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu, pairs, steps_gpu, table
from ssl_jax.core.rows import read_rows

ROOT = Path(__file__).parent.parent.parent


def value(name):
    return pairs.valued(name, [1.0], unit="s")


def finish(out, name, *, failures=()):
    row = {
        "benchmark": f"gpu: {name}",
        "quick": False,
        "measurements": [value(name)],
        "failures": [*failures],
    }
    gpu.write(out, {**row, "running": None})


def test_the_parts_share_the_time_and_what_is_left_over_goes_to_those_after(tmp_path):
    now, limits = [0.0], {}

    def start(name, limit):
        limits[name] = limit
        now[0] += 1.0 if name == "step" else limit + gpu.GRACE
        finish(tmp_path / "rows.jsonl", name)

    gpu.run_parts(list(gpu.PARTS), tmp_path / "rows.jsonl", 540.0, start, clock=lambda: now[0])
    weights = list(gpu.SHARES.values())
    assert limits["step"] == pytest.approx(540 * weights[0] / sum(weights) - gpu.GRACE)
    assert limits["torch"] == pytest.approx(539 * weights[1] / sum(weights[1:]) - gpu.GRACE)
    assert now[0] <= 540
    assert {row["benchmark"] for row in read_rows(tmp_path / "rows.jsonl")} == {
        f"gpu: {n}" for n in gpu.PARTS
    }


def test_no_part_begins_when_the_time_is_over(tmp_path):
    begun = []
    gpu.run_parts(["step", "mfu"], tmp_path / "rows.jsonl", 4.0, lambda *given: begun.append(given))
    assert begun == []
    for row in read_rows(tmp_path / "rows.jsonl"):
        assert row["failures"][0]["reason"] == "no time was left"


def test_a_part_that_hangs_is_killed_with_what_it_started_and_the_rest_goes_on(tmp_path):
    out, mark = tmp_path / "rows.jsonl", tmp_path / "pid"
    hang = (
        "import subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(mark)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )

    def start(name, limit):
        if name == "step":
            finish(out, name)
            row = {**gpu.part_row(out, name), "running": "the second item"}
            gpu.write(out, row)
            return gpu.run_process([sys.executable, "-c", hang], 1.5, os.environ)
        finish(out, name)
        return None

    begin = time.monotonic()
    gpu.run_parts(["step", "mfu"], out, 600.0, start)
    assert time.monotonic() - begin < 20
    found = {row["benchmark"]: row for row in read_rows(out)}
    assert found["gpu: step"]["failures"] == [{"name": "the second item", "reason": "stopped after 2 s"}]
    assert [m["name"] for m in found["gpu: step"]["measurements"]] == ["step"], (
        "what was measured before stays"
    )
    assert found["gpu: mfu"]["failures"] == []
    deadline = time.monotonic() + 10
    while running(int(mark.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(int(mark.read_text()))


def running(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_process_that_fails_says_why_in_its_last_line():
    code = "import sys; sys.stderr.write('first\\nlast: why\\n'); sys.exit(3)"
    assert gpu.run_process([sys.executable, "-c", code], 60, os.environ) == "ended with code 3: last: why"
    assert gpu.run_process([sys.executable, "-c", ""], 60, os.environ) is None
    crash = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    assert gpu.run_process([sys.executable, "-c", crash], 60, os.environ) == "ended with code -11: no message"


def test_items_are_written_as_they_come_and_a_failure_is_a_line(tmp_path, monkeypatch, capsys):
    out, seen = tmp_path / "rows.jsonl", []
    monkeypatch.setattr(gpu, "STARTED", time.monotonic())

    def look(seconds):
        seen.append(read_rows(out)[0])
        return [value("second")]

    def fail(seconds):
        raise RuntimeError("out of something\nand a long trace")

    items = iter([("first", lambda seconds: [value("first")]), ("bad", fail), ("second", look)])
    gpu.run_items("step", items, {"benchmark": "gpu: step", "quick": False}, out, 100.0)
    (row,) = read_rows(out)
    assert [m["name"] for m in seen[0]["measurements"]] == ["first"]
    assert seen[0]["running"] == "second"
    assert [m["name"] for m in row["measurements"]] == ["first", "second"]
    assert row["failures"] == [{"name": "bad", "reason": "RuntimeError: out of something"}]
    assert row["running"] is None
    gpu.run_items("step", iter([("late", look)]), {"benchmark": "gpu: step"}, out, -1.0)
    assert read_rows(out)[0]["failures"] == [{"name": "late", "reason": "TimeoutError: no time was left"}]


def test_an_iterator_of_items_that_fails_is_a_line_too(tmp_path):
    def items():
        raise ModuleNotFoundError("No module named 'torch'")
        yield

    gpu.run_items("torch", items(), {"benchmark": "gpu: torch"}, tmp_path / "rows.jsonl", 100.0)
    reason = read_rows(tmp_path / "rows.jsonl")[0]["failures"][0]["reason"]
    assert reason == "ModuleNotFoundError: No module named 'torch'"


def test_the_table_has_what_was_measured_what_was_not_and_the_figures_of_others(tmp_path):
    empty = gpu.markdown([])
    assert empty.startswith("not measured yet: no GPU was lent\n")
    assert "870.9 images/s, 70 %" in empty
    assert "84.8 % in 87.1 min" in empty
    out = tmp_path / "rows.jsonl"
    finish(out, "mfu", failures=[{"name": "DINO ViT-L", "reason": "out of memory | device"}])
    finish(out, "step")
    text = gpu.markdown(read_rows(out))
    assert gpu.NOT_MEASURED not in text
    assert text.index("| step |") < text.index("| mfu |"), "in the order of the parts"
    assert "| DINO ViT-L |  |  | not measured: out of memory / device |  |  |" in text
    own = [line for line in text.split("Figures of others")[0].splitlines() if line.startswith("|")]
    assert {line.count("|") for line in own} == {len(table.HEAD) + 1}


def test_only_real_rows_are_committed():
    rows = read_rows(gpu.RESULTS)
    assert not any(row.get("quick") for row in rows)
    assert all(row.get("machine", {}).get("accelerator") or not row["measurements"] for row in rows)


def test_operations_of_a_step_are_three_forward_passes_of_the_encoder():
    from ssl_jax.methods.contrastive import simclr

    sizes = steps_gpu.QUICK._replace(size=32)
    network, views = steps_gpu.make_encoder("vit_small", sizes), steps_gpu.simclr_views(sizes)
    found = steps_gpu.step_flops(simclr.build(network, views=views, projection=16), views, batch=2)
    # By hand, multiply-adds of an image: 64 patches and a class token, width 32, a block.
    tokens, width, depth = 65, 32, 1
    linear, attention = tokens * 12 * width**2, 2 * tokens**2 * width
    embedding = 64 * 3 * 4 * 4 * width
    encoder = 2 * 4 * (3 * depth * (linear + attention) + 2 * embedding)  # no gradient goes into the images
    head = 2 * 4 * 3 * (32 * 32 + 32 * 16)
    loss = 2 * 3 * 4 * 4 * 16
    assert found == pytest.approx(encoder + head + loss, rel=0.01)


def test_the_rates_of_a_short_run_warm_up_and_end_near_zero():
    from benchmarks.cifar_gpu import rates

    found = rates(40, 10, 512)
    assert found.shape == (40, 10)
    assert found[0, 0] == 0
    assert found.max() == pytest.approx(2.0, rel=1e-3)
    assert found.argmax() == 100, "ten epochs up"
    assert 0 < found[-1, -1] < 0.001


def test_memory_that_does_not_do_is_reported_after_some_halvings():
    tried = []

    def make(batch):
        tried.append(batch)
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        steps_gpu.fit_memory(make, 64)
    assert tried == [64, 32, 16, 8]
    with pytest.raises(ZeroDivisionError):
        steps_gpu.fit_memory(lambda batch: 1 / 0, 64)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--parts=step,what", "--parts=what: allowed are step"),
        ("--minutes=0", "--minutes=0: allowed is a number above 0"),
    ],
)
def test_wrong_arguments_are_named(argument, said, capsys):
    with pytest.raises(SystemExit):
        gpu.main([argument])
    assert said in capsys.readouterr().err


@pytest.mark.long
def test_a_quick_run_goes_from_end_to_end(tmp_path):
    pytest.importorskip("torch")
    out = tmp_path / "gpu.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--minutes=40", f"--out={out}"]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    rows = {row["benchmark"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert set(rows) == {f"gpu: {name}" for name in gpu.PARTS}
    for row in rows.values():
        assert row["failures"] == []
        assert row["quick"]
        assert row["measurements"]
        assert all(table.gain("gpu", m["name"]) for m in row["measurements"])
    assert len(rows["gpu: mfu"]["measurements"]) == 5
    assert rows["gpu: cifar10"]["measurements"][0]["raw"]["curve"]
    assert "PyTorch" in rows["gpu: torch"]["measurements"][0]["against"]
    assert "whole step" in done.stdout
