"""Floor 4: what an encoder is worth, measured on frozen features."""
