"""The side of lightly in ``benchmarks.peers``: its heads, losses, transforms, decoders and schedules, on PyTorch.

A recipe is one of our configs, so that both sides get the same numbers. What lightly does not have is refused. The training
loop is that of lightly's examples: each view passes through the network by itself, teachers move before the step, PIL augments
the images in as many worker processes as there are cores.

Import ``benchmarks.torch_vision`` first, where torch and torchvision are of different builds.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightly import loss as losses
from lightly import transforms
from lightly.models import utils
from lightly.models.modules import (
    MaskedVisionTransformerDecoderTIMM,
    MaskedVisionTransformerTIMM,
    heads,
)
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from lightly.utils.scheduler import cosine_schedule, cosine_warmup_schedule
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.torch_models import ConvNet
from benchmarks.trained import Clock, Trained
from ssl_jax.data.batches import example_indices
from ssl_jax.optim.learning_rate import scale_by_batch

Config = Mapping[str, Any]
Part = Mapping[str, Any]


def require(where: str, options: Part, **allowed: Any) -> None:
    """Refuse what lightly has nothing for.

    Args:
      where: name of the part of the config.
      options: that part.
      **allowed: the only value of an option that lightly has.

    Raises:
      ValueError: another value.
    """
    for name, value in allowed.items():
        if options[name] != value:
            raise ValueError(f"config.{where}.{name}={options[name]!r}: lightly has {value!r} only")


class LightlyMethod(nn.Module):
    """A method in training: an encoder, whose features are measured, and what belongs to the loss."""

    encoder: nn.Module

    def move_teacher(self, share: float) -> None:
        """Move the teacher, before a step; ``share`` of it stays."""

    def loss(self, views: list[Tensor], step: int) -> Tensor:
        """Compute the loss of a batch from its views ``[n, 3, h, w]``."""
        raise NotImplementedError

    def last_layer(self) -> list[nn.Parameter]:
        """List the parameters that a recipe may hold still at first."""
        return []


class SimClr(LightlyMethod):
    """SimCLR as in lightly's example."""

    def __init__(self, encoder: nn.Module, method: Part) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = heads.SimCLRProjectionHead(
            encoder.features,
            method["projector_width"] or encoder.features,
            method["projection"],
            num_layers=method["projector_layers"],
        )
        self.criterion = losses.NTXentLoss(temperature=method["temperature"])

    def loss(self, views: list[Tensor], step: int) -> Tensor:
        first, second = (self.head(self.encoder(view)) for view in views)
        return self.criterion(first, second)


class Byol(LightlyMethod):
    """BYOL as in lightly's example. The loss is the sum of squared distances, as ours: lightly's times four, plus four."""

    def __init__(self, encoder: nn.Module, method: Part, teacher: nn.Module) -> None:
        super().__init__()
        require(
            "method", method, predictor="mlp", projector_layers=2, hidden_norm="batch", independent_init=False
        )
        hidden, outputs = method["hidden_dim"], method["projection"]
        projector = (encoder.features, method["projector_width"] or hidden, outputs)
        self.encoder, self.teacher = encoder, teacher
        self.projector = heads.BYOLProjectionHead(*projector)
        self.predictor = heads.BYOLPredictionHead(outputs, method["predictor_width"] or hidden, outputs)
        self.teacher_projector = heads.BYOLProjectionHead(*projector)
        follow(self.encoder, self.teacher)
        follow(self.projector, self.teacher_projector)
        self.criterion = losses.NegativeCosineSimilarity()

    def move_teacher(self, share: float) -> None:
        utils.update_momentum(self.encoder, self.teacher, share)
        utils.update_momentum(self.projector, self.teacher_projector, share)

    def loss(self, views: list[Tensor], step: int) -> Tensor:
        first, second = (self.predictor(self.projector(self.encoder(view))) for view in views)
        with torch.no_grad():
            targets = [self.teacher_projector(self.teacher(view)) for view in views]
        return 4.0 + 2.0 * (self.criterion(first, targets[1]) + self.criterion(second, targets[0]))


class Dino(LightlyMethod):
    """DINO as in lightly's example; the features are the teacher's."""

    def __init__(self, encoder: nn.Module, method: Part, student: nn.Module) -> None:
        super().__init__()
        require("method", method, predictor="none", centering=True)
        self.encoder, self.student = encoder, student
        self.teacher_head, self.head = (dino_head(encoder.features, method) for _ in range(2))
        follow(self.student, self.encoder)
        follow(self.head, self.teacher_head)
        temperatures = method["temperatures"]
        require("method.temperatures", temperatures, teacher_start=None)
        self.criterion = losses.DINOLoss(
            method["head"]["prototypes"],
            teacher_temp=temperatures["teacher"],
            student_temp=temperatures["student"],
            center_momentum=method["center_decay"],
        )

    def move_teacher(self, share: float) -> None:
        utils.update_momentum(self.student, self.encoder, share)
        utils.update_momentum(self.head, self.teacher_head, share)

    def loss(self, views: list[Tensor], step: int) -> Tensor:
        with torch.no_grad():
            targets = [self.teacher_head(self.encoder(view)) for view in views[:2]]
        return self.criterion(targets, [self.head(self.student(view)) for view in views])

    def last_layer(self) -> list[nn.Parameter]:
        return list(self.head.last_layer.parameters())


class Mae(LightlyMethod):
    """MAE as in lightly's example, on its ViT of timm and its decoder."""

    def __init__(self, encoder: nn.Module, method: Part) -> None:
        super().__init__()
        require("method", method, mask="random", unit=1, secondary=0.0)
        vit, width = encoder.tokens.vit, method["decoder_width"]
        patch = vit.patch_embed.patch_size[0]
        self.encoder, self.patch = encoder, patch
        self.ratio, self.norm_pix = method["mask_ratio"], method["norm_pix"]
        self.embed, self.predict = nn.Linear(vit.embed_dim, width), nn.Linear(width, 3 * patch * patch)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=vit.patch_embed.num_patches,
            embed_dim=width,
            depth=method["decoder_depth"],
            num_heads=method["decoder_heads"],
        )
        for layer in (self.embed, self.predict):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def loss(self, views: list[Tensor], step: int) -> Tensor:
        (images,) = views
        size = (len(images), self.encoder.tokens.sequence_length)
        keep, masked = utils.random_token_mask(size, mask_ratio=self.ratio)
        visible = self.embed(self.encoder.tokens.encode(images, idx_keep=keep))
        every = utils.set_at_index(utils.repeat_token(self.decoder.mask_token, size), keep, visible)
        predicted = self.predict(utils.get_at_index(self.decoder(every), masked))
        target = utils.get_at_index(utils.patchify(images, self.patch), masked - 1)  # no class token there
        target = utils.normalize_mean_var(target) if self.norm_pix else target
        return nn.functional.mse_loss(predicted, target)


class MeanOfPatches(nn.Module):
    """Features of a masked ViT: the mean of its normalized patch tokens."""

    def __init__(self, tokens: MaskedVisionTransformerTIMM) -> None:
        super().__init__()
        self.tokens, self.features = tokens, tokens.vit.embed_dim

    def forward(self, images: Tensor) -> Tensor:
        return self.tokens.encode(images)[:, self.tokens.vit.num_prefix_tokens :].mean(dim=1)


def follow(student: nn.Module, teacher: nn.Module) -> None:
    """Make a teacher a copy of its student, which no gradient moves."""
    teacher.load_state_dict(student.state_dict())
    utils.deactivate_requires_grad(teacher)


def dino_head(inputs: int, method: Part) -> nn.Module:
    """Build DINO's head; with two layers in place of three as lightly's CIFAR-10 benchmark does."""
    head, batch_norm = method["head"], method["head_batch_norm"]
    hidden, bottleneck = head["hidden_dim"], head["bottleneck"]
    built = heads.DINOProjectionHead(
        inputs,
        hidden,
        bottleneck,
        head["prototypes"],
        batch_norm=batch_norm,
        norm_last_layer=head["norm_last_layer"],
    )
    if head["layers"] == 2:
        norm = nn.BatchNorm1d(hidden) if batch_norm else None
        blocks = [(inputs, hidden, norm, nn.GELU()), (hidden, bottleneck, None, None)]
        built.layers = heads.ProjectionHead(blocks).layers
    else:
        require("method.head", head, layers=3)
    return built


def build_encoder(encoder: Part) -> nn.Module:
    """Build the encoder of a config: the convolutional one, or timm's ViT of the same shape.

    Raises:
      ValueError: another encoder.
    """
    if encoder["name"] == "convnet":
        require("encoder", encoder, norm="batch", sobel=False)
        return ConvNet(encoder["widths"], grid=encoder["grid"])
    if not encoder["name"].startswith("vit"):
        raise ValueError(f"config.encoder.name={encoder['name']!r}: allowed is convnet or a ViT")
    plain = {"class_token": True, "registers": 0, "position": "sincos", "mlp": "gelu", "qk_norm": False}
    require("encoder", encoder, pool="mean", drop_path=0.0, layer_scale=None, fc_norm=False, **plain)
    vit = VisionTransformer(
        img_size=encoder["image_size"],
        patch_size=encoder["patch"],
        embed_dim=encoder["width"],
        depth=encoder["depth"],
        num_heads=encoder["heads"],
        mlp_ratio=encoder["mlp_ratio"],
        num_classes=0,
        global_pool="token",
    )
    return MeanOfPatches(MaskedVisionTransformerTIMM(vit))


def build_method(config: Config) -> LightlyMethod:
    """Build the method of a config.

    Raises:
      ValueError: a method that is not compared, or an option that lightly does not have.
    """
    method, encoder = config["method"], build_encoder(config["encoder"])
    if method["name"] == "simclr":
        return SimClr(encoder, method)
    if method["name"] == "byol":
        return Byol(encoder, method, build_encoder(config["encoder"]))
    if method["name"] == "dino":
        return Dino(encoder, method, build_encoder(config["encoder"]))
    if method["name"] == "mae":
        return Mae(encoder, method)
    raise ValueError(f"config.method.name={method['name']!r}: allowed is simclr, byol, dino or mae")


def build_transform(views: Part) -> Callable[[Image.Image], list[Tensor]]:
    """Build lightly's transform with the numbers of a config.

    Only the interpolation of crops is lightly's own: bilinear for SimCLR and BYOL, bicubic for DINO and MAE.

    Raises:
      ValueError: a preset or an option that lightly does not have.
    """
    preset = views["preset"]
    normalize = {"mean": list(views["mean"]), "std": list(views["std"])}
    require("views", views, rotate_prob=0.0, solarize_threshold=0.5)
    if preset == "mae":
        require("views", views, flip_prob=0.5, grayscale_prob=0.0, blur_prob=0.0, solarize_prob=0.0)
        return transforms.MAETransform(views["size"], min_scale=lower(views["area"]), normalize=normalize)
    jitter = views["jitter"]
    require("views.jitter", jitter, additive_brightness=False)
    colors = {
        "cj_prob": jitter["prob"],
        "cj_strength": 0.5,  # the second view of DINOTransform ignores it and takes 0.5
        "cj_bright": jitter["brightness"] / 0.5,
        "cj_contrast": jitter["contrast"] / 0.5,
        "cj_sat": jitter["saturation"] / 0.5,
        "cj_hue": jitter["hue"] / 0.5,
        "random_gray_scale": views["grayscale_prob"],
        "sigmas": tuple(views["blur_sigma"]),
        "hf_prob": views["flip_prob"],
        "normalize": normalize,
    }
    if preset == "simclr":
        require("views", views, solarize_prob=0.0)
        blur = views["blur_prob"]
        crop = {"input_size": views["size"], "min_scale": lower(views["area"])}
        return transforms.SimCLRTransform(**crop, gaussian_blur=blur, **colors)
    blurs, solarize = views["blur_prob"], views["solarize_prob"]
    if preset == "byol":
        crop = {"input_size": views["size"], "min_scale": lower(views["area"])}
        first, second = (
            kind(**crop, gaussian_blur=blur, solarization_prob=prob, **colors)
            for kind, blur, prob in zip(
                (BYOLView1Transform, BYOLView2Transform), blurs, solarize, strict=True
            )
        )
        return transforms.BYOLTransform(first, second)
    if preset == "dino":
        require("views", {"solarize_prob[0]": solarize[0]}, **{"solarize_prob[0]": 0.0})
        return transforms.DINOTransform(
            global_crop_size=views["size"],
            global_crop_scale=tuple(views["global_area"]),
            local_crop_size=views["local_size"],
            local_crop_scale=tuple(views["local_area"]),
            n_local_views=views["local_count"],
            gaussian_blur=(*blurs, views["local_blur_prob"]),
            solarization_prob=solarize[1],
            **colors,
        )
    raise ValueError(f"config.views.preset={preset!r}: allowed is simclr, byol, dino or mae")


def lower(area: Sequence[float]) -> float:
    """Return the smallest share of the image that a crop covers; the largest is all of it.

    Raises:
      ValueError: another largest share.
    """
    require("views", {"area[1]": area[1]}, **{"area[1]": 1.0})
    return area[0]


class Images(Dataset):
    """Views of images in memory."""

    def __init__(self, images: np.ndarray, transform: Callable[[Image.Image], list[Tensor]]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.images[index]))


def build_optimizer(config: Config, method: nn.Module) -> torch.optim.Optimizer:
    """Build torch's optimizer of a config: SGD, or AdamW.

    Raises:
      ValueError: another rule, or an option that torch does not have.
    """
    options = config["optimizer"]
    nothing = {"groups": {}, "layer_decay": None, "clip_norm": None, "constant_lr": (), "normalize_rows": ()}
    require("optimizer", options, schedule="cosine", skip_zero_grads=(), start_learning_rate=0.0, **nothing)
    require("optimizer", {"steps_per_epoch": None, **options}, steps_per_epoch=None)
    trained = [p for p in method.parameters() if p.requires_grad]
    excluded = options["exclude"] == "bias_and_norm"
    groups = [
        {"params": [p for p in trained if p.ndim > 1 or not excluded], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1 and excluded], "decays": False, "weight_decay": 0.0},
    ]
    shared = {"lr": learning_rate(config, 0), "weight_decay": options["weight_decay"]}
    if options["name"] == "sgd":
        return torch.optim.SGD(groups, momentum=options["momentum"], nesterov=options["nesterov"], **shared)
    if options["name"] == "adamw":
        return torch.optim.AdamW(
            groups, betas=(options["b1"], options["b2"]), eps=options["epsilon"], **shared
        )
    raise ValueError(f"config.optimizer.name={options['name']!r}: allowed is sgd or adamw")


def learning_rate(config: Config, step: int) -> float:
    """Return the learning rate of a step by lightly's schedule: a line up to the peak, then a cosine."""
    options = config["optimizer"]
    scaling = {name: options[name] for name in ("scaling", "reference_batch")}
    return cosine_warmup_schedule(
        step,
        config["steps"],
        start_value=scale_by_batch(options["learning_rate"], config["batch_size"], **scaling),
        end_value=options["end_learning_rate"],
        warmup_steps=options["warmup_steps"],
        warmup_start_value=0.0,
    )


def weight_decay(config: Config, step: int) -> float:
    """Return the weight decay of a step: constant, or on a cosine."""
    start, end = (config["optimizer"][name] for name in ("weight_decay", "weight_decay_end"))
    return start if end is None else cosine_schedule(step, config["steps"], start, end)


def teacher_share(config: Config, step: int) -> float:
    """Return the share of the teacher that stays at a step: constant, or on a cosine to 1."""
    options = config["method"].get("teacher", config["method"])
    if "decay" not in options or options["decay_steps"] is None:
        return options.get("decay", 1.0)
    return cosine_schedule(step, options["decay_steps"], options["decay"], 1.0)


def order_of(config: Config, images: int) -> list[list[int]]:
    """List the images of every batch: the very ones, in the order in which our loader gives them."""
    size = config["batch_size"]
    steps = range(config["steps"])
    return [example_indices(config["seed"], step * size, size, images).tolist() for step in steps]


def train(config: Config, images: np.ndarray, *, workers: int | None = None) -> Trained:
    """Train a method with lightly.

    Args:
      config: config of a run, from which method, encoder, views and optimizer are taken.
      images: uint8 ``[n, size, size, 3]``.
      workers: processes that augment; ``None``: as many as there are cores.

    Raises:
      ValueError: what lightly does not have.
      ArithmeticError: a loss that is not finite.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(config["seed"])
    require("host", {"accumulate": config["accumulate"]}, accumulate=1)
    method = build_method(config).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config, method)
    loader = DataLoader(
        Images(images, build_transform(config["views"])),
        batch_sampler=order_of(config, len(images)),
        num_workers=cores if workers is None else workers,
    )
    method.train()
    freeze = dict(config["optimizer"]["freeze"]).get("head/prototypes", 0)
    values: list[Tensor] = []
    clock = Clock()
    for step, views in enumerate(loader):
        set_schedules(config, optimizer, step)
        method.move_teacher(teacher_share(config, step))
        optimizer.zero_grad(set_to_none=True)
        loss = method.loss([view.to(memory_format=torch.channels_last) for view in views], step)
        loss.backward()
        for parameter in method.last_layer() if step < freeze else ():
            parameter.grad = None
        clip(method, config["optimizer"]["clip_tensor"])
        optimizer.step()
        values.append(loss.detach())
    seconds, cpu_seconds = clock.read()
    finite = torch.stack(values)
    if not bool(finite.isfinite().all()):
        raise ArithmeticError(
            f"lightly, {config['method']['name']}, seed {config['seed']}: a loss is not finite"
        )
    view = config["views"]
    return Trained(
        lambda given: encode(method.encoder, given, view["mean"], view["std"]),
        finite.tolist(),
        seconds,
        cpu_seconds,
    )


def set_schedules(config: Config, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Set learning rate and weight decay of a step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
        group["weight_decay"] = weight_decay(config, step) if group["decays"] else 0.0


def clip(method: nn.Module, largest: float | None) -> None:
    """Scale each gradient down to a norm of at most ``largest``; ``None``: no limit."""
    if largest is not None:
        for parameter in method.parameters():
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_([parameter], largest)


@torch.no_grad()
def encode(
    encoder: nn.Module, images: np.ndarray, mean: Sequence[float], std: Sequence[float], *, batch: int = 500
) -> np.ndarray:
    """Encode images ``[n, h, w, 3]`` of uint8, without augmentation, with the running statistics: float32 ``[n, d]``."""
    encoder.eval()
    shift, scale = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (mean, std))
    parts = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2).float() / 255
        parts.append(encoder((pixels - shift) / scale).float().numpy())
    return np.concatenate(parts)
