"""Floor 2: encoders, heads and decoders as pairs of pure functions. The only place that imports flax."""

from ssl_jax.models.build import BUILDERS, build
from ssl_jax.models.network import Network, grouped_apply

__all__ = ["BUILDERS", "Network", "build", "grouped_apply"]
