"""How much of an image should be hidden? He et al. 2022, figure 5; Xie et al. 2022, table 1.

python -m experiments.studies.mask_ratio
"""

from experiments.studies.color import DATA, FINETUNE, FINETUNED, VIT
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Measurements, Results, Study, Variant, difference, differences, higher

METHODS = {"mae": "MAE", "simmim": "SimMIM"}
RATIOS = {"mae": (0.25, 0.5, 0.75), "simmim": (0.25, 0.75)}


def name_of(method: str, ratio: float) -> str:
    """Name of a variant."""
    return f"{METHODS[method]}, {ratio:g}"


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    low, middle, high = (results[name_of("mae", ratio)] for ratio in RATIOS["mae"])
    ordered = sorted((low, middle, high), key=lambda m: m.mean("linear"))
    more = differences(ordered[-1], ordered[0], "linear", "finetune")
    few, many = (results[name_of("simmim", ratio)] for ratio in RATIOS["simmim"])

    def gap(first: Measurements, second: Measurements, name: str) -> str:
        return difference(first, second, name).text

    return [
        higher("MAE: hiding three quarters is better than a quarter, linear.", high, low, "linear"),
        higher("So it is fine-tuned.", high, low, "finetune"),
        Claim(
            "MAE: linear accuracy depends more on the share than fine-tuned accuracy.",
            more.exceeds(),
            f"best less worst by linear accuracy: linear {gap(ordered[-1], ordered[0], 'linear')}, fine-tuned "
            f"{gap(ordered[-1], ordered[0], 'finetune')}; more: {more.text}",
        ),
        Claim(
            "SimMIM, whose encoder sees the masked patches too, depends less on it: within 2 points, fine-tuned.",
            difference(many, few, "finetune").is_within(2.0),
            f"fine-tuned, 0.75 less 0.25: {gap(many, few, 'finetune')}",
        ),
    ]


STUDY = Study(
    name="mask_ratio",
    title="Masks: how much to hide?",
    question="MAE hides three quarters of the patches, BERT a sixth of the words. How much is best here, and do frozen "
    "features and "
    "fine-tuned encoders agree on it?",
    source="He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, figure 5; Xie et al., SimMIM, CVPR 2022, "
    "table "
    "1 (ImageNet; figures and tables over the share, no number is repeated here)",
    published_as="published",
    variants=tuple(
        Variant(
            name_of(method, ratio),
            method,
            {"method.mask_ratio": ratio, **({} if method == "mae" else {"method.unit": 1})},
            line=METHODS[method],
            x=ratio,
        )
        for method, ratios in RATIOS.items()
        for ratio in ratios
    ),
    claims=claims,
    columns={"kNN": "knn", "linear": "linear", "fine-tuned": "finetune"},
    common=VIT,
    x_label="share of masked patches",
    x_scale="linear",
    finetune=FINETUNE,
    data=DATA,
    notes=f"A vision transformer of 3 blocks, 64 wide, 64 patches of 4 pixels. {FINETUNED}",
)

if __name__ == "__main__":
    run(STUDY)
