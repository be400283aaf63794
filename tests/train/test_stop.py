"""A run that is asked to stop, that dies, whose disk, clock, files or numbers fail: it loses nothing and says what is wrong."""

import dataclasses
import os
import pathlib
import resource
import signal
import subprocess
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.data.batches import TooManyCorrupt
from ssl_jax.data.folder import open_folder
from ssl_jax.data.sources import ArraySource
from ssl_jax.methods.contrastive import simclr
from ssl_jax.methods.method import Refresh
from ssl_jax.train import storage
from ssl_jax.train.checkpoint import CannotSaveError, Checkpoints, restore_model, steps
from ssl_jax.train.dump import read_dump
from ssl_jax.train.loop import fit
from ssl_jax.train.program import make_program, sample_batch
from ssl_jax.train.refresh import Refresher
from ssl_jax.train.run import Host, Run, Watch
from ssl_jax.train.session import NonFiniteError, Session
from ssl_jax.train.sharding import make_mesh
from ssl_jax.train.signals import Stopped, StopRequest
from ssl_jax.train.writers import JsonlWriter, MultiWriter, read_jsonl
from tests.data.images import encode

STEPS = 6
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
SOURCE = ArraySource(IMAGES)
SGD = optim.from_options("sgd", steps=STEPS, learning_rate=0.1, scaling="none", batch_size=8)
ENCODER = models.build("convnet", widths=(4,), grid=1)
METHOD = simclr.build(ENCODER, views=presets.simclr(8, blur_prob=0.0), projector_width=8, projection=4)
ONE = make_mesh(devices=jax.devices()[:1])
RUN_OPTIONS = {field.name for field in dataclasses.fields(Run)}


@pytest.fixture(scope="module")
def program():
    return make_program(METHOD, SGD, sample_batch(SOURCE, METHOD), ONE)


@pytest.fixture(scope="module")
def whole(program):
    return run(program).state


def run(program, source=SOURCE, *, method=METHOD, steps=STEPS, folder=None, **options):
    of_run = {name: options.pop(name) for name in RUN_OPTIONS & options.keys()}
    this = Run(method, SGD, source, steps=steps, batch_size=8, **of_run)
    host = Host(mesh=ONE, program=program)
    if folder is None:
        return fit(this, host, Watch(**options))
    with Checkpoints(folder, every=2, metadata={}) as checkpoints:
        return fit(this, host, Watch(checkpoints=checkpoints, **options))


def assert_same_bits(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert storage.to_host(one).tobytes() == storage.to_host(other).tobytes()


class Look:
    """A hook that does something, once."""

    def __init__(self, every=2, act=lambda: None):
        self.every, self.act, self.seen = every, act, []

    def __call__(self, step, state):
        act, self.act = self.act, lambda: None
        act()
        self.seen.append(step)
        return {"look": float(step)}


class Slow:
    """Images of which the one that is read as number ``at`` is waited for until the end of the test."""

    def __init__(self, at, act):
        self.at, self.act, self.count, self.go = at, act, 0, threading.Event()
        for name in ("name", "shape", "channels", "dtype", "classes", "file_name"):
            setattr(self, name, getattr(SOURCE, name))

    def __len__(self):
        return len(SOURCE)

    def __getitem__(self, index):
        self.count += 1
        if self.count == self.at:
            self.act()
            self.go.wait(60)
        return SOURCE[index]


class Records(list):
    def write(self, step, scalars):
        self.append((step, set(scalars)))

    def close(self):
        pass


def terminate_and_hang():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    pytest.fail("the signal did not end the wait")


def test_a_request_breaks_off_waits_only_while_they_may_be():
    with StopRequest() as stop:
        with pytest.raises(Stopped), stop.interruptible():
            terminate_and_hang()
        with pytest.raises(Stopped), stop.interruptible():
            pytest.fail("a request that was made before is met too")
        signal.raise_signal(signal.SIGTERM)
    assert stop.requested == "SIGTERM"


def test_of_several_processes_a_request_is_left_to_jax_which_tells_all_of_them():
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
    try:
        with StopRequest(alone=False) as stop:
            with stop.interruptible():
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == ["SIGTERM"]
    assert not stop.requested


def test_a_request_during_an_evaluation_saves_at_once_and_the_evaluation_is_made_up_for(
    program, whole, tmp_path
):
    hook, records = Look(act=terminate_and_hang), Records()
    before = time.monotonic()
    stopped = run(program, folder=tmp_path, hooks=[hook], writer=lambda step: records)
    assert stopped.stopped_by == "SIGTERM" and time.monotonic() - before < 30
    assert steps(tmp_path) == [2] and hook.seen == [] and not records
    done = run(program, folder=tmp_path, hooks=[hook], writer=lambda step: records)
    assert hook.seen == [2, 4, 6] and (2, {"look"}) in records
    assert_same_bits(done.state, whole)


def test_a_request_during_the_last_evaluation_leaves_it_to_the_next_start(program, whole, tmp_path):
    hook = Look(every=STEPS, act=terminate_and_hang)
    assert run(program, folder=tmp_path, hooks=[hook]).stopped_by
    assert steps(tmp_path)[-1] == STEPS and hook.seen == []
    done = run(program, folder=tmp_path, hooks=[hook])
    assert hook.seen == [STEPS] and not done.stopped_by
    assert_same_bits(done.state, whole)


def test_a_request_while_data_do_not_come_saves_the_last_step(program, whole, tmp_path):
    """Reading is broken off at the fourth batch or later, of which up to five are read ahead."""

    def act():
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        threading.Timer(4.0, source.go.set).start()

    source = Slow(30, act)
    stopped = run(program, source, folder=tmp_path)
    made = int(stopped.state.step)
    assert stopped.stopped_by == "SIGTERM" and 2 <= made <= 4 and steps(tmp_path)[-1] == made
    assert_same_bits(run(program, folder=tmp_path).state, whole)


@pytest.mark.long
def test_a_request_during_a_refresh_saves_the_state_before_it(tmp_path):
    state_of = METHOD.init

    def refresh(state, features, key):
        del features
        return {**state, "noise": jax.random.normal(key)}

    method = dataclasses.replace(
        METHOD,
        init=lambda key, batch: (
            state_of(key, batch)[0],
            {**state_of(key, batch)[1], "noise": jnp.float32(0)},
        ),
        loss=lambda params, state, batch, key, step: _with_noise(params, state, batch, key, step),
        refresh=Refresh(lambda params, state, images: images.mean((1, 2, 3))[:, None], refresh),
    )
    program = make_program(method, SGD, sample_batch(SOURCE, method), ONE)
    options = {"method": method, "refresh_every": 2, "steps": 4}
    expected = run(program, **options).state
    calls = []
    extract = Refresher._gather_features

    def slow(self, state):
        calls.append(int(state.step))
        if calls == [0, 2]:
            terminate_and_hang()
        return extract(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Refresher, "_gather_features", slow)
        stopped = run(program, folder=tmp_path, **options)
        assert stopped.stopped_by and steps(tmp_path) == [2]
        assert_same_bits(run(program, folder=tmp_path, **options).state, expected)
    assert calls == [0, 2, 2]


def _with_noise(params, state, batch, key, step):
    inner = {name: value for name, value in state.items() if name != "noise"}
    loss, (inner, metrics) = METHOD.loss(params, inner, batch, key, step)
    return loss * (1 + 0.01 * state["noise"]), ({**inner, "noise": state["noise"]}, metrics)


class Died(BaseException):
    """As far as a test can die without its process."""


def die():
    raise Died


@pytest.mark.parametrize("moment", ["step", "save", "evaluation", "prefetch", "log"])
def test_a_run_that_dies_at_any_moment_ends_in_the_same_bits(program, whole, tmp_path, moment, monkeypatch):
    """The cheap form of tests/experiments/test_kills.py."""
    options: dict = {"folder": tmp_path, "hooks": [Look()], "writer": lambda step: Records()}
    source = Slow(30, die) if moment == "prefetch" else SOURCE
    if moment == "evaluation":
        options["hooks"] = [Look(act=die)]
    fragile = {
        "step": (Session, "advance"),
        "save": (storage.Manifest, "_write"),
        "log": (Records, "write"),
    }
    if moment in fragile:
        owner, name = fragile[moment]
        original, left = getattr(owner, name), [1, 1] if moment == "step" else [1]

        def dies(self, *arguments):
            if not left:
                if moment == "save":
                    raise RuntimeError("killed")
                die()
            left.pop()
            return original(self, *arguments)

        monkeypatch.setattr(owner, name, dies)
    before = set(threading.enumerate())
    with pytest.raises((Died, RuntimeError)):
        run(program, source, **options)
    monkeypatch.undo()
    if moment == "save":
        # The threads in which orbax saves outlive a death without end of the process, and write where the next run cleans up.
        for thread in set(threading.enumerate()) - before:
            if "_target_setting_result" in thread.name or "_run_loop" in thread.name:
                thread.join(1)
    # What is logged of a hook comes after the save of its step.
    assert steps(tmp_path) in ([], [2], *([[2, 4]] if moment == "log" else []))
    assert_same_bits(run(program, folder=tmp_path).state, whole)


class Fails(Look):
    """A hook that fails at some steps."""

    name = "the probe"

    def __init__(self, *failing, error, every=2):
        super().__init__(every)
        self.failing, self.error = failing, error

    def __call__(self, step, state):
        if step in self.failing:
            raise self.error
        return super().__call__(step, state)


def facts(folder, step):
    return storage.read_manifest(folder / str(step))["facts"]


@pytest.mark.parametrize(
    "error", [ValueError("no labels\nat all"), MemoryError(), KeyError("labels"), OSError(5, "I/O")]
)
@pytest.mark.parametrize("failing", [(2,), (6,), (2, 4, 6)])
def test_a_hook_that_fails_costs_its_numbers_and_nothing_else(
    program, whole, tmp_path, capfd, failing, error
):
    records, other = Records(), Look()
    done = run(
        program, folder=tmp_path, hooks=[Fails(*failing, error=error), other], writer=lambda step: records
    )
    assert_same_bits(done.state, whole)
    assert steps(tmp_path) == [4, 6] and other.seen == [2, 4, 6]
    assert records.count((6, {"look"})) == 2 - (6 in failing)
    said = [line for line in capfd.readouterr().err.splitlines() if "probe" in line]
    first = f"the probe failed at step {failing[0]}: {type(error).__name__}"
    assert said[0].startswith(f"warning: {first}") and said[0].endswith("; the run goes on without it")
    assert len(said) == 2, "at first and at the end"
    (told,) = done.failures
    assert said[1] == f"warning: {told}" and (f"failed {len(failing)} times, first at" in told) == (
        len(failing) > 1
    )
    assert not any(facts(tmp_path, step)["pending_hooks"] for step in (4, 6)), "none is made up for"


@pytest.mark.parametrize("returned", [None, 1.0, {"score": "high"}, {"score": None}, {"score": [[1.0], "a"]}])
def test_a_hook_that_returns_no_numbers_is_one_that_failed(program, whole, tmp_path, returned, capfd):
    class Returns(Look):
        name = "the probe"

        def __call__(self, step, state):
            return returned

    done = run(program, folder=tmp_path, hooks=[Returns()])
    assert_same_bits(done.state, whole)
    assert len(done.failures) == 1 and done.failures[0].startswith(
        "the probe failed 3 times, first at step 2"
    )
    assert capfd.readouterr().err.count("the probe") == 2
    assert not any(facts(tmp_path, step)["pending_hooks"] for step in (4, 6))


def test_a_step_is_on_disk_before_its_hooks_are_called_first(program, tmp_path):
    """So a process that is killed in one, such as for its memory, starts again there."""
    seen = []

    class Sees(Look):
        def __call__(self, step, state):
            seen.append(steps(tmp_path))
            assert facts(tmp_path, 2)["pending_hooks"]
            raise Died

    with pytest.raises(Died):
        run(program, folder=tmp_path, hooks=[Sees()])
    assert seen == [[2]]
    with pytest.raises(Died):
        run(program, folder=tmp_path, hooks=[Sees()])
    assert seen == [[2], [2]], "the run went on at that step"


class Scores(Look):
    def __init__(self, scores, act=lambda: None):
        super().__init__(2, act)
        self.scores = scores

    def __call__(self, step, state):
        super().__call__(step, state)
        value = self.scores[step]
        if value is None:
            raise ValueError("cannot be measured")
        return {"score": value}


def ranked(program, folder, hook, *, steps=STEPS):
    with Checkpoints(folder, every=2, keep=1, best="score", metadata={}) as checkpoints:
        return run(program, steps=steps, hooks=[hook], checkpoints=checkpoints)


@pytest.mark.parametrize(
    ("scores", "left"),
    [
        ({2: 0.3, 4: 0.9, 6: 0.5}, [4, 6]),
        ({2: 0.3, 4: 0.5, 6: 0.9}, [6]),
        ({2: 0.9, 4: 0.5, 6: 0.9}, [6]),
        ({2: 0.3, 4: 0.9, 6: None}, [4, 6]),
        ({2: None, 4: None, 6: None}, [6]),
        ({2: 0.9, 4: None, 6: 0.1}, [2, 6]),
    ],
)
def test_the_best_is_that_of_the_step_it_was_measured_at(program, tmp_path, scores, left):
    """A step at which the measure failed has not the value of the step before."""
    ranked(program, tmp_path, Scores(scores))
    assert steps(tmp_path) == left
    recorded = {step: facts(tmp_path, step)["metrics"].get("score") for step in left}
    assert recorded == {step: scores[step] for step in left}
    if any(scores.values()):
        assert restore_model(tmp_path, step="best").step == left[0]
    else:
        with pytest.raises(ValueError, match="has the metric"):
            restore_model(tmp_path, step="best")


def test_a_hook_that_is_made_up_for_ranks_the_checkpoint_that_was_there(program, tmp_path):
    scores = {2: 0.1, 4: 0.9, 6: 0.5}
    assert ranked(program, tmp_path, Scores({**scores}, act=terminate_and_hang)).stopped_by
    assert facts(tmp_path, 2)["pending_hooks"] and "score" not in facts(tmp_path, 2)["metrics"]
    hook = Scores(scores)
    ranked(program, tmp_path, hook)
    assert hook.seen == [2, 4, 6] and steps(tmp_path) == [4, 6]
    again = Scores(scores)
    ranked(program, tmp_path, again)
    assert again.seen == [], "nothing is pending"


class Broken(Records):
    """A writer that refuses some steps, or to close."""

    def __init__(self, *refused, closes=True):
        super().__init__()
        self.refused, self.closes = refused, closes

    def write(self, step, scalars):
        if step in self.refused:
            raise OSError(28, "No space left on device")
        super().write(step, scalars)

    def close(self):
        if not self.closes:
            raise ConnectionError("gone")


@pytest.mark.parametrize(
    "writer", [Broken(2), Broken(6), Broken(*range(9)), Broken(closes=False)], ids=range(4)
)
def test_a_writer_that_fails_costs_records_and_nothing_else(program, whole, tmp_path, writer, capfd):
    beside = Records()
    options = {"writer": lambda step: MultiWriter([writer, beside]), "log_every": 1, "hooks": [Look()]}
    done = run(program, folder=tmp_path, **options)
    assert_same_bits(done.state, whole)
    assert steps(tmp_path) == [4, 6]
    assert sorted({step for step, _ in beside}) == [1, 2, 3, 4, 5, 6], "the other writer has all"
    assert len(done.failures) == 1
    assert "warning: writing metrics failed" in capfd.readouterr().err


def test_a_record_that_is_made_up_for_is_not_doubled(program, tmp_path):
    """The run died between the record of a hook and the note in the checkpoint that it has been called."""
    path = tmp_path / "metrics.jsonl"
    options = {"writer": lambda step: JsonlWriter(path, resume_step=step + 1), "hooks": [Look(), Look()]}
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=2, metadata={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "record", lambda *_: die())
        with pytest.raises(Died), checkpoints:
            run(program, checkpoints=checkpoints, **options)
    run(program, folder=tmp_path / "checkpoints", **options)
    looks = [record["step"] for record in read_jsonl(path) if "look" in record]
    # Two hooks that say the same at the same step are two records, unless they were made up for.
    assert looks == [2, 2, 4, 4, 6, 6]


def test_a_dump_that_cannot_be_written_does_not_hide_what_was_not_finite(program, tmp_path):
    (tmp_path / "file").write_text("")
    state = lambda state: state._replace(params=jax.tree.map(lambda w: w * jnp.nan, state.params))  # noqa: E731
    with pytest.raises(NonFiniteError, match=r"step 1 is not finite .* but cannot be written to .*file"):
        run(program, init_state=state, dumps=tmp_path / "file" / "dumps")


def test_a_clock_that_is_set_back_or_on_changes_nothing(program, whole, tmp_path, monkeypatch, capfd):
    """After each step the machine's time goes back by a year or on by two; the clock of intervals stands still."""
    jump = iter([-3e7, 6e7, -6e7, 3e7, 6e7, -3e7] * 2)
    now, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + offset[0])
    monkeypatch.setattr(time, "perf_counter", lambda: 1e9)

    class Set:
        every = 1

        def __call__(self, step, state):
            offset[0] += next(jump)
            return {}

    for length in (4, STEPS):
        with Checkpoints(tmp_path, every=2, metadata={}) as checkpoints:
            done = run(program, steps=length, checkpoints=checkpoints, log_every=1, hooks=[Set()])
    monkeypatch.undo()
    assert_same_bits(done.state, whole)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    bars = [f"step {step}/4" for step in (1, 2, 3, 4)] + [f"step {step}/6" for step in (5, 6)]
    assert [line.split(" |")[0] for line in lines] == bars
    assert all("ETA 0:00" in line and "input stall 0%" in line for line in lines)
    assert storage.patient(pathlib.Path("runs")).asynchronous.timeout_secs > 1e8


@pytest.mark.long
def test_a_step_that_is_made_not_finite_is_dumped_and_replays_exactly(tmp_path):
    """Number 3 is poisoned by a value in the state, so that the program is the same with the poison and without."""

    def init(key, batch):
        params, state = METHOD.init(key, batch)
        return params, {"simclr": state, "bad": jnp.int32(-1)}

    def loss(params, state, batch, key, step):
        value, (inner, metrics) = METHOD.loss(params, state["simclr"], batch, key, step)
        poison = jnp.where(step == state["bad"], jnp.nan, 1.0)
        return poison * value, ({**state, "simclr": inner}, metrics)

    def bad(step):
        return lambda state: state._replace(state={**state.state, "bad": jnp.int32(step)})

    method = dataclasses.replace(METHOD, init=init, loss=loss)
    program = make_program(method, SGD, sample_batch(SOURCE, method), ONE)
    options = {"method": method, "folder": tmp_path / "run"}
    with pytest.raises(NonFiniteError, match="step 4 is not finite"):
        run(program, init_state=bad(3), dumps=tmp_path / "dumps", **options)
    assert steps(tmp_path / "run") == [2]

    path = tmp_path / "dumps" / "step_3"
    recorded = storage.read_manifest(path)["facts"]["metrics"]
    assert recorded["loss"] == "nan"
    state, batch = read_dump(path, program.abstract)
    healed = bad(-1)(jax.tree.map(jnp.copy, state))
    _, metrics = program.step(state, jax.device_put(batch, jax.devices()[0]))
    replayed = {name: float(value) for name, value in metrics.items() if name != "finite"}
    assert storage.strict_json(replayed) == recorded

    # The dump has the state and the batch that the step really had: without the poison it is the one of an unharmed run.
    state, metrics = program.step(healed, jax.device_put(batch, jax.devices()[0]))
    assert np.isfinite(float(metrics["loss"]))
    assert_same_bits(state, run(program, method=method, steps=4).state)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    with open(folder / "ballast", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_is_full_during_a_save_leaves_the_one_before_it(program, whole, small_disk):
    folder = small_disk / "checkpoints"

    def fill_when_saved():
        while not steps(folder):
            time.sleep(0.01)
        fill(small_disk)

    with pytest.raises(
        CannotSaveError, match=r"where 0\.0 MiB are free: .*No space left.* steps \[2\] are whole"
    ):
        run(program, folder=folder, hooks=[Look(every=3, act=fill_when_saved)])
    (small_disk / "ballast").unlink()
    assert_same_bits(run(program, folder=folder).state, whole)
    assert [path.name for path in folder.iterdir() if "tmp" in path.name] == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_system_that_refuses_a_write_leaves_the_checkpoint_before_it(program, whole, tmp_path):
    """The same without a mount: no file may be longer than a limit."""
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def refuse():
        while not steps(tmp_path):
            time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    try:
        with pytest.raises(CannotSaveError, match=r"(?i)file too large.* steps \[2\] are whole"):
            run(program, folder=tmp_path, hooks=[Look(every=3, act=refuse)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert_same_bits(run(program, folder=tmp_path).state, whole)


def test_files_that_go_or_are_cut_off_during_a_run_are_named_and_passed_over(program, tmp_path):
    for number, image in enumerate(IMAGES):
        (tmp_path / f"{number:02d}.png").write_bytes(encode(image[..., 0]))
    source = open_folder(tmp_path)

    def harm():
        (tmp_path / "03.png").unlink()
        os.truncate(tmp_path / "07.png", 60)

    records = Scalars()
    with pytest.warns(UserWarning, match="skipped the corrupt image") as warned:
        done = run(
            program,
            source,
            steps=15,
            max_corrupt_fraction=0.1,
            hooks=[Look(act=harm)],
            writer=lambda step: records,
            log_every=15,
        )
    assert int(done.state.step) == 15 and max(record.get("corrupt_images", 0) for record in records) == 2
    said = sorted(str(warning.message) for warning in warned)
    assert ["03.png: cannot be opened: No such file" in said[0], "07.png: " in said[1]] == [True, True]
    with (
        warnings.catch_warnings(),
        pytest.raises(TooManyCorrupt, match=r"2 of the 24 images.*raise max_corrupt_fraction"),
    ):
        warnings.simplefilter("ignore")
        run(program, source, steps=15, max_corrupt_fraction=0.01)


class Scalars(list):
    def write(self, step, scalars):
        self.append(scalars)

    def close(self):
        pass
