"""The floors of docs/architecture.md, enforced: a file imports only from its own floor or lower ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "core": 0,
    "losses": 1,
    "augment": 1,
    "masking": 1,
    "assignment": 1,
    "kmeans": 1,
    "targets": 1,
    "tiles": 1,
    "lab": 1,
    "schedules": 1,
    "models": 2,
    "optim": 2,
    "data": 2,
    "methods": 3,
    "train": 4,
    "evaluate": 4,
    "report": 5,
}
FILES = sorted((ROOT / "ssl_jax").rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor_of(module: str) -> int | None:
    parts = module.split(".")
    return FLOORS.get(parts[1]) if parts[0] == "ssl_jax" and len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_its_own_floor_or_lower(path):
    own = floor_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        return
    for module in imported_modules(path):
        floor = floor_of(module)
        assert floor is None or floor <= own, f"{path.name} (floor {own}) imports {module} (floor {floor})"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_flax_and_config_dicts_stay_behind_their_fences(path):
    modules = {name.split(".")[0] for name in imported_modules(path)}
    assert "tensorflow" not in modules
    assert "ml_collections" not in modules, "nobody below experiments/ sees a ConfigDict"
    if path.parent.name != "models":
        assert "flax" not in modules, "only models/ imports flax"


def test_importing_the_package_starts_no_backend_and_no_tensorflow():
    code = (
        "import sys, pkgutil, importlib, ssl_jax\n"
        "for m in pkgutil.walk_packages(ssl_jax.__path__, 'ssl_jax.'): importlib.import_module(m.name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, 'a backend was started'\n"
        "assert not {'tensorflow', 'torch'} & set(sys.modules), 'imported TensorFlow or torch'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)
