"""On a GPU: images a second of whole steps with augmentation on the device, its share of the step, and FLOPs.

1. SimCLR ViT-S/16, batch 256, 224 px, two views, against the same step in PyTorch: ``torch.compile``,
   bfloat16 autocast, fused AdamW, kornia on the GPU. Without torch, kornia or CUDA only ours is measured.
2. The share of that step that augmentation takes: the step on raw images against that on ready views.
3. Model FLOP utilisation in bfloat16 of ViT-B/16: FLOPs of the matrix products of the model
   (three times the forward pass, nothing for recomputation) over time and the peak of the device.
4. Images a second of SimCLR ResNet-50, MAE ViT-B/16 and DINO ViT-S/16 with ten crops.

Raw images are 8-bit and lie on the device, 256 x 256. ``--quick`` runs tiny models on any device, a CPU too.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import pairs
from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.augment.operations import Blur, ColorJitter, Flip, Grayscale
from ssl_jax.augment.views import View, make_views
from ssl_jax.cli.hardware import peak_flops
from ssl_jax.methods.contrastive import simclr
from ssl_jax.methods.distillation import dino
from ssl_jax.methods.masked import mae
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.self_distillation import DinoHead
from ssl_jax.models.network import Network
from ssl_jax.train.program import make_program
from ssl_jax.train.sharding import make_mesh

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def vit_flops(
    *, width: int, depth: int, tokens: int, patch: int, channels: int = 3, mlp: float = 4.0
) -> float:
    """FLOPs of the matrix products of one forward pass of a ViT for one image; a multiply-add counts two.

    >>> round(vit_flops(width=768, depth=12, tokens=197, patch=16) / 1e9, 1)
    35.1
    """
    linear = tokens * (4 + 2 * mlp) * width * width
    attention = 2 * tokens * tokens * width
    embedding = tokens * channels * patch * patch * width
    return 2 * (depth * (linear + attention) + embedding)


class Sizes(NamedTuple):
    """What shrinks in a quick run."""

    size: int
    raw: int
    batch: int
    patch: int
    steps: int
    pairs: int
    models: dict[str, dict[str, Any]]


FULL = Sizes(224, 256, 256, 16, 10, 8, {})
TINY = {"width": 32, "depth": 2, "heads": 2}
QUICK = Sizes(
    16,
    20,
    4,
    4,
    2,
    2,
    {"vit_small": TINY, "vit_base": TINY, "resnet50": {"stem": "small", "width": 0.0625}},
)


def encoder(name: str, sizes: Sizes, **options: Any) -> Network:
    """An encoder in bfloat16, tiny in a quick run."""
    shape = {"patch": sizes.patch, "image_size": sizes.size} if name.startswith("vit") else {}
    return models.build(name, **{**shape, "dtype": "bfloat16", **options, **sizes.models.get(name, {})})


def steps(method: Method, batch: dict[str, Any], count: int) -> Callable[[], None]:
    """So many steps a call, on one batch that lies on the device."""
    optimizer = optim.from_options(
        "adamw", steps=10**6, learning_rate=1e-4, batch_size=256, scaling="none", schedule="constant"
    )
    program = make_program(method, optimizer, batch, make_mesh())
    held = [program.init(0)]
    batch = jax.device_put(batch)

    def call() -> None:
        for _ in range(count):
            held[0], metrics = program.step(held[0], batch)
        jax.block_until_ready(metrics)

    return call


def timed(call: Callable[[], object], count: int) -> tuple[float, ...]:
    """Seconds of each of so many calls, after one that is not timed."""
    call()
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return tuple(found)


def raw_batch(sizes: Sizes, batch: int) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (batch, sizes.raw, sizes.raw, 3), dtype=np.uint8)
    return {"image": images}


def made_batch(sizes: Sizes, batch: int, views: tuple[View, ...]) -> dict[str, Any]:
    """Views made before: what the step is without augmentation."""
    return {"crops": make_views(jax.random.key(0), raw_batch(sizes, batch), views)}


def passing(views: tuple[View, ...]) -> tuple[View, ...]:
    """Views of the same sizes on which nothing random is done."""
    return tuple(View(size=view.size) for view in views)


def whole_step(sizes: Sizes) -> list[pairs.Measurement]:
    """SimCLR ViT-S/16 against PyTorch, and the share of augmentation."""
    views = presets.simclr(sizes.size, mean=MEAN, std=STD)
    network, count = encoder("vit_small", sizes), sizes.steps
    batch = raw_batch(sizes, sizes.batch)
    name = f"SimCLR ViT-S/{sizes.patch}, batch {sizes.batch}, {sizes.size} px"
    whole = steps(simclr.build(network, views=views), batch, count)
    plain = passing(views)
    bare = steps(simclr.build(network, views=plain), made_batch(sizes, sizes.batch, plain), count)
    items = count * sizes.batch
    against = torch_steps(sizes, views[0], batch["image"], count)
    found = []
    if against is None:
        rates = [items / t for t in timed(whole, sizes.pairs)]
        found.append(pairs.valued(f"{name}: whole step", rates, unit="images/s"))
    else:
        times = pairs.alternate(whole, against, pairs=sizes.pairs)
        other = "PyTorch, torch.compile and kornia"
        found.append(pairs.paired(f"{name}: whole step", times, against=other, at_least=1.5, items=items))
    times = pairs.alternate(bare, whole, pairs=sizes.pairs)
    shares = [1 - a / b for a, b in zip(times.ours, times.other, strict=True)]
    raw = {"without_seconds": times.ours, "with_seconds": times.other}
    found.append(pairs.valued(f"{name}: share of augmentation", shares, unit="share", at_most=0.1, raw=raw))
    return found


def torch_steps(sizes: Sizes, view: View, images: np.ndarray, count: int) -> Callable[[], None] | None:
    """The same step in PyTorch; ``None`` without torch or kornia, or where JAX has a GPU and PyTorch none."""
    if not all(importlib.util.find_spec(package) for package in ("torch", "kornia")):
        return None
    import kornia
    import torch

    from benchmarks import torch_models

    on_gpu = torch.cuda.is_available()
    if not on_gpu and jax.default_backend() != "cpu":
        return None
    device = "cuda" if on_gpu else "cpu"

    ops: dict[type, Any] = {type(op): op for op in view.ops}
    flip, jitter, grayscale, blur = (ops[kind] for kind in (Flip, ColorJitter, Grayscale, Blur))
    taps = blur.taps(view.size)
    augment = kornia.augmentation.AugmentationSequential(
        kornia.augmentation.RandomResizedCrop(
            (view.size,) * 2, scale=view.crop.area, ratio=view.crop.ratio, resample="bicubic"
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
    shape = sizes.models.get("vit_small", {"width": 384, "depth": 12, "heads": 6})
    network = torch_models.VisionTransformer(**shape, patch=sizes.patch, size=sizes.size)
    model = torch_models.Simclr(network).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    compiled = torch.compile(model) if on_gpu else model
    raw = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    torch.set_float32_matmul_precision("high")

    def call() -> None:
        for _ in range(count):
            with torch.no_grad():
                floats = raw.float() / 255
                views = torch.stack([augment(floats), augment(floats)], dim=1).flatten(0, 1)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                loss = compiled(views)
            loss.backward()
            optimizer.step()
        loss.item()

    return call


def utilisation(sizes: Sizes, top: float | None) -> list[pairs.Measurement]:
    """SimCLR ViT-B/16 on views made before: FLOPs a second, and their share of the peak."""
    batch = sizes.batch // 2
    views = passing(presets.simclr(sizes.size))
    network = encoder("vit_base", sizes)
    call = steps(simclr.build(network, views=views), made_batch(sizes, batch, views), sizes.steps)
    config = network.config
    tokens = (sizes.size // sizes.patch) ** 2 + 1
    forward = vit_flops(width=config["width"], depth=config["depth"], tokens=tokens, patch=sizes.patch)
    flops = 3 * forward * 2 * batch * sizes.steps
    seconds = timed(call, sizes.pairs)
    name, raw = f"SimCLR ViT-B/{sizes.patch}, bfloat16", {"seconds": seconds}
    rates = [flops / t / 1e12 for t in seconds]
    found = [pairs.valued(f"{name}: model TFLOP/s", rates, unit="TFLOP/s", raw=raw)]
    if top:
        shares = [1e12 * rate / top for rate in rates]
        found.append(
            pairs.valued(
                f"{name}: model FLOP utilisation",
                shares,
                unit="share",
                against=f"peak of {top / 1e12:g} TFLOP/s",
                at_least=0.5,
                raw=raw,
            )
        )
    return found


def rates(sizes: Sizes) -> list[pairs.Measurement]:
    """Images a second of three recipes, whole steps."""
    local = {"local_size": sizes.size // 2, "local_count": 2} if sizes is QUICK else {}
    small = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2} if sizes is QUICK else {}
    head = DinoHead(prototypes=64, hidden_dim=32, bottleneck=16) if sizes is QUICK else DinoHead()
    normal = {"mean": MEAN, "std": STD}
    recipes = {
        "SimCLR ResNet-50": simclr.build(
            encoder("resnet50", sizes), views=presets.simclr(sizes.size, **normal)
        ),
        f"MAE ViT-B/{sizes.patch}": mae.build(
            encoder("vit_base", sizes, position="sincos"), views=presets.mae(sizes.size, **normal), **small
        ),
        f"DINO ViT-S/{sizes.patch}, multi-crop": dino.build(
            encoder("vit_small", sizes), views=presets.dino(sizes.size, **local, **normal), head=head
        ),
    }
    found = []
    for name, method in recipes.items():
        batch = sizes.batch // 4 if "DINO" in name else sizes.batch
        seconds = timed(steps(method, raw_batch(sizes, batch), sizes.steps), sizes.pairs)
        speeds = [batch * sizes.steps / t for t in seconds]
        found.append(
            pairs.valued(f"{name}, batch {batch}", speeds, unit="images/s", raw={"seconds": seconds})
        )
    return found


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    sizes = QUICK if options.quick else FULL
    if options.batch:
        sizes = sizes._replace(batch=options.batch)
    device = jax.devices()[0]
    if not options.quick and device.platform == "cpu":
        raise SystemExit("no accelerator here: give --quick to see that the benchmark runs")
    top = options.peak * 1e12 if options.peak else peak_flops(device.device_kind)
    return [*whole_step(sizes), *utilisation(sizes, top), *rates(sizes)]


if __name__ == "__main__":
    parser = pairs.parser("gpu", __doc__)
    parser.add_argument("--batch", type=int, default=0, help="images a step; default 256")
    parser.add_argument("--peak", type=float, default=0.0, help="dense bfloat16 TFLOP/s of the device")
    pairs.main("gpu", parser, run)
