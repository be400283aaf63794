"""Arrays from files and hubs."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from ssl_jax.core.check import require
from ssl_jax.interop.family import Weights


def read_weights(name: str) -> Weights:
    """Read the arrays of a file.

    Args:
      name: path of the file.

    Raises:
      ValueError: there is no such file.
    """
    require(Path(name).is_file(), "name", name, "a file")
    arrays = safetensors.numpy.load_file(name)
    return Weights(
        {k: np.asarray(v, np.float32) for k, v in arrays.items()}, {}, {"name": name, "file": name}
    )
