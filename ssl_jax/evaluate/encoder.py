"""An encoder by itself in the form of a method, so that every measure takes it as it takes the encoder of a run."""

from ssl_jax.augment.views import View
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.methods.method import Method
from ssl_jax.models.network import Network


def encoder_method(encoder: Network, view: View) -> Method:
    """Wrap an encoder as a method that only encodes: its params and state are the encoder's.

    Args:
      encoder: from ``models.build``.
      view: gives size and normalisation of the images.

    Returns:
      A method whose ``loss`` raises a ValueError: there is nothing to train it by.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models import build
    >>> network, images = build("convnet", widths=(4,), grid=1), jnp.zeros((2, 8, 8, 3))
    >>> variables = network.init(jax.random.key(0), images)
    >>> encoder_method(network, View(size=8)).encode(*variables, images).shape
    (2, 4)
    """

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        return encoder.init(key, batch["views"][0][:, 0])

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        raise ValueError("an encoder by itself is evaluated, not trained")

    def encoder_variables(params: Params, state: State) -> tuple[Params, State]:
        return params, state

    return Method((view,), init, loss, encoder, encoder_variables)
