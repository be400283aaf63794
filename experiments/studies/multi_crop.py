"""What do small crops bring, for the compute that they cost? SwAV, Caron et al. 2020; DINO, Caron et al. 2021.

python -m experiments.studies.multi_crop
"""

from experiments.studies.color import DATA, STEPS
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Difference, Results, Study, Variant, difference

METHODS = {"swav": "SwAV", "dino": "DINO"}
LOCAL = (0, 6)
PUBLISHED = {("swav", 0): 70.1, ("swav", 6): 74.6}


def cost(method: str, local: int) -> float:
    """Pixels that pass through networks a step, a backward pass counting as two; small crops have a quarter of the pixels."""
    student, teacher = 3 * (2 + local / 4), 2 if method == "dino" else 0
    return student + teacher


def steps_for(method: str, local: int) -> int:
    """Steps that cost as much as ``STEPS`` of two large crops."""
    return round(STEPS * cost(method, 0) / cost(method, local))


def name_of(method: str, local: int, *, equal: str) -> str:
    """Name of a variant."""
    crops = f"2 + {local} crops" if local else "2 crops"
    return f"{METHODS[method]}, {crops}" + (", equal compute" if equal == "compute" and local else "")


def gained(results: Results, method: str, equal: str) -> Difference:
    """Points of kNN gained by the most small crops."""
    return difference(
        results[name_of(method, LOCAL[-1], equal=equal)], results[name_of(method, 0, equal="steps")]
    )


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    texts = {
        "steps": "with as many steps, small crops are a gain (SwAV there: 4.5 points)",
        "compute": "with as much compute they are, too",
    }
    return [
        Claim(
            f"{label}: {text}.",
            gained(results, method, equal).exceeds(),
            f"points of kNN: {gained(results, method, equal).text}",
        )
        for method, label in METHODS.items()
        for equal, text in texts.items()
    ]


STUDY = Study(
    name="multi_crop",
    title="Multi-crop: what do small crops bring for their cost?",
    question="Besides two large crops SwAV and DINO show the student small ones, which are cheap. Are they a gain at equal "
    "steps, and at equal compute?",
    source="facebookresearch/swav, README: ResNet-50, ImageNet, 400 epochs, linear evaluation, 2 crops of 224 pixels "
    "without and with 6 of 96 (Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, "
    "NeurIPS 2020)",
    published_as="published, top-1",
    variants=tuple(
        Variant(
            name_of(method, local, equal=equal),
            method,
            {"views.local_count": local, "steps": STEPS if equal == "steps" else steps_for(method, local)},
            PUBLISHED.get((method, local)) if equal == "steps" else None,
            line=f"{METHODS[method]}, equal {equal}",
            x=2 + local,
        )
        for method in METHODS
        for equal in ("steps", "compute")
        for local in LOCAL
        if local or equal == "steps"
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    x_label="crops",
    data=DATA,
    notes="Compute: pixels through the networks, a backward pass counting as two forward passes; a small crop has 16 pixels a "
    "side, a large one 32. DINO's teacher sees the large crops only.",
)

if __name__ == "__main__":
    run(STUDY)
