"""Checkpoints survive what happens to files and processes, and come back bit for bit on any mesh."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore
from jax.sharding import PartitionSpec
from orbax.checkpoint._src.serialization import ocdbt_utils

from ssl_jax.train import checkpoint, storage
from ssl_jax.train.checkpoint import Checkpoints, NoUsableCheckpointError, restore_model, steps
from ssl_jax.train.sharding import make_mesh, state_shardings
from ssl_jax.train.state import TrainState

CONFIG = {"method": "simclr", "optimizer": {"learning_rate": 0.1}}
RULES = [("^(params|opt_state).*kernel$", PartitionSpec(None, "fsdp"))]

# When a read fails, orbax closes its event loop under the other reads, which complain when they finish.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Queue(NamedTuple):
    items: jax.Array
    pointer: jax.Array


def make_state(seed: int = 0, *, width: int = 8, step: int = 0) -> TrainState:
    """Every kind of leaf that a run has: kernels, bfloat16, counters, named tuples, keys, nothing."""
    keys = jax.random.split(jax.random.key(seed), 5)
    params = {
        "encoder": {"kernel": jax.random.normal(keys[0], (64, width)), "bias": jnp.zeros(width)},
        "head": {"kernel": jax.random.normal(keys[1], (256, 64)).astype(jnp.bfloat16)},
    }
    state = {
        "queue": Queue(jax.random.normal(keys[2], (6, 3)), jnp.int32(5)),
        "noise": jax.random.split(keys[3], 2),
        "nothing": {},
        "no_elements": jnp.zeros((0, 3)),
        "not_a_number": jnp.array([jnp.nan, -0.0, jnp.inf]),
    }
    opt_state = optax.chain(
        optax.clip(1.0), optax.masked(optax.adam(0.1), {"encoder": True, "head": False})
    ).init(params)
    return TrainState(jnp.int32(step), params, state, opt_state, keys[4], jnp.bool_(True))


def abstract(state: TrainState, mesh=None) -> TrainState:
    mesh = make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    shardings = state_shardings(state, mesh, rules=RULES)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        assert one.dtype == other.dtype and one.shape == other.shape, path
        assert storage.to_host(one).tobytes() == storage.to_host(other).tobytes(), path


def saved(directory, *numbers: int, **options) -> dict[int, TrainState]:
    """Save a state a step and return them."""
    states = {step: make_state(step, step=step) for step in numbers}
    with Checkpoints(directory, every=20, metadata=CONFIG, **options) as checkpoints:
        for step, state in states.items():
            assert checkpoints.save(step, state)
    return states


def restored(directory) -> TrainState | None:
    with Checkpoints(directory, every=20, metadata=CONFIG) as checkpoints:
        return checkpoints.restore(abstract(make_state()))


def test_a_checkpoint_of_another_version_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "LAYOUT", "ssl_jax 0.1")
        saved(tmp_path, 20)
    for read in (restored, restore_model):
        with pytest.raises(ValueError, match=r"20 was written by ssl_jax 0\.1; this is ssl_jax 0\.2"):
            read(tmp_path)
    assert steps(tmp_path) == [20]


def largest_file(directory: Path) -> Path:
    return max(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def flip(path: Path, position: int, count: int = 1) -> None:
    content = bytearray(path.read_bytes())
    for index in range(position, min(position + count, len(content))):
        content[index] ^= 0xFF
    path.write_bytes(content)


def flip_data(directory: Path) -> None:
    file = largest_file(directory / "model")
    flip(file, file.stat().st_size // 2, 64)


def truncate_data(directory: Path) -> None:
    file = largest_file(directory / "model")
    os.truncate(file, file.stat().st_size // 2)


def delete_data(directory: Path) -> None:
    largest_file(directory / "opt").unlink()


def delete_item(directory: Path) -> None:
    shutil.rmtree(directory / "opt")


def empty_everything(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


def flip_structure(directory: Path) -> None:
    flip(directory / "model" / "_METADATA", 40, 200)


def change_manifest(directory: Path) -> None:
    path = directory / "manifest" / "manifest.json"
    path.write_text(path.read_text().replace("8", "9"))


def truncate_manifest(directory: Path) -> None:
    os.truncate(directory / "manifest" / "manifest.json", 100)


DAMAGES = [
    flip_data,
    truncate_data,
    delete_data,
    delete_item,
    empty_everything,
    flip_structure,
    change_manifest,
    truncate_manifest,
]


def test_every_leaf_comes_back_bit_for_bit(tmp_path):
    states = saved(tmp_path, 20)
    assert_same_bits(restored(tmp_path), states[20])


@pytest.mark.parametrize(
    ("written", "read"), [((2, 4), (1, 1)), ((2, 4), (1, 4)), ((1, 8), (2, 2)), ((1, 8), (1, 1))]
)
def test_a_state_saved_on_eight_devices_restores_on_fewer(tmp_path, written, read):
    """Numbers of devices along ``data`` and ``fsdp``."""
    state = make_state(1, step=20)
    eight = make_mesh(data=written[0], fsdp=written[1])
    placed = jax.device_put(state, state_shardings(state, eight, rules=RULES))
    assert not placed.params["encoder"]["kernel"].is_fully_replicated
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        checkpoints.save(20, placed)
        fewer = make_mesh(data=read[0], fsdp=read[1], devices=jax.devices()[: read[0] * read[1]])
        wanted = abstract(state, fewer)
        found = checkpoints.restore(wanted)
    assert_same_bits(found, state)
    for leaf, target in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding.is_equivalent_to(target.sharding, leaf.ndim)


def test_nothing_to_restore_is_none(tmp_path):
    assert restored(tmp_path) is None
    assert restored(tmp_path / "absent") is None
    assert steps(tmp_path / "absent") == []


def test_saving_returns_before_the_write_and_commits_only_when_whole(tmp_path, monkeypatch):
    release, checksums = threading.Event(), storage.checksums

    def slow(arrays):
        assert release.wait(30)
        return checksums(arrays)

    monkeypatch.setattr(storage, "checksums", slow)
    state = make_state(3, step=20)
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        assert checkpoints.save(20, state)
        assert steps(tmp_path) == [], "visible before it was whole"
        release.set()
        checkpoints.wait()
        assert steps(tmp_path) == [20]
    assert_same_bits(restored(tmp_path), state)


def test_the_state_may_be_donated_right_after_saving(tmp_path):
    state = make_state(4, step=20)
    expected = jax.tree.map(lambda leaf: storage.to_host(leaf).copy(), state)
    advance = jax.jit(
        lambda s: s._replace(params=jax.tree.map(lambda w: w * 0 + 1, s.params)), donate_argnums=0
    )
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        checkpoints.save(20, state)
        for _ in range(3):
            state = advance(state)
        jax.block_until_ready(state)
    found = jax.tree.map(storage.to_host, restored(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def test_an_error_while_writing_is_raised_and_leaves_no_checkpoint(tmp_path, monkeypatch):
    def full(arrays):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path, every=20, metadata=CONFIG)
    monkeypatch.setattr(storage, "checksums", full)
    checkpoints.save(20, make_state())
    with pytest.raises(OSError, match=r"No space left.*None was written before"):
        checkpoints.wait()
    monkeypatch.undo()
    checkpoints.close()
    assert steps(tmp_path) == []


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_passed_over_and_its_step_can_be_saved_again(tmp_path, damage):
    states = saved(tmp_path, 40, 60)
    damage(tmp_path / "60")
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        with pytest.warns(UserWarning, match="checkpoint 60 in .* is damaged and passed over: ") as warned:
            found = checkpoints.restore(abstract(make_state()))
        assert len(warned) == 1
        assert_same_bits(found, states[40])
        assert steps(tmp_path) == [40]
        assert (tmp_path / "60.damaged").is_dir(), "kept for a look"
        again = make_state(7, step=60)
        assert checkpoints.save(60, again)
    assert_same_bits(restored(tmp_path), again)


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path):
    states = saved(tmp_path / "whole", 20)
    files = [
        path for path in (tmp_path / "whole" / "20").rglob("*") if path.is_file() and path.stat().st_size
    ]
    generator = np.random.default_rng(0)
    noticed = 0
    for number in range(25):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        file = files[generator.integers(len(files))]
        flip(copy / file.relative_to(tmp_path / "whole"), int(generator.integers(file.stat().st_size)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = restored(copy)
            except NoUsableCheckpointError:
                noticed += 1
                continue
        assert_same_bits(found, states[20])
    assert noticed


def test_all_damaged_is_an_error_and_nothing_is_touched(tmp_path):
    saved(tmp_path, 20, 40)
    flip_data(tmp_path / "20")
    truncate_data(tmp_path / "40")
    for _ in range(2):
        with pytest.warns(UserWarning, match="damaged"), pytest.raises(NoUsableCheckpointError) as error:
            restored(tmp_path)
        assert "20:" in str(error.value) and "40:" in str(error.value) and "checksum" in str(error.value)
        assert steps(tmp_path) == [20, 40]


def test_another_configuration_is_an_error_that_names_path_and_shapes_not_damage(tmp_path):
    saved(tmp_path, 20)
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        with pytest.raises(
            ValueError, match=r"params/encoder/bias is float32\[8\] in .* float32\[12\] in the run"
        ):
            checkpoints.restore(abstract(make_state(width=12)))
        state = make_state()
        with pytest.raises(ValueError, match=r"params/extra is absent in the checkpoint and float32\[2\]"):
            checkpoints.restore(abstract(state._replace(params={**state.params, "extra": jnp.ones(2)})))
        with pytest.raises(
            ValueError, match=r"params/head/kernel is bfloat16\[256,64\] in .* and absent in the run"
        ):
            checkpoints.restore(abstract(state._replace(params={"encoder": state.params["encoder"]})))
    assert steps(tmp_path) == [20]


def test_running_out_of_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    saved(tmp_path, 20)

    def exhausted(*args):
        raise RuntimeError("wrapped") from MemoryError("no memory")

    monkeypatch.setattr(storage.ocp, "load_checkpointables", exhausted)
    with pytest.raises(MemoryError):
        restored(tmp_path)


def test_the_latest_and_the_best_are_kept(tmp_path):
    values = {20: 0.3, 40: 0.9, 60: float("nan"), 80: 0.5, 100: None, 120: 0.1}
    with Checkpoints(tmp_path, every=20, keep=2, best="knn", metadata=CONFIG) as checkpoints:
        for step, value in list(values.items())[:4]:
            checkpoints.save(step, make_state(step, step=step), metrics={"knn": jnp.float32(value)})
    assert steps(tmp_path) == [40, 60, 80]
    with Checkpoints(tmp_path, every=20, keep=2, best="knn", metadata=CONFIG) as checkpoints:
        checkpoints.restore(abstract(make_state()))
        checkpoints.save(100, make_state(100, step=100))
        checkpoints.save(120, make_state(120, step=120), metrics={"knn": 0.1})
    assert steps(tmp_path) == [40, 100, 120], "the best of an earlier session is remembered"
    assert restore_model(tmp_path, step="best").step == 40


def test_saving_a_step_twice_makes_one_checkpoint(tmp_path):
    state = make_state(step=20)
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        assert checkpoints.save(20, state)
        assert not checkpoints.save(20, state)
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        checkpoints.restore(abstract(state))
        assert not checkpoints.save(20, state)


def test_checkpoints_of_another_run_are_not_saved_over(tmp_path):
    saved(tmp_path, 20)
    with (
        Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints,
        pytest.raises(RuntimeError, match=r"\[20\]"),
    ):
        checkpoints.save(40, make_state())


@pytest.mark.parametrize(
    ("name", "options"),
    [("every", {"every": 0}), ("keep", {"keep": 0}), ("metadata", {"metadata": {"a": object()}})],
)
def test_bad_arguments_are_named(tmp_path, name, options):
    with pytest.raises(ValueError, match=name):
        Checkpoints(tmp_path, **{"every": 1, "metadata": CONFIG, **options})


def test_the_model_is_read_without_devices_or_optimizer(tmp_path):
    state = make_state(1, step=20)
    mesh = make_mesh(data=2, fsdp=4)
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        checkpoints.save(20, jax.device_put(state, state_shardings(state, mesh, rules=RULES)))
    shutil.rmtree(tmp_path / "20" / "opt")
    model = restore_model(tmp_path)
    assert model.metadata == CONFIG and model.step == 20
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves((model.params, model.state)))
    assert_same_bits(model.params, state.params)
    assert set(model.state["queue"]) == {"items", "pointer"}
    shaped = restore_model(tmp_path, abstract=jax.eval_shape(lambda: (state.params, state.state)))
    assert_same_bits(shaped.params, state.params)
    assert_same_bits(shaped.state, state.state)
    other = make_state(width=12)
    with pytest.raises(ValueError, match="params/encoder/bias"):
        restore_model(tmp_path, abstract=(other.params, other.state))


def test_a_model_is_read_by_step_and_the_latest_falls_back(tmp_path):
    states = saved(tmp_path, 20, 40)
    assert_same_bits(restore_model(tmp_path, step=20).params, states[20].params)
    flip_data(tmp_path / "40")
    with pytest.warns(UserWarning, match="checkpoint 40"):
        assert restore_model(tmp_path).step == 20
    assert steps(tmp_path) == [20, 40], "reading changes nothing"
    with pytest.raises(NoUsableCheckpointError, match="40: "):
        restore_model(tmp_path, step=40)
    with pytest.raises(ValueError, match="step=30"):
        restore_model(tmp_path, step=30)
    with pytest.raises(ValueError, match="metric"):
        restore_model(tmp_path, step="best")
    with pytest.raises(ValueError, match="no checkpoint"):
        restore_model(tmp_path / "absent")


def test_a_checkpoint_copied_elsewhere_is_complete(tmp_path):
    saved(tmp_path / "run", 20)
    shutil.copytree(tmp_path / "run" / "20", tmp_path / "elsewhere" / "20")
    assert restore_model(tmp_path / "elsewhere").metadata == CONFIG
    with (tmp_path / "elsewhere" / "20" / "manifest" / "manifest.json").open() as file:
        assert json.load(file)["items"]["model"]["step"]["dtype"] == "int32"


# fmt: off
ODD = [
    "lr[0.1]_b[8]", "[!a]", "a*b", "a**b", "what?", "{a,b}", "lr=0.1,wd=1e-4", "100%41", "#1", "@home", "~", "-dash",
    "a b", " ", "\n", "caf\u00e9", "cafe\u0301", "n" * 200, "...",
    "gs", "20", "20.orbax-checkpoint-tmp", "file:", "a::b",
]
# fmt: on
"""Names of folders; each is legal."""


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_checkpoints_lie_below_folders_of_any_name(tmp_path, name):
    one, other = tmp_path / name / "run", tmp_path / "moved" / f"{name}[1-2]*"[-200:]
    state = TrainState(jnp.int32(20), {"w": jnp.ones(2)}, {}, {}, jax.random.key(0), jnp.bool_(True))
    with Checkpoints(one, every=20, metadata=CONFIG) as checkpoints:
        checkpoints.save(20, state)
    with Checkpoints(one, every=20, metadata=CONFIG) as checkpoints:
        assert_same_bits(checkpoints.restore(abstract(state)), state)
        checkpoints.save(40, state._replace(step=jnp.int32(40)))
    other.parent.mkdir()
    one.rename(other)
    assert restore_model(other).step == 40
    assert steps(other) == [20, 40] and sorted(path.name for path in other.iterdir()) == ["20", "40"]


def test_a_star_in_a_path_takes_no_arrays_of_another_run(tmp_path):
    for name, step in (("run1", 20), ("run*", 20)):
        saved(tmp_path / name, step)
    with Checkpoints(tmp_path / "run*", every=20, metadata=CONFIG) as checkpoints:
        checkpoints.restore(abstract(make_state()))
        checkpoints.save(40, make_state(7, step=40))
    assert_same_bits(restored(tmp_path / "run*"), make_state(7, step=40))
    assert {path.name for path in (tmp_path / "run*").glob("40/model/ocdbt*")} == {"ocdbt.process_0"}


@pytest.mark.parametrize("name", ["a\\b", "x.__lock", "logs:", os.fsdecode(b"\xff")], ids=ascii)
def test_a_path_that_arrays_cannot_be_written_to_is_refused_before_anything_is_trained(tmp_path, name):
    calls = [lambda path: Checkpoints(path, every=1, metadata={}), restore_model]
    for call in calls:
        with pytest.raises(
            ValueError, match=r"arrays cannot be written below a folder .*: rename it"
        ) as error:
            call(tmp_path / name / "checkpoints")
        assert str(error.value).isascii()


def test_a_path_is_that_of_the_moment_it_is_given(tmp_path, monkeypatch):
    """Relative, through a link, with a slash at the end, and above what a link points to, whose folder it is not in."""
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "there" / "deep")
    (tmp_path / "elsewhere").mkdir()
    for number, name in enumerate(["here/", "link/run", "link/../up", "./a/../b"]):
        monkeypatch.chdir(tmp_path)
        checkpoints = Checkpoints(name, every=20, metadata=CONFIG)
        expected = (tmp_path / name).resolve()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with checkpoints:
            checkpoints.save(20, make_state(number, step=20))
        assert_same_bits(restored(expected), make_state(number, step=20))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "elsewhere", "here", "link", "there"]
    assert not list((tmp_path / "elsewhere").iterdir())


def merge_nothing(merge):
    async def merged(directory, *args, **options):
        pass

    return merged


def lose(key):
    """Merge, then remove what a directory has under a key."""

    def changed(merge):
        async def merged(directory, *args, **options):
            await merge(directory, *args, **options)
            base = {"driver": "file", "path": f"{directory}/"}
            store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
            await store.write(key, None)

        return merged

    return changed


@pytest.mark.parametrize(
    "harm",
    [
        merge_nothing,
        lose("params.encoder.kernel/zarr.json"),
        lose("params.encoder.kernel/c/0/0"),
        lose("key/c/0"),
    ],
)
def test_a_save_whose_index_lacks_an_array_does_not_count(tmp_path, harm, monkeypatch):
    """The one before it stays, though one is to be kept, and the run ends."""
    states = saved(tmp_path, 20, keep=1)
    checkpoints = Checkpoints(tmp_path, every=20, keep=1, metadata=CONFIG)
    checkpoints.restore(abstract(make_state()))
    with monkeypatch.context() as patch:
        original = ocdbt_utils.merge_ocdbt_per_process_files
        patch.setattr(ocdbt_utils, "merge_ocdbt_per_process_files", harm(original))
        checkpoints.save(40, make_state(40, step=40))
        with pytest.raises(
            checkpoint.CannotSaveError, match=r"read back, \d+ of the \d+ arrays .* steps \[20\] are whole"
        ):
            checkpoints.wait()
    checkpoints.close()
    assert_same_bits(restored(tmp_path), states[20])


CHILD = """
    import sys, time
    import jax
    jax.config.update("jax_num_cpu_devices", 8)
    sys.path.insert(0, {tests!r})
    from ssl_jax.train import checkpoint, storage
    from ssl_jax.train.checkpoint import Checkpoints
    from test_checkpoint import CONFIG, make_state

    checkpoints = Checkpoints({directory!r}, every=20, metadata=CONFIG)
    checkpoints.save(20, make_state(20, step=20))
    checkpoints.wait()
    storage.checksums = lambda arrays: time.sleep(600)  # the commit waits for it
    checkpoints.save(40, make_state(40, step=40))
    print("saving", flush=True)
    time.sleep(600)
"""


def test_kill_9_during_a_save_leaves_the_step_before_and_no_rubbish(tmp_path):
    code = textwrap.dedent(CHILD).format(tests=str(Path(__file__).parent), directory=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "saving\n"
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("40*/model*/**/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert [path.name for path in tmp_path.glob("40*")] == ["40.orbax-checkpoint-tmp"]
    assert steps(tmp_path) == [20]
    with Checkpoints(tmp_path, every=20, metadata=CONFIG) as checkpoints:
        assert_same_bits(checkpoints.restore(abstract(make_state())), make_state(20, step=20))
        assert checkpoints.save(40, make_state(40, step=40))
    assert sorted(path.name for path in tmp_path.glob("[0-9]*")) == ["20", "40"]
    assert_same_bits(restored(tmp_path), make_state(40, step=40))
