"""Floor 3: one file a method, in a folder a family."""
