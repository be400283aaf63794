"""Few labels: methods that train on labelled and unlabelled images at once, against features learnt without labels.

python -m experiments.studies.few_labels
"""

from typing import Any

from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, is_better

LABELS = (20, 100, 500, 1000)
LINES = {
    "supervised": "labelled images only",
    "pi_model": "Π-model",
    "temporal_ensembling": "temporal ensembling",
    "mean_teacher": "Mean Teacher",
    "ladder": "ladder network",
    "simclr": "SimCLR, then linear",
}
CONSISTENCY = ("pi_model", "temporal_ensembling", "mean_teacher")
UNLABELLED = (*CONSISTENCY, "ladder")


def name_of(method: str, labels: int) -> str:
    """Name of a variant."""
    return f"{LINES[method]}, {labels} labels"


def changes(method: str, labels: int) -> dict[str, Any]:
    """What a variant has beyond the recipe: labels, and a larger share of each batch for many; the supervised baseline sees
    these images alone, in the views of the others, SimCLR no label."""
    share = {"data.labeled_fraction": 0.25 if labels <= 100 else 0.5}
    by_method: dict[str, dict[str, Any]] = {
        **dict.fromkeys(CONSISTENCY, share),
        "ladder": {"encoder.widths": (500, 250, 250)},
        "supervised": {"views.area": (0.8, 1.0)},
    }
    return {"data.num_labels": labels, **by_method.get(method, {})}


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    few, many = LABELS[1], LABELS[-1]

    def text(method: str, labels: int) -> str:
        return f"{LINES[method]} {results[name_of(method, labels)].text('classifier')}"

    verdicts = [
        Claim(
            f"With {few} labels {LINES[method]} is better than training on the labelled images alone.",
            is_better(results[name_of(method, few)], results[name_of("supervised", few)], "classifier"),
            f"{text(method, few)}, {text('supervised', few)}",
        )
        for method in UNLABELLED
    ]
    gains = {
        labels: max(results[name_of(m, labels)].mean("classifier") for m in UNLABELLED)
        - results[name_of("supervised", labels)].mean("classifier")
        for labels in (few, many)
    }
    best = max(UNLABELLED, key=lambda m: results[name_of(m, few)].mean("classifier"))
    return [
        *verdicts,
        Claim(
            f"With {few} labels Mean Teacher is better than the Π-model (Mean Teacher, tables 1 and 2).",
            is_better(results[name_of("mean_teacher", few)], results[name_of("pi_model", few)], "classifier"),
            f"{text('mean_teacher', few)}, {text('pi_model', few)}",
        ),
        Claim(
            "The fewer the labels, the more unlabelled images bring.",
            gains[few] > gains[many],
            f"best semi-supervised less supervised: {gains[few]:+.1f} points with {few} labels, {gains[many]:+.1f} with {many}",
        ),
        Claim(
            f"With {few} labels a linear classifier on features learnt without labels is as good as the best of these methods.",
            not is_better(results[name_of(best, few)], results[name_of("simclr", few)], "classifier"),
            f"{text('simclr', few)}, {text(best, few)}",
        ),
    ]


STUDY = Study(
    name="few_labels",
    title="What do unlabelled images bring where labels are few?",
    question="Before features were learnt without labels, unlabelled images served as a second term beside the labels: "
    "predictions should agree under noise. How much does that bring over the labels alone, and how does a linear classifier on "
    "features learnt without any label compare?",
    source="Laine & Aila, Temporal Ensembling, ICLR 2017, tables 1 and 2; Tarvainen & Valpola, Mean teachers, NeurIPS 2017, "
    "tables 1 and 2; Rasmus et al., Ladder Networks, NeurIPS 2015, table 1 (CIFAR-10, SVHN and MNIST; no number of theirs is "
    "repeated here)",
    published_as="published",
    variants=tuple(
        Variant(name_of(method, labels), method, changes(method, labels), line=line, x=labels)
        for method, line in LINES.items()
        for labels in LABELS
    ),
    claims=claims,
    columns={"test accuracy": "classifier", "linear, all labels": "linear"},
    watched=("accuracy", "consistency"),
    common={"steps": 1200, "batch_size": 64},
    x_label="labels",
    notes="Test accuracy: of the method's own classifier, the teacher's of Mean Teacher; of SimCLR logistic regression on its "
    "features of the labelled images, its penalty chosen among them. Seeds draw the labels too, the same for every method. "
    "`random encoder` is the convolutional one; the ladder network's is a perceptron, 500-250-250. With 20 and 100 labels "
    "a quarter of each batch is labelled, with more a half, as always in the ladder network's; the baseline has whole batches "
    "of labelled images and as many updates. All else is the same for every number of labels.",
)

if __name__ == "__main__":
    run(STUDY)
