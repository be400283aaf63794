"""Three seeds in one vmapped program against three programs in turn: does sharing pay on this machine?

SimCLR and MAE with the recipes of the results table; one step of all three on one batch, and a step of each by itself.
On CPUs weights that differ by run turn convolutions into grouped ones and products into batched ones; where the ratio is
below 1, ``experiments.results`` is right to run seeds one by one.
"""

import argparse
import importlib
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks import pairs
from ssl_jax.config import build
from ssl_jax.train.program import sample_batch
from ssl_jax.train.step import make_init, make_train_step

GAINS = {
    "": "whether error bars over seeds are cheaper in one program: choose by this",
}
"""What the user gains, by a part of a row's name."""

SEEDS = 3


def compare(name: str, options: argparse.Namespace) -> pairs.Measurement:
    arg = "smoke" if options.quick else "fashion_mnist"
    config = build.to_dict(importlib.import_module(f"configs.{name}").get_config(arg))
    config["data"]["source"] = "embedded"
    method, optimizer, source = build.run_objects(config)
    sample = sample_batch(source, method)
    batch = jax.tree.map(lambda x: np.repeat(x, config["batch_size"], axis=0), sample)
    step, init = make_train_step(method, optimizer), make_init(method, optimizer, sample)
    together, alone = jax.jit(jax.vmap(step, in_axes=(0, None))), jax.jit(step)
    seeds = np.arange(SEEDS)
    stacked = jax.jit(jax.vmap(init))(seeds)
    single = [jax.jit(init)(seed) for seed in seeds]

    def vectorized() -> object:
        return jax.block_until_ready(together(stacked, batch))

    def in_turn() -> object:
        return [jax.block_until_ready(alone(state, batch)) for state in single]

    times = pairs.alternate(vectorized, in_turn, pairs=2 if options.quick else options.pairs, seconds=40)
    return pairs.paired(
        f"{SEEDS} seeds in one program, {name}",
        times,
        against="one program a seed, in turn",
        batch=config["batch_size"],
    )


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    return [compare(name, options) for name in ("simclr", "mae")]


if __name__ == "__main__":
    parser = pairs.parser("seeds", __doc__)
    parser.add_argument("--pairs", type=int, default=7, help="pairs")
    pairs.main("seeds", parser, run)
