"""Train step against PyTorch on the same cores: ResNet-18 SimCLR and ViT-tiny MAE at 32 px, float32.

Forward, backward and AdamW on one batch of views that were made before; both sides in one process on all of
its cores, in turn. PyTorch runs eagerly in its best layout: channels last for the convolutions, its fused
attention for the ViT, its fused AdamW. Ours is the step that ``fit`` runs: it also computes the gradient's
and the update's norm, checks that they are finite and measures collapse. Idle OpenMP threads are told to
sleep (``benchmarks.environment``), and XLA's pool blocks when idle, so neither side takes cores from the
other. The numbers of trained parameters have to be equal.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import pairs, torch_models
from ssl_jax import models, optim
from ssl_jax.augment.views import View
from ssl_jax.methods.contrastive import simclr
from ssl_jax.methods.masked import mae
from ssl_jax.methods.method import Method
from ssl_jax.train.program import Program, make_program
from ssl_jax.train.sharding import make_mesh

GAINS = {
    "ResNet": "what training a convolutional network without a GPU costs or saves against PyTorch",
    "ViT": "the same for vision transformers",
}
"""What the user gains, by a part of a row's name."""

RATE, DECAY = 1e-3, 0.05


def plain_view(size: int) -> View:
    """A view on which nothing random is done: crops pass through."""
    return View(size=size)


def our_program(method: Method, batch: dict[str, Any]) -> tuple[Program, int]:
    """The compiled step with AdamW, and the number of trained parameters."""
    optimizer = optim.from_options(
        "adamw",
        steps=10**6,
        learning_rate=RATE,
        batch_size=256,
        scaling="none",
        schedule="constant",
        weight_decay=DECAY,
    )
    program = make_program(method, optimizer, batch, make_mesh())
    return program, sum(leaf.size for leaf in jax.tree.leaves(program.abstract.params))


def our_step(program: Program, batch: dict[str, Any]) -> Callable[[], float]:
    """One step a call, on one batch."""
    held = [program.init(0)]

    def step() -> float:
        held[0], metrics = program.step(held[0], batch)
        return float(metrics["loss"])

    return step


def torch_step(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], float]:
    """One step a call, on one batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    model.train()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = model(images)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def batches(views: int, batch: int, size: int) -> tuple[dict[str, Any], torch.Tensor]:
    """The same pixels for both: ``[b, v, s, s, 3]`` and, channels last, ``[b * v, 3, s, s]``."""
    crops = np.random.default_rng(0).random((batch, views, size, size, 3), np.float32)
    tensor = torch.from_numpy(crops.reshape(-1, size, size, 3)).permute(0, 3, 1, 2)
    return {"crops": (jax.numpy.asarray(crops),)}, tensor


def compare(
    name: str, method: Method, model: torch.nn.Module, *, size: int, batch: int, pairs_: int, target: float
) -> pairs.Measurement:
    """Both steps in turn."""
    ours, images = batches(len(method.views), batch, size)
    program, count = our_program(method, ours)
    counts = count, torch_models.parameters(model)
    if counts[0] != counts[1]:
        raise AssertionError(f"{name}: {counts[0]} parameters here, {counts[1]} in PyTorch")
    first, second = our_step(program, ours), torch_step(model, images)
    losses = first(), second()  # compiles, and warms up
    times = pairs.alternate(first, second, pairs=pairs_, seconds=80, warmup=0)
    return pairs.paired(
        name,
        times,
        against="PyTorch, eager",
        at_least=target,
        items=batch,
        batch=batch,
        parameters=count,
        first_losses=losses,
        threads=torch.get_num_threads(),
    )


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    torch.set_num_threads(len(pairs.cores()))
    torch.manual_seed(0)
    return [resnet(options), vit(options)]


def resnet(options: argparse.Namespace) -> pairs.Measurement:
    """SimCLR, ResNet-18 with the stem for small images."""
    size, width, batch = (8, 0.125, 4) if options.quick else (32, options.width, options.batch)
    encoder = models.build("resnet18", stem="small", width=width)
    method = simclr.build(encoder, views=(plain_view(size),) * 2)
    model = torch_models.Simclr(torch_models.ResNet("resnet18", small=True, width=width))
    return compare(
        f"(a) train step, SimCLR ResNet-18 (width {round(64 * width)}), {size} px",
        method,
        model.to(memory_format=torch.channels_last),
        size=size,
        batch=batch,
        pairs_=2 if options.quick else options.pairs,
        target=0.65,
    )


def vit(options: argparse.Namespace) -> pairs.Measurement:
    """MAE, ViT-tiny with patches of 4 pixels, decoder of 4 blocks as wide as the encoder."""
    size, depth, decoder, batch = (8, 2, 1, 4) if options.quick else (32, 12, 4, options.batch)
    shape = {"width": 192, "heads": 3}
    encoder = models.build("vit_tiny", patch=4, image_size=size, position="sincos", depth=depth)
    method = mae.build(
        encoder, views=(plain_view(size),), decoder_width=192, decoder_depth=decoder, decoder_heads=3
    )
    network = torch_models.VisionTransformer(**shape, depth=depth, patch=4, size=size, learned=False)
    return compare(
        f"(a) train step, MAE ViT-tiny/4, {size} px",
        method,
        torch_models.Mae(network, size=size, **shape, depth=decoder),
        size=size,
        batch=batch,
        pairs_=2 if options.quick else 2 * options.pairs,
        target=1.0,
    )


if __name__ == "__main__":
    parser = pairs.parser("train_step", __doc__)
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels of the ResNet")
    parser.add_argument(
        "--pairs", type=int, default=7, help="pairs for the ResNet; the ViT has twice as many"
    )
    pairs.main("train_step", parser, run)
