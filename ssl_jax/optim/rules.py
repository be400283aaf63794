"""Update rules with the learning rate and the weight decay of the step as arguments of ``update``.

A rule is an ``optax.GradientTransformationExtraArgs`` whose
``update(gradients, state, params, *, count, learning_rate, weight_decay)`` returns what is added to the
parameters. ``build`` gives it the step's scheduled values, so that one counter serves learning rate, decay
and freezing.
"""

from typing import Any, TypeAlias

import jax
import optax

from ssl_jax.core import check
from ssl_jax.core.types import Array, PyTree, Schedule
from ssl_jax.optim.masks import Exclude, decay_mask

Rule: TypeAlias = optax.GradientTransformationExtraArgs


def add_decay(tree: PyTree, params: PyTree, *, weight_decay: float | Array, exclude: Exclude) -> PyTree:
    """Add ``weight_decay · p`` to x where a parameter is not excluded.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    >>> add_decay(params, params, weight_decay=0.5, exclude="bias_and_norm")["kernel"].tolist()
    [[1.5]]
    """
    decayed = decay_mask(params, exclude=exclude)
    return jax.tree.map(lambda x, p, on: x + weight_decay * p if on else x, tree, params, decayed)


def descend(tree: PyTree, learning_rate: float | Array) -> PyTree:
    """Compute ``−learning_rate · x``.

    >>> import jax.numpy as jnp
    >>> descend({"a": jnp.ones(1)}, 0.5)["a"].tolist()
    [-0.5]
    """
    return jax.tree.map(lambda x: -learning_rate * x, tree)


def with_rate(rule: Rule, rate: Schedule, decay: Schedule | None = None) -> Rule:
    """Give a rule a learning rate, and perhaps a weight decay, of its own, in place of those that ``update`` is given.

    >>> import jax.numpy as jnp
    >>> rule, params = with_rate(sgd(), lambda step: 0.25), {"bias": jnp.ones(1)}
    >>> given = {"count": 0, "learning_rate": 0.5, "weight_decay": 0.0}
    >>> rule.update(params, rule.init(params), params, **given)[0]["bias"].tolist()
    [-0.25]
    """

    def update(gradients: PyTree, state: Any, params: PyTree, *, count: Array, learning_rate, weight_decay):
        del learning_rate
        weight_decay = weight_decay if decay is None else decay(count)
        options = {"learning_rate": rate(count), "weight_decay": weight_decay}
        return rule.update(gradients, state, params, count=count, **options)

    return Rule(rule.init, update)


def sgd(*, momentum: float | Array = 0.9, nesterov: bool = False, exclude: Exclude = "bias_and_norm") -> Rule:
    """Build SGD with momentum and coupled (L2) weight decay.

    ``g ← g + wd·p;  m ← μ·m + g;  p ← p − lr·m`` (Nesterov: ``p ← p − lr·(g + μ·m)``), with m starting at 0
    and undamped, as torch does. μ is ``momentum``; see ``masks.is_excluded`` for ``exclude``.

    >>> import jax.numpy as jnp
    >>> rule, params = sgd(), {"bias": jnp.ones(1)}
    >>> state = rule.init(params)
    >>> rule.update(params, state, params, learning_rate=0.5, weight_decay=0.0)[0]["bias"].tolist()
    [-0.5]

    Reference: Sutskever et al., On the importance of initialization and momentum (2013), in torch.optim.SGD's
    form.
    """
    check.below_one("momentum", momentum)
    trace = optax.trace(momentum, nesterov=nesterov)

    def update(gradients: PyTree, state: Any, params: PyTree, *, learning_rate, weight_decay, count=None):
        del count
        gradients = add_decay(gradients, params, weight_decay=weight_decay, exclude=exclude)
        moved, state = trace.update(gradients, state)
        return descend(moved, learning_rate), state

    return Rule(trace.init, update)


def adam(
    *,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    epsilon: float | Array = 1e-8,
    exclude: Exclude = "bias_and_norm",
) -> Rule:
    """Build Adam with coupled (L2) weight decay, the same as torch's Adam.

    ``g ← g + wd·p;  m ← b1·m + (1−b1)·g;  v ← b2·v + (1−b2)·g²;  u = (m / (1−b1^t)) / (√(v / (1−b2^t)) + ε);
    p ← p − lr·u``. ε is ``epsilon``; see ``masks.is_excluded`` for ``exclude``.

    >>> import jax.numpy as jnp
    >>> rule, params = adam(), {"bias": jnp.ones(1)}
    >>> state = rule.init(params)
    >>> rule.update(params, state, params, learning_rate=0.5, weight_decay=0.0)[0]["bias"].round(5).tolist()
    [-0.5]

    Reference: Kingma & Ba, Adam (2015), algorithm 1.
    """
    return _adam(b1=b1, b2=b2, epsilon=epsilon, exclude=exclude, decoupled=False)


def adamw(
    *,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    epsilon: float | Array = 1e-8,
    exclude: Exclude = "bias_and_norm",
) -> Rule:
    """Build Adam with decoupled weight decay, ``p ← p − lr·(u + wd·p)`` with Adam's u, the same as torch's AdamW.

    See ``adam`` for u and ε (``epsilon``), ``masks.is_excluded`` for ``exclude``.

    >>> import jax.numpy as jnp
    >>> rule, params = adamw(), {"kernel": jnp.ones((1, 1))}
    >>> state = rule.init(params)
    >>> rule.update(params, state, params, learning_rate=0.5, weight_decay=0.1)[0]["kernel"].round(5).tolist()
    [[-0.550000011920929]]

    Reference: Loshchilov & Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2. Deviation:
    decay is multiplied by the learning rate, not only by the schedule, as in torch and optax.
    """
    return _adam(b1=b1, b2=b2, epsilon=epsilon, exclude=exclude, decoupled=True)


def _adam(*, b1, b2, epsilon, exclude: Exclude, decoupled: bool) -> Rule:
    check.below_one("b1", b1)
    check.below_one("b2", b2)
    check.positive("epsilon", epsilon)
    scale = optax.scale_by_adam(b1, b2, epsilon)

    def update(gradients: PyTree, state: Any, params: PyTree, *, learning_rate, weight_decay, count=None):
        del count
        if not decoupled:
            gradients = add_decay(gradients, params, weight_decay=weight_decay, exclude=exclude)
        moved, state = scale.update(gradients, state)
        if decoupled:
            moved = add_decay(moved, params, weight_decay=weight_decay, exclude=exclude)
        return descend(moved, learning_rate), state

    return Rule(scale.init, update)
