"""What do DINO's centering and sharpening do, one at a time? Caron et al. 2021, section 5.3 and figure 7.

python -m experiments.studies.dino_collapse
"""

import math

from experiments.studies.color import DATA, RATE
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Measurements, Results, Study, Variant, every_seed

PROTOTYPES = 256
BOTH, NO_CENTERING, NO_SHARPENING = "both", "no centering", "no sharpening"


def divergence(measurements: Measurements) -> str:
    """The last KL divergence of the student from the teacher: cross entropy less the teacher's entropy."""
    gap = measurements.values("loss") - measurements.values("teacher_entropy")
    return f"{gap.mean():.2f}"


def report(results: Results, name: str) -> str:
    """The numbers that tell a collapse."""
    m = results[name]
    return (
        f"{name}: teacher's entropy {m.text('teacher_entropy', 2)}, KL {divergence(m)}, "
        f"unevenness {m.text('teacher_kl_uniform', 2)}, linear {m.text('linear')}"
    )


def claims(results: Results) -> list[Claim]:
    """What the paper concludes from the figure."""
    top = math.log(PROTOTYPES)
    both, centering, sharpening = (
        list(
            zip(
                results[name].values("teacher_entropy"),
                results[name].values("teacher_kl_uniform"),
                strict=True,
            )
        )
        for name in (BOTH, NO_CENTERING, NO_SHARPENING)
    )
    return [
        Claim(
            "Without centering one dimension takes over: the entropy goes to 0.",
            every_seed(entropy < 0.05 * top and uneven > 0.8 * top for entropy, uneven in centering),
            report(results, NO_CENTERING),
        ),
        Claim(
            f"Without sharpening the output is uniform: the entropy goes to log K = {top:.2f}.",
            every_seed(entropy > 0.99 * top for entropy, _ in sharpening),
            report(results, NO_SHARPENING),
        ),
        Claim(
            "Both together balance: the entropy stays between, and no prototype takes all.",
            every_seed(0.02 * top < entropy < 0.95 * top and uneven < 0.5 * top for entropy, uneven in both),
            report(results, BOTH),
        ),
    ]


STUDY = Study(
    name="dino_collapse",
    title="DINO: centering and sharpening, one at a time",
    question="The teacher's output is centred, against one dimension taking over, and sharpened, against "
    "the uniform distribution. The "
    "paper switches off one of them and watches the teacher's entropy.",
    source="Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, section "
    "5.3 and figure 7 (ViT-S/16, "
    "ImageNet; curves without a table: the entropy goes to 0 without centering and to log K without "
    "sharpening)",
    published_as="published entropy, share of log K",
    variants=(
        Variant(BOTH, "dino"),
        Variant(NO_CENTERING, "dino", {"method.centering": False}, 0.0),
        Variant(NO_SHARPENING, "dino", {"method.temperatures.teacher": 0.1}, 1.0),
    ),
    claims=claims,
    columns={
        "kNN": "knn",
        "linear": "linear",
        "teacher's entropy": "teacher_entropy",
        "KL from uniform": "teacher_kl_uniform",
    },
    curves=(
        ("teacher_entropy", f"teacher's entropy (log K = {math.log(PROTOTYPES):.2f})"),
        ("teacher_kl_uniform", "KL of the mean output from uniform"),
        ("loss", "cross entropy"),
    ),
    common={
        "method.head.prototypes": PROTOTYPES,
        "method.head.hidden_dim": 128,
        "views.local_count": 0,
        "optimizer.freeze": (),
        "optimizer.learning_rate": RATE,
    },
    data=DATA,
    notes="No sharpening: the teacher's temperature is the student's, 0.1. KL from uniform is that of the "
    "batch's mean output: 0 when all "
    "prototypes are used alike, log K when one takes every image. Two views, no local crops.",
)

if __name__ == "__main__":
    run(STUDY)
