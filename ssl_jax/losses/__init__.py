"""Floor 1: loss functions, arrays in and a scalar out."""
