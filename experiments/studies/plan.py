"""In what order the studies are made, and what their runs take."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.studies import RESULTS, SEEDS, studies
from experiments.studies.color import IMAGES
from ssl_jax.cli.study import Study, Variant
from ssl_jax.cli.study_runs import config_of_variant, missing_tasks, read_results
from ssl_jax.core.table import table

ORDER = (
    "projector",
    "guillotine",
    "crop_or_color",
    "augmentation_pairs",
    "simsiam_ablation",
    "teacher_momentum",
    "averaged_weights",
    "redundancy",
    "temperature",
    "equivariance",
    "projector_noise",
    "batch_size",
    "dimensional_collapse",
    "width",
    "inversion",
    "mask_ratio",
    "masking",
    "uniform_masking",
    "pretext_ladder",
    "multi_crop",
    "dino_collapse",
    "lr_scaling",
    "few_labels",
    "memory_bank",
    "vit_practice",
    "staged_distillation",
    "adaptation",
)
"""The most telling first: those whose published effects are large and whose runs other studies share."""
SIMCLR_SECONDS = 100.0
"""Core-seconds of a run of SimCLR with the studies' encoder on 76,800 images, measuring included: measured."""
FACTORS = {
    "adaptation": {"simclr": 1.5, "dino": 2.0, "mae": 1.0},
    "": {
        "byol": 1.4,
        "dbot": 3.0,
        "dino": 1.5,
        "essl": 1.8,
        "mae": 2.0,
        "mean_teacher": 1.2,
        "moco_v3": 1.5,
        "rotation": 1.6,
        "simmim": 3.0,
        "swav": 1.3,
    },
}
"""Of other methods, beside SimCLR: estimated from passes through the networks."""


MEASURING = {"inversion": 150.0}
"""Core-seconds of what a study measures beyond probes, of each run that it has: estimated."""


def core_seconds(study: Study, variant: Variant, sharing: Sequence[Study] = ()) -> float:
    """Estimate the core-seconds of a run.

    Args:
      study: The study.
      variant: Variant of it: its method, its images and the width of its encoder count.
      sharing: Studies that measure more of the same run.
    """
    return _training(study, variant) + sum(MEASURING.get(each.name, 0.0) for each in (study, *sharing))


def _training(study: Study, variant: Variant) -> float:
    config = config_of_variant(study, variant) if study.prepare is None else {}
    by_method = FACTORS.get(study.name, FACTORS[""])
    factor = by_method.get(variant.method, 1.0)
    if not config:
        return SIMCLR_SECONDS * factor
    images = config["steps"] * config["batch_size"] / IMAGES
    width = config["encoder"].get("widths", (16,))[0] / 16
    crops = 1 + config["views"].get("local_count", 0) / 8
    patches = 2.5 if config["encoder"].get("patch") == 4 and variant.method == "moco_v3" else 1.0
    return SIMCLR_SECONDS * (0.3 + 0.7 * factor * images * width**1.3 * crops * patches)


def plan_table(*, markdown: bool = False) -> str:
    """Tabulate the studies in their order: runs, those that another study has made, core-minutes estimated and spent."""
    every = studies()
    paths = {name: RESULTS / "nowhere" / f"{name}.jsonl" for name in every}
    tasks = missing_tasks([every[name] for name in ORDER], SEEDS, paths)
    rows: list[dict[str, Any]] = []
    for name in ORDER:
        study = every[name]
        own = [task for task in tasks if task.study.name == name]
        runs = len(study.variants) * len(SEEDS)
        made = read_results(study, SEEDS, RESULTS / f"{name}.jsonl")
        stored = [row for measured in made.values() for row in measured.rows]
        spent = [row["cpu_seconds"] for row in stored if "shared_with" not in row]
        rows.append(
            {
                "study": name,
                "runs": runs,
                "shared": runs - sum(len(task.seeds) for task in own),
                "core-minutes, estimated": round(
                    sum(len(task.seeds) * core_seconds(study, task.variant, task.sharing) for task in own)
                    / 60
                ),
                "made": len(stored),
                "core-minutes, spent": round(float(np.sum(spent)) / 60),
            }
        )
    totals = {key: sum(int(row[key]) for row in rows) for key in rows[0] if key != "study"}
    return table([*rows, {"study": "all", **totals}], markdown=markdown, digits=0)
