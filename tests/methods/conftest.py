"""Which tests of methods are long ones."""

import pytest

from ssl_jax.methods.registry import names
from tests.methods.case import QUICK


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.path.stem.removeprefix("test_")
        if item.path.parent.parent.name == "methods" and name in names() and name not in QUICK:
            item.add_marker(pytest.mark.long)
