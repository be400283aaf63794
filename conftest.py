"""Test set-up: eight virtual CPU devices, a compilation cache, shapes checked at run time, ``--long``."""

import ctypes
import gc
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ssl_jax.cli import cpu

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: without optimisation compiling takes a tenth of the time.
FAST_COMPILATION = {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": "false"}
KNOWN = [f"--{name}={value}" for name, value in FAST_COMPILATION.items() if cpu.jaxlib_knows(name.encode())]
os.environ.setdefault("XLA_FLAGS", " ".join(KNOWN))
# Programs are lowered sooner without the line of the source of each operation.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jax  # noqa: E402 (reads the environment)
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", os.environ.get("SSL_JAX_CACHE", os.path.abspath(".jax_cache")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

LIBC = ctypes.CDLL(None)
LARGE = 800 * 2**20
"""Bytes from which on a worker forgets what it has compiled."""
GROWN = 300 * 2**20
"""Bytes that it must have gained since it did so last: to look through all objects takes seconds."""
limit = LARGE
STATES: dict[str, dict[str, Any]] = {}
"""States of the random generators of each file of tests, by name."""

# Shapes and dtypes in signatures are checked in tests and free in production.
CHECKED = ["core", "losses", "augment", "ops", "evaluate", "train.features"]
install_import_hook([f"ssl_jax.{name}" for name in CHECKED], "beartype.beartype")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        # A file goes to one process, as its tests share what they compile; the conformance table method by method.
        method = (
            item.callspec.params.get("case", "")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else ""
        )
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {method}".strip()))
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="takes minutes: give --long")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Leave out of every search for garbage what has been imported and collected."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test the random numbers that it has when it runs alone: those of its file as they stand after the import."""
    if not isinstance(item, pytest.Function) or item.module is None:
        return
    generators = {name: v for name, v in vars(item.module).items() if isinstance(v, np.random.Generator)}
    states = STATES.setdefault(
        item.module.__name__, {name: generator.bit_generator.state for name, generator in generators.items()}
    )
    for name, generator in generators.items():
        generator.bit_generator.state = states[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Collect what a test leaves behind that may warn, while its own filters of warnings hold."""
    result = yield
    if item.get_closest_marker("filterwarnings"):
        gc.collect()
    return result


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget compiled programs between groups of tests, where a worker has become large: it would keep those of every file."""
    global limit
    group, following = (
        each.get_closest_marker("xdist_group") if each is not None else None for each in (item, nextitem)
    )
    if group and (following is None or group.args != following.args) and resident_bytes() > limit:
        jax.clear_caches()
        gc.collect()
        LIBC.malloc_trim(0)
        limit = max(LARGE, resident_bytes() + GROWN)


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
