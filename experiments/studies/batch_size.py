"""Who needs large batches? Grill et al. 2020, table 16; Chen & He 2021, table 2.

python -m experiments.studies.batch_size
"""

from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant

IMAGES = 256 * 200
SIZES = (16, 64, 256)
PUBLISHED: dict[str, dict[int, float]] = {
    "simclr": {64: 59.2, 256: 64.3},
    "moco_v2": {},
    "byol": {64: 59.7, 256: 71.8},
    "simsiam": {64: 66.1, 256: 68.1},
}
RATE = {"simclr": 3e-3, "moco_v2": 3e-3, "byol": 3e-3, "simsiam": 3e-3}
"""Learning rate at 256 images."""


def lost(results: Results, method: str) -> float:
    """Points of linear accuracy lost between the largest batch and the smallest."""
    return results[f"{method}, {SIZES[-1]}"].mean("linear") - results[f"{method}, {SIZES[0]}"].mean("linear")


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    losses = {method: lost(results, method) for method in PUBLISHED}
    evidence = ", ".join(f"{method} {value:+.1f}" for method, value in losses.items())
    band = {
        m: results[f"{m}, {SIZES[0]}"].spread("linear") + results[f"{m}, {SIZES[-1]}"].spread("linear")
        for m in PUBLISHED
    }
    return [
        Claim(
            "SimCLR, whose negatives are those of the batch, loses more from a smaller batch than BYOL.",
            losses["simclr"] - losses["byol"] > band["simclr"] + band["byol"],
            f"points of linear accuracy lost from {SIZES[-1]} to {SIZES[0]} images: {evidence}",
        ),
        Claim(
            "It loses more than SimSiam.",
            losses["simclr"] - losses["simsiam"] > band["simclr"] + band["simsiam"],
            f"{losses['simclr']:+.1f} against {losses['simsiam']:+.1f}",
        ),
        Claim(
            "It loses more than MoCo, whose negatives are those of a queue (He et al. 2020, section 3).",
            losses["simclr"] - losses["moco_v2"] > band["simclr"] + band["moco_v2"],
            f"{losses['simclr']:+.1f} against {losses['moco_v2']:+.1f}",
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
            f"{method}, {size}",
            method,
            {
                "batch_size": size,
                "steps": IMAGES // size,
                "watch.log.every": max(IMAGES // size // 40, 1),
                "optimizer.learning_rate": RATE[method] * (size / 256) ** 0.5,
            },
            published.get(size),
            line=method,
            x=size,
        )
        for method, published in PUBLISHED.items()
        for size in SIZES
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    x_label="images a batch",
    notes="Every run sees as many images; the learning rate of AdamW goes with the square root of the batch "
    "size. The published batches are "
    "larger: 64 is the smallest of the papers, where ours end at 16.",
)

if __name__ == "__main__":
    run(STUDY)
