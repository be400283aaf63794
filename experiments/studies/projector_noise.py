"""Does a projector protect features from augmentation that goes too far? Bordes et al. 2023, Xue et al. 2024.

python -m experiments.studies.projector_noise
"""

from typing import Any

from experiments.studies.color import DATA, projector_output
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, contrast, difference, differences

STRENGTHS: dict[str, dict[str, Any]] = {
    "weak": {
        "views.area": (0.5, 1.0),
        "views.jitter": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.025},
        "views.grayscale_prob": 0.0,
    },
    "usual": {},
    "strong": {
        "views.area": (0.08, 0.4),
        "views.jitter": {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5},
        "views.grayscale_prob": 0.5,
    },
}
LAYERS = {2: "projector", 0: "none"}


def name_of(strength: str, layers: int) -> str:
    """Name of a variant."""
    return f"{strength}, {LAYERS[layers]}"


def claims(results: Results) -> list[Claim]:
    """What the papers say."""
    worth = {
        strength: difference(results[name_of(strength, 2)], results[name_of(strength, 0)], "linear")
        for strength in STRENGTHS
    }
    more = contrast(
        [
            (1.0, results[name_of("strong", 2)]),
            (-1.0, results[name_of("strong", 0)]),
            (-1.0, results[name_of("weak", 2)]),
            (1.0, results[name_of("weak", 0)]),
        ],
        "linear",
    )
    inside = differences(results[name_of("strong", 2)], results[name_of("weak", 2)], "linear", "after_linear")
    evidence = ", ".join(f"{strength} {gap.text}" for strength, gap in worth.items())
    return [
        Claim(
            "With the usual augmentation a projector helps.",
            worth["usual"].exceeds(),
            f"points of linear accuracy: {evidence}",
        ),
        Claim(
            "It helps more, the stronger the augmentation.",
            more.exceeds(),
            f"points of linear accuracy: {evidence}; strong less weak: {more.text}",
        ),
        Claim(
            "The stronger the augmentation, the more is lost between the encoder and the end of the projector.",
            inside.exceeds(),
            f"points lost, strong less weak: {inside.text}",
        ),
    ]


STUDY = Study(
    name="projector_noise",
    title="Does a projector protect features from augmentation?",
    question="Augmentation destroys some of what a task needs. The projector may take that loss on itself, so that the layer "
    "below "
    "keeps it: then it should be worth more, the stronger the augmentation is.",
    source="Bordes et al., Guillotine Regularization, TMLR 2023; Xue et al., Investigating the Benefits of Projection Head for "
    "Representation Learning, ICLR 2024 (no number of theirs is repeated here)",
    published_as="published",
    variants=tuple(
        Variant(name_of(strength, layers), "simclr", {"method.projector_layers": layers, **changes})
        for strength, changes in STRENGTHS.items()
        for layers in LAYERS
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "linear after": "after_linear"},
    extra=projector_output,
    data=DATA,
    notes="Weak: crops of half the area and more, jitter of a quarter of the usual strength, no gray; strong: crops of 0.08 "
    "to 0.4 "
    "of the area, jitter of brightness, contrast and saturation up to 1 and hue to 0.5, half the views gray.",
)

if __name__ == "__main__":
    run(STUDY)
