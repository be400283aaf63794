"""What to do with an hour of a GPU: ``python -m benchmarks.gpu --minutes=9``, within so many minutes whatever hangs.

In this order, each part in a process of its own that is killed when its share of the time is over, rows written as they come:

1. ``step``: SimCLR ViT-S/16, batch 256, 224 px, two views made on the device: images a second, and the share of augmentation
   (the step on raw images against that on ready views).
2. ``torch``: the same in PyTorch, in pairs: ``torch.compile``, bfloat16 autocast, fused AdamW, views by kornia on the device,
   by torchvision where kornia is not installed; and its share of augmentation.
3. ``mfu``: model FLOP utilisation in bfloat16 of MAE and DINO with ViT-B and ViT-L and of SimCLR with ResNet-50: operations of
   the matrix products of loss and gradient over time and the peak of the device. On ready views: part 1 says what these cost.
4. ``cifar10``: SimCLR ResNet-18 on CIFAR-10 as far as the time goes, kNN against time.
5. ``seeds``: eight seeds in one vmapped program against eight runs in turn.

What fails or is stopped leaves a line with the reason, and the rest goes on. A batch that the memory does not hold is halved.
Time that a part leaves over is shared by those after it. ``--quick`` runs all of it, PyTorch's side included, at toy size on
any device.
"""

import argparse
import contextlib
import functools
import operator
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import pairs, table
from ssl_jax.cli import cpu
from ssl_jax.core.rows import read_rows, write_row

RESULTS = table.RESULTS.with_name("gpu.jsonl")
SHARES = {"step": 2.0, "torch": 2.5, "mfu": 5.0, "cifar10": 3.0, "seeds": 1.5}
"""The parts in their order, and how they share the time."""
GRACE = 5.0
"""Seconds of a part's share that are kept for ending it."""
SOURCE = "parquet:../shared/data/cifar10"
NOT_MEASURED = "not measured yet: no GPU was lent"

GAINS = {
    "whole step": "how long a run on ImageNet takes: images a second of everything that a step does",
    "share of augmentation": "the device trains instead of making views; no CPU cores are needed for them",
    "FLOP utilisation": "how much of the rented accelerator does useful work: the rest is paid for and lost",
    "kNN": "a usable encoder of small images within minutes",
    "training with": "how long one waits for that encoder",
    "speed": "how many recipes can be tried in an hour",
    "seeds in one program": "error bars over seeds for less than the price of that many runs",
}
"""What the user gains, by a part of a row's name; the longest that fits counts."""


class Reference(NamedTuple):
    """A figure that others published: a yardstick, measured neither here nor with this program.

    Attributes:
      name: what was measured.
      value: with its unit.
      source: where it is published.
    """

    name: str
    value: str
    source: str


REFERENCES = (
    Reference(
        "PyTorch step of ViT-S/16, two views, 224 px, on the same card",
        "870.9 images/s, 70 % of it in augmentation",
        "issue 21 of this project, which gives no address",
    ),
    Reference(
        "SimCLR ResNet-18 on CIFAR-10, batch 512, 200 epochs: best kNN (k = 200) of all epochs, one card",
        "84.8 % in 87.1 min",
        "https://docs.lightly.ai/self-supervised-learning/getting_started/benchmarks.html",
    ),
)

Item = tuple[str, Callable[[float], Sequence[pairs.Measurement]]]
"""A name, and what measures within so many seconds (what compiles is not bounded by them; the process is)."""


def step_items(options: argparse.Namespace) -> Iterator[Item]:
    """Whole steps of SimCLR ViT-S/16, and the share of augmentation."""
    from benchmarks import steps_gpu as ours
    from ssl_jax.methods.contrastive import simclr

    sizes = sizes_of(options)
    network, views, count = ours.make_encoder("vit_small", sizes), ours.simclr_views(sizes), sizes.steps
    whole, batch = ours.fit_memory(
        lambda b: started(
            ours.make_steps(simclr.build(network, views=views), ours.raw_batch(sizes, b), count)
        ),
        sizes.batch,
    )
    name = step_name(sizes, batch)

    def rate(seconds: float) -> list[pairs.Measurement]:
        times = ours.time_calls(whole, sizes.repeats, seconds)
        found = [count * batch / t for t in times]
        goal = None if options.quick else 3500.0
        return [
            pairs.valued(f"{name}: whole step", found, unit="images/s", at_least=goal, raw={"seconds": times})
        ]

    def share(seconds: float) -> list[pairs.Measurement]:
        plain = ours.passing(views)
        method = simclr.build(network, views=plain)
        bare = ours.make_steps(method, ours.made_batch(sizes, batch, plain), count)
        return [share_of(name, bare, whole, sizes.repeats, seconds)]

    yield f"{name}: whole step", rate
    yield f"{name}: share of augmentation", share


def torch_items(options: argparse.Namespace) -> Iterator[Item]:
    """The same against PyTorch, and PyTorch's share of augmentation."""
    from benchmarks import steps_gpu as ours
    from benchmarks.torch_gpu import make_torch_steps
    from ssl_jax.methods.contrastive import simclr

    sizes = sizes_of(options)
    views, name, count = ours.simclr_views(sizes), step_name(sizes, sizes.batch), sizes.steps
    made: dict[str, Any] = {}

    def against(seconds: float) -> list[pairs.Measurement]:
        import jax
        import torch

        if jax.default_backend() != "cpu" and not torch.cuda.is_available():
            raise RuntimeError("JAX has an accelerator, this PyTorch has none")
        batch = ours.raw_batch(sizes, sizes.batch)
        made["torch"] = other = make_torch_steps(sizes, views[0], batch["image"], count)
        method = simclr.build(ours.make_encoder("vit_small", sizes), views=views)
        whole = ours.make_steps(method, batch, count)
        times = pairs.alternate(whole, other.whole, pairs=sizes.repeats, seconds=seconds, least=1)
        return [
            pairs.paired(
                f"{name}: whole step",
                times,
                against=other.label,
                at_least=1.5,
                items=count * sizes.batch,
                tensorfloat32="high",
            )
        ]

    def share(seconds: float) -> list[pairs.Measurement]:
        other = made["torch"]
        label = f"{name}, PyTorch"
        return [share_of(label, other.bare, other.whole, sizes.repeats, seconds, what=other.label)]

    yield f"{name}: whole step against PyTorch", against
    yield f"{name}: share of augmentation in PyTorch", share


def mfu_items(options: argparse.Namespace) -> Iterator[Item]:
    """Utilisation of larger recipes."""
    import jax

    from benchmarks import steps_gpu as ours
    from ssl_jax.cli.hardware import peak_flops

    sizes = sizes_of(options)
    top = options.peak * 1e12 if options.peak else peak_flops(jax.devices()[0].device_kind)

    def measure(name: str, build: Callable[[], Any], batch: int, seconds: float) -> list[pairs.Measurement]:
        method = build()
        call, batch = ours.fit_memory(
            lambda b: started(ours.make_steps(method, ours.made_batch(sizes, b, method.views), sizes.steps)),
            batch,
        )
        flops = ours.step_flops(method, method.views, batch)
        times = ours.time_calls(call, sizes.repeats, seconds)
        rates = [sizes.steps * flops / t for t in times]
        facts = {"batch": batch, "flops_a_step": flops, "raw": {"seconds": times}}
        speed = sizes.steps * batch / min(times)
        if top is None:
            what, values = "FLOP utilisation, peak unknown: model TFLOP/s", [rate / 1e12 for rate in rates]
            return [pairs.valued(f"{name}: {what}", values, unit="TFLOP/s", images_a_second=speed, **facts)]
        return [
            pairs.valued(
                f"{name}, batch {batch}: model FLOP utilisation",
                [rate / top for rate in rates],
                unit="share",
                against=f"peak of {top / 1e12:g} TFLOP/s",
                at_least=0.5,
                images_a_second=speed,
                **facts,
            )
        ]

    for name, (build, batch) in ours.large_recipes(sizes).items():
        yield f"{name}: model FLOP utilisation", functools.partial(measure, name, build, batch)


def cifar_items(options: argparse.Namespace) -> Iterator[Item]:
    """CIFAR-10 as far as the time goes."""
    from benchmarks import cifar_gpu

    def run(seconds: float) -> list[pairs.Measurement]:
        begin = time.perf_counter()
        spec = options.source or ("embedded" if options.quick else SOURCE)
        few = 96 if options.quick else None
        images, test = (cifar_gpu.decode(spec, split, few) for split in ("train", "test"))
        if options.quick:
            images, test = (part._replace(images=part.images[:, ::3, ::3]) for part in (images, test))
        print(
            f"CIFAR: {len(images.labels)} images decoded in {time.perf_counter() - begin:.1f} s", flush=True
        )
        left = min(options.seconds - (time.monotonic() - STARTED), 10.0 if options.quick else 1e9)
        return cifar_gpu.train(
            sizes_of(options),
            images,
            test,
            batch=32 if options.quick else 512,
            seconds=left,
            say=functools.partial(print, flush=True),
        )

    yield "SimCLR ResNet-18 on CIFAR-10: kNN", run


def seeds_items(options: argparse.Namespace) -> Iterator[Item]:
    """Eight seeds in one program against eight in turn."""
    import jax
    import numpy as np

    from benchmarks import steps_gpu as ours
    from ssl_jax.augment import presets
    from ssl_jax.methods.contrastive import simclr
    from ssl_jax.methods.masked import mae
    from ssl_jax.train.step import make_init, make_train_step

    sizes, seeds = sizes_of(options), np.arange(2 if options.quick else 8)
    side, batch = sizes.small, sizes.batch
    small = sizes.decoder or {"decoder_width": 192, "decoder_depth": 2, "decoder_heads": 3}
    recipes = {
        "SimCLR convnet": lambda: simclr.build(
            ours.make_encoder("convnet", sizes), views=presets.simclr(side, blur_prob=0.0)
        ),
        "MAE ViT-tiny/4": lambda: mae.build(
            ours.small_vit(sizes, position="sincos"), views=presets.mae(side), **small
        ),
    }

    def measure(name: str, build: Callable[[], Any], seconds: float) -> list[pairs.Measurement]:
        images = ours.raw_batch(sizes._replace(raw=side), batch)
        method, optimizer = build(), ours.adamw()
        step, init = make_train_step(method, optimizer), make_init(method, optimizer, images)
        together = jax.jit(jax.vmap(step, in_axes=(0, None)), donate_argnums=0)
        alone = jax.jit(step, donate_argnums=0)
        stacked, first = jax.jit(jax.vmap(init))(seeds), jax.jit(init)
        held, single, placed = [stacked], [first(seed) for seed in seeds], jax.device_put(images)

        def vectorized() -> None:
            for _ in range(sizes.steps):
                held[0], metrics = together(held[0], placed)
            jax.block_until_ready(metrics)

        def in_turn() -> None:
            for i in range(len(single)):
                for _ in range(sizes.steps):
                    single[i], metrics = alone(single[i], placed)
            jax.block_until_ready(metrics)

        times = pairs.alternate(vectorized, in_turn, pairs=sizes.repeats, seconds=seconds, least=1)
        items = sizes.steps * batch * len(seeds)
        label = f"{len(seeds)} seeds in one program, {name}, {side} px, batch {batch}"
        return [pairs.paired(label, times, against="one program a seed, in turn", items=items)]

    for name, build in recipes.items():
        yield f"{len(seeds)} seeds in one program, {name}", functools.partial(measure, name, build)


PARTS: Mapping[str, Callable[[argparse.Namespace], Iterator[Item]]] = {
    "step": step_items,
    "torch": torch_items,
    "mfu": mfu_items,
    "cifar10": cifar_items,
    "seeds": seeds_items,
}
STARTED = time.monotonic()


def sizes_of(options: argparse.Namespace) -> Any:
    from benchmarks import steps_gpu as ours

    sizes = ours.QUICK if options.quick else ours.FULL
    return sizes._replace(batch=options.batch) if options.batch else sizes


def step_name(sizes: Any, batch: int) -> str:
    return f"SimCLR ViT-S/{sizes.patch}, batch {batch}, {sizes.size} px"


def started(call: Callable[[], None]) -> Callable[[], None]:
    """Call once, so that what does not fit into memory fails here."""
    call()
    return call


def share_of(
    name: str,
    bare: Callable[[], None],
    whole: Callable[[], None],
    repeats: int,
    seconds: float,
    what: str = "",
) -> pairs.Measurement:
    """Measure what part of the step goes to augmentation, from pairs with and without it; ours (no ``what``) has a target."""
    times = pairs.alternate(bare, whole, pairs=repeats, seconds=seconds, least=1)
    shares = [1 - a / b for a, b in zip(times.ours, times.other, strict=True)]
    raw = {"without_seconds": times.ours, "with_seconds": times.other}
    at_most = None if what else 0.1
    return pairs.valued(
        f"{name}: share of augmentation", shares, unit="share", against=what, at_most=at_most, raw=raw
    )


def one_line(error: BaseException) -> str:
    """Say what went wrong in one line.

    >>> one_line(ValueError("x=1: allowed is 2\\nand more"))
    'ValueError: x=1: allowed is 2'
    """
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:300].rstrip(": ")


def write(out: Path, row: Mapping[str, Any]) -> None:
    write_row(out, pairs.rounded(row), operator.itemgetter("benchmark"))


def part_row(out: Path, name: str) -> dict[str, Any]:
    """Read a part's row; an empty one where it has not begun."""
    found = [row for row in read_rows(out) if row["benchmark"] == f"gpu: {name}"]
    return found[0] if found else {"benchmark": f"gpu: {name}", "measurements": [], "failures": []}


def run_items(name: str, items: Iterator[Item], row: dict[str, Any], out: Path, seconds: float) -> None:
    """Measure a part's items one by one, and write the row after each.

    Args:
      name: of the part, for what fails between items.
      items: what to measure.
      row: head of the row; gets ``measurements``, ``failures``, and ``running``, the item that is being measured.
      out: file of rows.
      seconds: no item begins after this time from the start of the process.
    """
    row |= {"measurements": [], "failures": [], "running": name}
    write(out, row)
    while True:
        try:
            item = next(items, None)
        except Exception as error:
            row["failures"].append({"name": name, "reason": one_line(error)})
            item = None
        if item is None:
            break
        row["running"] = item[0]
        write(out, row)
        left = seconds - (time.monotonic() - STARTED)
        try:
            if left <= 0:
                raise TimeoutError("no time was left")
            for measurement in item[1](max(left / 4, 1.0)):
                row["measurements"].append(measurement)
                print(" | ".join(cell for cell in table.cells(measurement) if cell), flush=True)
        except Exception as error:
            row["failures"].append({"name": item[0], "reason": one_line(error)})
            print(f"{item[0]}: {one_line(error)}", flush=True)
        write(out, row)
    row["running"] = None
    write(out, row)


def run_child(options: argparse.Namespace) -> None:
    """Measure one part in this process."""
    import jax

    if not options.quick and jax.devices()[0].platform == "cpu":
        raise SystemExit("no accelerator here: give --quick to see that the benchmark runs")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    head = pairs.describe(f"gpu: {options.child}", quick=options.quick)
    head["command"] = options.said
    run_items(options.child, PARTS[options.child](options), head, options.out, options.seconds)


def run_process(command: Sequence[str], limit: float, environment: Mapping[str, str]) -> str | None:
    """Run a process for so many seconds at most, then kill it and what it started; say what went wrong, if anything.

    Its error output passes through; the last line of it is the reason of a process that failed. Should the killed process not
    end, as one that hangs in a driver may not, it is left behind after a few seconds.
    """
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env=dict(environment),
            cwd=table.RESULTS.parent.parent,
        )
        reason = None
        try:
            if code := child.wait(timeout=max(limit, 0.1)):
                errors.seek(0)
                lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
                reason = f"ended with code {code}: {lines[-1].strip()[:300] if lines else 'no message'}"
        except subprocess.TimeoutExpired:
            reason = f"stopped after {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=GRACE - 1)
        return reason


def run_parts(
    names: Sequence[str],
    out: Path,
    seconds: float,
    start: Callable[[str, float], str | None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run parts one after another within a time, and write what went wrong with each into its row.

    Args:
      names: of the parts.
      out: file of rows.
      seconds: for all of them together.
      start: ``(name, limit) -> reason``: runs a part for ``limit`` seconds at most.
      clock: seconds.
    """
    end = clock() + seconds
    for place, name in enumerate(names):
        weights = [SHARES[rest] for rest in names[place:]]
        limit = (end - clock()) * weights[0] / sum(weights) - GRACE
        reason = start(name, limit) if limit > 0 else "no time was left"
        row = part_row(out, name)
        if reason is not None:
            row["failures"].append({"name": row.get("running") or name, "reason": reason})
            print(f"{name}: {reason}", flush=True)
        row["running"] = None
        write(out, row)


def forget(out: Path, names: Sequence[str]) -> None:
    """Take what an earlier run measured of these parts out of a file."""
    for name in names:
        if any(row["benchmark"] == f"gpu: {name}" for row in read_rows(out)):
            write(out, {"benchmark": f"gpu: {name}", "measurements": [], "failures": []})


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Tabulate what was measured, what could not be and why, and below it the figures of others."""
    real = [result for result in results if not result.get("quick", False)]
    real.sort(key=lambda result: list(SHARES).index(result["benchmark"].removeprefix("gpu: ")))
    lines = [NOT_MEASURED]
    if real:
        lines = table.head_lines()
        for result in real:
            lines += table.lines_of(result)
            lines += [
                f"| {failure['name']} |  |  | not measured: {failure['reason'].replace('|', '/')} |  |  |"
                for failure in result["failures"]
            ]
        where = [f"- {table.where(result)}" for result in real if "machine" in result]
        lines += ["", *where] if where else []
    lines += ["", "Figures of others, for comparison:", "", "| what | figure | source |", "|---|---|---|"]
    lines += [f"| {reference.name} | {reference.value} | {reference.source} |" for reference in REFERENCES]
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    parser = pairs.parser("gpu", __doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything together")
    parser.add_argument(
        "--source", default="", help=f"images of the part cifar10, such as folder:<path>; default: {SOURCE}"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="which ones, with commas between them")
    parser.add_argument("--batch", type=int, default=0, help="images a step; default 256")
    parser.add_argument("--peak", type=float, default=0.0, help="dense bfloat16 TFLOP/s of the device")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--said", default="", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the parts, each in a process, and print where the rows are."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    names = [name for name in options.parts.split(",") if name]
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts={','.join(unknown)}: allowed are {', '.join(PARTS)}")
    if not options.minutes > 0:
        parser.error(f"--minutes={options.minutes:g}: allowed is a number above 0")
    if options.child:
        run_child(options)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs is ended too
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or (Path(folder) / "gpu.jsonl" if options.quick else RESULTS)
        out = out.absolute()
        forget(out, names)
        said = " ".join(["python -m benchmarks.gpu", *arguments])
        environment = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "programs"), **os.environ}
        if options.quick and not cpu.accelerated() and cpu.jaxlib_knows(b"xla_backend_optimization_level"):
            flags = environment.get("XLA_FLAGS", "")
            environment["XLA_FLAGS"] = f"{flags} {cpu.UNOPTIMISED}".strip()

        def start(name: str, limit: float) -> str | None:
            own = [f"--child={name}", f"--seconds={0.9 * limit:.1f}", f"--out={out}", f"--said={said}"]
            command = [sys.executable, "-m", "benchmarks.gpu", *arguments, *own]
            return run_process(command, limit, environment)

        run_parts(names, out, 60 * options.minutes, start)
        print(markdown([{**row, "quick": False} for row in read_rows(out)]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("stopped; what was measured is kept")
