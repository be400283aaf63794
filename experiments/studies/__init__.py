"""Published claims at small scale: one module a study."""

import importlib
import pkgutil
from pathlib import Path

from ssl_jax.cli.study import Study

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "results/studies"
FIGURES = ROOT / "docs/studies"
SEEDS = (0, 1, 2)


def studies() -> dict[str, Study]:
    """Collect every study by name: the modules of this package that have one."""
    modules = {
        name: importlib.import_module(f"{__name__}.{name}") for _, name, _ in pkgutil.iter_modules(__path__)
    }
    return {name: modules[name].STUDY for name in sorted(modules) if hasattr(modules[name], "STUDY")}
