"""From weights to one's own images: does continued pretraining help, and how should it begin?

python -m experiments.studies.adaptation
"""

from pathlib import Path
from typing import Any

from experiments.studies.command import run
from ssl_jax.cli.export import export_encoder
from ssl_jax.cli.pretrain import pretrain
from ssl_jax.cli.study import Claim, Measurements, Results, Study, Variant, compare, difference, gain
from ssl_jax.config import build
from ssl_jax.config.find import find_config
from ssl_jax.config.load import load_config

FOLDER = Path("runs/adaptation")
WEIGHTS = "runs/adaptation/pretrained-{seed}/exported/encoder.safetensors"
SIZE = 48
ENCODER = {
    "encoder.width": 96,
    "encoder.depth": 3,
    "encoder.heads": 3,
    "encoder.patch": 8,
    "encoder.image_size": SIZE,
    "encoder.pool": "mean",
}
PRETRAINING = {
    "data.source": "parquet:../shared/data/tiny_imagenet60",
    "views.size": SIZE,
    **ENCODER,
    "batch_size": 128,
    "steps": 1400,
    "optimizer.learning_rate": 1e-3,
    "watch.online.every": 200,
    "watch.log.every": 50,
    "watch.checkpoint.every": 100,
    "watch.checkpoint.best": False,
}
"""179,200 images: 6 passes over the 30,000 of the first set."""
RATE = {"weights": 3e-4, "lora": 1e-3, "scratch": 1e-3}
"""Learning rate of AdamW: three times lower where all of a trained encoder moves."""
WARMUP = 0.2
"""Share of the run for which the encoder stands still while the heads are trained."""
METHODS = {"simclr": "SimCLR", "dino": "DINO", "mae": "MAE"}
OPTIONS: dict[str, dict[str, Any]] = {"simclr": {}, "dino": {"views.local_size": 24}, "mae": {}}
MEASURES = {"kNN": "knn", "linear": "linear", "10 labels a class": "few"}


def prepare(seed: int) -> None:
    """Pretrain an encoder on the first set of images, unless it is there."""
    folder = FOLDER / f"pretrained-{seed}"
    if Path(WEIGHTS.format(seed=seed)).exists():
        return
    config = load_config(f"{find_config('simclr')}:folder,vit_micro", {**PRETRAINING, "seed": seed})
    pretrain(build.to_dict(config), folder)
    export_encoder(folder, folder / "exported")


def adapted(method: str, label: str, rate: float, **options: Any) -> Variant:
    """Make a variant that starts from the weights."""
    changes = {f"encoder.{name}": value for name, value in options.items()}
    return Variant(
        f"{METHODS[method]}, {label}",
        method,
        {**OPTIONS[method], "encoder.weights": WEIGHTS, "optimizer.learning_rate": rate, **changes},
    )


def claims(results: Results) -> list[Claim]:
    """What people hope for when they adapt a foundation model."""
    verdicts = []
    for method, label in METHODS.items():
        best = results[f"{label}, heads first"]
        verdicts.append(
            Claim(
                f"Continued pretraining by {label} is better than the weights as they come.",
                gain(best, "linear").exceeds(),
                evidence(best),
            )
        )
        if method == "simclr":
            scratch = results[f"{label}, from scratch"]
            verdicts.append(
                Claim(
                    "Starting from weights is better than the same budget from scratch.",
                    difference(best, scratch, "linear").exceeds(),
                    against(best, scratch),
                )
            )
    for label in METHODS.values():
        first, at_once = results[f"{label}, heads first"], results[f"{label}, all at once"]
        verdicts.append(
            Claim(
                f"Training fresh heads of {label} before the encoder moves helps.",
                difference(first, at_once, "linear").exceeds(),
                against(first, at_once),
            )
        )
    lora = results["SimCLR, LoRA of rank 8"]
    verdicts.append(
        Claim(
            "LoRA of rank 8 gains as much as training the whole encoder.",
            difference(lora, results["SimCLR, heads first"], "linear").stays_above(),
            evidence(lora),
        )
    )
    return verdicts


def against(first: Measurements, second: Measurements) -> str:
    """All measures of two variants and their differences."""
    return ", ".join(f"{heading} {compare(first, second, name)}" for heading, name in MEASURES.items())


def evidence(after: Measurements) -> str:
    """Gains of all measures over the weights as they come, in points."""
    return "points gained: " + ", ".join(
        f"{heading} {gain(after, name).text}" for heading, name in MEASURES.items()
    )


STUDY = Study(
    name="adaptation",
    title="From a foundation model to your images: what helps?",
    question="An encoder was pretrained on other images (60 classes of Tiny-ImageNet). Does it help to go on training it, "
    "without labels, on one's own (4,024 photographs of clothes)? Should the fresh heads be trained first, and is LoRA enough?",
    source="none: practice says that it helps where the images differ from those of pretraining, and that a fresh head spoils "
    "what is there unless it is warmed up (Kumar et al., ICLR 2022, for fine-tuning with labels)",
    published_as="published",
    variants=(
        *(
            variant
            for method in METHODS
            for variant in (
                adapted(method, "all at once", RATE["weights"], frozen_share=0.0),
                adapted(method, "heads first", RATE["weights"], frozen_share=WARMUP),
            )
        ),
        adapted("simclr", "LoRA of rank 8", RATE["lora"], frozen_share=0.0, lora_rank=8),
        Variant(
            "SimCLR, from scratch",
            "simclr",
            {**ENCODER, "views.size": SIZE, "optimizer.learning_rate": RATE["scratch"]},
        ),
    ),
    claims=claims,
    columns={**MEASURES, "rank": "rank"},
    curves=(("loss", "loss"),),
    common={
        "data.source": "parquet:../shared/data/clothing_128px",
        "batch_size": 128,
        "steps": 94,
        "watch.log.every": 10,
        "watch.evaluate.train_split": "train",
    },
    arguments="folder,vit_micro,short",
    images="4,024 photographs of clothes of 15 classes (alexeygrigorev/clothing-dataset, CC0) and 1,006 to test on, 48 pixels",
    prepare=prepare,
    notes="The weights: SimCLR, 1,400 steps of 128 images, one encoder a seed, so deviations over seeds are "
    "those of pretraining and adaptation together. Every adaptation sees as many images: three passes. Learning rates were "
    "not tuned. Train and test photographs may be of the same person's wardrobe. Both sets lie outside of the project; the "
    "command expects them as parquet files in `../shared/data`.",
)

if __name__ == "__main__":
    run(STUDY)
