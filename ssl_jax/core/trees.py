"""Trees addressed by path: ``{"encoder": {"stem": {"kernel": x}}}`` has the path ``encoder/stem/kernel``."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import jax

from ssl_jax.core.types import PyTree


def path_string(path: tuple[Any, ...]) -> str:
    """Format a key path of ``jax.tree_util`` as a string with slashes.

    >>> import jax
    >>> [path_string(p) for p, _ in jax.tree_util.tree_leaves_with_path({"a": {"b": 1}, "c": [2]})]
    ['a/b', 'c/0']
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def map_with_path(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Map ``function(path, leaf, *rest_leaves)`` over a tree, ``path`` being a string with slashes.

    >>> map_with_path(lambda path, x: f"{path}={x}", {"a": {"b": 1}})
    {'a': {'b': 'a/b=1'}}
    """
    return jax.tree_util.tree_map_with_path(lambda p, *leaves: function(path_string(p), *leaves), tree, *rest)


def flatten(tree: PyTree) -> dict[str, Any]:
    """Flatten a tree to a dict from path to leaf, in tree order.

    >>> flatten({"a": {"b": 1, "c": 2}})
    {'a/b': 1, 'a/c': 2}
    """
    return {path_string(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """Turn a flat dict from path to leaf back into nested dicts (every level a dict).

    >>> unflatten({'a/b': 1, 'a/c': 2})
    {'a': {'b': 1, 'c': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def matches(patterns: Iterable[str], path: str) -> bool:
    """Tell whether any regular expression is found in the path.

    >>> matches(["bias$", "norm"], "encoder/norm1/scale"), matches(["bias$"], "head/kernel")
    (True, False)
    """
    return any(re.search(pattern, path) for pattern in patterns)


def size(tree: PyTree) -> int:
    """Count the array elements in a tree.

    >>> import numpy as np
    >>> size({"a": np.ones((2, 3)), "b": np.ones(4)})
    10
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
