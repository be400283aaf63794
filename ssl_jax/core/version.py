"""Which version of ssl_jax can read what a run leaves behind."""

from typing import Any

LAYOUT = "ssl_jax 0.2"
"""The first version that writes configs and checkpoints as this one does."""
LAYOUT_KEY = "written_by"


def require_layout(content: Any, where: str) -> None:
    """Refuse what another version wrote.

    Args:
      content: mapping read from a file, with the version under ``written_by``.
      where: the file or folder, for the message.

    Raises:
      ValueError: it was written by another version; names both.

    >>> require_layout({"written_by": "ssl_jax 0.2"}, "runs/first")
    >>> require_layout({"steps": 5}, "runs/first")
    Traceback (most recent call last):
    ...
    ValueError: runs/first was written by ssl_jax 0.1; this is ssl_jax 0.2: use the version that wrote it, or train again
    """
    found = content.get(LAYOUT_KEY, "ssl_jax 0.1")
    if found != LAYOUT:
        raise ValueError(
            f"{where} was written by {found}; this is {LAYOUT}: use the version that wrote it, or train again"
        )
