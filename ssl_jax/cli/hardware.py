"""Published numbers of accelerators, from which ``experiments.plan`` estimates times."""

from typing import NamedTuple

from ssl_jax.core.check import choice, did_you_mean


class Chip(NamedTuple):
    """What one device can do at best.

    Attributes:
      name: as people call it.
      flops: of bfloat16 matrix products, operations a second.
      memory: bytes of high-bandwidth memory; of a TPU what its compiler lets a program have (libtpu 0.0.42 names it where it
        refuses one).
      bandwidth: of that memory, bytes a second.
      interconnect: bytes a second that it can send to its neighbours, over all links, in one direction.
      source: where these numbers are published.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    interconnect: float
    source: str


GIB = 2.0**30
V5E = Chip("TPU v5e", 197e12, 15.75 * GIB, 819e9, 200e9, "https://cloud.google.com/tpu/docs/v5e")
V6E = Chip("TPU v6e", 918e12, 31.25 * GIB, 1638e9, 400e9, "https://cloud.google.com/tpu/docs/v6e")
V5P = Chip("TPU v5p", 459e12, 95.74 * GIB, 2765e9, 600e9, "https://cloud.google.com/tpu/docs/v5p")
A100 = Chip("A100 SXM", 312e12, 80e9, 2039e9, 300e9, "https://www.nvidia.com/en-us/data-center/a100")
H100 = Chip("H100 SXM", 989e12, 80e9, 3350e9, 450e9, "https://www.nvidia.com/en-us/data-center/h100")
H200 = Chip("H200 SXM", 989e12, 141e9, 4800e9, 450e9, "https://www.nvidia.com/en-us/data-center/h200")

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
    """The chip of a TPU slice such as ``v5e:4x4``.

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
    """The chip of a local device by JAX's name for its kind; ``None`` for those that are not listed here, such as CPUs.

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
