"""What a number was measured on, as far as it matters to a reader: the class of hardware and the versions."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax


def machine() -> dict[str, str | int]:
    """Describe hardware class and versions, without anything that tells one machine from another of its class.

    Returns:
      ``device`` (the accelerator's or the processor's name), ``devices``, ``cores`` (that this process may use),
      ``python``, ``jax``.

    >>> sorted(machine())
    ['cores', 'device', 'devices', 'jax', 'python']
    """
    device = jax.devices()[0]
    name = _processor() if device.platform == "cpu" else device.device_kind
    return {
        "device": name,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
    }


def _processor() -> str:
    """The processor's model name where Linux tells it, else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
