"""What to hide: patches at random, blocks or a grid? He et al. 2022, table 1f.

python -m experiments.studies.masking
"""

from experiments.studies.color import DATA, FINETUNE, FINETUNED, VIT
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, differences, higher

KINDS = {"random": 73.5, "block": 63.9, "grid": 66.0}


def claims(results: Results) -> list[Claim]:
    """What the paper concludes from the table."""
    scattered, block, grid = (results[kind] for kind in KINDS)
    more = differences(scattered, block, "linear", "finetune")
    return [
        higher("Random masks are better than blocks, linear (there: 10 points).", scattered, block, "linear"),
        higher("They are better than a grid, linear (there: 8 points).", scattered, grid, "linear"),
        higher("They are better than blocks, fine-tuned (there: 2 points).", scattered, block, "finetune"),
        Claim(
            "Linear accuracy depends more on the kind of mask than fine-tuned accuracy.",
            more.exceeds(),
            f"random less block, linear less fine-tuned: {more.text}",
        ),
    ]


STUDY = Study(
    name="masking",
    title="What to hide: patches at random, blocks or a grid?",
    question="MAE hides three quarters of the patches at random, BEiT blocks of them; a grid leaves one of every four. Which "
    "is the "
    "better task?",
    source="He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, table 1f (ViT-L, ImageNet; 75 % hidden, "
    "linear "
    "evaluation)",
    published_as="published, linear",
    variants=tuple(
        Variant(kind, "mae", {"method.mask": kind, "method.mask_ratio": 0.75}, published)
        for kind, published in KINDS.items()
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "fine-tuned": "finetune"},
    common=VIT,
    finetune=FINETUNE,
    data=DATA,
    notes=f"MAE, a vision transformer of 3 blocks, 64 wide, 64 patches of 4 pixels. {FINETUNED}",
)

if __name__ == "__main__":
    run(STUDY)
