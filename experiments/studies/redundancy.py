"""What keeps methods without negatives apart? VICReg's terms, Barlow Twins' weight.

python -m experiments.studies.redundancy
"""

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import (
    Claim,
    Results,
    Study,
    Variant,
    all_of,
    compare,
    difference,
    every_seed,
    gain,
    opposite,
)

LAMBDAS = (0.004, 0.04, 0.4)
ALL, BOTH = "VICReg: all terms", "Barlow Twins: both terms"
NO_VARIANCE, NO_COVARIANCE, NO_INVARIANCE = (
    f"VICReg: no {term}" for term in ("variance", "covariance", "invariance")
)
ONLY_INVARIANCE, ONLY_REDUNDANCY = "Barlow Twins: only invariance", "Barlow Twins: only redundancy"


def weighted(value: float) -> str:
    """Name of Barlow Twins with a weight of the redundancy term."""
    return f"Barlow Twins: λ {value:g}"


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    whole, barlow = results[ALL], results[BOTH]
    flat, correlated, varied = (results[name] for name in (NO_VARIANCE, NO_COVARIANCE, NO_INVARIANCE))
    near, apart = results[ONLY_INVARIANCE], results[ONLY_REDUNDANCY]
    weights = sorted(
        (results[weighted(value)] if value != LAMBDAS[1] else barlow for value in LAMBDAS),
        key=lambda measured: measured.mean("linear"),
    )
    collapse = every_seed(flat.values("variance") > 0.9)
    return [
        Claim(
            "VICReg without the variance term collapses.",
            all_of([collapse, difference(whole, flat, "linear").exceeds()]),
            f"what the deviations lack to 1: {flat.text('variance', 2)}; linear {compare(whole, flat, 'linear')}",
        ),
        Claim(
            "Without the covariance term it trains, but worse (there: 11 points).",
            all_of([difference(whole, correlated, "linear").exceeds(), gain(correlated, "linear").exceeds()]),
            f"linear {compare(whole, correlated, 'linear')}; over untrained {gain(correlated, 'linear').text}",
        ),
        Claim(
            "Without the invariance term it learns nothing of use.",
            opposite(gain(varied, "linear").exceeds()),
            f"points of linear accuracy over untrained: {gain(varied, 'linear').text}",
        ),
        Claim(
            "Barlow Twins: invariance alone is worse than both terms (there: 14 points).",
            difference(barlow, near, "linear").exceeds(),
            f"linear {compare(barlow, near, 'linear')}",
        ),
        Claim(
            "Barlow Twins: redundancy alone learns nothing.",
            opposite(gain(apart, "linear").exceeds()),
            f"points of linear accuracy over untrained: {gain(apart, 'linear').text}",
        ),
        Claim(
            "It is not sensitive to λ: less than 2 points (there: less than one between 0.002 and 0.02, at width 8192).",
            difference(weights[-1], weights[0], "linear").is_within(2.0),
            f"best less worst of λ {', '.join(f'{v:g}' for v in LAMBDAS)}: "
            f"{difference(weights[-1], weights[0], 'linear').text}",
        ),
    ]


STUDY = Study(
    name="redundancy",
    title="Redundancy reduction: which terms, what weight?",
    question="VICReg keeps each dimension's variance up and covariances down, Barlow Twins makes the correlation of the views "
    "the identity. The papers switch off each term and vary the weight.",
    source="Bardes et al., VICReg, ICLR 2022, table 7, and Zbontar et al., Barlow Twins, ICML 2021, table 5 and figure 5 "
    "(ResNet-50, ImageNet; 100 and 300 epochs, linear evaluation; collapsed rows of VICReg have no number)",
    published_as="published, top-1",
    variants=(
        Variant(ALL, "vicreg", {}, 68.6),
        Variant(NO_VARIANCE, "vicreg", {"method.variance_weight": 0.0}),
        Variant(NO_COVARIANCE, "vicreg", {"method.covariance_weight": 0.0}, 57.5),
        Variant(NO_INVARIANCE, "vicreg", {"method.invariance_weight": 0.0}),
        Variant(BOTH, "barlow", {}, 71.4),
        Variant(ONLY_INVARIANCE, "barlow", {"method.redundancy_weight": 0.0}, 57.3),
        Variant(ONLY_REDUNDANCY, "barlow", {"method.invariance_weight": 0.0}, 0.1),
        *(Variant(weighted(v), "barlow", {"method.redundancy_weight": v}) for v in (LAMBDAS[0], LAMBDAS[2])),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "rank": "rank"},
    watched=("variance",),
    data=DATA,
    notes="Rank: effective rank of the covariance of the encoder's 256 features on the test images. The term that λ "
    "weighs has width² entries, here of correlations over 128 images (there 2,048), whose noise it sums. VICReg's row without "
    "covariance has the weights 1, 1, 0 in the paper and 25, 25, 0 here, which AdamW makes the same.",
)

if __name__ == "__main__":
    run(STUDY)
