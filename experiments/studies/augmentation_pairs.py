"""Which pairs of augmentations make views that teach? Chen et al. 2020, section 3.1 and figure 5.

python -m experiments.studies.augmentation_pairs
"""

from typing import Any

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, all_of, compare, difference

OFF: dict[str, Any] = {
    "crop": {"views.area": (1.0, 1.0), "views.ratio": (1.0, 1.0)},
    "color": {"views.jitter.prob": 0.0},
    "gray": {"views.grayscale_prob": 0.0},
    "rotate": {"views.rotate_prob": 0.0},
}
ON: dict[str, Any] = {
    "crop": {},
    "color": {},
    "gray": {"views.grayscale_prob": 0.5},
    "rotate": {"views.rotate_prob": 0.75},
}
SINGLE = tuple(OFF)
PAIRS = (("crop", "color"), ("crop", "gray"), ("crop", "rotate"), ("color", "gray"), ("color", "rotate"))


def name_of(*operations: str) -> str:
    """Name of a variant."""
    return " + ".join(operations)


def options(*operations: str) -> dict[str, Any]:
    """What a variant has beyond the recipe: all other operations are off."""
    changes: dict[str, Any] = {}
    for name in OFF:
        changes |= ON[name] if name in operations else OFF[name]
    return changes


def claims(results: Results) -> list[Claim]:
    """What the paper reads off its figure."""
    best = results[name_of("crop", "color")]
    single = max((name_of(name) for name in SINGLE), key=lambda name: results[name].mean("linear"))
    others = [name_of(*pair) for pair in PAIRS if pair != ("crop", "color")]
    turned = results[name_of("crop", "rotate")]
    return [
        Claim(
            "No single operation suffices: crops with color are better than the best of them.",
            difference(best, results[single], "linear").exceeds(),
            f"linear {compare(best, results[single], 'linear')}, of {single} alone",
        ),
        Claim(
            "Crops with color are the best pair.",
            all_of(difference(best, results[name], "linear").exceeds() for name in others),
            "linear, crop + color less the others: "
            + ", ".join(f"{name} {difference(best, results[name], 'linear').text}" for name in others),
        ),
        Claim(
            "Crops that are turned are no better than crops alone.",
            difference(results[name_of("crop")], turned, "linear").stays_above(),
            f"linear, crop alone less crop + rotate: {difference(results[name_of('crop')], turned, 'linear').text}",
        ),
        Claim(
            "Color alone, without crops, teaches less than crops alone.",
            difference(results[name_of("crop")], results[name_of("color")], "linear").exceeds(),
            f"linear {compare(results[name_of('crop')], results[name_of('color')], 'linear')}",
        ),
    ]


STUDY = Study(
    name="augmentation_pairs",
    title="SimCLR: which pairs of augmentations make views that teach?",
    question="Views of one image should agree in what matters and in nothing else. Which operations, alone and in pairs, leave "
    "something to be learnt?",
    source="Chen et al., SimCLR, ICML 2020, section 3.1 and figure 5 (ResNet-50, ImageNet, linear evaluation; a matrix of "
    "pairs, "
    "of which crop with color is the best; no number is repeated here)",
    published_as="published",
    variants=(
        *(Variant(name_of(name), "simclr", options(name)) for name in SINGLE),
        *(Variant(name_of(*pair), "simclr", options(*pair)) for pair in PAIRS),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    data=DATA,
    notes="All views are flipped with a probability of a half. Both views are augmented; the paper changes one of them only. "
    "Color: "
    "jitter of strength 0.5; gray: with a probability of 0.5; rotate: by 90, 180 or 270 degrees with a probability of 0.75.",
)

if __name__ == "__main__":
    run(STUDY)
