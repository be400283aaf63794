"""Training with labels: the yardstick of the same budget."""
