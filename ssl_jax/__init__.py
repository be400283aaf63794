"""ssl_jax: self-supervised learning for vision in functional JAX.

Importing the package starts no JAX backend and imports no TensorFlow. Everything is reached through its module:
``from ssl_jax.methods.contrastive import simclr``, ``from ssl_jax.train import fit``.
"""

__version__ = "0.2.0"
