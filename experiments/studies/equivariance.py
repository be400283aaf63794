"""Rotation: should features forget it, know it, or neither? Dangovski et al. 2022.

python -m experiments.studies.equivariance
"""

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, all_of, compare, difference, higher

NEITHER, FORGOTTEN, KNOWN, ALONE = "neither", "forgotten", "known", "rotation alone"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes from its figure 1 and table 1."""
    neither, forgotten, known, alone = (results[name] for name in (NEITHER, FORGOTTEN, KNOWN, ALONE))
    return [
        higher("Features that must tell rotations are better.", known, neither, "linear"),
        higher("Features that must forget rotations are worse.", neither, forgotten, "linear"),
        higher("Telling rotations alone is worse than both together.", known, alone, "linear"),
        Claim(
            "Rotation is read better from features that must tell it, and worse from those that must forget it.",
            all_of(
                difference(*pair, "rotation").exceeds() for pair in ((known, neither), (neither, forgotten))
            ),
            f"rotation: known {compare(known, neither, 'rotation')}; forgotten {compare(forgotten, neither, 'rotation')}",
        ),
    ]


STUDY = Study(
    name="equivariance",
    title="Rotation: should features forget it or know it?",
    question="Views that are turned teach features to forget rotation; a head that tells rotations teaches them to keep it. "
    "Which is "
    "better, beside SimCLR?",
    source="Dangovski et al., Equivariant Contrastive Learning, ICLR 2022, figure 1 and table 1 (ResNet-18, CIFAR-10; no "
    "number of "
    "theirs is repeated here)",
    published_as="published",
    variants=(
        Variant(NEITHER, "essl", {"method.transformation_weight": 0.0}),
        Variant(FORGOTTEN, "essl", {"method.transformation_weight": 0.0, "views.rotate_prob": 0.75}),
        Variant(KNOWN, "essl", {"method.transformation_weight": 0.4}),
        Variant(ALONE, "rotation"),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "rotation": "rotation"},
    rotation=True,
    data=DATA,
    notes="The base is SimCLR. Known: all four rotations of a third, smaller crop are told apart, with a weight of 0.4, "
    "which makes "
    "a step dearer. All runs make as many steps.",
)

if __name__ == "__main__":
    run(STUDY)
