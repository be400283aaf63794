"""How many dimensions do features and embeddings use, with and without a projector? Jing et al. 2022.

python -m experiments.studies.dimensional_collapse
"""

from collections.abc import Callable

from experiments.studies.command import run
from ssl_jax import models
from ssl_jax.cli.study import Claim, Results, Study, Variant, is_better
from ssl_jax.config import build
from ssl_jax.core.types import Array, Params, State
from ssl_jax.methods.parts.siamese import expander, simclr_projector
from ssl_jax.models import heads
from ssl_jax.models.network import Network, identity

METHODS = {"simclr": "SimCLR", "byol": "BYOL", "vicreg": "VICReg", "barlow": "Barlow Twins"}
EMBEDDING = 128


def projector_of(encoder: Network, options: build.Config) -> Network:
    """The projector of a run."""
    layers, width, projection = (options[f"project{name}"] for name in ("or_layers", "or_width", "ion"))
    if layers == 0:
        return identity(encoder.features)
    if options["name"] == "simclr":
        return simclr_projector(encoder, layers=layers, width=width, projection=projection)
    if options["name"] == "byol":
        hidden_dim = options["hidden_dim"] if width is None else width
        return heads.mlp((hidden_dim,) * (layers - 1) + (projection,), last_bias=False)
    norm = options["projector_norm"]
    return expander(encoder, layers=layers, width=width, norm=norm, projection=projection)


def embedding(config: build.Config) -> dict[str, Callable[..., Array]]:
    """What the loss compares, in inference mode."""
    encoder = models.build(**config["encoder"])
    projector = projector_of(encoder, config["method"])

    def encode(params: Params, state: State, images: Array) -> Array:
        variables = state.get("online", state)
        features, _ = encoder.apply(params["encoder"], variables["encoder"], images)
        return projector.apply(params["projector"], variables["projector"], features)[0]

    return {"embedding": encode}


def bare(method: str) -> str:
    """Name of the variant without projector."""
    return f"{METHODS[method]}, no projector"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes, and what VICReg's and Barlow Twins' terms are for."""
    simclr, without = results[METHODS["simclr"]], results[bare("simclr")]
    regular = {m: results[METHODS[m]] for m in ("vicreg", "barlow")}
    others = {m: results[METHODS[m]] for m in ("simclr", "byol")}
    evidence = ", ".join(f"{METHODS[m]} {x.text('embedding_rank')}" for m, x in {**regular, **others}.items())
    return [
        Claim(
            "SimCLR's embedding does not use all its dimensions.",
            simclr.mean("embedding_rank") < EMBEDDING / 2,
            f"effective rank {simclr.text('embedding_rank')} of {EMBEDDING}",
        ),
        Claim(
            "A projector keeps the features from that: without it their rank is lower.",
            is_better(simclr, without, "rank"),
            f"rank of SimCLR's features {simclr.text('rank')} with and {without.text('rank')} without",
        ),
        Claim(
            "VICReg and Barlow Twins, which decorrelate, use more dimensions of the embedding than SimCLR and BYOL.",
            all(is_better(a, b, "embedding_rank") for a in regular.values() for b in others.values()),
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
        for name, layers in ((label, 3 if method in ("vicreg", "barlow") else 2), (bare(method), 0))
    ),
    claims=claims,
    columns={
        "kNN": "knn",
        "linear": "linear",
        "rank of the features": "rank",
        "rank of the embedding": "embedding_rank",
    },
    extra=embedding,
    spectra=(("", "spectrum of the features"), ("embedding", "spectrum of the embedding")),
    notes=f"Rank: effective rank of the covariance on the test images, of 256 features and of {EMBEDDING} dimensions of the "
    "embedding (256 without projector, where both are the same).",
)

if __name__ == "__main__":
    run(STUDY)
