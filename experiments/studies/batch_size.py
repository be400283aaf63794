"""Who needs large batches? Grill et al. 2020, table 16; Chen & He 2021, table 2.

python -m experiments.studies.batch_size
"""

from experiments.studies.color import BATCH, DATA, IMAGES, RATE
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Difference, Results, Study, Variant, contrast, difference

SIZES = (32, 512)
PUBLISHED: dict[str, dict[int, float]] = {
    "simclr": {64: 59.2, 256: 64.3},
    "moco_v2": {},
    "byol": {64: 59.7, 256: 71.8},
    "simsiam": {64: 66.1, 256: 68.1},
}
BETWEEN = ("simclr", "byol")
"""Methods with a run between the two sizes."""


def name_of(method: str, size: int) -> str:
    """Name of a variant."""
    return f"{method}, {size}"


def lost(results: Results, method: str) -> Difference:
    """Points of linear accuracy lost between the largest batch and the smallest."""
    small, large = (results[name_of(method, size)] for size in SIZES)
    return difference(large, small, "linear")


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    losses = {method: lost(results, method) for method in PUBLISHED}

    def more(other: str) -> Difference:
        of = {(m, size): results[name_of(m, size)] for m in ("simclr", other) for size in SIZES}
        small, large = SIZES
        terms = [
            (1.0, ("simclr", large)),
            (-1.0, ("simclr", small)),
            (-1.0, (other, large)),
            (1.0, (other, small)),
        ]
        return contrast([(weight, of[key]) for weight, key in terms], "linear")

    texts = {
        "byol": "SimCLR, whose negatives are those of the batch, loses more from a smaller batch than BYOL.",
        "simsiam": "It loses more than SimSiam.",
        "moco_v2": "It loses more than MoCo, whose negatives are those of a queue (He et al. 2020, section 3).",
    }
    return [
        *(
            Claim(
                text,
                more(other).exceeds(),
                f"points of linear accuracy lost from {SIZES[1]} to {SIZES[0]} images: simclr {losses['simclr'].text}, "
                f"{other} {losses[other].text}; more: {more(other).text}",
            )
            for other, text in texts.items()
        ),
        Claim(
            "SimSiam works with every batch (Chen & He, table 2; here: within 3 points).",
            losses["simsiam"].is_within(3.0),
            f"points lost: {losses['simsiam'].text}",
        ),
    ]


STUDY = Study(
    name="batch_size",
    title="Who needs large batches?",
    question="SimCLR compares each image with the others of its batch, MoCo with a queue, BYOL and SimSiam "
    "with none: the fewer images "
    "a batch, the more SimCLR should suffer.",
    source="Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, table 16 (BYOL, and SimCLR as they "
    "reproduced it, 300 epochs), and Chen "
    "& He, Exploring Simple Siamese Representation Learning, CVPR 2021, table 2 (SimSiam, 100 epochs); "
    "ResNet-50, ImageNet, linear evaluation",
    published_as="published, top-1",
    variants=tuple(
        Variant(
            name_of(method, size),
            method,
            {
                "batch_size": size,
                "steps": IMAGES // size,
                "watch.log.every": max(IMAGES // size // 40, 1),
                "optimizer.learning_rate": RATE * (size / BATCH) ** 0.5,
            },
            published.get(size),
            line=method,
            x=size,
        )
        for method, published in PUBLISHED.items()
        for size in sorted({*SIZES, *((BATCH,) if method in BETWEEN else ())})
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    x_label="images a batch",
    data=DATA,
    notes=f"Every run sees as many images; the learning rate of AdamW is {RATE:g} at {BATCH} images and goes with the square "
    "root of "
    "the batch. The published batches are larger: 64 is the smallest of the papers, where ours begin at 32.",
)

if __name__ == "__main__":
    run(STUDY)
