"""Results as tables."""

from typing import Any

from ssl_jax.evaluate.table import table


def evaluation(result: dict[str, Any], *, markdown: bool = False) -> str:
    """The measured rows as a table, accuracies in percent, and a line that says what was measured."""
    rows = []
    for row in result["rows"]:
        cells = {
            "accuracy in %": row["features"],
            "kNN": 100 * row["knn"],
            "linear, all labels": 100 * row["linear"],
        }
        for name in row:
            if f"{name}_std" in row:
                per_class = name.removeprefix("linear_")
                cells[f"linear, {per_class} labels a class"] = (100 * row[name], 100 * row[f"{name}_std"])
        rows.append(cells)
    train, test = result["examples"]
    what = f"{result['source']}: {train:,} training and {test:,} test images; ± is the deviation over draws of the labels."
    return table(rows, markdown=markdown) + f"\n\n{what}"
