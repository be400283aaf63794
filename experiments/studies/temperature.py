"""Temperature and hard negatives: how much should near negatives count? Chen et al. 2020, Robinson et al. 2021.

python -m experiments.studies.temperature
"""

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, compare, difference, higher

TEMPERATURES = (0.05, 0.2, 1.0)
PLAIN, HARD, DEBIASED = "τ 0.5, β 0", "τ 0.5, β 1", "τ 0.5, β 0, debiased"


def name_of(temperature: float) -> str:
    """Name of a variant of SimCLR."""
    return f"SimCLR, τ {temperature:g}"


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    low, middle, high = (results[name_of(temperature)] for temperature in TEMPERATURES)
    spread = difference(low, high, "rank")
    return [
        higher("A temperature of 0.2 is better than 1 (SimCLR, table 5).", middle, high, "linear"),
        higher("It is better than 0.05, too (SimCLR, table 5).", middle, low, "linear"),
        Claim(
            "The lower the temperature, the more evenly features are spread (Wang & Liu, figure 4; here: by their rank).",
            spread.exceeds(margin=2.0),
            f"rank {compare(low, high, 'rank')}",
        ),
        higher(
            "Weighing hard negatives helps (Robinson et al., figure 2).",
            results[HARD],
            results[PLAIN],
            "linear",
        ),
        higher(
            "So does correcting for negatives of the same class (Chuang et al. 2020, table 1).",
            results[DEBIASED],
            results[PLAIN],
            "linear",
        ),
    ]


STUDY = Study(
    name="temperature",
    title="Temperature and hard negatives: how much should near negatives count?",
    question="A low temperature makes the nearest negatives count, and so does weighing them. Which temperature is best, "
    "does it "
    "spread the features, and do hard or debiased negatives help?",
    source="Chen et al., SimCLR, ICML 2020, table 5; Wang & Liu, Understanding the Behaviour of Contrastive Loss, CVPR 2021; "
    "Robinson et al., Contrastive Learning with Hard Negative Samples, ICLR 2021; Chuang et al., Debiased Contrastive "
    "Learning, "
    "NeurIPS 2020 (ImageNet and CIFAR-10; no number of theirs is repeated here)",
    published_as="published",
    variants=(
        *(Variant(name_of(t), "simclr", {"method.temperature": t}) for t in TEMPERATURES),
        Variant(PLAIN, "hcl", {"method.temperature": 0.5, "method.beta": 0.0, "method.tau_plus": 0.0}),
        Variant(HARD, "hcl", {"method.temperature": 0.5, "method.beta": 1.0, "method.tau_plus": 0.0}),
        Variant(DEBIASED, "hcl", {"method.temperature": 0.5, "method.beta": 0.0, "method.tau_plus": 0.1}),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "rank": "rank"},
    data=DATA,
    notes="Rank: effective rank of the covariance of the encoder's features on the test images. β weighs negatives by their "
    "similarity, 0 weighs all alike; debiased: a share of 0.1 of the negatives is taken to be of the same class, of which "
    "there "
    "are ten.",
)

if __name__ == "__main__":
    run(STUDY)
