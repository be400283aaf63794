"""Autoencoders, energy-based and adversarial models: features of what has to explain whole images."""
