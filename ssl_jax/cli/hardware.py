"""Published numbers of accelerators, for the times of ``experiments.plan`` and the utilisation of ``benchmarks.gpu``."""

from typing import NamedTuple

from ssl_jax.core.check import choice, did_you_mean


class Chip(NamedTuple):
    """What one device can do at best.

    Attributes:
      name: name that people use.
      flops: operations a second of bfloat16 matrix products.
      memory: bytes of high-bandwidth memory; of a TPU what its compiler lets a program have (libtpu 0.0.42 names it where it
        refuses one).
      bandwidth: bandwidth of that memory, bytes a second.
      interconnect: bytes a second that it can send to its neighbours, over all links, in one direction.
      source: address where these numbers are published.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    interconnect: float
    source: str


GPU_FLOPS = {
    "A100": 312e12,
    "A10": 125e12,
    "A10G": 70e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165e12,
}
"""Dense bfloat16 operations a second with float32 sums, from the makers' data sheets; of the names in a device's the longest
counts."""
GIB = 2.0**30
V5E = Chip("TPU v5e", 197e12, 15.75 * GIB, 819e9, 200e9, "https://cloud.google.com/tpu/docs/v5e")
V6E = Chip("TPU v6e", 918e12, 31.25 * GIB, 1638e9, 400e9, "https://cloud.google.com/tpu/docs/v6e")
V5P = Chip("TPU v5p", 459e12, 95.74 * GIB, 2765e9, 600e9, "https://cloud.google.com/tpu/docs/v5p")
A100 = Chip(
    "A100 SXM", GPU_FLOPS["A100"], 80e9, 2039e9, 300e9, "https://www.nvidia.com/en-us/data-center/a100"
)
H100 = Chip(
    "H100 SXM", GPU_FLOPS["H100"], 80e9, 3350e9, 450e9, "https://www.nvidia.com/en-us/data-center/h100"
)
H200 = Chip(
    "H200 SXM", GPU_FLOPS["H200"], 141e9, 4800e9, 450e9, "https://www.nvidia.com/en-us/data-center/h200"
)

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SOLID = (
    "2x2x1",
    "2x2x2",
    "2x2x4",
    "2x4x4",
    "4x4x4",
    "4x4x8",
    "4x8x8",
    "8x8x8",
    "8x8x16",
    "8x16x16",
    "16x16x16",
)
SLICES: dict[str, tuple[Chip, tuple[str, ...]]] = {
    "v5e": (V5E, FLAT),
    "v6e": (V6E, FLAT),
    "v5p": (V5P, SOLID),
}
"""TPU generations, and the slices of each that can be rented."""
LOCAL = "local"


def slice_chip(topology: str) -> Chip:
    """Look up the chip of a TPU slice such as ``v5e:4x4``.

    Raises:
      ValueError: no such generation or shape; lists those there are.

    >>> slice_chip("v5p:2x2x1").name
    'TPU v5p'
    """
    generation, _, shape = topology.partition(":")
    if generation not in SLICES:
        known = [LOCAL, *(f"{name}:{shapes[0]}" for name, (_, shapes) in SLICES.items())]
        raise ValueError(f"topology={topology!r}: {did_you_mean(topology, known)} and other shapes of these")
    chip, shapes = SLICES[generation]
    choice(f"topology={generation}:", shape, shapes)
    return chip


def local_chip(kind: str) -> Chip | None:
    """Look up the chip of a local device by JAX's name for its kind; ``None`` for those that are not listed here, such as CPUs.

    >>> local_chip("NVIDIA H100 80GB HBM3").name, local_chip("cpu")
    ('H100 SXM', None)
    >>> [local_chip(f"TPU {kind}").name for kind in ("v5 lite", "v5", "v6 lite")]
    ['TPU v5e', 'TPU v5p', 'TPU v6e']
    """
    names = {
        "TPU v5 lite": V5E,
        "TPU v6 lite": V6E,
        "TPU v5": V5P,
        "A100-SXM": A100,
        "H100 80GB HBM3": H100,
        "H200": H200,
    }
    return next((chip for name, chip in names.items() if name in kind), None)


def peak_flops(kind: str) -> float | None:
    """Look up the peak of a local device by JAX's name for its kind, operations a second; ``None`` where it is not known.

    >>> peak_flops("NVIDIA H100 PCIe"), peak_flops("NVIDIA A100-SXM4-80GB"), peak_flops("TPU v5"), peak_flops("cpu")
    (756000000000000.0, 312000000000000.0, 459000000000000.0, None)
    """
    names = [name for name in GPU_FLOPS if name in kind]
    if names:
        return GPU_FLOPS[max(names, key=len)]
    chip = local_chip(kind)
    return chip.flops if chip else None
