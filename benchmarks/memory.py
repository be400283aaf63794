"""Peak memory of NT-Xent and its gradient against the batch: the plain form and the blockwise one.

Each point is a process of its own. Two numbers: what XLA plans for the compiled program's temporaries, and
how far the resident memory rose above what the process held when the program was compiled and its inputs were
there (the kernel's high-water mark, set back before the call). The growth is the exponent p in memory ∝
batch^p between the two largest batches: 1 is linear, 2 quadratic.
"""

import argparse
import ctypes
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import pairs

GAINS = {
    "plain form: growth of": "for comparison: the batch grows with the square root of the memory only",
    "growth of": "the batch can grow with the memory instead of its square root",
    "plain over blockwise": "large contrastive batches on one device",
}
"""What the user gains, by a part of a row's name."""

FORMS = {"plain": None, "blockwise": 256}
FEATURES = 128


def growth(first: tuple[float, float], second: tuple[float, float]) -> float:
    """The exponent p with y ∝ x^p through two points (x, y).

    >>> growth((1.0, 2.0), (2.0, 8.0))
    2.0
    """
    return math.log(second[1] / first[1]) / math.log(second[0] / first[0])


def high_water_mark() -> int:
    """Most resident bytes so far, since the mark was set back last."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def set_back() -> int:
    """Hand freed memory back and set the mark to what is resident now, where the system can; returns it."""
    if hasattr(
        ctypes.CDLL(None), "malloc_trim"
    ):  # else the call would reuse what compiling has freed, unseen
        ctypes.CDLL(None).malloc_trim(0)
    clear = Path("/proc/self/clear_refs")
    if clear.exists() and os.access(clear, os.W_OK):
        clear.write_text("5")
    return high_water_mark()


def point(form: str, batch: int) -> dict[str, float]:
    """Body of the child: bytes of one form at one batch."""
    import jax
    import jax.numpy as jnp

    from ssl_jax.losses.contrastive import nt_xent

    def loss(pair: Any) -> Any:
        return nt_xent(*pair, temperature=0.1, block_size=FORMS[form])

    rows = jax.random.normal(jax.random.key(0), (2, batch, FEATURES))
    inputs = jax.block_until_ready((rows[0] + jnp.float32(0), rows[1] + jnp.float32(0)))
    compiled = jax.jit(jax.value_and_grad(loss)).lower(inputs).compile()
    before = set_back()
    value, _ = jax.block_until_ready(compiled(inputs))
    plan = compiled.memory_analysis()
    return {
        "planned": plan.temp_size_in_bytes + plan.output_size_in_bytes,
        "resident": high_water_mark() - before,
        "loss": float(value),
    }


def measure(form: str, batch: int) -> dict[str, float]:
    """The child's answer."""
    command = [sys.executable, "-m", "benchmarks.memory", f"--point={form},{batch}"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    return json.loads(done.stdout.splitlines()[-1])


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    batches = {"plain": (512, 1024, 2048, 4096), "blockwise": (1024, 2048, 4096, 8192)}
    if options.quick:
        batches = {"plain": (128, 512), "blockwise": (512, 1024)}
    found = []
    points: dict[tuple[str, int], dict[str, float]] = {}
    for form, sizes in batches.items():
        for size in sizes:
            points[form, size] = measure(form, size)
        for kind in ("planned", "resident"):
            mib = {size: points[form, size][kind] / 2**20 for size in sizes}
            slope = growth(*((size, max(mib[size], 1e-3)) for size in sizes[-2:]))
            bound = 1.1 if form == "blockwise" and kind == "planned" else None
            name = f"(d) NT-Xent, {form} form: growth of {kind} memory with the batch"
            raw = {str(size): value for size, value in mib.items()}
            found.append(pairs.valued(name, [slope], unit="exponent", at_most=bound, raw={"mib": raw}))
    shared = max(set(batches["plain"]) & set(batches["blockwise"]))
    for kind in ("planned", "resident"):
        plain, blockwise = (points[form, shared] for form in FORMS)
        found.append(
            pairs.valued(
                f"(d) NT-Xent of {shared} images: {kind} memory, plain over blockwise",
                [plain[kind] / max(blockwise[kind], 1)],
                unit="x",
                against="plain form",
                raw={form: points[form, shared][kind] / 2**20 for form in FORMS},
                losses=(plain["loss"], blockwise["loss"]),
            )
        )
    return found


if __name__ == "__main__":
    parser = pairs.parser("memory", __doc__)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    child = parser.parse_args().point
    if child:
        print(json.dumps(point(child.partition(",")[0], int(child.partition(",")[2]))))
    else:
        pairs.main("memory", parser, run)
