"""The health measures of a run as a share of its time.

README's first command: the time of one call of each hook, times the calls that a run of this config makes, over that and the
time of its bare steps. Calls and stretches of steps alternate. Target: under 3 %.
"""

import argparse
import time
from collections.abc import Sequence

import jax

from benchmarks import pairs
from configs import simclr
from ssl_jax.config import build
from ssl_jax.evaluate.online import Health
from ssl_jax.train.program import make_program, sample_batch
from ssl_jax.train.sharding import make_mesh

GAINS = {
    "": "collapse is seen while it happens, at next to no price",
}
"""What the user gains, by a part of a row's name."""


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    config = build.to_dict(simclr.get_config("smoke" if options.quick else ""))
    method, optimizer, source = build.run_objects(config)
    sample = sample_batch(source, method)
    size = config["batch_size"]
    batch = jax.tree.map(lambda x: x.repeat(size, axis=0), sample)
    program = make_program(method, optimizer, sample, make_mesh())
    state = program.init(0)
    every = {"batch": config["watch"]["log"]["every"], "sample": config["watch"]["online"]["every"]}
    hooks = {
        name: Health(method, source, every=every[name], images=images)
        for name, images in config["watch"]["health"].items()
    }
    calls = {name: config["steps"] / step for name, step in every.items()}
    seconds: dict[str, list[float]] = {name: [] for name in (*hooks, "step")}
    shares = []
    stretch = 2 if options.quick else 10
    for i in range(options.pairs + 1):
        for name, hook in hooks.items():
            begin = time.perf_counter()
            hook(0, state)
            seconds[name].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for _ in range(stretch):
            state, metrics = program.step(state, batch)
        jax.block_until_ready((state.params, metrics))
        seconds["step"].append((time.perf_counter() - begin) / stretch)
        if i:  # the first round holds compilation
            watching = sum(calls[name] * seconds[name][-1] for name in hooks)
            shares.append(watching / (watching + config["steps"] * seconds["step"][-1]))
    measured = pairs.valued(
        "health of the features, SimCLR, embedded images",
        shares,
        unit="share",
        against="wall time of the run",
        at_most=0.03,
        raw={name: values[1:] for name, values in seconds.items()},
        calls=calls,
        steps=config["steps"],
        images=config["watch"]["health"],
    )
    return [measured]


if __name__ == "__main__":
    parser = pairs.parser("health", __doc__)
    parser.add_argument("--pairs", type=int, default=8, help="rounds")
    pairs.main("health", parser, run)
