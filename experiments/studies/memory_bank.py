"""How often must an image come before a memory bank teaches anything? He et al. 2020, section 3.2.

python -m experiments.studies.memory_bank
"""

from typing import Any

from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, is_better

STEPS, BATCH = 800, 64
SHARES = {100: 10_000, 20: 2_000, 4: 400}
"""Percent of the training images and how many they are."""
METHODS = ("npid", "moco_v1")


def passes(images: int) -> float:
    """How often a run sees each image."""
    return STEPS * BATCH / images


def name_of(method: str, images: int) -> str:
    """Name of a variant."""
    return f"{method}, {images:,} images"


def changes(method: str, share: int, images: int) -> dict[str, Any]:
    """What a variant has beyond the recipe; NPID fills its memory once before the network moves."""
    changes: dict[str, Any] = {"data.split": f"train[:{share}%]"}
    if method == "npid":
        changes |= {"method.num_examples": images, "optimizer.freeze": ((".", -(-images // BATCH)),)}
    return changes


def claims(results: Results) -> list[Claim]:
    """What follows from the paper's argument."""
    most, least = max(SHARES.values()), min(SHARES.values())
    rare, often = (results[name_of("npid", images)] for images in (most, least))
    queue = results[name_of("moco_v1", most)]
    gain = rare.values("knn") - rare.values("random_knn")
    return [
        Claim(
            f"With {passes(most):.0f} passes a queue of recent keys teaches more than a memory of the last pass.",
            is_better(queue, rare),
            f"kNN {queue.text('knn')} against {rare.text('knn')}",
        ),
        Claim(
            f"With {passes(most):.0f} passes the memory teaches nothing: the encoder is not better than untrained.",
            gain.mean() <= gain.std(ddof=1),
            f"{gain.mean():+.1f} ± {gain.std(ddof=1):.1f} points of kNN over the same encoders untrained",
        ),
        Claim(
            f"With as many updates over fewer images, which come {passes(least):.0f} times, the memory does teach.",
            is_better(often, rare) and often.mean("knn") - often.spread("knn") > often.mean("random_knn"),
            f"kNN {often.text('knn')} against {rare.text('knn')}, untrained {often.text('random_knn')}",
        ),
    ]


STUDY = Study(
    name="memory_bank",
    title="NPID: how often must an image come?",
    question="A memory bank keeps what the network made of an image when it last came: with few passes over the images that "
    "was another network. MoCo's queue keeps the keys of the last batches instead. All runs make as many updates; the fewer "
    "the images, the more often each comes.",
    source="He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, section 3.2 (the argument "
    "that keys of a memory bank are inconsistent; no table over the number of passes)",
    published_as="published",
    variants=tuple(
        Variant(
            name_of(method, images), method, changes(method, share, images), line=method, x=passes(images)
        )
        for method in METHODS
        for share, images in SHARES.items()
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "embedding std": "embedding_std"},
    common={"steps": STEPS, "batch_size": BATCH},
    x_label="passes over the images",
    notes="Fewer images are less to learn from, so a gain with them is in spite of that. The probes are fitted on all 10,000 "
    "training images in every row. NPID's first pass fills its memory and moves nothing.",
)

if __name__ == "__main__":
    run(STUDY)
