"""What do small crops bring, for the compute that they cost? SwAV, Caron et al. 2020; DINO, Caron et al. 2021.

python -m experiments.studies.multi_crop
"""

from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Measurements, Results, Study, Variant, is_better

METHODS = {"swav": "SwAV", "dino": "DINO"}
LOCAL = (0, 2, 6)
PUBLISHED = {("swav", 0): 70.1, ("swav", 6): 74.6}
STEPS = 800


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


def gain(results: Results, method: str, equal: str) -> tuple[bool, str]:
    """Whether the most small crops are better than none, and the numbers."""
    none: Measurements = results[name_of(method, 0, equal="steps")]
    most = results[name_of(method, LOCAL[-1], equal=equal)]
    return is_better(most, none), f"{METHODS[method]} {most.text('knn')} against {none.text('knn')}"


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    verdicts = {equal: [gain(results, method, equal) for method in METHODS] for equal in ("steps", "compute")}
    return [
        Claim(
            "With as many steps, small crops are a gain for both methods (SwAV there: 4.5 points).",
            all(holds for holds, _ in verdicts["steps"]),
            "kNN: " + "; ".join(text for _, text in verdicts["steps"]),
        ),
        Claim(
            "With as much compute they are, too.",
            all(holds for holds, _ in verdicts["compute"]),
            "kNN: " + "; ".join(text for _, text in verdicts["compute"]),
        ),
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
    notes="Compute: pixels through the networks, a backward pass counting as two forward passes; a small crop has 14 pixels a "
    "side, a large one 28. DINO's teacher sees the large crops only.",
)

if __name__ == "__main__":
    run(STUDY)
