"""Which choices make a vision transformer train well without labels? Chen et al. 2021, Caron et al. 2021, Touvron et al. 2021.

python -m experiments.studies.vit_practice
"""

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, all_of, compare, difference, higher

BASE, MOVING, FINE = "MoCo v3", "trained patch projection", "patches of 4"
DROP, SCALE = "stochastic depth 0.1", "LayerScale 0.1"
PLAIN, NORM = "DINO", "DINO, BatchNorm in the head"
VIT = {"encoder.width": 64, "encoder.depth": 3, "encoder.heads": 2, "encoder.patch": 8}


def claims(results: Results) -> list[Claim]:
    """What the papers recommend."""
    base = results[BASE]
    regular = {name: difference(base, results[name], "linear") for name in (DROP, SCALE)}
    return [
        Claim(
            "A patch projection that stays random is as good as a trained one (MoCo v3, section 4.1).",
            difference(base, results[MOVING], "linear").stays_above(),
            f"linear {compare(base, results[MOVING], 'linear')}",
        ),
        higher("Smaller patches are better (DINO, figure 5).", results[FINE], base, "linear"),
        Claim(
            "In a run this short and a network this small neither stochastic depth nor LayerScale is needed.",
            all_of(gap.stays_above() for gap in regular.values()),
            "linear, MoCo v3 less: " + ", ".join(f"{name} {gap.text}" for name, gap in regular.items()),
        ),
        Claim(
            "DINO's head needs no BatchNorm (DINO, table 13).",
            difference(results[PLAIN], results[NORM], "linear").stays_above(),
            f"linear {compare(results[PLAIN], results[NORM], 'linear')}",
        ),
    ]


STUDY = Study(
    name="vit_practice",
    title="Vision transformers: which choices matter?",
    question="A frozen patch projection, small patches, no BatchNorm, stochastic depth, LayerScale: each paper recommends "
    "some. What "
    "does each bring in a small transformer?",
    source="Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021; Caron et al., DINO, "
    "ICCV "
    "2021; Touvron et al., Going deeper with Image Transformers, ICCV 2021 (ImageNet; no number of theirs is repeated here)",
    published_as="published",
    variants=(
        Variant(BASE, "moco_v3"),
        Variant(MOVING, "moco_v3", {"encoder.freeze_patch": False}),
        Variant(FINE, "moco_v3", {"encoder.patch": 4}),
        Variant(DROP, "moco_v3", {"encoder.drop_path": 0.1}),
        Variant(SCALE, "moco_v3", {"encoder.layer_scale": 0.1}),
        Variant(PLAIN, "dino", {"views.local_count": 0}),
        Variant(NORM, "dino", {"views.local_count": 0, "method.head_batch_norm": True}),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    common=VIT,
    arguments="color32,vit_micro,short",
    data=DATA,
    notes="Three blocks, 64 wide, patches of 8 pixels unless said otherwise: 16 of an image, where patches of 4 make 64, "
    "four times "
    "the compute.",
)

if __name__ == "__main__":
    run(STUDY)
