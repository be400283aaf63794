"""Masked distillation in stages: does the first teacher matter? Liu et al. 2024.

python -m experiments.studies.staged_distillation
"""

from pathlib import Path

from experiments.studies.color import DATA, VIT
from experiments.studies.command import run
from ssl_jax.cli.export import export_encoder
from ssl_jax.cli.pretrain import pretrain
from ssl_jax.cli.study import Claim, Results, Study, Variant, difference, higher, opposite
from ssl_jax.cli.study_runs import run_config

FOLDER = Path("runs/staged_distillation")
FIRST = {"random": "a random teacher", "mae": "MAE"}
WEIGHTS = "runs/staged_distillation/{name}-{{seed}}/exported/encoder.safetensors"


def name_of(first: str, stage: int) -> str:
    """Name of a variant."""
    return f"from {FIRST[first]}, stage {stage}"


def teacher(first: str, stage: int) -> str:
    """Path of the encoder that teaches a stage; ``""``: random weights."""
    if stage == 1 and first == "random":
        return ""
    return WEIGHTS.format(name=first if stage == 1 else f"{first}_1")


def prepare(seed: int) -> None:
    """Train the teachers: MAE, and the first stage from each teacher."""
    stages = [Variant("mae", "mae", {"method.mask_ratio": 0.75})]
    stages += [
        Variant(f"{first}_1", "dbot", {"method.mask_ratio": 0.75, "method.teacher": teacher(first, 1)})
        for first in FIRST
    ]
    for variant in stages:
        folder = FOLDER / f"{variant.name}-{seed}"
        if not Path(WEIGHTS.format(name=variant.name).format(seed=seed)).exists():
            # Seeds of teachers are other ones than those of students.
            pretrain(run_config(STUDY, variant, seed) | {"seed": seed + 100}, folder)
            export_encoder(folder, folder / "exported")


def claims(results: Results) -> list[Claim]:
    """What the paper concludes from its tables 1 and 2."""
    first = difference(results[name_of("mae", 1)], results[name_of("random", 1)], "linear")
    second = difference(results[name_of("mae", 2)], results[name_of("random", 2)], "linear")
    return [
        Claim(
            "After two stages it makes no difference where they began: less than 2 points.",
            second.is_within(2.0),
            f"linear, from MAE less from a random teacher: {second.text} after two stages, {first.text} after one",
        ),
        higher(
            "A second stage is better than the first, from a random teacher.",
            results[name_of("random", 2)],
            results[name_of("random", 1)],
            "linear",
        ),
        Claim(
            "From MAE a second stage brings nothing more.",
            opposite(difference(results[name_of("mae", 2)], results[name_of("mae", 1)], "linear").exceeds()),
            f"linear {difference(results[name_of('mae', 2)], results[name_of('mae', 1)], 'linear').text}",
        ),
    ]


STUDY = Study(
    name="staged_distillation",
    title="Masked distillation in stages: does the first teacher matter?",
    question="dBOT predicts what a frozen teacher makes of hidden patches, and makes its student the next teacher. If the "
    "first one "
    "does not matter, a random network is as good as a trained one.",
    source="Liu et al., Exploring Target Representations for Masked Autoencoders, ICLR 2024, tables 1 and 2 (ImageNet, "
    "fine-tuned; "
    "no number of theirs is repeated here)",
    published_as="published",
    variants=tuple(
        Variant(
            name_of(first, stage),
            "dbot",
            {"method.mask_ratio": 0.75, "method.teacher": teacher(first, stage)},
            line=f"from {FIRST[first]}",
            x=stage,
        )
        for first in FIRST
        for stage in (1, 2)
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    common=VIT,
    x_label="stage",
    x_scale="linear",
    data=DATA,
    prepare=prepare,
    notes="A vision transformer of 3 blocks, 64 wide, 64 patches of 4 pixels, three quarters hidden. Every stage sees as "
    "many images, "
    "so two stages cost twice as much as one. Deviations over seeds are those of teachers and students together.",
)

if __name__ == "__main__":
    run(STUDY)
