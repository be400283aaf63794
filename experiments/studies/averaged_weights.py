"""Are averaged weights better than the last ones? Caron et al. 2021, Grill et al. 2020.

python -m experiments.studies.averaged_weights
"""

from collections.abc import Callable

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, differences, within_runs
from ssl_jax.config import build
from ssl_jax.core.types import Array, Params, State

BYOL, CONSTANT, DINO, MOCO = "BYOL", "BYOL, constant rate", "DINO", "MoCo v2"
TEACHERS = {"byol": "teacher", "dino": "teacher", "moco_v2": "key_encoder"}
"""Where a method's state has the average."""


def weights(config: build.Config) -> dict[str, Callable[..., Array]]:
    """Encode with the last weights, and with their moving average, each with its own batch statistics."""
    method = build.method(config)
    name = TEACHERS[config["method"]["name"]]

    def last(params: Params, state: State, images: Array) -> Array:
        return method.encoder.apply(params["encoder"], state["online"]["encoder"], images)[0]

    def averaged(params: Params, state: State, images: Array) -> Array:
        teacher = state[name]
        return method.encoder.apply(teacher.params["encoder"], teacher.state["encoder"], images)[0]

    return {"last": last, "averaged": averaged}


def claims(results: Results) -> list[Claim]:
    """What the papers say, and what a decaying rate leaves of it."""
    gains = {name: within_runs(results[name], "averaged_linear", "last_linear") for name in results}
    more = differences(results[CONSTANT], results[BYOL], "averaged_linear", "last_linear")
    return [
        *(
            Claim(
                f"{name}: the average is better than the last weights.",
                gains[name].exceeds(margin=0.5),
                f"linear {results[name].text('averaged_linear')} against {results[name].text('last_linear')}: "
                f"{gains[name].text}",
            )
            for name in (DINO, BYOL, CONSTANT)
        ),
        Claim(
            "Averaging gains more where the rate does not decay.",
            more.exceeds(margin=0.5),
            f"points of linear accuracy: constant {gains[CONSTANT].text}, cosine {gains[BYOL].text}; more: {more.text}",
        ),
    ]


STUDY = Study(
    name="averaged_weights",
    title="Averaged weights or the last ones?",
    question="BYOL, MoCo and DINO keep an exponential moving average of their weights as a teacher. DINO evaluates it, the "
    "others "
    "the student. Which is better, and is the average a substitute for decaying the rate?",
    source="Caron et al., DINO, ICCV 2021, figure 6 (the teacher is better throughout the training); Grill et al., BYOL, "
    "NeurIPS "
    "2020 (curves without a table)",
    published_as="published",
    variants=(
        Variant(BYOL, "byol", {"method.decay": 0.99}),
        Variant(
            CONSTANT,
            "byol",
            {"method.decay": 0.99, "method.decay_steps": None, "optimizer.schedule": "constant"},
        ),
        Variant(DINO, "dino", {"views.local_count": 0}),
        Variant(MOCO, "moco_v2", {"method.decay": 0.99}),
    ),
    claims=claims,
    columns={
        "kNN, last": "last_knn",
        "kNN, averaged": "averaged_knn",
        "linear, last": "last_linear",
        "linear, averaged": "averaged_linear",
    },
    extra=weights,
    data=DATA,
    notes="One run gives both. The decay is 0.99, which BYOL's and DINO's schedules raise to 1; with a constant rate it stays.",
)

if __name__ == "__main__":
    run(STUDY)
