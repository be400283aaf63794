"""The loop of ``fit`` against its bare step: what reading, placing, logging and writing cost.

The first command of the README (SimCLR on the embedded images) runs by ``fit`` with its JSON lines written.
Every few steps a hook notes how long that stretch took and then makes as many bare steps, of the same program
on batches that lie on the device, before the loop goes on: stretch and bare steps alternate in one process.
The batches that were read ahead while the bare steps ran (five at most) are a gift to the next stretch; it is
small against its length. Target: 0.97.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks import pairs
from configs import simclr
from ssl_jax.config import build
from ssl_jax.train.loop import fit
from ssl_jax.train.program import make_program
from ssl_jax.train.run import Run, Watch
from ssl_jax.train.sharding import make_mesh
from ssl_jax.train.state import TrainState
from ssl_jax.train.writers import JsonlWriter

GAINS = {
    "loop": "training costs what its steps cost: logs, input and checks are next to free",
}
"""What the user gains, by a part of a row's name."""


class Alternate:
    """The hook: bare steps after each stretch of the loop."""

    def __init__(self, program, batches: Sequence[dict], every: int) -> None:
        self.every = every
        self.loop_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self._step, self._state = program.step, program.init(1)
        self._batches = batches
        self._since = 0.0
        self._bare()  # compiles

    def __call__(self, step: int, state: TrainState) -> Mapping[str, float]:
        jax.block_until_ready(state.params)
        now = time.perf_counter()
        if self._since:  # the first stretch holds compilation
            self.loop_seconds.append(now - self._since)
            self.bare_seconds.append(self._bare())
        self._since = time.perf_counter()
        return {}

    def _bare(self) -> float:
        begin = time.perf_counter()
        for batch in itertools.islice(itertools.cycle(self._batches), self.every):
            self._state, metrics = self._step(self._state, batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - begin


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    every, stretches = (3, 3) if options.quick else (options.every, options.pairs)
    config = build.to_dict(simclr.get_config("smoke" if options.quick else ""))
    method, optimizer, source = build.run_objects(config)
    batch = config["batch_size"]
    rng = np.random.default_rng(0)
    raw = [
        {"image": np.stack([source[int(i)]["image"] for i in rng.integers(0, 1000, batch)])} for _ in range(4)
    ]
    labels = {"label": np.zeros(batch, np.int32), "index": np.zeros(batch, np.int32)}
    batches = [jax.device_put({**images, **labels}) for images in raw]
    program = make_program(method, optimizer, batches[0], make_mesh())
    hook = Alternate(program, batches, every)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        fit(
            Run(method, optimizer, source, steps=every * (stretches + 1), batch_size=batch),
            watch=Watch(writer=lambda step: JsonlWriter(path), hooks=[hook], log_every=10),
        )
    measured = pairs.paired(
        "(c) loop, SimCLR, embedded images",
        pairs.Times(tuple(hook.loop_seconds), tuple(hook.bare_seconds)),
        against="its bare step",
        at_least=0.97,
        items=batch * every,
        batch=batch,
        steps_a_stretch=every,
    )
    return [measured]


if __name__ == "__main__":
    parser = pairs.parser("loop", __doc__)
    parser.add_argument("--every", type=int, default=40, help="steps a stretch")
    parser.add_argument("--pairs", type=int, default=8, help="stretches")
    pairs.main("loop", parser, run)
