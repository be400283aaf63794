"""The same networks and steps written plainly in PyTorch: what the benchmarks run against."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        else:
            shapes = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, k, s in shapes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _, _ in shapes)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if i < len(self.convs) - 1:
                y = F.relu(y, inplace=True)
        return F.relu(y + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """ResNet-18 or 50 with torchvision's stem or the one for small images, then the mean over the map."""

    def __init__(self, name: str, *, small: bool, width: float = 1.0) -> None:
        super().__init__()
        base, bottleneck = round(64 * width), name == "resnet50"
        kernel, stride = (3, 1) if small else (7, 2)
        stem = [nn.Conv2d(3, base, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(base)]
        self.stem = nn.Sequential(*stem, nn.ReLU(inplace=True))
        self.pool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        blocks, inputs = [], base
        for i, count in enumerate(STAGES[name]):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(inputs, base * 2**i, stride, bottleneck))
                inputs = base * 2**i * (4 if bottleneck else 1)
        self.blocks = nn.Sequential(*blocks)
        self.features = inputs

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.pool(self.stem(x))).mean(dim=(2, 3))


class ConvNet(nn.Module):
    """3x3 convolutions of stride 2 with BatchNorm and ReLU, pooled to a grid, flattened: ``models.convnet``."""

    def __init__(self, widths: Sequence[int], *, grid: int = 2, channels: int = 3) -> None:
        super().__init__()
        inputs = (channels, *widths[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, 2, 1, bias=False) for i, o in zip(inputs, widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.grid, self.features = grid, grid * grid * widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        return F.adaptive_avg_pool2d(x, self.grid).permute(0, 2, 3, 1).flatten(1)


class Layer(nn.Module):
    """Pre-norm transformer block with PyTorch's fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + self.proj(mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def patchify(images: Tensor, patch: int) -> Tensor:
    """``[b, c, h, w]`` to ``[b, patches, patch * patch * c]``."""
    b, c, h, w = images.shape
    x = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)


class VisionTransformer(nn.Module):
    """ViT on a class token and patches (all, or the kept ones), learned positions or fixed ones."""

    def __init__(
        self, *, width: int, depth: int, heads: int, patch: int, size: int, learned: bool = True
    ) -> None:
        super().__init__()
        self.patch, self.features = patch, width
        self.embed = nn.Linear(3 * patch * patch, width)
        table = 0.02 * torch.randn(1, (size // patch) ** 2, width)
        if learned:
            self.positions = nn.Parameter(table)
        else:
            self.register_buffer("positions", table)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def tokens(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        positions = self.positions
        if keep is not None:
            patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[2]))
            positions = positions[0][keep]
        x = self.embed(patches) + positions
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        return self.norm(self.layers(x))

    def forward(self, images: Tensor) -> Tensor:
        return self.tokens(patchify(images, self.patch))[:, 0]


class Simclr(nn.Module):
    """Encoder, projector and NT-Xent of ``[batch * 2, c, h, w]`` views, the two of an image side by side."""

    def __init__(self, encoder: nn.Module, *, projection: int = 128, temperature: float = 0.1) -> None:
        super().__init__()
        width = encoder.features
        self.encoder, self.temperature = encoder, temperature
        self.hidden, self.norm = nn.Linear(width, width, bias=False), nn.BatchNorm1d(width)
        self.last, self.scale = nn.Linear(width, projection, bias=False), nn.BatchNorm1d(projection)
        self.scale.register_parameter("bias", None)  # the head has a scale only

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.hidden(self.encoder(images))), inplace=True)
        z = F.normalize(self.scale(self.last(x)).float(), dim=1)
        logits = (z @ z.T / self.temperature).fill_diagonal_(float("-inf"))
        partner = torch.arange(len(z), device=z.device) ^ 1
        return F.cross_entropy(logits, partner)


class Mae(nn.Module):
    """MAE: encode the visible patches, decode all, mean squared error of standardised hidden ones."""

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        size: int,
        width: int,
        depth: int,
        heads: int,
        ratio: float = 0.75,
    ) -> None:
        super().__init__()
        patch, self.ratio, self.encoder = encoder.patch, ratio, encoder
        self.embed = nn.Linear(encoder.features, width)
        self.mask = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", 0.02 * torch.randn(1, (size // patch) ** 2, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.predict = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 3 * patch * patch)

    def forward(self, images: Tensor) -> Tensor:
        patches = patchify(images, self.encoder.patch)
        b, length, _ = patches.shape
        visible = int(length * (1 - self.ratio))
        order = torch.rand(b, length, device=images.device).argsort(dim=1)
        restore = order.argsort(dim=1)
        x = self.embed(self.encoder.tokens(patches, order[:, :visible]))
        every = torch.cat([x[:, 1:], self.mask.expand(b, length - visible, -1).to(x.dtype)], dim=1)
        every = every.gather(1, restore[..., None].expand(-1, -1, x.shape[2])) + self.positions
        x = self.layers(torch.cat([x[:, :1], every], dim=1))
        predicted = self.predict(self.norm(x[:, 1:])).float()
        target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
        error = ((predicted - target) ** 2).mean(-1)
        hidden = (restore >= visible).to(error.dtype)
        return (error * hidden).sum() / hidden.sum()


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters())
