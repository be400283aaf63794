"""What keeps SimSiam from collapse? Chen & He 2021, figure 2, tables 1 and 2, sections 4.4 and 5.2.

python -m experiments.studies.simsiam_ablation
"""

from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, is_better

IMAGES = 64 * 500
"""Seen by every run, whatever its batch size."""
RATE = 1e-2
DECAYED = {"optimizer.constant_lr": ()}
BASELINE, CONSTANT = "baseline", "predictor's rate not decayed"
NO_STOP, NO_PREDICTOR, FIXED = "no stop-gradient", "no predictor", "fixed random predictor"
EXPECTATION = "no predictor, average of each image"
BATCHES = {32: None, 128: 67.3, 256: 68.1}


def batch(size: int) -> str:
    """Name of the variant with another batch size."""
    return f"batch size {size}"


def collapsed(results: Results, name: str) -> bool:
    """Whether all outputs have become one: the views agree, and their directions hardly vary over the batch."""
    return results[name].mean("loss") < -0.99 and results[name].mean("embedding_std") < 0.1


def report(results: Results, name: str) -> str:
    """The numbers that tell a collapse."""
    m = results[name]
    return f"{name}: loss {m.text('loss', 2)}, std {m.text('embedding_std', 2)}, linear {m.text('linear')}"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes."""
    base, constant = results[BASELINE], results[CONSTANT]
    sizes = [results[batch(size)] for size in BATCHES] + [constant]
    drop = max(m.mean("linear") for m in sizes) - min(m.mean("linear") for m in sizes)
    gain = constant.mean("linear") - base.mean("linear")
    return [
        Claim(
            "Without stop-gradient the outputs collapse: the loss reaches −1 and the accuracy falls (figure "
            "2).",
            collapsed(results, NO_STOP) and not collapsed(results, BASELINE),
            f"{report(results, NO_STOP)}; {report(results, BASELINE)}; untrained {base.text('random_linear')}",
        ),
        Claim(
            "Without predictor too (table 1a).",
            collapsed(results, NO_PREDICTOR),
            report(results, NO_PREDICTOR),
        ),
        Claim(
            "With a predictor fixed at its random start training fails, but not by collapse: the loss stays "
            "high (table 1b).",
            is_better(base, results[FIXED], "linear") and results[FIXED].mean("loss") > -0.5,
            report(results, FIXED),
        ),
        Claim(
            "A predictor whose learning rate is not decayed works as well or better (table 1c).",
            not collapsed(results, CONSTANT) and gain > -(base.spread("linear") + constant.spread("linear")),
            f"linear {constant.text('linear')} against {base.text('linear')}",
        ),
        Claim(
            "It works over a wide range of batch sizes (table 2; here: linear accuracies within 3 points).",
            drop < 3.0,
            f"largest difference between batch sizes 32 to 256: {drop:.1f}",
        ),
        Claim(
            "Keeping an average of each image's representation does what the predictor does (section 5.2).",
            not collapsed(results, EXPECTATION)
            and is_better(results[EXPECTATION], results[NO_PREDICTOR], "linear"),
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
        *(
            Variant(
                batch(size),
                "simsiam",
                {
                    "batch_size": size,
                    "steps": IMAGES // size,
                    "optimizer.learning_rate": RATE * (size / 64) ** 0.5,
                },
                published,
            )
            for size, published in BATCHES.items()
        ),
        Variant("no BatchNorm in the heads", "simsiam", {"method.heads.batch_norm": "none"}, 34.6),
        Variant("one direction", "simsiam", {"method.symmetric": False}, 64.8),
        Variant("targets of 10 steps at a time", "simsiam", {"method.alternate_steps": 10}, 68.7),
        Variant(
            EXPECTATION,
            "simsiam",
            {
                **DECAYED,
                "method.predictor": "none",
                "method.expectation_decay": 0.8,
                "method.num_examples": 10_000,
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
    common={"optimizer.learning_rate": RATE, "steps": IMAGES // 64, "method.heads.batch_norm": "hidden"},
    notes="Below `predictor's rate not decayed` every row but the last has that predictor, as in the paper. "
    "All rows have BatchNorm in the hidden "
    "layers of the heads alone (67.4 in the paper's table 3b): behind a BatchNorm on the output, as in the "
    "method, the outputs of a batch "
    "cannot all be the same, and in runs as short as these removing the stop-gradient only slowed learning "
    "down. AdamW in place of SGD; its "
    "rate goes with the square root of the batch size, and every run sees as many images. The std is that "
    "of the unit-length "
    "predictions over the batch, times √d: 0 when all are one. For table 1b the rule first asked for that "
    "std, which a fixed head "
    "sets by itself; it was changed after the runs to the loss, of which the paper speaks.",
)

if __name__ == "__main__":
    run(STUDY)
