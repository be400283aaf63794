"""Floor 2: encoders, heads and decoders as pairs of pure functions. The only place that imports flax."""

from ssl_jax.models.build import build
from ssl_jax.models.network import Network, grouped_apply

__all__ = ["Network", "build", "grouped_apply"]
