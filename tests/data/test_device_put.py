import gc
import itertools
import re
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from ssl_jax.data.device_put import Prefetch, _contiguous_part, local_share, prefetch, put_batch
from ssl_jax.data.loader import stream
from ssl_jax.data.sources import ArraySource

BATCH = PartitionSpec(("data", "fsdp"))


def sharding_over(data, fsdp=1, spec=BATCH):
    devices = jax.devices()[: data * fsdp]
    mesh = jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)
    return NamedSharding(mesh, spec)


def one_device():
    return SingleDeviceSharding(jax.devices()[0])


def threads_of_prefetch():
    return [thread for thread in threading.enumerate() if thread.name == "ssl_jax-prefetch"]


@pytest.mark.parametrize("data, fsdp", [(1, 1), (8, 1), (2, 4)])
def test_the_global_array_is_the_same_on_every_mesh(data, fsdp):
    batch = {
        "crops": (np.arange(16 * 6).reshape(16, 2, 3).astype(np.uint8),),
        "label": np.arange(16, dtype=np.int32),
    }
    sharding = sharding_over(data, fsdp)
    placed = put_batch(batch, sharding)
    assert jax.tree.structure(placed) == jax.tree.structure(batch)
    for host, device in zip(jax.tree.leaves(batch), jax.tree.leaves(placed), strict=True):
        np.testing.assert_array_equal(host, device)
        assert device.dtype == host.dtype
        assert device.sharding.is_equivalent_to(sharding, device.ndim)


def test_rows_that_the_devices_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="6"):
        put_batch(np.zeros(6), sharding_over(8))


def test_one_process_loads_everything():
    assert local_share(sharding_over(8), 16) == (0, 1)
    assert local_share(sharding_over(2, 4, PartitionSpec()), 16) == (0, 1)
    assert local_share(one_device(), 16) == (0, 1)


def test_the_part_of_a_process_follows_its_rows_not_its_rank():
    assert _contiguous_part({(4, 6), (6, 8)}, 8) == (1, 2)
    assert _contiguous_part({(2, 4)}, 6) == (1, 3)


@pytest.mark.parametrize("rows", [{(0, 2), (4, 6)}, {(1, 3)}, {(0, 3)}])
def test_rows_that_are_no_contiguous_part_are_refused(rows):
    with pytest.raises(ValueError, match="process by process"):
        _contiguous_part(rows, 8)


def test_prefetch_keeps_the_order_and_ends_with_the_iterator():
    with prefetch(iter([np.full(8, i) for i in range(7)]), sharding_over(8)) as batches:
        assert [int(batch[3]) for batch in batches] == list(range(7))
        assert list(batches) == []
    assert not threads_of_prefetch()


@pytest.mark.parametrize("depth", [1, 3])
def test_prefetch_runs_at_most_depth_batches_ahead(depth):
    taken = []

    def source():
        for i in itertools.count():
            taken.append(i)
            yield np.full(2, i)

    with prefetch(source(), one_device(), depth=depth) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while len(taken) < depth + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(taken) == depth + 1


def test_an_exception_comes_in_its_place_and_ends_the_iteration():
    def source():
        yield np.zeros(2)
        yield np.ones(2)
        raise OSError("disk gone")

    batches = prefetch(source(), one_device(), depth=4)
    assert [float(next(batches)[0]) for _ in range(2)] == [0.0, 1.0]
    with pytest.raises(OSError, match="disk gone"):
        next(batches)
    assert list(batches) == []
    assert not threads_of_prefetch()


def test_closing_stops_the_thread_and_closes_the_iterator_below():
    closed = []

    class Below:
        def __iter__(self):
            return self

        def __next__(self):
            return np.zeros(2)

        def close(self):
            closed.append(True)

    batches = prefetch(Below(), one_device())
    next(batches)
    batches.close()
    batches.close()
    assert closed == [True]
    assert not threads_of_prefetch()
    assert list(batches) == []


def test_an_abandoned_prefetch_stops_its_thread():
    batches = prefetch(itertools.repeat(np.zeros(2)), one_device())
    next(batches)
    del batches
    gc.collect()
    assert not threads_of_prefetch()


def test_the_time_spent_waiting_is_counted():
    def source():
        while True:
            time.sleep(0.05)
            yield np.zeros(2)

    with prefetch(source(), one_device()) as batches:
        next(batches)
        assert batches.wait_seconds > 0.01


def test_a_stream_goes_through_prefetch_unchanged():
    source = ArraySource(np.random.default_rng(0).integers(0, 255, (20, 4, 4, 1), np.uint8), np.arange(20))
    with stream(source, seed=0, batch_size=8) as plain:
        expected = [next(plain) for _ in range(4)]
    with prefetch(stream(source, seed=0, batch_size=8), sharding_over(8)) as batches:
        assert isinstance(batches, Prefetch)
        for host in expected:
            jax.tree.map(np.testing.assert_array_equal, host, next(batches))


def test_a_depth_below_one_is_refused():
    with pytest.raises(ValueError, match="depth=0"):
        prefetch(iter([]), one_device(), depth=0)


PROCESS = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
rank, count, port, backwards = map(int, sys.argv[1:])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4 // count)
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, rank, initialization_timeout=60)
from jax.experimental.multihost_utils import process_allgather
from ssl_jax.data.loader import stream
from ssl_jax.data.device_put import local_share, prefetch
from ssl_jax.data.sources import ArraySource
devices = np.array(jax.devices())[:: -1 if backwards else 1]
mesh = jax.sharding.Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec("data"))
source = ArraySource(np.zeros([30, 2, 2], np.uint8))
batches = stream(source, seed=0, batch_size=8, start_step=5, share=local_share(sharding, 8))
with prefetch(batches, sharding) as placed:
    for _ in range(3):
        print(process_allgather(next(placed)["index"], tiled=True).tolist())
"""


@pytest.mark.long
@pytest.mark.parametrize("backwards", [0, 1])
def test_two_processes_build_the_global_batch_of_one(tmp_path, backwards):
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def start(rank, count):
        command = [sys.executable, str(script), *map(str, (rank, count, port, backwards))]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def printed(process):  # Gloo prints too, in between
        return re.findall(r"\[\d[\d, ]*\]", process.communicate(timeout=120)[0])

    alone = printed(start(0, 1))
    outputs = [printed(process) for process in [start(rank, 2) for rank in range(2)]]
    assert len(alone) == 3
    assert outputs == [alone, alone]
