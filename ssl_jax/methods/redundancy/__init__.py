"""Two views agree while the dimensions of a batch stay spread and uncorrelated."""
