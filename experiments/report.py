"""One self-contained page for a run, or for a comparison of runs.

    python -m experiments.report --workdirs=runs/first
    python -m experiments.report --workdirs=runs/first --workdirs=runs/second --out=comparison.html

One run: ``report.html`` in its folder, with verdict, evaluation, curves, a map of the features, neighbours, views and what
the method has to show. Several: curves and evaluations side by side, and the options in which the runs differ. What is not
there yet, such as an evaluation, is named with the command that makes it.
"""

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.report import Pictures, write_report
from ssl_jax.core.bucket import to_path
from ssl_jax.report.embedding import MAPS, MOST

_WORKDIRS = flags.DEFINE_multi_string("workdirs", None, "Folder of the run; to be repeated for several.")
_OUT = flags.DEFINE_string(
    "out", None, "File to write; default: report.html in the folder of the (first) run."
)
_POINTS = flags.DEFINE_integer(
    "points", 2000, "Images on the map and for neighbours and spectrum.", lower_bound=10
)
_MAP = flags.DEFINE_enum(
    "map",
    "auto",
    MAPS,
    f"How to draw the map; auto: t-SNE up to {MOST} points, else PCA.",
)
_STEP = flags.DEFINE_string(
    "step",
    "latest",
    "Checkpoint: latest, best (by the online kNN, or as the config says) or a number of steps.",
)
_SOURCE = flags.DEFINE_string("source", None, "Images to show; default: those of the run.")
_SPLIT = flags.DEFINE_string("split", None, "Split of the source; default: the test split of the config.")
_CORRUPT = flags.DEFINE_float(
    "max_corrupt_fraction",
    None,
    "Share of unreadable images above which no pictures are shown; default: that of the run.",
)


def main() -> None:
    """Write the page of ``--workdirs``."""
    folders = launch.parse_folders("workdirs", _WORKDIRS.value)
    launch.require_flag("workdirs", folders, "DIR, once for each run")
    pictures = Pictures(_STEP.value, _SOURCE.value, _SPLIT.value, _POINTS.value, _MAP.value, _CORRUPT.value)
    write_report([str(folder) for folder in folders], to_path(_OUT.value) if _OUT.value else None, pictures)


if __name__ == "__main__":
    launch.run(main)
