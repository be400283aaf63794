"""The words of the project: public names say what the field says, in American spelling, and old words do not come back."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [
    path
    for top in ("ssl_jax", "configs", "experiments", "benchmarks", "docs")
    for path in sorted((ROOT / top).rglob("*.py"))
]
# An old word, and what is said in its place.
OLD = {
    "sign signs": "collapse value",
    "halves refreshing renewed describe_images": "embed_views; Refresh(features, update, reinit)",
    "remember remembered": "update_memory_bank",
    "teach study_outputs belief beliefs": "teacher_outputs, student_outputs; teacher_log_probs",
    "rising warmed begin begun": "cosine_ema, teacher_temperature_schedule, init_state",
    "rampdown_over hidden_places": "steps; masked positions",
    "place places": "position, row, location, device_put",
    "yardstick yardsticks": "baseline",
    "lane lanes drill floor floors": "vectorized run, kill_resume_worker, layer",
    "look settle owed tell told asked needed joined": "hook, flush, pending, print_once, parse, require_flag, distributed",
    "recorded_config plain_config drops": "read_config, to_dict, epoch_boundaries",
    "undecayed lazy_groups unit_rows": "constant_lr, skip_zero_grads, normalize_rows",
    "labelled unlabelled": "labeled, unlabeled",
    "found shown there": "the noun of the thing",
    "colour colours coloured neighbour neighbours centre centres centred grey normalise normalised": "American spelling",
}
FORBIDDEN = {word: instead for words, instead in OLD.items() for word in words.split()}


def public_names(path: Path) -> set[str]:
    """Names of a file's public functions and classes, of their parameters and fields, and its own."""
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            names.add(node.name)
            if isinstance(node, ast.FunctionDef):
                arguments = node.args
                names |= {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
            else:
                fields = (item.target for item in node.body if isinstance(item, ast.AnnAssign))
                names |= {field.id for field in fields if isinstance(field, ast.Name)}
    return names


def old_words(names: set[str]) -> dict[str, str]:
    """Names that are, or contain between underscores, an old word."""
    snake = {name: re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() for name in names}
    return {
        name: instead
        for name, text in snake.items()
        for word, instead in FORBIDDEN.items()
        if f"_{word}_" in f"_{text}_"
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_hold_no_old_word(path):
    old = old_words(public_names(path))
    assert not old, f"{path.relative_to(ROOT)}: {old}"


def test_old_words_are_found_where_they_are_a_part_of_a_name():
    assert old_words({"unlabelled_rows", "CenterCrop", "knnSigns", "signature"}) == {
        "unlabelled_rows": "labeled, unlabeled",
        "knnSigns": "collapse value",
    }


def test_names_of_test_files_hold_no_old_word():
    old = {path.name: words for path in (ROOT / "tests").rglob("*.py") if (words := old_words({path.stem}))}
    assert not old
