"""What keeps SimSiam from collapse? Chen & He 2021, figure 2, tables 1 and 2, sections 4.4 and 5.2.

python -m experiments.studies.simsiam_ablation
"""

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import (
    Claim,
    Measurements,
    Results,
    Study,
    Variant,
    all_of,
    compare,
    difference,
    every_seed,
    opposite,
)

RATE = 1e-2
DECAYED = {"optimizer.constant_lr": ()}
BASELINE, CONSTANT = "baseline", "predictor's rate not decayed"
NO_STOP, NO_PREDICTOR, FIXED = "no stop-gradient", "no predictor", "fixed random predictor"
EXPECTATION = "no predictor, average of each image"
NO_NORM = "no BatchNorm in the heads"


def collapsed(measured: Measurements) -> list[bool]:
    """Tell of each seed whether all outputs have become one: views agree, and directions hardly vary over the batch."""
    values = zip(measured.values("loss"), measured.values("embedding_std"), strict=True)
    return [bool(loss < -0.99 and std < 0.1) for loss, std in values]


def report(results: Results, name: str) -> str:
    """The numbers that tell a collapse."""
    m = results[name]
    return f"{name}: loss {m.text('loss', 2)}, std {m.text('embedding_std', 2)}, linear {m.text('linear')}"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes."""
    base, constant, fixed = (results[name] for name in (BASELINE, CONSTANT, FIXED))
    expected, none = results[EXPECTATION], results[NO_PREDICTOR]
    stays = opposite(every_seed(collapsed(base)))
    return [
        Claim(
            "Without stop-gradient the outputs collapse: the loss reaches −1 and the accuracy falls (figure 2).",
            all_of([every_seed(collapsed(results[NO_STOP])), stays]),
            f"{report(results, NO_STOP)}; {report(results, BASELINE)}; untrained {base.text('random_linear')}",
        ),
        Claim(
            "Without predictor too (table 1a).",
            every_seed(collapsed(none)),
            report(results, NO_PREDICTOR),
        ),
        Claim(
            "With a predictor fixed at its random start training fails, but not by collapse: the loss stays high (table 1b).",
            all_of([difference(base, fixed, "linear").exceeds(), every_seed(fixed.values("loss") > -0.5)]),
            report(results, FIXED),
        ),
        Claim(
            "A predictor whose learning rate is not decayed works as well or better (table 1c).",
            all_of(
                [
                    opposite(every_seed(collapsed(constant))),
                    difference(constant, base, "linear").stays_above(),
                ]
            ),
            f"linear {compare(constant, base, 'linear')}",
        ),
        Claim(
            "Without BatchNorm in the heads it does not collapse, and learns less (table 3a: 34.6).",
            all_of(
                [
                    opposite(every_seed(collapsed(results[NO_NORM]))),
                    difference(constant, results[NO_NORM], "linear").exceeds(),
                ]
            ),
            f"linear {compare(constant, results[NO_NORM], 'linear')}",
        ),
        Claim(
            "Keeping an average of each image's representation does what the predictor does (section 5.2).",
            all_of(
                [opposite(every_seed(collapsed(expected))), difference(expected, none, "linear").exceeds()]
            ),
            report(results, EXPECTATION),
        ),
    ]


STUDY = Study(
    name="simsiam_ablation",
    title="SimSiam: what keeps it from collapse?",
    question="Nothing repels in SimSiam, so a constant output is the best answer. The paper removes one "
    "part at a time.",
    source="Chen & He, Exploring Simple Siamese Representation Learning, CVPR 2021, figure 2, tables 1 to "
    "3, sections 4.6 and 5.2 "
    "(ResNet-50, ImageNet, 100 epochs, linear evaluation)",
    published_as="published, top-1",
    variants=(
        Variant(BASELINE, "simsiam", DECAYED, 67.7),
        Variant(NO_STOP, "simsiam", {**DECAYED, "method.stop_gradient": False}, 0.1),
        Variant(NO_PREDICTOR, "simsiam", {**DECAYED, "method.predictor": "none"}, 0.1),
        Variant(FIXED, "simsiam", {**DECAYED, "method.predictor": "fixed"}, 1.5),
        Variant(CONSTANT, "simsiam", {}, 68.1),
        Variant(NO_NORM, "simsiam", {"method.heads.batch_norm": "none"}, 34.6),
        Variant(
            EXPECTATION,
            "simsiam",
            {
                **DECAYED,
                "method.predictor": "none",
                "method.expectation_decay": 0.8,
                "method.num_examples": 50_000,
            },
            55.0,
        ),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "loss": "loss", "std of predictions": "embedding_std"},
    curves=(
        ("loss", "loss"),
        ("embedding_std", "std of predictions (1: spread evenly)"),
        ("alignment", "squared distance of the two views"),
    ),
    common={"optimizer.learning_rate": RATE, "method.heads.batch_norm": "hidden"},
    data=DATA,
    notes="Below `predictor's rate not decayed` every row but the last has that predictor, as in the paper. "
    "All rows have BatchNorm in the hidden "
    "layers of the heads alone (67.4 in the paper's table 3b): behind a BatchNorm on the output, as in the "
    "method, the outputs of a batch "
    "cannot all be the same, and in runs as short as these removing the stop-gradient only slowed learning "
    "down. AdamW in place of SGD. The std is that "
    "of the unit-length "
    "predictions over the batch, times √d: 0 when all are one. For table 1b the rule first asked for that "
    "std, which a fixed head "
    "sets by itself; it was changed after the runs to the loss, of which the paper speaks.",
)

if __name__ == "__main__":
    run(STUDY)
