"""Floor 2: optimizers, averages of parameters, and which parameters they touch."""
