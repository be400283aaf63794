"""What ``benchmarks.compare`` measures: seconds of one benchmark of the version of the package that is first on the path.

``compare_work.py NAME [--quick]`` prints ``{"seconds": ...}``, the median of some calls. It uses only what many versions have:
configs, ``build.run_objects``, ``make_program``, ``fit``, ``make_views``, ``knn_accuracy``. A version without it is reported.
"""

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any


def median_of(call: Callable[[], object], count: int) -> float:
    """Median seconds of some calls, after one that is not timed."""
    call()
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def objects(name: str, quick: bool) -> tuple[dict[str, Any], Any, Any, Any]:
    """A method's config on embedded images, and what it describes."""
    from ssl_jax.config import build

    config = build.to_dict(
        importlib.import_module(f"configs.{name}").get_config("smoke" if quick else "fashion_mnist")
    )
    config["data"]["source"] = "embedded"
    return config, *build.run_objects(config)


def program_of(name: str, quick: bool) -> tuple[Any, dict[str, Any]]:
    """The program of a method's step and a batch."""
    import numpy as np

    from ssl_jax.train.program import make_program
    from ssl_jax.train.sharding import make_mesh

    config, method, optimizer, source = objects(name, quick)
    count = config["batch_size"]
    rows = {key: np.zeros(count, np.int32) for key in ("label", "index")}
    batch = {"image": np.stack([source[i]["image"] for i in range(count)]), **rows}
    return make_program(method, optimizer, batch, make_mesh()), batch


def step(name: str, quick: bool) -> float:
    """Step of a method."""
    import jax

    program, batch = program_of(name, quick)
    held = [program.init(0)]

    def call() -> None:
        held[0], metrics = program.step(held[0], batch)
        jax.block_until_ready(metrics)

    return median_of(call, 2 if quick else 20)


def compile_step(name: str, quick: bool) -> float:
    """Tracing and compiling SimCLR's step, without a cache."""
    program, batch = program_of("simclr", quick)
    state = program.init(0)
    begin = time.perf_counter()
    program.step.lower(state, batch).compile()
    return time.perf_counter() - begin


class Stretches:
    """Hook of ``fit`` that notes how long each stretch of steps took."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.ends: list[float] = []

    def __call__(self, step: int, state: Any) -> dict[str, float]:
        import jax

        jax.block_until_ready(state.params)
        self.ends.append(time.perf_counter())
        return {}


def loop(name: str, quick: bool) -> float:
    """A step of the loop of ``fit``, with its input, for SimCLR."""
    from ssl_jax.train.loop import fit
    from ssl_jax.train.run import Run, Watch

    config, method, optimizer, source = objects("simclr", quick)
    hook, stretches = Stretches(2 if quick else 10), 3 if quick else 5
    run = Run(method, optimizer, source, steps=hook.every * stretches, batch_size=config["batch_size"])
    fit(run, watch=Watch(hooks=[hook]))
    return statistics.median(b - a for a, b in zip(hook.ends, hook.ends[1:], strict=False)) / hook.every


def views(name: str, quick: bool) -> float:
    """SimCLR's two views of small colour images, on the device."""
    import jax
    import numpy as np

    from ssl_jax.augment import presets
    from ssl_jax.augment.views import make_views

    two = presets.simclr(8 if quick else 32)
    shape = (8, 8, 8, 3) if quick else (256, 32, 32, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    make = jax.jit(lambda key: make_views(key, {"image": images}, two))
    return median_of(lambda: jax.block_until_ready(make(jax.random.key(0))), 2 if quick else 20)


def knn(name: str, quick: bool) -> float:
    """kNN of random features."""
    import numpy as np

    from ssl_jax.evaluate.knn import knn_accuracy

    rng = np.random.default_rng(0)
    bank, queries = (200, 20) if quick else (20_000, 2_000)
    parts = [rng.normal(size=(count, 128)).astype(np.float32) for count in (bank, queries)]
    labels = [rng.integers(0, 10, count).astype(np.int32) for count in (bank, queries)]
    arrays = (parts[0], labels[0], parts[1], labels[1])
    return median_of(lambda: knn_accuracy(*arrays, classes=10), 2 if quick else 5)


WORK: dict[str, Callable[[str, bool], float]] = {
    "simclr": step,
    "byol": step,
    "mae": step,
    "loop": loop,
    "views": views,
    "knn": knn,
    "compile": compile_step,
}


if __name__ == "__main__":
    chosen, small = sys.argv[1], "--quick" in sys.argv[2:]
    if chosen == "compile":
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    print(json.dumps({"seconds": WORK[chosen](chosen, small)}))
