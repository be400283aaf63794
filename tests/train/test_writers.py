"""Writers: what is on disk, also after a kill and a resume."""

import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.train.writers import JsonlWriter, MultiWriter, TensorBoardWriter, WandbWriter, read_jsonl


def steps(path):
    return [record["step"] for record in read_jsonl(path)]


def write(path, numbers, **options):
    writer = JsonlWriter(path, **options)
    for step in numbers:
        writer.write(step, {"loss": step / 2})
    writer.close()


def test_a_record_is_on_disk_as_soon_as_it_is_written(tmp_path):
    writer = JsonlWriter(tmp_path / "new" / "metrics.jsonl")
    writer.write(3, {"loss": np.float32(0.5), "kNN": jnp.float32(0.25), "images": 7})
    assert read_jsonl(tmp_path / "new" / "metrics.jsonl") == [
        {"step": 3, "loss": 0.5, "kNN": 0.25, "images": 7}
    ]
    writer.close()


def test_numbers_that_are_not_finite_become_null_so_that_every_line_is_json(tmp_path):
    writer = JsonlWriter(tmp_path / "m.jsonl")
    writer.write(0, {"a": float("nan"), "b": np.float32("inf"), "c": jnp.float32(-jnp.inf)})
    writer.close()
    assert read_jsonl(tmp_path / "m.jsonl") == [{"step": 0, "a": None, "b": None, "c": None}]


def test_an_existing_file_is_appended_to(tmp_path):
    write(tmp_path / "m.jsonl", [0, 1])
    write(tmp_path / "m.jsonl", [2])
    assert steps(tmp_path / "m.jsonl") == [0, 1, 2]


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
    write(tmp_path / "m.jsonl", range(5))
    write(tmp_path / "m.jsonl", [3, 4], resume_step=3)
    assert steps(tmp_path / "m.jsonl") == [0, 1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path):
    write(tmp_path / "m.jsonl", [0, 1])
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert steps(tmp_path / "m.jsonl") == [0, 1]
    write(tmp_path / "m.jsonl", [2])
    assert steps(tmp_path / "m.jsonl") == [0, 1, 2]


def test_a_kill_while_records_are_dropped_leaves_the_old_file(tmp_path, monkeypatch):
    write(tmp_path / "m.jsonl", range(3))
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        JsonlWriter(tmp_path / "m.jsonl", resume_step=1)
    assert steps(tmp_path / "m.jsonl") == [0, 1, 2]


def test_lines_are_plain_json(tmp_path):
    write(tmp_path / "m.jsonl", [0])
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 0, "loss": 0.0}


class Spy:
    def __init__(self, fails=False):
        self.records, self.closed, self.fails = [], False, fails

    def write(self, step, scalars):
        self.records.append((step, dict(scalars)))

    def close(self):
        self.closed = True
        if self.fails:
            raise OSError("disk")


def test_several_writers_get_the_same_records_and_all_are_closed_even_if_one_fails():
    spies = [Spy(fails=True), Spy()]
    writer = MultiWriter(spies)
    writer.write(1, {"loss": 2.0})
    with pytest.raises(OSError, match="disk"):
        writer.close()
    assert [spy.records for spy in spies] == [[(1, {"loss": 2.0})]] * 2
    assert all(spy.closed for spy in spies)


def test_tensorboard_gets_an_event_file(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = TensorBoardWriter(tmp_path, resume_step=1)
    writer.write(1, {"loss": jnp.float32(2.0)})
    writer.close()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"loss" in events.read_bytes()


def test_wandb_gets_floats_with_their_step(monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda scalars, step: calls.append((step, scalars)), finish=lambda: calls.append("finished")
    )
    module = types.SimpleNamespace(init=lambda **options: calls.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    writer = WandbWriter(project="p", mode="offline")
    writer.write(4, {"loss": jnp.float32(0.5)})
    writer.close()
    assert calls == [{"project": "p", "mode": "offline"}, (4, {"loss": 0.5}), "finished"]


def test_wandb_that_does_not_start_is_one_line(monkeypatch):
    def init(**options):
        raise RuntimeError("api_key not configured\nsee the manual")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with pytest.raises(OSError, match=r"cannot be started: api_key not configured; log in [^\n]*$"):
        WandbWriter(project="p")


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [("tensorboardX", lambda: TensorBoardWriter("unused"), "tensorboard"), ("wandb", WandbWriter, "wandb")],
)
def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch, module, make, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module} is not installed: pip install 'ssl-jax\[{extra}\]'"):
        make()
