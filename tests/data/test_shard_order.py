import heapq

import numpy as np
import pytest

from ssl_jax.data.batches import SHARDS, indices_in_shards, shard_order_of
from ssl_jax.data.labels import FewLabels
from ssl_jax.data.loader import stream
from ssl_jax.data.open import open_source
from ssl_jax.data.shard_order import ShardOrder
from tests.data.images import encode
from tests.data.shards import serve, write_tar

ENDS = np.cumsum([7, 1, 30, 12, 50])


def play(ends, buffer, rng):
    """A reader with a buffer: it takes in a sample a step, and gives those out whose time has come."""
    starts = np.concatenate([[0], ends[:-1]])
    samples = [s for shard in rng.permutation(len(ends)) for s in range(starts[shard], ends[shard])]
    delays = buffer * rng.random(len(samples)) if buffer > 1 else np.zeros(len(samples))
    held: list[tuple[float, int, int]] = []
    given, most = [], 0
    for time, sample in enumerate(samples):
        while held and held[0][0] < time:
            given.append(heapq.heappop(held)[2])
        heapq.heappush(held, (time + delays[time], time, sample))
        most = max(most, len(held))
    return given + [heapq.heappop(held)[2] for _ in range(len(held))], most


@pytest.mark.parametrize("buffer", [1, 2, 5, 20, 100, 1000])
def test_the_order_is_that_of_a_reader_with_a_buffer(buffer):
    for seed in range(5):
        expected, most = play(ENDS, buffer, np.random.default_rng(seed))
        order = ShardOrder(ENDS, buffer).indices(np.random.default_rng(seed))
        assert order.dtype == np.int32 and order.tolist() == expected and most <= buffer
        assert sorted(expected) == list(range(100))


def test_the_stream_is_a_function_of_seed_and_position():
    shards = ShardOrder(ENDS, 10)
    whole = indices_in_shards(3, 0, 350, shards)
    for e in range(3):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(3, spawn_key=(SHARDS, e))))
        assert whole[100 * e : 100 * (e + 1)].tolist() == play(ENDS, 10, rng)[0]
    for start, count in ((0, 1), (93, 30), (199, 150), (250, 0)):
        part = indices_in_shards(3, start, count, ShardOrder(ENDS, 10))
        np.testing.assert_array_equal(part, whole[start : start + count])
    assert (indices_in_shards(4, 0, 100, shards) != whole[:100]).any() and (
        whole[:100] != whole[100:200]
    ).any()
    with pytest.raises(ValueError, match="shuffle_buffer=0: allowed is an integer of 1 or more"):
        ShardOrder(ENDS, 0)


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part in range(6):
        samples = [
            (f"{i:02d}", {"png": encode(np.full([4, 4], i, np.uint8)), "cls": b"%d" % (i % 2)})
            for i in range(8 * part, 8 * part + 8)
        ]
        write_tar(tmp_path / "d" / f"{part}.tar", samples)
    return tmp_path / "d"


def test_a_run_takes_shards_in_order_and_goes_on_in_the_middle(shards):
    source = open_source(f"tar_in_order:{shards}", shuffle_buffer=4)
    order = shard_order_of(FewLabels(source, 4, seed=0))
    assert order is not None and shard_order_of(open_source(f"tar:{shards}")) is None
    expected = indices_in_shards(0, 0, 60, order)
    with stream(source, seed=0, batch_size=10, threads=0) as whole:
        batches = [next(whole) for _ in range(6)]
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in batches]), expected)
    np.testing.assert_array_equal(np.concatenate([b["image"][:, 0, 0, 0] for b in batches]), expected)
    for k in range(2):
        options = {"seed": 0, "batch_size": 10, "start_step": 3, "threads": 0, "share": (k, 2)}
        with stream(source, **options) as part:
            batch = next(part)
        np.testing.assert_array_equal(batch["index"], batches[3]["index"][5 * k : 5 * k + 5])
    for option in ({"among": np.arange(3)}, {"labeled_fraction": 0.5}):
        with pytest.raises(
            ValueError, match=r"allowed is None for tar_in_order:, which has an order of its own"
        ):
            stream(source, seed=0, batch_size=10, **option)
    with pytest.raises(ValueError, match="tar_in_order: takes whole splits"):
        open_source(f"tar_in_order:{shards}", "train[:50%]")


def test_each_shard_is_fetched_once_and_kept_while_it_is_needed(shards, monkeypatch):
    pytest.importorskip("aiohttp")
    size = (shards / "0.tar").stat().st_size
    monkeypatch.setenv("SSL_JAX_DATA_CACHE_GIB", str(3.5 * size / 2**30))
    with serve(shards) as server:
        place = f"tar_in_order:{server.url}/{{0..5}}.tar"
        with pytest.raises(
            ValueError, match=r"SSL_JAX_DATA_CACHE_GIB: tar_in_order: reads shards of .* together"
        ):
            open_source(place, shuffle_buffer=40)
        source = open_source(place, shuffle_buffer=4)
        with stream(source, seed=0, batch_size=8, threads=0) as whole:
            next(whole)
            server.requests.clear()
            rest = [next(whole)["index"] for _ in range(5)]
        assert len(np.unique(np.concatenate(rest))) == 40
        paths = [path for path, _ in server.requests]
        assert len(paths) == len(set(paths)) >= 3, paths  # ranges of whole shards, each once
