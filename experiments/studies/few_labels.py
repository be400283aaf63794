"""Few labels: methods that train on labelled and unlabelled images at once, against features learnt without labels.

python -m experiments.studies.few_labels
"""

from typing import Any

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant, compare, contrast, difference, higher

LABELS = (100, 1000)
LINES = {
    "supervised": "labelled images only",
    "pi_model": "Π-model",
    "temporal_ensembling": "temporal ensembling",
    "mean_teacher": "Mean Teacher",
    "simclr": "SimCLR, then linear",
}
CONSISTENCY = ("pi_model", "temporal_ensembling", "mean_teacher")
SHARE = {100: 0.25, 1000: 0.5}
"""Labelled images in a batch, by their number."""


def name_of(method: str, labels: int) -> str:
    """Name of a variant."""
    return f"{LINES[method]}, {labels} labels"


def changes(method: str, labels: int) -> dict[str, Any]:
    """What a variant has beyond the recipe: labels, and a larger share of each batch for many; the supervised baseline sees
    these images alone, in the views of the others, SimCLR no label."""
    by_method: dict[str, dict[str, Any]] = {
        **{name: {"data.labeled_fraction": SHARE[labels]} for name in CONSISTENCY},
        "supervised": {"views.area": (0.8, 1.0)},
    }
    return {"data.num_labels": labels, **by_method.get(method, {})}


def claims(results: Results) -> list[Claim]:
    """What the papers conclude."""
    few, many = LABELS
    best = max(CONSISTENCY, key=lambda m: results[name_of(m, few)].mean("classifier"))
    terms = [
        (sign * weight, results[name_of(method, labels)])
        for labels, sign in ((few, 1.0), (many, -1.0))
        for method, weight in ((best, 1.0), ("supervised", -1.0))
    ]
    more = contrast(terms, "classifier")
    features, other = results[name_of("simclr", few)], results[name_of(best, few)]
    return [
        *(
            higher(
                f"With {few} labels {LINES[method]} is better than training on the labelled images alone.",
                results[name_of(method, few)],
                results[name_of("supervised", few)],
                "classifier",
            )
            for method in CONSISTENCY
        ),
        higher(
            f"With {few} labels Mean Teacher is better than the Π-model (Mean Teacher, tables 1 and 2).",
            results[name_of("mean_teacher", few)],
            results[name_of("pi_model", few)],
            "classifier",
        ),
        Claim(
            "The fewer the labels, the more unlabelled images bring.",
            more.exceeds(),
            f"points that {LINES[best]} brings over the labels alone, with {few} labels less with {many}: {more.text}",
        ),
        Claim(
            f"With {few} labels a linear classifier on features learnt without labels is as good as the best of these methods.",
            difference(features, other, "classifier").stays_above(),
            f"{LINES['simclr']} against {LINES[best]}: {compare(features, other, 'classifier')}",
        ),
    ]


STUDY = Study(
    name="few_labels",
    title="What do unlabelled images bring where labels are few?",
    question="Before features were learnt without labels, unlabelled images served as a second term beside the labels: "
    "predictions should agree under noise. How much does that bring over the labels alone, and how does a linear classifier on "
    "features learnt without any label compare?",
    source="Laine & Aila, Temporal Ensembling, ICLR 2017, tables 1 and 2; Tarvainen & Valpola, Mean teachers, NeurIPS 2017, "
    "tables 1 and 2 (CIFAR-10 and SVHN; no number of theirs is repeated here)",
    published_as="published",
    variants=tuple(
        Variant(name_of(method, labels), method, changes(method, labels), line=line, x=labels)
        for method, line in LINES.items()
        for labels in (LABELS[:1] if method == "simclr" else LABELS)
    ),
    claims=claims,
    columns={"test accuracy": "classifier", "linear, all labels": "linear"},
    watched=("accuracy", "consistency"),
    data=DATA,
    x_label="labels",
    notes="Test accuracy: of the method's own classifier, the teacher's of Mean Teacher; of SimCLR logistic regression on its "
    "features of the labelled images, its penalty chosen among them. Seeds draw the labels too, the same for every method. "
    "With 100 labels a quarter of each batch is labelled, with 1,000 a half; the baseline has whole batches of labelled "
    "images and "
    "as many updates. All else is the same for both.",
)

if __name__ == "__main__":
    run(STUDY)
