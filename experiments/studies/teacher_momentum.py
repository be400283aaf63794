"""How fast should BYOL's teacher follow the student? Grill et al. 2020, table 5a.

python -m experiments.studies.teacher_momentum
"""

from experiments.studies.color import DATA, STEPS
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, all_of, compare, difference, gain

DECAYS = {
    "1 (a frozen random network)": (1.0, 18.8),
    "0.999": (0.999, 69.8),
    "0.99": (0.99, 72.5),
    "0.9": (0.9, 68.4),
    "0": (0.0, 0.3),
}


def claims(results: Results) -> list[Claim]:
    """What the paper concludes from the table."""
    frozen, copied = results["1 (a frozen random network)"], results["0"]
    names = ("0.999", "0.99", "0.9")
    over = {name: difference(results[name], frozen) for name in names}
    best = max((results[name] for name in names), key=lambda m: m.mean("knn"))
    learnt = gain(frozen)
    return [
        Claim(
            "A moving average with a decay between 0.9 and 0.999 beats a frozen random teacher.",
            all_of(gap.exceeds() for gap in over.values()),
            "kNN over the frozen teacher: " + ", ".join(f"{name} {gap.text}" for name, gap in over.items()),
        ),
        Claim(
            "Predicting a frozen random network is already better than not training.",
            learnt.exceeds(),
            f"kNN {frozen.text('knn')} against {frozen.text('random_knn')} of the same encoders untrained: {learnt.text}",
        ),
        Claim(
            "A teacher that is the student of the step before (decay 0) destroys the representation: 10 points and more.",
            difference(best, copied).exceeds(10.0),
            f"kNN {compare(best, copied)}; spread of the predictions {copied.text('embedding_std', 2)}",
        ),
        Claim(
            "0.99 is better than 0.9 (there: 4 points).",
            difference(results["0.99"], results["0.9"]).exceeds(),
            f"kNN {compare(results['0.99'], results['0.9'])}",
        ),
    ]


STUDY = Study(
    name="teacher_momentum",
    title="BYOL: how fast should the teacher follow?",
    question="The teacher is an exponential moving average of the student. With decay 1 it stays a random "
    "network, with 0 it is the "
    "student of the step before; the paper finds a trade-off in between.",
    source="Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, table 5a (ResNet-50, ImageNet, 300 "
    "epochs, linear evaluation)",
    published_as="published, top-1",
    variants=tuple(
        Variant(
            f"{name}",
            "byol",
            {"method.decay": decay, "method.decay_steps": None if decay in (0.0, 1.0) else STEPS},
            published,
        )
        for name, (decay, published) in DECAYS.items()
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "std of predictions": "embedding_std"},
    curves=(("embedding_std", "std of predictions (1: spread evenly)"), ("loss", "loss")),
    data=DATA,
    notes="A decay of 0 is SimSiam with BYOL's heads, which its authors found to work too; the table's 0.3 "
    "is of another regime. As in the paper the decay rises to 1 on a cosine, but for 0 and 1, which stay. "
    "The std is that "
    "of the unit-length predictions "
    "over the batch, times √d.",
)

if __name__ == "__main__":
    run(STUDY)
