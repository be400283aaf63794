"""What does SimCLR's projector do, how deep and wide must it be, which side of it is better? Chen et al. 2020, section 4.2.

python -m experiments.studies.projector
"""

from collections.abc import Callable

from experiments.studies.command import run
from ssl_jax import models
from ssl_jax.cli.study import Claim, Results, Study, Variant, is_better
from ssl_jax.config import build
from ssl_jax.core.types import Array, Params, State
from ssl_jax.methods.parts.siamese import simclr_projector

DEPTHS = {0: "none", 1: "linear", 2: "2 layers", 3: "3 layers"}
WIDTHS = (16, 512)
DEFAULT = DEPTHS[2]


def after(config: build.Config) -> dict[str, Callable[..., Array]]:
    """The features behind the projector, in inference mode."""
    encoder, options = models.build(**config["encoder"]), config["method"]
    projector = simclr_projector(
        encoder,
        layers=options["projector_layers"],
        width=options["projector_width"],
        projection=options["projection"],
    )

    def encode(params: Params, state: State, images: Array) -> Array:
        features, _ = encoder.apply(params["encoder"], state["encoder"], images)
        return projector.apply(params["projector"], state["projector"], features)[0]

    return {"after": encode}


def wide(width: int) -> str:
    """Name of the variant with another width of the output."""
    return f"2 layers, {width} outputs"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes from its figure 8."""
    none, linear, mlp = (results[DEPTHS[depth]] for depth in (0, 1, 2))
    widths = [results[wide(width)] for width in WIDTHS] + [mlp]
    gap = max(m.mean("linear") for m in widths) - min(m.mean("linear") for m in widths)
    band = max(m.spread("linear") for m in widths)
    return [
        Claim(
            "A nonlinear projector is better than a linear one (there: 3 points).",
            is_better(mlp, linear, "linear"),
            f"linear evaluation {mlp.text('linear')} against {linear.text('linear')}",
        ),
        Claim(
            "It is much better than none (there: more than 10 points).",
            is_better(mlp, none, "linear"),
            f"{mlp.text('linear')} against {none.text('linear')}",
        ),
        Claim(
            "The layer before the projector is better than the one after it (there: more than 10 points).",
            mlp.mean("linear") - mlp.mean("after_linear") > mlp.spread("linear") + mlp.spread("after_linear"),
            f"{mlp.text('linear')} before, {mlp.text('after_linear')} after",
        ),
        Claim(
            "The width of the output matters little.",
            gap < max(2 * band, 1.0),
            f"{', '.join(m.text('linear') for m in widths)} with {', '.join(map(str, WIDTHS))} and 128 "
            f"outputs",
        ),
    ]


STUDY = Study(
    name="projector",
    title="SimCLR: the projector, its depth and width, and both sides of it",
    question="The loss is taken behind a small network that is thrown away afterwards. Does it matter, and "
    "is what stands before it "
    "really better than what stands after it?",
    source="Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, "
    "section 4.2 and figure 8 "
    "(ResNet-50, ImageNet, 100 epochs, linear evaluation). The figure is a bar chart; in words: nonlinear "
    "beats linear by 3 points and "
    "none by more than 10, before beats after by more than 10, whatever the width",
    published_as="published, against nonlinear",
    variants=(
        *(
            Variant(
                name, "simclr", {"method.projector_layers": depth}, {0: -10.0, 1: -3.0, 2: 0.0}.get(depth)
            )
            for depth, name in DEPTHS.items()
        ),
        *(Variant(wide(width), "simclr", {"method.projection": width}, 0.0) for width in WIDTHS),
    ),
    claims=claims,
    columns={
        "kNN": "knn",
        "linear": "linear",
        "kNN after": "after_knn",
        "linear after": "after_linear",
    },
    extra=after,
    notes="The published column holds differences in points, −10 standing for more than 10. `after`: the "
    "output of the projector, in inference "
    "mode; with no projector it is the features themselves.",
)

if __name__ == "__main__":
    run(STUDY)
