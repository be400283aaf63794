"""How a launcher is started, and what it is called where people read of it.

In a clone a launcher is ``python -m experiments.evaluate``; an installed package has the command ``ssl-jax evaluate``. Both run
the same file, which a wheel carries as ``ssl_jax/experiments/evaluate.py``.
"""

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
VERBS = (
    "start",
    "pretrain",
    "evaluate",
    "dense",
    "finetune",
    "invert",
    "embed",
    "pack",
    "export",
    "report",
    "show",
    "plan",
    "sweep",
    "two_stage",
    "results",
    "label_free",
    "invariance",
)
"""The launchers, in the order in which they are listed."""
OF_A_CLONE = ("results", "label_free", "invariance")
"""Launchers that read and write files of a clone."""


def in_clone() -> bool:
    """Tell whether the package lies in a clone, whose configs and launchers are beside it instead of in it."""
    return not (PACKAGE / "experiments").is_dir()


def folder_of(name: str) -> Path:
    """Return the folder ``configs`` or ``experiments`` that belongs to this package, whatever the current folder has.

    Args:
      name: of the folder.
    """
    return (PACKAGE.parent if in_clone() else PACKAGE) / name


def started_by_command(words: list[str] | None = None) -> bool:
    """Tell whether a process was started as ``ssl-jax`` or ``python -m ssl_jax``.

    Args:
      words: its command line; ``None``: that of this process.

    >>> started_by_command(["python", "/venv/bin/ssl-jax", "pretrain"]), started_by_command(["python", "-m", "ssl_jax"])
    (True, True)
    >>> started_by_command(["python", "-m", "experiments.pretrain", "--workdir=ssl-jax"])
    False
    """
    words = sys.orig_argv if words is None else words
    options = next((k for k, word in enumerate(words[1:], 1) if not word.startswith("-") or word == "-m"), 0)
    if not options:
        return False
    if words[options] == "-m":
        return words[options + 1 : options + 2] in (["ssl_jax"], ["ssl_jax.__main__"])
    return Path(words[options]).stem == "ssl-jax"


def command(verb: str) -> str:
    """Return how this user starts a launcher, for messages.

    Args:
      verb: one of :data:`VERBS`.
    """
    return spoken(f"python -m experiments.{verb}")


def spoken(text: str, *, installed: bool | None = None) -> str:
    """Name launchers in a text as this user does: ``ssl-jax evaluate`` in place of ``python -m experiments.evaluate``.

    Args:
      text: text that names them as in a clone.
      installed: whether to; ``None``: where there is no clone, or the process was started by that command.

    >>> spoken("try python -m experiments.two_stage, see experiments.plan", installed=True)
    'try ssl-jax two-stage, see ssl-jax plan'
    """
    if installed is None:
        installed = not in_clone() or started_by_command()
    return _NAMED.sub(lambda match: f"ssl-jax {match[1].replace('_', '-')}", text) if installed else text


_NAMED = re.compile(rf"(?<![\w/.])(?:python -m )?experiments\.({'|'.join(VERBS)})\b")


def launcher(verb: str) -> list[str]:
    """Return the words that start a launcher as a process of its own.

    Args:
      verb: one of :data:`VERBS`.
    """
    # A file of the current folder called like a module must not hide it; a clone may be run without being installed.
    safe = [] if in_clone() else ["-P"]
    return [sys.executable, *safe, "-m", "ssl_jax", verb]
