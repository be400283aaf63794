"""The step of ``benchmarks.gpu`` in PyTorch: views on the device, bfloat16 autocast, ``torch.compile``, fused AdamW."""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import torch_models
from benchmarks.steps_gpu import Sizes
from benchmarks.torch_augment import transforms
from benchmarks.torch_vision import import_torchvision
from ssl_jax.augment.operations import Blur, ColorJitter, Flip, Grayscale
from ssl_jax.augment.views import View

Make = Callable[[torch.Tensor], torch.Tensor]
"""A view of each of ``[b, 3, h, w]`` 8-bit images: ``[b, 3, s, s]`` floats."""


class TorchSteps(NamedTuple):
    """Both forms of the step.

    Attributes:
      whole: so many steps a call, views made on the device.
      bare: the same on views that were made before.
      label: what they are, for the table.
    """

    whole: Callable[[], None]
    bare: Callable[[], None]
    label: str


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def kornia_views(view: View, device: str) -> Make:
    """Make views by kornia, the whole batch at a time, with random numbers for each image."""
    import kornia

    ops: dict[type, Any] = {type(op): op for op in view.ops}
    flip, jitter, grayscale, blur = (ops[kind] for kind in (Flip, ColorJitter, Grayscale, Blur))
    taps = blur.taps(view.size)
    augment = kornia.augmentation.AugmentationSequential(
        kornia.augmentation.RandomResizedCrop(
            (view.size,) * 2, scale=view.crop.area, ratio=view.crop.ratio, resample=view.crop.interpolation
        ),
        kornia.augmentation.RandomHorizontalFlip(p=flip.prob),
        kornia.augmentation.ColorJitter(
            jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, p=jitter.prob
        ),
        kornia.augmentation.RandomGrayscale(p=grayscale.prob),
        kornia.augmentation.RandomGaussianBlur((taps, taps), blur.sigma, p=blur.prob),
        kornia.augmentation.Normalize(mean=torch.tensor(view.mean), std=torch.tensor(view.std)),
        same_on_batch=False,
    ).to(device)
    return lambda raw: augment(raw.float() / 255)


def torchvision_views(view: View) -> Make:
    """Make views by torchvision's ``v2`` on tensors of the device, image by image: its random numbers are one set a call."""
    import_torchvision()
    from torchvision.transforms import v2

    floats = v2.ToDtype(torch.float32, scale=True)
    composed = v2.Compose([*transforms(v2, view), floats, v2.Normalize(view.mean, view.std)])
    return lambda raw: torch.stack([composed(image) for image in raw])


def choose_views(view: View, device: str) -> tuple[Make, str]:
    """Choose what makes the views: kornia, else torchvision.

    Raises:
      ModuleNotFoundError: neither is installed.
    """
    if has("kornia"):
        return kornia_views(view, device), "kornia"
    if has("torchvision"):
        return torchvision_views(view), "torchvision (kornia is not installed)"
    raise ModuleNotFoundError("neither kornia nor torchvision is installed")


def make_torch_steps(sizes: Sizes, view: View, images: np.ndarray, count: int) -> TorchSteps:
    """Build SimCLR with a ViT-S in PyTorch.

    Args:
      sizes: of the run.
      view: what kornia or torchvision does.
      images: ``[b, h, w, 3]``, 8-bit.
      count: steps a call.
    """
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    make, name = choose_views(view, device)
    shape = sizes.models.get("vit_small", {"width": 384, "depth": 12, "heads": 6})
    network = torch_models.VisionTransformer(**shape, patch=sizes.patch, size=sizes.size)
    model = torch_models.Simclr(network).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    # Inductor needs a compiler for C++ on CPUs, which a toy run should not depend on; its graph capture is tried all the same.
    compiled = torch.compile(model) if on_gpu else torch.compile(model, backend="aot_eager")
    raw = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    torch.set_float32_matmul_precision("high")

    def two_views() -> torch.Tensor:
        with torch.no_grad():
            return torch.stack([make(raw), make(raw)], dim=1).flatten(0, 1)

    def update(views: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = compiled(views)
        loss.backward()
        optimizer.step()
        return loss

    ready = two_views()

    def whole() -> None:
        for _ in range(count):
            loss = update(two_views())
        loss.item()

    def bare() -> None:
        for _ in range(count):
            loss = update(ready)
        loss.item()

    how = "torch.compile" if on_gpu else "torch.compile without a backend (CPU)"
    return TorchSteps(whole, bare, f"PyTorch, {how} and {name}")
