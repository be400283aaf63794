"""Floor 4: the state of a run, the step, the loop, and what keeps a run safe on disk."""
