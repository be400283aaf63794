"""Steps that ``benchmarks.gpu`` times: images or ready views on the device, encoders in bfloat16, full and toy sizes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import models, optim
from ssl_jax.augment import presets
from ssl_jax.augment.views import View, groups, make_views
from ssl_jax.core.flops import matmul_flops
from ssl_jax.methods.contrastive import simclr
from ssl_jax.methods.distillation import dino
from ssl_jax.methods.masked import mae
from ssl_jax.methods.method import Method
from ssl_jax.methods.parts.self_distillation import DinoHead
from ssl_jax.models.network import Network
from ssl_jax.train.program import make_program
from ssl_jax.train.sharding import make_mesh

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVINGS = 3
"""How often a batch that does not fit into the device's memory is halved."""


class Sizes(NamedTuple):
    """What shrinks in a quick run.

    Attributes:
      size: side of the views in pixels.
      raw: side of the images on the device.
      batch: images a step.
      patch: side of a ViT's patches.
      steps: steps a timed call.
      repeats: timed calls, or pairs of them.
      small: side of the small images of the seeds' part.
      models: options of encoders, by name.
      decoder: options of MAE's decoder.
      local: options of DINO's local views.
      head: DINO's head.
    """

    size: int
    raw: int
    batch: int
    patch: int
    steps: int
    repeats: int
    small: int
    models: dict[str, dict[str, Any]]
    decoder: dict[str, int]
    local: dict[str, int]
    head: DinoHead


FULL = Sizes(224, 256, 256, 16, 10, 8, 32, {}, {}, {}, DinoHead())
TINY = {"width": 32, "depth": 1, "heads": 2}
QUICK = Sizes(
    size=16,
    raw=20,
    batch=4,
    patch=4,
    steps=2,
    repeats=2,
    small=8,
    models={
        **dict.fromkeys(("vit_tiny", "vit_small", "vit_base", "vit_large"), TINY),
        "resnet50": {"stem": "small", "width": 0.0625},
        "resnet18": {"width": 0.0625},
        "convnet": {"widths": (8, 8)},
    },
    decoder={"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    local={"local_size": 8, "local_count": 2},
    head=DinoHead(prototypes=64, hidden_dim=32, bottleneck=16),
)


def make_encoder(name: str, sizes: Sizes, **options: Any) -> Network:
    """Build an encoder in bfloat16, tiny in a quick run."""
    shape = {"patch": sizes.patch, "image_size": sizes.size} if name.startswith("vit") else {}
    return models.build(name, **{**shape, "dtype": "bfloat16", **sizes.models.get(name, {}), **options})


def small_vit(sizes: Sizes, **options: Any) -> Network:
    """Build a ViT-tiny with patches of 4 pixels for small images."""
    return make_encoder("vit_tiny", sizes, patch=4, image_size=sizes.small, **options)


def simclr_views(sizes: Sizes) -> tuple[View, ...]:
    return presets.simclr(sizes.size, mean=MEAN, std=STD)


def passing(views: tuple[View, ...]) -> tuple[View, ...]:
    """Make views of the same sizes on which nothing random is done."""
    return tuple(View(size=view.size) for view in views)


def raw_batch(sizes: Sizes, batch: int) -> dict[str, Any]:
    """Draw 8-bit images."""
    images = np.random.default_rng(0).integers(0, 256, (batch, sizes.raw, sizes.raw, 3), dtype=np.uint8)
    return {"image": images}


def made_batch(sizes: Sizes, batch: int, views: tuple[View, ...]) -> dict[str, Any]:
    """Make views before the step: what it is without augmentation."""
    return {"crops": jax.jit(lambda x: make_views(jax.random.key(0), x, views))(raw_batch(sizes, batch))}


def adamw() -> Any:
    return optim.from_options(
        "adamw", steps=10**6, learning_rate=1e-4, batch_size=256, scaling="none", schedule="constant"
    )


def make_steps(method: Method, batch: dict[str, Any], count: int) -> Callable[[], None]:
    """Make a function of so many steps a call, on one batch that lies on the device.

    Raises:
      FloatingPointError: the loss is not finite: such a step would not be one that trains.
    """
    program = make_program(method, adamw(), batch, make_mesh())
    held = [program.init(0)]
    batch = jax.device_put(batch)

    def call() -> None:
        for _ in range(count):
            held[0], metrics = program.step(held[0], batch)
        if not bool(metrics["finite"]):
            raise FloatingPointError("the loss is not finite")

    return call


def time_calls(call: Callable[[], object], count: int, seconds: float) -> tuple[float, ...]:
    """Time calls after one that is not timed: so many, fewer where they take longer than ``seconds``, but one."""
    call()
    found: list[float] = []
    start = time.perf_counter()
    while not found or (len(found) < count and time.perf_counter() - start < seconds):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return tuple(found)


def step_flops(method: Method, views: tuple[View, ...], batch: int, channels: int = 3) -> int:
    """Count the operations of the matrix products and convolutions of a method's loss and gradient on a batch of views.

    What a teacher does counts once, what has a gradient about three times; nothing is computed twice in these programs.
    """
    sides = [(len(group), views[group[0]].size) for group in groups(views)]
    shapes = {
        "views": tuple(
            jax.ShapeDtypeStruct((batch, count, side, side, channels), jnp.float32) for count, side in sides
        )
    }
    key = jax.random.key(0)
    params, state = jax.eval_shape(method.init, key, shapes)
    gradient = jax.value_and_grad(method.loss, has_aux=True)
    return matmul_flops(jax.make_jaxpr(gradient)(params, state, shapes, key, jnp.int32(0)))


def large_recipes(sizes: Sizes) -> dict[str, tuple[Callable[[], Method], int]]:
    """List the recipes whose utilisation is measured, each with its images a step: what compiles soonest first."""

    def masked(encoder: str) -> Callable[[], Method]:
        return lambda: mae.build(
            make_encoder(encoder, sizes, position="sincos"),
            views=passing(presets.mae(sizes.size)),
            **sizes.decoder,
        )

    def distilled(encoder: str) -> Callable[[], Method]:
        views = passing(presets.dino(sizes.size, **sizes.local))
        return lambda: dino.build(make_encoder(encoder, sizes), views=views, head=sizes.head)

    def contrastive() -> Method:
        return simclr.build(make_encoder("resnet50", sizes), views=passing(simclr_views(sizes)))

    batch = sizes.batch
    return {
        f"MAE ViT-B/{sizes.patch}": (masked("vit_base"), batch),
        f"DINO ViT-B/{sizes.patch}, ten crops": (distilled("vit_base"), max(batch // 4, 1)),
        "SimCLR ResNet-50": (contrastive, batch),
        f"MAE ViT-L/{sizes.patch}": (masked("vit_large"), batch),
        f"DINO ViT-L/{sizes.patch}, ten crops": (distilled("vit_large"), max(batch // 8, 1)),
    }


def fit_memory(make: Callable[[int], Any], batch: int) -> tuple[Any, int]:
    """Call ``make(batch)``, with halves of the batch where the memory is too small; also return the batch that fits.

    >>> def make(batch):
    ...     if batch > 4:
    ...         raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    ...     return 10 * batch
    >>> fit_memory(make, 16)
    (40, 4)
    """
    for halved in range(HALVINGS + 1):
        try:
            return make(max(batch >> halved, 1)), max(batch >> halved, 1)
        except Exception as error:
            too_large = "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
            if not too_large or halved == HALVINGS:
                raise
        jax.clear_caches()
    raise AssertionError("unreachable")
