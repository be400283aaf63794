"""Draws the figure of ``docs/guides/averages.md``: ``python -m docs.averages``. Everything in it comes out of ``optim.ema``."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot

from ssl_jax.cli.study_figure import COLORS, STYLE
from ssl_jax.methods.parts.memory_bank import update_row_averages
from ssl_jax.ops.schedules import increasing_decay
from ssl_jax.optim.ema import Ema, debias_average, ema

PATH = Path(__file__).parent / "guides/averages.svg"
KINDS = ("from its start", "debiased", "rising decay")


def transform(kind: str, decay: float) -> Ema:
    """One of the three ways to begin an average."""
    return ema(increasing_decay(decay) if kind == "rising decay" else decay, debias=kind == "debiased")


def run(average: Ema, start: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The average after each of the values ``[t, ...]``."""
    state, found = average.init(jnp.asarray(start)), []
    for value in values:
        now, state = average.update(jnp.asarray(value), state)
        found.append(np.asarray(now))
    return np.stack(found)


def weights(kind: str, decay: float, updates: int) -> np.ndarray:
    """What start and values count after some updates, ``[1 + updates]``: averages of the rows of the identity."""
    rows = np.eye(1 + updates, dtype=np.float32)
    return run(transform(kind, decay), rows[0], rows[1:])[-1]


def constant_prediction(decay: float, epochs: int, rate: int) -> dict[str, np.ndarray]:
    """The first epochs of an image that comes ``rate`` times an epoch and always gets the prediction 1."""
    average = ema(decay, debias=True)
    memory = average.init(jnp.zeros((1, 1)))._replace(weight=jnp.zeros((1, 1)))
    found: dict[str, list[float]] = {"Z": [], "by epochs": [], "by its own count": []}
    for epoch in range(1, epochs + 1):
        for _ in range(rate):
            memory = update_row_averages(average, memory, jnp.array([0]), jnp.ones((1, 1)))
        z = float(memory.average[0, 0])
        for name, value in zip(
            found, (z, z / (1 - decay**epoch), float(debias_average(memory)[0, 0])), strict=True
        ):
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def learning(updates: int, time: float, noise: float) -> np.ndarray:
    """A weight that goes from 1 to 0 like ``exp(−t / time)``, with independent noise."""
    t = np.arange(1, updates + 1)
    drawn = np.random.default_rng(0).normal(size=(updates, 200))
    return (np.exp(-t / time)[:, None] + noise * drawn).astype(np.float32)


def draw(path: Path = PATH) -> Path:
    """Draw the three panels into an SVG file."""
    with pyplot.rc_context(STYLE):
        figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(10.0, 2.9))
        left.set_title("what the start (0) and 20 values count, d = 0.9", fontsize=9)
        for color, kind in zip(COLORS, KINDS, strict=False):
            left.plot(range(21), weights(kind, 0.9, 20), "o-", ms=3, lw=1, color=color, label=kind)
        left.set_xlabel("value")
        middle.set_title("target of an image, prediction always 1, α = 0.6", fontsize=9)
        epochs = np.arange(1, 9)
        once, twice = (constant_prediction(0.6, len(epochs), rate) for rate in (1, 2))
        lines = {
            "Z, once an epoch": once["Z"],
            "by epochs, once": once["by epochs"],
            "by epochs, twice": twice["by epochs"],
            "by its own count": twice["by its own count"],
        }
        for color, style, (name, values) in zip(COLORS, ("-", "-", "-", "--"), lines.items(), strict=False):
            middle.plot(epochs, values, style, color=color, marker="o", ms=3, lw=1, label=name)
        middle.set_xlabel("epochs")
        right.set_title("error of the average of a noisy weight, d = 0.99", fontsize=9)
        seen = learning(600, 30.0, 0.3)
        errors = {"the weight itself": seen}
        errors |= {kind: run(transform(kind, 0.99), np.ones(200, np.float32), seen) for kind in KINDS}
        for color, (name, values) in zip((COLORS[8], *COLORS), errors.items(), strict=False):
            right.plot(np.sqrt(np.mean(values**2, axis=1)), color=color, lw=1, label=name)
        right.set_xlabel("update")
        right.set_yscale("log")
        for axes in (left, middle, right):
            axes.legend(frameon=False, fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
    return path


if __name__ == "__main__":
    print(draw())
