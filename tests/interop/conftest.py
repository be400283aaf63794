"""torchvision beside a torch of another build: its own operators, which no test calls, cannot be loaded and are declared."""

import importlib.util
import sys


def declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declare_operators.library = library  # declarations live as long as it does


if all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        declare_operators()
        import torchvision  # noqa: F401
