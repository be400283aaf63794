"""From recipes to the whole config of a run, and from a config to its objects. Config files import this and nothing else."""

from ssl_jax.config.make import entry
from ssl_jax.config.recipe import Recipe, at_64_pixels, derive, in_color, share

__all__ = ["Recipe", "at_64_pixels", "derive", "entry", "in_color", "share"]
