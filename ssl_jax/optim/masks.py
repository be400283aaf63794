"""Which parameters are special: left out of weight decay and adaptation, frozen for a while, held on the unit sphere."""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from ssl_jax.core import check, trees
from ssl_jax.core.numerics import normalize
from ssl_jax.core.types import Array, PyTree

Exclude = str | Sequence[str]
EXCLUDES = ("bias_and_norm", "none")
FOR_EVER = -1


def is_excluded(path: str, leaf: Array, *, exclude: Exclude = "bias_and_norm") -> bool:
    """Tell whether a parameter is left out of weight decay and of LARS's adaptation.

    Args:
      path: the parameter's path with slashes, such as ``encoder/stem/bias``.
      leaf: the parameter; only its number of axes is read.
      exclude: ``"bias_and_norm"``: everything with at most one axis, which is every bias, normalisation scale
        and LayerScale (BYOL, Barlow Twins, DINO, MAE); ``"none"``: nothing (MoCo, SimSiam, MoCo v3); or a
        tuple of regular expressions, any of which is found in the path.

    Raises:
      ValueError: an unknown name.

    >>> import jax.numpy as jnp
    >>> is_excluded("stem/bias", jnp.zeros(3)), is_excluded("stem/kernel", jnp.zeros((3, 3)))
    (True, False)
    >>> is_excluded("cls_token", jnp.zeros((1, 1, 3)), exclude=("cls_token", "pos_embed"))
    True
    """
    if isinstance(exclude, str):
        check.choice("exclude", exclude, EXCLUDES)
        return exclude == "bias_and_norm" and leaf.ndim <= 1
    return trees.matches(exclude, path)


def decay_mask(params: PyTree, *, exclude: Exclude = "bias_and_norm") -> PyTree:
    """Return a tree of bools: True where weight decay and adaptation apply (see ``is_excluded``).

    >>> import jax.numpy as jnp
    >>> decay_mask({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)})
    {'bias': False, 'kernel': True}
    """
    return trees.map_with_path(lambda path, leaf: not is_excluded(path, leaf, exclude=exclude), params)


def frozen_until(params: PyTree, *, freeze: Sequence[tuple[str, int]]) -> PyTree:
    """Return a tree of ints: the step from which a parameter moves; 0 if never frozen, -1 if frozen for ever.

    Args:
      params: the parameters.
      freeze: pairs (regular expression found in the path, step from which it moves or -1). Where several
        match, the longest freeze counts.

    Raises:
      ValueError: an expression that matches no parameter, or a step below -1.

    >>> import jax.numpy as jnp
    >>> frozen_until({"head": jnp.zeros(1), "stem": jnp.zeros(1)}, freeze=(("head", 10),))
    {'head': 10, 'stem': 0}
    """
    for pattern, until in freeze:
        check.require(until >= FOR_EVER, "freeze", (pattern, until), "a step of 0 or more, or -1 for ever")
    _require_matches(params, "freeze", [pattern for pattern, _ in freeze])

    def until_of(path: str, leaf: Array) -> int:
        steps = [until for pattern, until in freeze if trees.matches([pattern], path)]
        return FOR_EVER if FOR_EVER in steps else max(steps, default=0)

    return trees.map_with_path(until_of, params)


def matches(params: PyTree, option: str, patterns: Sequence[str]) -> PyTree:
    """Return a tree of bools: True where any of the regular expressions is found in a parameter's path.

    Args:
      params: the parameters.
      option: name of the option that gives the patterns, for the error.
      patterns: regular expressions.

    Raises:
      ValueError: an expression that matches no parameter.

    >>> import jax.numpy as jnp
    >>> matches({"predictor": jnp.zeros(1), "stem": jnp.zeros(1)}, "constant_lr", ["predictor"])
    {'predictor': True, 'stem': False}
    """
    _require_matches(params, option, patterns)
    return trees.map_with_path(lambda path, _: trees.matches(patterns, path), params)


def group_names(params: PyTree, patterns: Sequence[str]) -> PyTree:
    """Return a tree of strings: the one regular expression that is found in a parameter's path, or ``""``.

    Args:
      params: the parameters.
      patterns: regular expressions.

    Raises:
      ValueError: an expression that matches no parameter, or a parameter in which two are found.

    >>> import jax.numpy as jnp
    >>> group_names({"discriminator": jnp.zeros(1), "encoder": jnp.zeros(1)}, ["discriminator"])
    {'discriminator': 'discriminator', 'encoder': ''}
    """
    _require_matches(params, "groups", patterns)

    def group(path: str, leaf: Array) -> str:
        fitting = [pattern for pattern in patterns if trees.matches([pattern], path)]
        check.require(
            len(fitting) <= 1, "groups", tuple(fitting), f"one expression at most that finds {path}"
        )
        return "".join(fitting)

    return trees.map_with_path(group, params)


def matched_texts(params: PyTree, option: str, patterns: Sequence[str]) -> PyTree:
    """Return a tree of strings: the text that the first fitting regular expression finds in a path, or ``""``.

    Args:
      params: the parameters.
      patterns: regular expressions.

    Raises:
      ValueError: an expression that matches no parameter.

    >>> import jax.numpy as jnp
    >>> x = jnp.zeros(1)
    >>> matched_texts({"dense_0": {"bias": x}, "dense_1": {"bias": x}}, "skip_zero_grads", ["dense_."])
    {'dense_0': {'bias': 'dense_0'}, 'dense_1': {'bias': 'dense_1'}}
    """
    _require_matches(params, option, patterns)

    def text(path: str, leaf: Array) -> str:
        searched = (re.search(pattern, path) for pattern in patterns)
        return next((match.group() for match in searched if match), "")

    return trees.map_with_path(text, params)


def where_nonzero_grads(tree: PyTree, gradients: PyTree, groups: PyTree) -> PyTree:
    """Set leaves to exact zeros in groups whose gradients are all 0; leaves of the group ``""`` always stay.

    Args:
      tree: updates.
      gradients: a tree of the same form.
      groups: tree of strings from ``matched_texts``.

    >>> import jax.numpy as jnp
    >>> ones, none = {"a": jnp.ones(1), "b": jnp.ones(1)}, {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    >>> where_nonzero_grads(ones, none, {"a": "a", "b": ""})
    {'a': Array([0.], dtype=float32), 'b': Array([1.], dtype=float32)}
    """
    members: dict[str, list[Array]] = {}
    for gradient, name in zip(jax.tree.leaves(gradients), jax.tree.leaves(groups), strict=True):
        members.setdefault(name, []).append(gradient)
    live = {name: any_nonzero(grads) for name, grads in members.items() if name}
    return jax.tree.map(lambda x, name: jnp.where(live[name], x, 0) if name else x, tree, groups)


def any_nonzero(tree: PyTree) -> Array:
    """Tell whether any number in a tree differs from 0.

    >>> import jax.numpy as jnp
    >>> bool(any_nonzero({"a": jnp.zeros(2), "b": jnp.array([0.0, 1.0])}))
    True
    """
    return jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(tree)]))


def normalize_rows(updates: PyTree, params: PyTree, *, patterns: Sequence[str]) -> PyTree:
    """Change updates so that they end on rows of norm 1 where any of the regular expressions is found in the path.

    There ``u`` becomes ``n(w + u) − w`` with ``n(x) = x/‖x‖`` along the last axis.

    Args:
      updates: changes that would be added to the parameters.
      params: the parameters w.
      patterns: regular expressions.

    Raises:
      ValueError: an expression that matches no parameter.

    >>> import jax.numpy as jnp
    >>> weights = {"rows": jnp.array([[4.0, 0.0]])}
    >>> updates = normalize_rows({"rows": jnp.array([[0.0, 3.0]])}, weights, patterns=["rows"])
    >>> (weights["rows"] + updates["rows"]).round(1).tolist() == jnp.array([[0.8, 0.6]]).tolist()
    True
    """
    _require_matches(params, "normalize_rows", patterns)

    def end(path: str, update: Array, weight: Array) -> Array:
        return normalize(weight + update) - weight if trees.matches(patterns, path) else update

    return trees.map_with_path(end, updates, params)


def _require_matches(params: PyTree, name: str, patterns: Sequence[str]) -> None:
    paths = list(trees.flatten(params))
    for pattern in patterns:
        matched = any(trees.matches([pattern], path) for path in paths)
        check.require(matched, name, pattern, f"an expression found in a parameter path: {', '.join(paths)}")


def where_moving(tree: PyTree, until: PyTree, count: Array) -> PyTree:
    """Set leaves to exact zeros where they are still frozen, because ``count`` has not reached ``until``.

    Args:
      tree: gradients or updates.
      until: tree of ints from ``frozen_until``.
      count: int32 scalar, the step.

    >>> import jax.numpy as jnp
    >>> where_moving({"a": jnp.ones(1)}, {"a": 3}, jnp.array(2))["a"].tolist()
    [0.0]
    """

    def select(x: Array, step: int) -> Array:
        if step == 0:
            return x
        if step == FOR_EVER:
            return jnp.zeros_like(x)
        return jnp.where(count >= step, x, jnp.zeros_like(x))

    return jax.tree.map(select, tree, until)


def hold_state(
    rule: optax.GradientTransformationExtraArgs, until: int, *, skip_zero_grads: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Let the state of a rule stand still before step ``until``, as if it began there: torch's ``grad = None``.

    Without it Adam's bias correction and the momentum of parameters that thaw late would have run on without
    them. ``update`` takes the step as ``count``; its updates are for ``where_moving`` to zero.

    Args:
      rule: an optax transformation with extra arguments.
      until: step from which it runs; ``-1``: never, and it keeps no state.
      skip_zero_grads: whether the state also stands still in steps in which all gradients are 0; the updates are for
        ``where_nonzero_grads`` to zero.
    """
    if until == FOR_EVER:
        return optax.with_extra_args_support(optax.set_to_zero())

    def update(updates: PyTree, state: PyTree, params: PyTree, *, count: Array, **options: Array):
        moving = (count >= until) & any_nonzero(updates) if skip_zero_grads else count >= until
        updates, new_state = rule.update(updates, state, params, count=count, **options)
        return updates, jax.tree.map(lambda new, old: jnp.where(moving, new, old), new_state, state)

    return optax.GradientTransformationExtraArgs(rule.init, update)
