"""How often must an image come before a memory bank teaches anything? He et al. 2020, section 3.2.

python -m experiments.studies.memory_bank
"""

from typing import Any

from experiments.studies.color import BATCH, DATA, IMAGES
from experiments.studies.command import run
from ssl_jax.cli.study import (
    Claim,
    Results,
    Study,
    Variant,
    all_of,
    compare,
    difference,
    gain,
    higher,
    opposite,
)

SHARES = {40: 20_000, 8: 4_000, 2: 1_000}
"""Percent of the training images and how many they are."""
METHODS = {"npid": (40, 8, 2), "moco_v1": (40, 2)}


def passes(images: int) -> float:
    """How often a run sees each image."""
    return IMAGES / images


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
    learnt, repeated = gain(rare), gain(often)
    return [
        higher(
            f"With {passes(most):.0f} passes a queue of recent keys teaches more than a memory of the last pass.",
            queue,
            rare,
        ),
        Claim(
            f"With {passes(most):.0f} passes the memory teaches nothing: the encoder is not better than untrained.",
            opposite(learnt.exceeds()),
            f"points of kNN over the same encoders untrained: {learnt.text}",
        ),
        Claim(
            f"With as many updates over fewer images, which come {passes(least):.0f} times, the memory does teach.",
            all_of([repeated.exceeds(), difference(often, rare).exceeds()]),
            f"points of kNN over untrained: {repeated.text}; kNN {compare(often, rare)}",
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
        for method, shares in METHODS.items()
        for share, images in SHARES.items()
        if share in shares
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "embedding std": "embedding_std"},
    data=DATA,
    x_label="passes over the images",
    notes="Fewer images are less to learn from, so a gain with them is in spite of that. The probes are fitted on the same "
    "20,000 training images in every row. NPID's first pass fills its memory and moves nothing.",
)

if __name__ == "__main__":
    run(STUDY)
