"""torchvision beside a torch of another build."""

import functools
import importlib
import sys
from types import ModuleType


@functools.cache
def import_torchvision() -> ModuleType:
    """Import torchvision; where its own operators cannot be loaded, declare them: nothing here calls them."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
    torch = importlib.import_module("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torchvision = importlib.import_module("torchvision")
    torchvision.declared_operators = library  # declarations live as long as it does
    return torchvision
