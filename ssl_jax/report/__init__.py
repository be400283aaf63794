"""Floor 5: what a run leaves to read."""
