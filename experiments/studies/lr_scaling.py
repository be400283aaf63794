"""How should the learning rate go with the batch? Chen et al. 2020, appendix B.1.

python -m experiments.studies.lr_scaling
"""

from experiments.studies.color import BATCH, DATA, IMAGES, RATE
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, higher

SIZES = (32, 512)
RULES = {"square root": 0.5, "linear": 1.0}


def name_of(size: int, rule: str = "") -> str:
    """Name of a variant."""
    return f"batch {size}, {rule}" if rule else f"batch {size}"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes from table B.1, and what is said of Adam."""
    return [
        higher(
            f"At a batch of {size} a rate that goes with the square root is better than one that goes linearly.",
            results[name_of(size, "square root")],
            results[name_of(size, "linear")],
            "linear",
        )
        for size in SIZES
    ]


STUDY = Study(
    name="lr_scaling",
    title="The learning rate: with the batch, or with its square root?",
    question="SimCLR's paper scales the rate with the batch, and finds the square root better in short runs and small "
    "batches. For "
    "Adam the square root is what theory says.",
    source="Chen et al., SimCLR, ICML 2020, appendix B.1 (LARS, ImageNet); Malladi et al., On the SDEs and Scaling Rules for "
    "Adaptive Gradient Algorithms, NeurIPS 2022 (no number of theirs is repeated here)",
    published_as="published",
    variants=(
        Variant(name_of(BATCH), "simclr", {"optimizer.learning_rate": RATE}),
        *(
            Variant(
                name_of(size, rule),
                "simclr",
                {
                    "batch_size": size,
                    "steps": IMAGES // size,
                    "watch.log.every": max(IMAGES // size // 40, 1),
                    "optimizer.learning_rate": RATE * (size / BATCH) ** power,
                },
                line=rule,
                x=size,
            )
            for rule, power in RULES.items()
            for size in SIZES
        ),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    x_label="images a batch",
    data=DATA,
    notes=f"AdamW, whose rate is {RATE:g} at {BATCH} images. Every run sees as many images. The negatives of a batch change "
    "with it, "
    "so only runs with the same batch are compared.",
)

if __name__ == "__main__":
    run(STUDY)
