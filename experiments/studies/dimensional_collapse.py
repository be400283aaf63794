"""How many dimensions do features and embeddings use, with and without a projector? Jing et al. 2022.

python -m experiments.studies.dimensional_collapse
"""

from experiments.studies.color import DATA, projector_output
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, all_of, compare, difference, every_seed

METHODS = {"simclr": "SimCLR", "byol": "BYOL", "vicreg": "VICReg", "barlow": "Barlow Twins"}
EMBEDDING = 128


def bare(method: str) -> str:
    """Name of the variant without projector."""
    return f"{METHODS[method]}, no projector"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes, and what VICReg's and Barlow Twins' terms are for."""
    simclr, without = results[METHODS["simclr"]], results[bare("simclr")]
    regular = {m: results[METHODS[m]] for m in ("vicreg", "barlow")}
    others = {m: results[METHODS[m]] for m in ("simclr", "byol")}
    evidence = ", ".join(f"{METHODS[m]} {x.text('after_rank')}" for m, x in {**regular, **others}.items())
    return [
        Claim(
            "SimCLR's embedding does not use all its dimensions: the effective rank is below half of them.",
            every_seed(simclr.values("after_rank") < EMBEDDING / 2),
            f"effective rank {simclr.text('after_rank')} of {EMBEDDING}",
        ),
        Claim(
            "A projector keeps the features from that: without it their rank is lower.",
            difference(simclr, without, "rank").exceeds(margin=2.0),
            f"rank of SimCLR's features {compare(simclr, without, 'rank')}",
        ),
        Claim(
            "VICReg and Barlow Twins, which decorrelate, use more dimensions of the embedding than SimCLR and BYOL.",
            all_of(
                difference(a, b, "after_rank").exceeds(margin=2.0)
                for a in regular.values()
                for b in others.values()
            ),
            f"effective rank of the embedding: {evidence}",
        ),
    ]


STUDY = Study(
    name="dimensional_collapse",
    title="How many dimensions are used?",
    question="Features can avoid one point and still span few directions. The spectrum of their covariance shows it: of the "
    "encoder's features, which are used, and of the embedding, which the loss sees.",
    source="Jing et al., Understanding Dimensional Collapse in Contrastive Self-Supervised Learning, ICLR 2022 (SimCLR, "
    "ResNet-18, ImageNet; spectra as figures, without a table)",
    published_as="published",
    variants=tuple(
        Variant(
            name,
            method,
            {"method.projector_layers": layers, **({} if layers == 0 else {"method.projection": EMBEDDING})},
        )
        for method, label in METHODS.items()
        for name, layers in ((label, 2), (bare(method), 0))
    ),
    claims=claims,
    columns={
        "kNN": "knn",
        "linear": "linear",
        "rank of the features": "rank",
        "rank of the embedding": "after_rank",
    },
    extra=projector_output,
    spectra=(("", "spectrum of the features"), ("after", "spectrum of the embedding")),
    data=DATA,
    notes=f"Rank: effective rank of the covariance on the test images, of 256 features and of {EMBEDDING} dimensions of the "
    "embedding (256 without projector, where both are the same).",
)

if __name__ == "__main__":
    run(STUDY)
