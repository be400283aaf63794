"""The layers of docs/architecture.md, enforced: a file imports only from its own layer or lower ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the lowest layer to the highest.
LAYERS = [
    "ssl_jax.core",
    "ssl_jax.augment",
    "ssl_jax.ops",
    "ssl_jax.losses",
    "ssl_jax.models",
    "ssl_jax.optim",
    "ssl_jax.data",
    "ssl_jax.interop",
    "ssl_jax.methods.method",
    "ssl_jax.methods.parts",
    "ssl_jax.methods",
    "ssl_jax.train",
    "ssl_jax.evaluate",
    "ssl_jax.report",
    "ssl_jax.config",
    "ssl_jax.model",
    "ssl_jax.cli",
    "configs",
    "experiments",
    "experiments.studies",
]
MAX_PARAMETERS = 12
FILES = [path for top in ("ssl_jax", "configs", "experiments") for path in sorted((ROOT / top).rglob("*.py"))]


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


def layer_of(module: str) -> int | None:
    """Index of the longest layer whose name begins a module's; None for what lies outside, and for ``ssl_jax`` itself."""
    found = [layer for layer in LAYERS if f"{module}.".startswith(f"{layer}.")]
    return LAYERS.index(max(found, key=len)) if found else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_its_own_layer_or_lower_ones(path):
    own = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        return
    for module in imported_modules(path):
        layer = layer_of(module)
        message = f"{path.relative_to(ROOT)} ({LAYERS[own]}) imports {module}, which is of a higher layer"
        assert layer is None or layer <= own, message


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_flax_and_config_dicts_stay_behind_their_fences(path):
    modules = {name.split(".")[0] for name in imported_modules(path)}
    assert "tensorflow" not in modules
    layer = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if layer is not None and layer < LAYERS.index("ssl_jax.config"):
        assert "ml_collections" not in modules, "nobody below config/ sees a ConfigDict"
    if path.parent.name != "models":
        assert "flax" not in modules, "only models/ imports flax"


def count_parameters(function: ast.FunctionDef) -> int:
    arguments = function.args
    count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    bound = (arguments.posonlyargs + arguments.args)[:1]
    return count - any(argument.arg in ("self", "cls") for argument in bound)


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((ROOT / "benchmarks").rglob("*.py"))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_function_takes_more_than_12_parameters(path):
    if path.parent == ROOT / "ssl_jax" / "models":
        return  # there a signature describes a whole network
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    long = {f.name: count_parameters(f) for f in functions if count_parameters(f) > MAX_PARAMETERS}
    assert not long, f"{path.relative_to(ROOT)}: {long}; group options in a dataclass"


def test_importing_the_package_starts_no_backend_and_no_tensorflow():
    code = (
        "import sys, pkgutil, importlib, ssl_jax\n"
        "for m in pkgutil.walk_packages(ssl_jax.__path__, 'ssl_jax.'): importlib.import_module(m.name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, 'a backend was started'\n"
        "assert not {'tensorflow', 'torch'} & set(sys.modules), 'imported TensorFlow or torch'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


def test_importing_the_package_defines_no_flag():
    """Flags are the launchers'; two of them can then be imported into one process that parses none."""
    code = (
        "import pkgutil, importlib, ssl_jax\n"
        "from absl import flags\n"
        "for m in pkgutil.walk_packages(ssl_jax.__path__, 'ssl_jax.'): importlib.import_module(m.name)\n"
        "own = [name for name in flags.FLAGS.flags_by_module_dict() if name.startswith('ssl_jax')]\n"
        "assert not own, own\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)
