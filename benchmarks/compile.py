"""Compile time of every method's train step, cold and with the persistent cache.

Each measurement is a process of its own: the method's default config (or its smoke form in a quick run), its
state initialised and its step compiled. Cold has an empty cache folder, warm the folder that the cold one
left, with small and quickly compiled programs cached too. ``compile`` is what XLA takes for the step, or what
reading it from the cache takes; tracing is the same in both. ``start`` is from the start of the process to a
step that is ready.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import pairs

GAINS = {
    "compile, cold": "how long one waits for the first step, once on a machine",
    "compile, cached": "how long one waits for it each time after",
    "start with the cache": "a run that is resumed or tried again begins sooner",
}
"""What the user gains, by a part of a row's name."""

BEGIN = time.perf_counter()


def child(name: str, arg: str) -> dict[str, float]:
    """Seconds of one method in this process."""
    import jax
    import numpy as np

    from ssl_jax.config import build
    from ssl_jax.train.program import make_program
    from ssl_jax.train.sharding import make_mesh

    config = build.to_dict(importlib.import_module(f"configs.{name}").get_config(arg))
    method, optimizer, source = build.run_objects(config)
    image = np.stack([source[0]["image"]] * config["batch_size"])
    counted = {k: np.zeros(config["batch_size"], np.int32) for k in ("label", "index")}
    batch = {"image": image, **counted}
    program = make_program(method, optimizer, batch, make_mesh())
    imported = time.perf_counter()
    state = jax.block_until_ready(program.init(0))
    initialised = time.perf_counter()
    lowered = program.step.lower(state, batch)
    traced = time.perf_counter()
    lowered.compile()
    done = time.perf_counter()
    return {
        "import": imported - BEGIN,
        "init": initialised - imported,
        "trace": traced - initialised,
        "compile": done - traced,
        "start": done - BEGIN,
    }


def measure(name: str, arg: str, cache: str) -> dict[str, float]:
    """A child's answer."""
    cached = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-m", "benchmarks.compile", f"--child={name},{arg}"]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, **cached}
    )
    return json.loads(done.stdout.splitlines()[-1])


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    from ssl_jax.methods.registry import names

    chosen = options.methods.split(",") if options.methods else sorted(names())
    arg = "smoke" if options.quick else ""
    found = []
    for name in chosen[:1] if options.quick and not options.methods else chosen:
        cold, warm = [], []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(measure(name, arg, cache))
                warm.append(measure(name, arg, cache))
        times = pairs.Times(tuple(x["compile"] for x in warm), tuple(x["compile"] for x in cold))
        found.append(pairs.valued(f"(e) {name}: compile, cold", times.other, unit="s", raw={"rounds": cold}))
        found.append(pairs.valued(f"(e) {name}: compile, cached", times.ours, unit="s", raw={"rounds": warm}))
        starts = pairs.Times(tuple(x["start"] for x in warm), tuple(x["start"] for x in cold))
        found.append(pairs.paired(f"(e) {name}: start with the cache", starts, against="cold"))
    return found


if __name__ == "__main__":
    parser = pairs.parser("compile", __doc__)
    parser.add_argument("--methods", default="", help="names with commas between them; default: all")
    parser.add_argument("--rounds", type=int, default=1, help="cold and warm processes a method")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    one = parser.parse_args().child
    if one:
        print(json.dumps(child(*one.split(",", 1))))
    else:
        pairs.main("compile", parser, run)
