"""An encoder without weights, so that what a pretext task asks can be answered, and checked, by hand."""

from ssl_jax.models.network import Network


def seeing(look, features):
    """The network ``look``: images ``[b, h, w, c]`` to ``[b, features]``."""
    return Network(lambda key, inputs: ({}, {}), lambda params, state, x, **_: (look(x), state), features, {})
