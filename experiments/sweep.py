"""A grid or a random search over options of a config, seeds included, with a table of results.

    python -m experiments.sweep --config=configs/simclr.py --workdir=runs/sweep \\
        --grid=method.temperature=0.1,0.2,0.5 --grid=seed=0,1,2
    python -m experiments.sweep --config=configs/simclr.py --workdir=runs/search --random=20 \\
        --grid=method.temperature=0.05:1:log --grid=optimizer.learning_rate=1e-4:1e-2:log

Without ``--random``, every combination of the values of each ``--grid``; with it, so many draws, a range standing for a
uniform or log-uniform distribution. Runs that differ in their seed and in numbers with decimals of method and optimizer are
one vmapped program, ``--width`` at a time (``--mode=vectorized``); others are runs of ``experiments.pretrain``, ``--jobs``
at a time (``--mode=processes``); ``--mode=auto`` decides. Either way each run has a folder of its own in the workdir, with
config, metrics and last checkpoint, as every launcher takes it. What is finished is not made again, the same command goes on
where it was stopped, and further values may be added. ``sweep.json`` holds the table.
"""

import sys

from absl import flags

from ssl_jax.cli import config_flag, launch
from ssl_jax.cli.search_space import parse_axis
from ssl_jax.cli.sweep import MODES, Search, sweep

_CONFIG = config_flag.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep; made if it is missing.")
_GRID = flags.DEFINE_multi_string(
    "grid", [], "NAME=value,value,... or, for --random, NAME=low:high[:log]; repeat for more names."
)
_RANDOM = flags.DEFINE_integer("random", 0, "Draws of a random search; 0: every combination.", lower_bound=0)
_DRAW = flags.DEFINE_integer("draw", 0, "Seed of the random search.", lower_bound=0)
_MODE = flags.DEFINE_enum("mode", "auto", MODES, "How runs share the machine.")
_WIDTH = flags.DEFINE_integer("width", 8, "Runs in one vectorized program.", lower_bound=1)
_JOBS = flags.DEFINE_integer("jobs", 1, "Processes at a time.", lower_bound=1)


def main() -> None:
    """Make the runs that are missing, then print the table."""
    root = launch.require_path("workdir", _WORKDIR.value, "DIR")
    search = Search(
        grid=dict(parse_axis(text) for text in _GRID.value),
        draws=_RANDOM.value,
        seed=_DRAW.value,
        mode=_MODE.value,
        width=_WIDTH.value,
        jobs=_JOBS.value,
        arguments=tuple(word for word in sys.argv[1:] if word.startswith(("--config=", "--config."))),
    )
    sweep(_CONFIG.load, root, search)


if __name__ == "__main__":
    launch.run(main)
