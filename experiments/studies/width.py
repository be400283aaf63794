"""Wide encoders and wide embeddings: whom do they help? Chen et al. 2020, Zbontar et al. 2021, Bardes et al. 2022.

python -m experiments.studies.width
"""

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, contrast, difference

METHODS = {"simclr": "SimCLR", "barlow": "Barlow Twins", "vicreg": "VICReg"}
ENCODERS = {"half": (8, 16, 32), "double": (32, 64, 128)}
BOTH = ("simclr", "vicreg")
"""Methods whose encoders vary in width."""
EMBEDDINGS = (32, 1024)


def embedding(method: str, width: int) -> str:
    """Name of the variant with a width of the embedding."""
    return f"{METHODS[method]}, embedding {width}"


def encoder(method: str, size: str) -> str:
    """Name of the variant with another encoder."""
    return f"{METHODS[method]}, encoder {size}"


def claims(results: Results) -> list[Claim]:
    """What the papers say of width."""
    narrow, wide = EMBEDDINGS
    gains = {
        method: difference(results[embedding(method, wide)], results[embedding(method, narrow)], "linear")
        for method in METHODS
    }
    grown = {
        method: difference(results[encoder(method, "double")], results[encoder(method, "half")], "linear")
        for method in BOTH
    }
    verdicts = [
        Claim(
            f"{METHODS[method]} gains from an embedding of {EMBEDDINGS[1]} in place of {EMBEDDINGS[0]}.",
            gains[method].exceeds(),
            f"points of linear accuracy: {gains[method].text}",
        )
        for method in ("barlow", "vicreg")
    ]
    for method in ("barlow", "vicreg"):
        first, last = ([results[embedding(m, w)] for w in EMBEDDINGS] for m in (method, "simclr"))
        more = contrast([(1.0, first[1]), (-1.0, first[0]), (-1.0, last[1]), (1.0, last[0])], "linear")
        verdicts.append(
            Claim(
                f"{METHODS[method]} gains more from it than SimCLR.",
                more.exceeds(),
                f"{METHODS[method]} {gains[method].text}, SimCLR {gains['simclr'].text}; more: {more.text}",
            )
        )
    return [
        *verdicts,
        *(
            Claim(
                f"{METHODS[method]} gains from an encoder of four times the width.",
                grown[method].exceeds(),
                f"points of linear accuracy: {grown[method].text}",
            )
            for method in BOTH
        ),
    ]


STUDY = Study(
    name="width",
    title="Wide encoders and wide embeddings: whom do they help?",
    question="Methods that decorrelate the dimensions of an embedding are said to need many of them, contrastive ones not. "
    "And all "
    "are said to gain from wide encoders. How much here?",
    source="Zbontar et al., Barlow Twins, ICML 2021, figure 4; Bardes et al., VICReg, ICLR 2022, table 12; Chen et al., "
    "SimCLR, "
    "ICML 2020, figures 7 and 8 (ImageNet; no number of theirs is repeated here)",
    published_as="published",
    variants=(
        *(
            Variant(embedding(method, w), method, {"method.projection": w}, line=f"{label}, embedding", x=w)
            for method, label in METHODS.items()
            for w in EMBEDDINGS
        ),
        *(
            Variant(
                encoder(method, size),
                method,
                {"encoder.widths": widths},
                line=f"{METHODS[method]}, encoder",
                x=4 * widths[-1],
            )
            for method in BOTH
            for size, widths in ENCODERS.items()
        ),
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear"},
    x_label="dimensions of the embedding, or of the encoder's features",
    data=DATA,
    notes="The embedding is the projector's output; its hidden layer has 512 dimensions. Encoders of half and double width "
    "have 128 "
    "and 512 features, on which the probes are fitted.",
)

if __name__ == "__main__":
    run(STUDY)
