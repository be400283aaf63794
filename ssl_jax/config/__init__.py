"""From a recipe to the whole config of a run, and from a config to its objects."""
