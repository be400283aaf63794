"""What does SimCLR's projector do, how deep and wide must it be, which side of it is better? Chen et al. 2020, section 4.2.

python -m experiments.studies.projector
"""

from experiments.studies.color import DATA, projector_output
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, difference, higher, within_runs

DEPTHS = {0: "none", 1: "linear", 2: "2 layers"}
WIDTHS = (16, 512)


def wide(width: int) -> str:
    """Name of the variant with another width of the output."""
    return f"2 layers, {width} outputs"


def claims(results: Results) -> list[Claim]:
    """What the paper concludes from its figure 8."""
    none, linear, mlp = (results[DEPTHS[depth]] for depth in (0, 1, 2))
    before = within_runs(mlp, "linear", "after_linear")
    widths = sorted([results[wide(width)] for width in WIDTHS] + [mlp], key=lambda m: m.mean("linear"))
    gap = difference(widths[-1], widths[0], "linear")
    return [
        higher("A nonlinear projector is better than a linear one (there: 3 points).", mlp, linear, "linear"),
        higher("It is much better than none (there: more than 10 points).", mlp, none, "linear"),
        Claim(
            "The layer before the projector is better than the one after it (there: more than 10 points).",
            before.exceeds(),
            f"linear {mlp.text('linear')} before, {mlp.text('after_linear')} after: {before.text}",
        ),
        Claim(
            "The width of the output matters little: less than 2 points.",
            gap.is_within(2.0),
            f"best less worst of {', '.join(map(str, WIDTHS))} and 128 outputs: {gap.text}",
        ),
    ]


STUDY = Study(
    name="projector",
    title="SimCLR: the projector, its depth and width, and both sides of it",
    question="The loss is taken behind a small network that is thrown away afterwards. Does it matter, and is what stands "
    "before "
    "it really better than what stands after it?",
    source="Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, section 4.2 and "
    "figure 8 (ResNet-50, ImageNet, 100 epochs, linear evaluation). The figure is a bar chart; in words: nonlinear beats "
    "linear "
    "by 3 points and none by more than 10, before beats after by more than 10, whatever the width",
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
    extra=projector_output,
    data=DATA,
    notes="The published column holds differences in points, −10 standing for more than 10. `after`: the output of the "
    "projector, "
    "in inference mode; with no projector it is the features themselves.",
)

if __name__ == "__main__":
    run(STUDY)
