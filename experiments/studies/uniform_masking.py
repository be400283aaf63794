"""Is one visible patch in every window as good as random ones? Li et al. 2022.

python -m experiments.studies.uniform_masking
"""

from experiments.studies.color import DATA, FINETUNE, FINETUNED, VIT
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, compare, difference, higher

RANDOM, UNIFORM, SECONDARY = "random", "uniform", "uniform, secondary masks"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes."""
    scattered, uniform, secondary = (results[name] for name in (RANDOM, UNIFORM, SECONDARY))
    return [
        higher(
            "Uniform masks alone are an easier task: random masks are better, linear.",
            scattered,
            uniform,
            "linear",
        ),
        higher(
            "Secondary masks make up for it: they are better than uniform ones alone, linear.",
            secondary,
            uniform,
            "linear",
        ),
        Claim(
            "With secondary masks uniform ones are as good as random ones, fine-tuned.",
            difference(secondary, scattered, "finetune").stays_above(),
            f"fine-tuned {compare(secondary, scattered, 'finetune')}",
        ),
    ]


STUDY = Study(
    name="uniform_masking",
    title="Uniform masks: one visible patch in every window?",
    question="Encoders that work in windows need as many visible patches in each. UM-MAE keeps one of every 2 x 2, and hides "
    "a share "
    "of the kept ones behind a mask token so that the task is not too easy.",
    source="Li et al., Uniform Masking: Enabling MAE Pre-training for Pyramid-based Vision Transformers with Locality, 2022 "
    "(ImageNet; no number of theirs is repeated here)",
    published_as="published",
    variants=(
        Variant(RANDOM, "mae", {"method.mask_ratio": 0.75}),
        Variant(UNIFORM, "mae", {"method.mask_ratio": 0.75, "method.mask": "uniform"}),
        Variant(
            SECONDARY,
            "mae",
            {
                "method.mask_ratio": 0.75,
                "method.mask": "uniform",
                "method.secondary": 0.25,
                "encoder.mask_token": True,
            },
        ),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "fine-tuned": "finetune"},
    common=VIT,
    finetune=FINETUNE,
    data=DATA,
    notes=f"MAE, a vision transformer of 3 blocks, 64 wide, 64 patches of 4 pixels, three quarters hidden. {FINETUNED}",
)

if __name__ == "__main__":
    run(STUDY)
