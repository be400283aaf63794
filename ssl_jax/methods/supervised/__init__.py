"""Training with labels: the baseline of the same budget."""
