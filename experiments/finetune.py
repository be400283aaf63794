"""Train a pretrained encoder further, with labels.

    python -m experiments.finetune --workdir=runs/mae
    python -m experiments.finetune --workdir=runs/mae --recipe=mae --share=0.1 --set=learning_rate=0.002 --set=layer_decay=0.75

Trains encoder and a linear classifier on a balanced share of the training labels, classifies the test images once, and does
the same from the encoder's random start (``--norandom``: not). Prints both, and writes ``finetune.json`` into the workdir.
Recipes: ``plain``, a crop and a flip; ``mae``, the one of MAE's ViT-B: layer-wise decay, mixup, cutmix, label smoothing,
erasing, drop path and colour jitter. ``--set`` overrides an option of ``ssl_jax.evaluate.finetune.Recipe``.
"""

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.finetune import finetune_run

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_string(
    "step",
    "latest",
    "Checkpoint: latest, best (by the online kNN, or as the config says) or a number of steps.",
)
_RECIPE = flags.DEFINE_string("recipe", "plain", "plain or mae.")
_SHARE = flags.DEFINE_float("share", 1.0, "Share of the training labels, in (0, 1].")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of draw, classifier, order and views.")
_SET = flags.DEFINE_multi_string("set", [], "An option, name=value; may be repeated.")
_RANDOM = flags.DEFINE_bool("random", True, "Train from the encoder's random start too.")
_CORRUPT = flags.DEFINE_float(
    "max_corrupt_fraction", None, "Share of unreadable images above which it ends; default: that of the run."
)


def main() -> None:
    """Fine-tune the run in ``--workdir``."""
    finetune_run(
        launch.require_path("workdir", _WORKDIR.value, "DIR"),
        step=_STEP.value,
        recipe=_RECIPE.value,
        overrides=_SET.value,
        share=_SHARE.value,
        seeds=launch.parse_seeds(_SEEDS.value),
        random_start=_RANDOM.value,
        max_corrupt_fraction=_CORRUPT.value,
    )


if __name__ == "__main__":
    launch.run(main)
