"""What keeps methods without negatives apart? VICReg's terms, Barlow Twins' weight, the width of the embedding.

python -m experiments.studies.redundancy
"""

from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Measurements, Results, Study, Variant, is_better

WIDTHS = (64, 256, 1024, 2048)
METHODS = {"barlow": "Barlow Twins", "vicreg": "VICReg", "simclr": "SimCLR"}
LAMBDAS = (0.004, 0.04, 0.4)
ALL, BOTH = "VICReg: all terms", "Barlow Twins: both terms"
NO_VARIANCE, NO_COVARIANCE, NO_INVARIANCE = (
    f"VICReg: no {term}" for term in ("variance", "covariance", "invariance")
)
ONLY_INVARIANCE, ONLY_REDUNDANCY = "Barlow Twins: only invariance", "Barlow Twins: only redundancy"


def wide(method: str, width: int) -> str:
    """Name of the variant with a width of the embedding."""
    return f"{METHODS[method]}, width {width}"


def weighted(value: float) -> str:
    """Name of Barlow Twins with a weight of the redundancy term."""
    return f"Barlow Twins: λ {value:g}"


def gain(results: Results, method: str) -> tuple[float, float]:
    """Points of linear accuracy from the narrowest embedding to the widest, and the deviations over seeds together."""
    narrow, broad = results[wide(method, WIDTHS[0])], results[wide(method, WIDTHS[-1])]
    return broad.mean("linear") - narrow.mean("linear"), broad.spread("linear") + narrow.spread("linear")


def trained(measurements: Measurements) -> bool:
    """Whether the linear accuracy is above that of the same encoders untrained."""
    return measurements.mean("linear") - measurements.spread("linear") > measurements.mean("random_linear")


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    whole, barlow = results[ALL], results[BOTH]
    flat, correlated, varied = (results[name] for name in (NO_VARIANCE, NO_COVARIANCE, NO_INVARIANCE))
    near, apart = results[ONLY_INVARIANCE], results[ONLY_REDUNDANCY]
    weights = [results[weighted(value)] if value != LAMBDAS[1] else barlow for value in LAMBDAS]
    range_of = max(m.mean("linear") for m in weights) - min(m.mean("linear") for m in weights)
    gains = {method: gain(results, method) for method in METHODS}
    evidence = ", ".join(f"{METHODS[m]} {value:+.1f} ± {band:.1f}" for m, (value, band) in gains.items())
    return [
        Claim(
            "VICReg without the variance term collapses.",
            flat.mean("variance") > 0.9 and is_better(whole, flat, "linear"),
            f"what the deviations lack to 1: {flat.text('variance', 2)}; linear {flat.text('linear')} against "
            f"{whole.text('linear')}",
        ),
        Claim(
            "Without the covariance term it trains, but worse (there: 11 points).",
            is_better(whole, correlated, "linear") and trained(correlated),
            f"linear {correlated.text('linear')} against {whole.text('linear')}, untrained {whole.text('random_linear')}",
        ),
        Claim(
            "Without the invariance term it learns nothing of use.",
            not trained(varied),
            f"linear {varied.text('linear')}, untrained {varied.text('random_linear')}",
        ),
        Claim(
            "Barlow Twins needs both terms: invariance alone is worse (there: 14 points), redundancy alone nothing.",
            is_better(barlow, near, "linear") and not trained(apart),
            f"linear {barlow.text('linear')}; invariance alone {near.text('linear')}, redundancy alone {apart.text('linear')}",
        ),
        Claim(
            "It is not sensitive to λ (there: less than a point between 0.002 and 0.02, at width 8192).",
            range_of < 1.0,
            f"{range_of:.1f} points between the best and the worst of λ {', '.join(f'{v:g}' for v in LAMBDAS)}",
        ),
        Claim(
            f"Barlow Twins and VICReg gain from a wider embedding, {WIDTHS[0]} to {WIDTHS[-1]}; SimCLR does not.",
            all(gains[m][0] > gains[m][1] for m in ("barlow", "vicreg"))
            and gains["simclr"][0] <= gains["simclr"][1],
            f"points of linear accuracy: {evidence}",
        ),
    ]


STUDY = Study(
    name="redundancy",
    title="Redundancy reduction: which terms, what weight, how wide?",
    question="VICReg keeps each dimension's variance up and covariances down, Barlow Twins makes the correlation of the views "
    "the identity. The papers switch off each term, vary the weight, and find that wide embeddings help, unlike in contrastive "
    "learning.",
    source="Bardes et al., VICReg, ICLR 2022, table 7, and Zbontar et al., Barlow Twins, ICML 2021, table 5, figures 4 and 5 "
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
        *(
            Variant(wide(method, width), method, {"method.projection": width}, line=METHODS[method], x=width)
            for method in METHODS
            for width in WIDTHS
        ),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "rank": "rank"},
    watched=("variance",),
    x_label="width of the embedding",
    notes="Rank: effective rank of the covariance of the encoder's 256 features on the test images. The width is that of the "
    "projector's output; its hidden layers keep theirs. λ is the same for all widths, as in the paper; the term "
    "that it weighs has width² entries, here of correlations over 64 images (there 2,048), whose noise it sums: a smaller λ is "
    "better here, and the wider the embedding the more is lost. VICReg's row without "
    "covariance has the weights 1, 1, 0 in the paper and 25, 25, 0 here, which AdamW makes the same.",
)

if __name__ == "__main__":
    run(STUDY)
