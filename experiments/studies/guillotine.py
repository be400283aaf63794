"""At which layer should a network be cut after training? Bordes et al. 2023.

python -m experiments.studies.guillotine
"""

from experiments.studies.color import DATA, projector_layers
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, all_of, differences, within_runs

SIMCLR, TURNED, VICREG = "SimCLR", "SimCLR, turned views", "VICReg"


def claims(results: Results) -> list[Claim]:
    """What the paper says of the projector's layers."""
    simclr, turned, vicreg = (results[name] for name in (SIMCLR, TURNED, VICREG))
    lost = {name: within_runs(results[name], "linear", "after_linear") for name in (SIMCLR, VICREG)}
    first = {name: within_runs(results[name], "linear", "hidden_linear") for name in (SIMCLR, VICREG)}
    more = within_runs(simclr, "rotation", "after_rotation")
    task = within_runs(simclr, "linear", "after_linear")
    misaligned = differences(turned, simclr, "rotation", "after_rotation")
    return [
        Claim(
            "The classes are read better from the encoder than from the end of the projector.",
            all_of(gap.exceeds() for gap in lost.values()),
            "points of linear accuracy lost: "
            + ", ".join(f"{name} {gap.text}" for name, gap in lost.items()),
        ),
        Claim(
            "Already the first layer of the projector loses some of it.",
            all_of(gap.exceeds() for gap in first.values()),
            "points lost: " + ", ".join(f"{name} {gap.text}" for name, gap in first.items()),
        ),
        Claim(
            "How an image was turned, which the loss does not ask for, is lost in the projector too.",
            more.exceeds(),
            f"points lost: rotation {more.text}, classes {task.text}",
        ),
        Claim(
            "Where views are turned, so that the task contradicts the training, cutting the projector off is worth more.",
            misaligned.exceeds(),
            f"points of rotation lost with turned views less without: {misaligned.text}; encoder "
            f"{turned.text('rotation')} against {simclr.text('rotation')}, VICReg {vicreg.text('rotation')}",
        ),
    ]


STUDY = Study(
    name="guillotine",
    title="Where to cut a network off after training?",
    question="The projector is thrown away, and that gains more than ten points on ImageNet. Which of its layers loses what, "
    "and is "
    "the loss larger for tasks that the training contradicts?",
    source="Bordes et al., Guillotine Regularization: Why removing layers is needed to improve generalization in "
    "self-supervised "
    "learning, TMLR 2023 (figures of accuracy by layer; no number is repeated here)",
    published_as="published",
    variants=(
        Variant(SIMCLR, "simclr", {"method.projector_layers": 2}),
        Variant(TURNED, "simclr", {"method.projector_layers": 2, "views.rotate_prob": 0.75}),
        Variant(VICREG, "vicreg", {"method.projector_layers": 2}),
    ),
    claims=claims,
    columns={
        "linear": "linear",
        "linear, hidden": "hidden_linear",
        "linear, after": "after_linear",
        "rotation": "rotation",
        "rotation, hidden": "hidden_rotation",
        "rotation, after": "after_rotation",
    },
    extra=projector_layers,
    rotation=True,
    data=DATA,
    notes="`hidden`: behind the first layer of the projector, its BatchNorm and ReLU; `after`: the output of the projector. "
    "Rotation: accuracy of a linear head that tells by which of four angles an image was turned. Turned views: by 90, 180 or "
    "270 "
    "degrees with a probability of 0.75, so that all four angles are as likely.",
)

if __name__ == "__main__":
    run(STUDY)
