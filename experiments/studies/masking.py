"""What to hide, and how much of it? MAE and SimMIM, judged frozen and fine-tuned.

python -m experiments.studies.masking
"""

from typing import Any

import numpy as np

from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, is_better
from ssl_jax.evaluate.finetune import Recipe

METHODS = {"mae": "MAE", "simmim": "SimMIM"}
RATIOS = {"random": (0.25, 0.5, 0.75), "block": (0.25, 0.5, 0.75), "uniform": (0.75,)}


def name_of(method: str, kind: str, ratio: float) -> str:
    """Name of a variant."""
    return f"{METHODS[method]}, {kind} {ratio:g}"


def options(method: str, kind: str, ratio: float) -> dict[str, Any]:
    """What a variant has beyond the recipe."""
    changes: dict[str, Any] = {"method.mask": kind, "method.mask_ratio": ratio}
    return changes if method == "mae" else {**changes, "method.unit": 1}


def ranks(values: list[float]) -> np.ndarray:
    """Rank values from the lowest to the highest."""
    return np.argsort(np.argsort(values))


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    verdicts = []
    for method, label in METHODS.items():
        measured = [results[name_of(method, "random", ratio)] for ratio in RATIOS["random"]]
        gap = {
            m: max(p.mean(m) for p in measured) - min(p.mean(m) for p in measured)
            for m in ("linear", "finetune")
        }
        verdicts.append(
            Claim(
                f"{label}: linear accuracy depends more on the ratio than fine-tuned accuracy (MAE, figure 5).",
                gap["linear"] > gap["finetune"],
                f"best less worst of the random ratios: linear {gap['linear']:.1f}, fine-tuned {gap['finetune']:.1f} points",
            )
        )
    scattered, block = (results[name_of("mae", kind, 0.75)] for kind in ("random", "block"))
    uniform = results[name_of("mae", "uniform", 0.75)]
    variants = [
        results[name_of(m, kind, r)] for m in METHODS for kind, ratios in RATIOS.items() for r in ratios
    ]
    linear, tuned = ([v.mean(m) for v in variants] for m in ("linear", "finetune"))
    correlation = float(np.corrcoef(ranks(linear), ranks(tuned))[0, 1])
    return [
        *verdicts,
        Claim(
            "MAE at 75 %: random masks are better than blocks by linear accuracy (MAE, table 1f).",
            is_better(scattered, block, "linear"),
            f"linear {scattered.text('linear')} against {block.text('linear')}",
        ),
        Claim(
            "MAE at 75 %: one visible patch in every window of 2 x 2 is as good as random, fine-tuned (UM-MAE, table 1).",
            not is_better(scattered, uniform, "finetune"),
            f"fine-tuned {uniform.text('finetune')} against {scattered.text('finetune')}",
        ),
        Claim(
            "Linear and fine-tuned accuracy rank the masks differently.",
            correlation < 0.8,
            f"Spearman correlation over {len(variants)} variants: {correlation:.2f}",
        ),
    ]


STUDY = Study(
    name="masking",
    title="What to hide, and how much of it?",
    question="MAE hides three quarters of the patches at random, BEiT blocks, UM-MAE all but one of every four. Which kind and "
    "share is best, and do frozen features and fine-tuned encoders agree on it?",
    source="He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, figure 5 and table 1f; Xie et al., SimMIM, "
    "CVPR 2022, table 1; Li et al., Uniform Masking, 2022, table 1 (ImageNet; no number of theirs is repeated here)",
    published_as="published",
    variants=tuple(
        Variant(name_of(m, kind, ratio), m, options(m, kind, ratio), line=f"{label}, {kind}", x=ratio)
        for m, label in METHODS.items()
        for kind, ratios in RATIOS.items()
        for ratio in ratios
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "fine-tuned": "finetune"},
    common={"encoder.width": 64, "encoder.depth": 3, "encoder.heads": 2, "steps": 1200, "batch_size": 64},
    x_label="share of masked patches",
    x_scale="linear",
    finetune={"share": 0.1, "recipe": Recipe(epochs=20, batch_size=50, learning_rate=1e-3, layer_decay=0.75)},
    notes="A vision transformer of 3 blocks, 64 wide, 16 patches of 7 pixels. Fine-tuned: on 1,000 labels, 20 epochs, "
    "layer-wise decay 0.75, a crop and a flip. Uniform masks have one ratio, 75 %.",
)

if __name__ == "__main__":
    run(STUDY)
