"""Self-distillation methods."""
