"""Floor 0: types, tree paths, safe numerics, argument checks."""
