"""Does BYOL need color augmentation less than SimCLR? Grill et al. 2020, section 5 and figure 3b.

python -m experiments.studies.crop_or_color
"""

from typing import Any

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, contrast, difference, higher

METHODS = {"simclr": "SimCLR", "byol": "BYOL"}
CHANGES: dict[str, dict[str, Any]] = {
    "all": {},
    "no color": {"views.jitter.prob": 0.0, "views.grayscale_prob": 0.0},
    "no crop": {"views.area": (1.0, 1.0), "views.ratio": (1.0, 1.0)},
}
PUBLISHED = {
    ("byol", "all"): 72.5,
    ("byol", "no color"): 63.4,
    ("simclr", "all"): 67.9,
    ("simclr", "no color"): 45.7,
}


def name_of(method: str, change: str) -> str:
    """Name of a variant."""
    return f"{METHODS[method]}, {change}"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes."""

    def of(method: str, change: str) -> Any:
        return results[name_of(method, change)]

    more = contrast(
        [
            (1.0, of("simclr", "all")),
            (-1.0, of("simclr", "no color")),
            (-1.0, of("byol", "all")),
            (1.0, of("byol", "no color")),
        ],
        "linear",
    )
    lost = {
        (m, c): difference(of(m, "all"), of(m, c), "linear").text
        for m in METHODS
        for c in ("no color", "no crop")
    }
    return [
        Claim(
            "SimCLR loses more without color than BYOL (there: 22 points against 9).",
            more.exceeds(),
            f"points of linear accuracy lost: SimCLR {lost['simclr', 'no color']}, BYOL {lost['byol', 'no color']}; more: "
            f"{more.text}",
        ),
        higher(
            "BYOL needs crops more than color: without color it is better than without crops.",
            of("byol", "no color"),
            of("byol", "no crop"),
            "linear",
        ),
        higher("SimCLR needs color.", of("simclr", "all"), of("simclr", "no color"), "linear"),
        higher("SimCLR needs crops.", of("simclr", "all"), of("simclr", "no crop"), "linear"),
    ]


STUDY = Study(
    name="crop_or_color",
    title="Crops or color: what do SimCLR and BYOL need?",
    question="Crops of one image have similar colors, from which a contrastive loss can tell images apart, so SimCLR needs "
    "color "
    "augmentation. BYOL keeps what the target knows. Is it less sensitive?",
    source="Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, section 5, figure 3b and table 18 (ResNet-50, ImageNet, 300 "
    "epochs, linear evaluation; SimCLR as they reproduced it)",
    published_as="published, top-1",
    variants=tuple(
        Variant(name_of(method, change), method, changes, PUBLISHED.get((method, change)))
        for method in METHODS
        for change, changes in CHANGES.items()
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    data=DATA,
    notes="No color: neither jitter nor grayscale; BYOL's solarization stays. No crop: whole images, still flipped.",
)

if __name__ == "__main__":
    run(STUDY)
