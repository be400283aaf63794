"""Runs whose folder is in a bucket, on servers of this machine: the same bits, faults, kills, no secrets. 60 CPU seconds."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ssl_jax.cli import pretrain
from ssl_jax.cli.embed import embed_images
from ssl_jax.cli.evaluate import evaluate_run
from ssl_jax.cli.export import export_encoder
from ssl_jax.cli.report import Pictures, write_report
from ssl_jax.config import build
from ssl_jax.core import trees
from ssl_jax.core.bucket import BucketPath, to_path
from ssl_jax.model import load
from ssl_jax.train.checkpoint import CannotSaveError, Checkpoints, restore_model, steps
from ssl_jax.train.workdir import Workdir, WorkdirInUseError
from ssl_jax.train.writers import read_jsonl
from tests.methods.case import config_of
from tests.train.object_servers import SECRET, Fault, serving
from tests.train.test_checkpoint import CONFIG, abstract, assert_same_bits, make_state

# When a read fails, orbax closes its event loop under the other reads, which complain when they finish.
pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("buckets"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).parent.parent.parent
SCHEMES = ("gs", "s3")


@pytest.fixture(scope="module", params=SCHEMES)
def store(request):
    with serving(request.param) as started:
        yield started


@pytest.fixture(autouse=True)
def without_faults(store):
    yield
    store.proxy.faults.clear()


def everything(path):
    """Each object below a path and its bytes."""
    return {name: path.files.cat_file(name) for name in path.files.find(str(path))}


def test_checkpoints_are_restored_bit_for_bit_and_only_the_last_are_kept(store):
    folder = to_path(f"{store.root}/kept/checkpoints")
    assert steps(folder) == []
    states = {step: make_state(step, step=step) for step in (20, 40, 60)}
    with Checkpoints(folder, every=20, keep=2, metadata=CONFIG) as checkpoints:
        for step, state in states.items():
            assert checkpoints.save(step, state, metrics={"loss": 1.0}, pending_hooks=step == 60)
        assert not checkpoints.save(60, states[60])
        checkpoints.record(60, {"loss": 0.5})
    assert steps(folder) == [40, 60]
    with Checkpoints(folder, every=20, metadata=CONFIG) as checkpoints:
        assert_same_bits(checkpoints.restore(abstract(make_state())), states[60])
        assert not checkpoints.pending_hooks
    (folder / "60" / "commit_success.txt").unlink()
    assert steps(folder) == [40]
    with Checkpoints(folder, every=20, metadata=CONFIG) as checkpoints:
        assert_same_bits(checkpoints.restore(abstract(make_state())), states[40])
        assert checkpoints.save(60, states[60])
    assert steps(folder) == [40, 60]


def test_a_damaged_checkpoint_is_passed_over_and_put_aside(store):
    folder = to_path(f"{store.root}/damaged/checkpoints")
    with Checkpoints(folder, every=20, metadata=CONFIG) as checkpoints:
        for step in (20, 40):
            checkpoints.save(step, make_state(step, step=step))
    objects = {name: len(data) for name, data in everything(folder / "40" / "model").items()}
    largest = max(objects, key=objects.get)
    content = bytearray(folder.files.cat_file(largest))
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(value ^ 0xFF for value in content[middle : middle + 64])
    folder.files.pipe_file(largest, bytes(content))
    with Checkpoints(folder, every=20, metadata=CONFIG) as checkpoints:
        with pytest.warns(UserWarning, match="checkpoint 40 .* is damaged"):
            found = checkpoints.restore(abstract(make_state()))
        assert_same_bits(found, make_state(20, step=20))
        assert checkpoints.save(40, make_state(40, step=40))
    assert sorted(path.name for path in folder.iterdir()) == ["20", "40", "40.damaged"]


def test_reading_the_model_leaves_the_bytes_of_the_optimizer_where_they_are(store):
    folder = to_path(f"{store.root}/parts/checkpoints")
    state = make_state(3, step=20)
    state = state._replace(opt_state={"moments": jax.random.normal(jax.random.key(0), (512, 512))})
    with Checkpoints(folder, every=20, metadata=CONFIG) as checkpoints:
        checkpoints.save(20, state)
    size = sum(map(len, everything(folder / "20").values()))
    optimizer = sum(map(len, everything(folder / "20" / "opt").values()))
    assert optimizer > 0.8 * 2**20
    store.proxy.sent = 0
    model = restore_model(folder)
    assert store.proxy.sent < size - optimizer + 2**17
    np.testing.assert_array_equal(
        jax.tree.leaves(model.params)[0], np.asarray(jax.tree.leaves(state.params)[0])
    )


@pytest.mark.parametrize("status", [429, 503])
def test_a_store_that_is_busy_is_asked_again(store, status):
    folder = to_path(f"{store.root}/busy-{status}/checkpoints")
    for method in ("GET", "PUT", "POST"):
        store.proxy.faults.append(Fault(lambda m, path, method=method: m == method, status, 2))
    with Checkpoints(folder, every=20, metadata=CONFIG) as checkpoints:
        checkpoints.save(20, make_state(20, step=20))
        checkpoints.wait()
        assert_same_bits(checkpoints.restore(abstract(make_state())), make_state(20, step=20))
    assert len(store.proxy.made) >= 3


def test_a_connection_cut_in_a_save_is_made_again_or_leaves_the_checkpoint_before(store):
    folder = to_path(f"{store.root}/cut/checkpoints")

    def upload(method, path):
        return method in ("PUT", "POST") and "opt" in path

    with Checkpoints(folder, every=20, metadata=CONFIG) as checkpoints:
        checkpoints.save(20, make_state(20, step=20))
        checkpoints.wait()
        store.proxy.faults.append(Fault(upload, 0, 1))
        checkpoints.save(40, make_state(40, step=40))
        checkpoints.wait()
        assert steps(folder) == [20, 40] and store.proxy.made
        assert_same_bits(checkpoints.restore(abstract(make_state())), make_state(40, step=40))


def test_a_store_that_refuses_ends_the_save_in_a_line_and_the_checkpoint_before_stays(store):
    folder = to_path(f"{store.root}/refused/checkpoints")
    checkpoints = Checkpoints(folder, every=20, metadata=CONFIG)
    checkpoints.save(20, make_state(20, step=20))
    checkpoints.wait()
    store.proxy.faults.append(
        Fault(lambda method, path: method in ("PUT", "POST") and "opt" in path, 403, 10**6)
    )
    with pytest.raises(CannotSaveError, match=r"steps \[20\] are whole") as told:
        checkpoints.save(40, make_state(40, step=40))
        checkpoints.wait()
    assert "\n" not in str(told.value) and SECRET not in str(told.value)
    store.proxy.faults.clear()
    with Checkpoints(folder, every=20, metadata=CONFIG) as again:
        assert_same_bits(again.restore(abstract(make_state())), make_state(20, step=20))
        assert again.save(40, make_state(40, step=40))
    assert steps(folder) == [20, 40]


def test_a_stale_listing_shows_no_lock_and_the_second_run_is_refused_all_the_same(store):
    folder = f"{store.root}/stale"
    with Workdir(folder) as held:
        held.configure({"steps": 1})
    stale = Fault(lambda method, path: method == "GET" and ".lock" in path, -1, 10**6)
    with Workdir(folder):
        store.proxy.faults.append(stale)
        with pytest.raises(WorkdirInUseError, match=f"process {os.getpid()} on "):
            Workdir(folder)


RUN = """
    import os, signal, sys
    import jax
    jax.config.update("jax_num_cpu_devices", 8)  # as in the tests: the sums are those of as many devices
    from ssl_jax.train import storage
    if {kill!r}:
        original, left = storage.Manifest._write, [2]
        def fatal(self, path):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            original(self, path)
        storage.Manifest._write = fatal
    from ssl_jax.cli import pretrain
    from ssl_jax.config import build
    from tests.train.test_buckets import run_config, train
    train({folder!r})
"""


def run_config():
    config = config_of("simclr", steps=6)
    config["watch"]["checkpoint"]["every"] = 2
    config["watch"]["log"]["every"] = 1
    config["watch"]["health"] |= {"batch": 0, "sample": 0}
    return config


def train(folder):
    config = run_config()
    with Workdir(folder) as workdir:
        pretrain.train(config, build.run_objects(config), workdir)


def start(folder, *, kill):
    code = textwrap.dedent(RUN).format(folder=folder, kill=kill)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )


def test_a_run_killed_in_a_save_goes_on_to_the_same_bits_and_every_launcher_reads_it(store, tmp_path, capfd):
    folder = f"{store.root}/killed"
    done = start(folder, kill=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert steps(f"{folder}/checkpoints") == [2]
    begin = time.monotonic()
    Workdir(folder).close()  # the lock of a process of this machine that is gone keeps nobody out
    assert time.monotonic() - begin < 50
    train(folder)
    train(str(tmp_path / "whole"))
    found, expected = (restore_model(f"{w}/checkpoints", step=6) for w in (folder, tmp_path / "whole"))
    found, expected = (trees.flatten({"params": m.params, "state": m.state}) for m in (found, expected))
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    series = [
        [(record["step"], record.get("loss")) for record in read_jsonl(to_path(f"{w}/metrics.jsonl"))]
        for w in (folder, tmp_path / "whole")
    ]
    assert series[0] == series[1]

    path = to_path(folder)
    source = run_config()["data"]["source"]
    evaluate_run(path, measures=("health",))
    assert json.loads((path / "evaluation.json").read_text())
    embed_images(path, source, path / "features.npz", split="test[:8]")
    export_encoder(path, path / "encoder")
    write_report([folder], None, Pictures("latest", None, None, 10, "pca", None))
    names = {name.rsplit("killed/", 1)[1] for name in everything(path)}
    assert {"report.html", "features.npz", "encoder/encoder.safetensors", "config.json"} <= names
    images = np.zeros((2, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(load(folder).embed(images), load(f"{folder}/encoder").embed(images), atol=1e-5)
    said = "".join(capfd.readouterr()) + done.stdout + done.stderr
    assert SECRET not in said and "key-of-tests" not in said
    for name, content in everything(path).items():
        assert SECRET.encode() not in content and b"key-of-tests" not in content, name


def test_without_credentials_a_line_says_so(store, monkeypatch):
    if not store.root.startswith("s3"):
        pytest.skip("the emulator of Google's store takes everybody")
    store.proxy.faults.append(Fault(lambda method, path: True, 403, 10**6))
    with pytest.raises(ValueError, match="cannot be written to") as told:
        Workdir(f"{store.root}/denied")
    assert SECRET not in str(told.value) and "\n" not in str(told.value)
    assert isinstance(to_path(store.root), BucketPath)
