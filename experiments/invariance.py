"""How far the features of many runs move when images are changed, and what can be read off them: rows and a table.

    python -m experiments.invariance --runs=runs/results/color32
    python -m experiments.invariance --runs=runs/mine --out=mine.jsonl --minutes=20

Takes the measure ``invariance`` of ``experiments.evaluate`` of the last checkpoint of every run in a folder, of its projector
where the method has one, and of each encoder before training. A run is one row of ``--out``; rows that are there stay, and
``--minutes`` ends in time. Prints the table.
"""

import math
from pathlib import Path

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.invariance import invariance_rows_table, measure_runs
from ssl_jax.cli.label_free import runs_below
from ssl_jax.core.files import require_folder
from ssl_jax.core.rows import read_rows

_RUNS = flags.DEFINE_string("runs", None, "Folder of runs, at any depth.")
_OUT = flags.DEFINE_string("out", "results/invariance.jsonl", "File of the rows.")
_MINUTES = flags.DEFINE_float("minutes", None, "No run is begun after so many.", lower_bound=0)


def main() -> None:
    """Measure what is missing, and print the table."""
    folder = launch.require_path("runs", _RUNS.value, "FOLDER", local=True)
    out = Path(_OUT.value)
    require_folder("out", out)
    minutes = math.inf if _MINUTES.value is None else _MINUTES.value
    left = measure_runs(runs_below(folder), out, minutes=minutes)
    rows = read_rows(out)
    for source in dict.fromkeys(row["source"] for row in rows):
        print(f"\n{invariance_rows_table([row for row in rows if row['source'] == source])}")
    if left:
        print(f"\n{left} runs are left for the next time")


if __name__ == "__main__":
    launch.run(main)
