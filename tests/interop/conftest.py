"""torchvision is imported before any test that needs it, also beside a torch of another build."""

import importlib.util

from benchmarks.torch_vision import import_torchvision

if all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
    import_torchvision()
