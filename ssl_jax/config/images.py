"""The images of a config."""

from collections.abc import Mapping
from typing import Any

from ssl_jax.data.open import open_source
from ssl_jax.data.sources import Source


def open_images(config: Mapping[str, Any], source: str, split: str) -> Source:
    """Open images for a config: of its number of channels, where the kind of source can convert.

    Args:
      config: config of a run.
      source: name of the source, for :func:`ssl_jax.data.open.open_source`.
      split: name of the split.

    Raises:
      ValueError: what the source finds wrong, or another number of channels.
    """
    data = config["data"]
    channels = data["channels"]
    converts = channels is not None and source.startswith(("folder:", "parquet:", "frames:"))
    options = {"channels": channels} if converts else {}
    if source.startswith("frames:"):
        options |= {name: data[name] for name in ("window", "stride") if name in data}
    opened = open_source(source, split, **options)
    if channels not in (None, opened.channels):
        raise ValueError(
            f"config.data.channels={channels}, but the images of {source} have {opened.channels}"
        )
    return opened
