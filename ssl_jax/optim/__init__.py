"""Optimizers, averages of parameters, and which parameters they touch."""

from ssl_jax.optim.learning_rate import LearningRate
from ssl_jax.optim.optimizer import Optimizer, ParamGroup, build
from ssl_jax.optim.options import RULES, from_options, options_of

__all__ = ["RULES", "LearningRate", "Optimizer", "ParamGroup", "build", "from_options", "options_of"]
