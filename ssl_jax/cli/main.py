"""The command ``ssl-jax <verb>``, which runs the launcher of that name."""

import ast
import runpy
import sys

from ssl_jax import __version__
from ssl_jax.cli import cpu
from ssl_jax.core.check import did_you_mean
from ssl_jax.core.commands import OF_A_CLONE, VERBS, folder_of, in_clone

HELP = ("-h", "--h", "-help", "--help", "--helpfull", "--helpshort", "-?", "help")


def main() -> None:
    """Run the launcher that the first word names; list them where there is none, or ``--help``.

    Exit codes: those of the launcher (:func:`ssl_jax.cli.launch.run`); 2 for a word that names none.
    """
    words = sys.argv[1:]
    if not words or words[0] in HELP:
        print(describe_verbs())
        return
    if words[0] == "--version":
        print(f"ssl-jax {__version__}")
        return
    verb = words[0].replace("-", "_")
    if verb not in verbs():
        sys.stderr.write(f"error: {refuse(words[0])}\n")
        sys.exit(2)
    cpu.tune()
    sys.argv[1:] = words[1:]
    # As __main__, which absl's --help and the flags of a launcher go by.
    runpy.run_path(str(folder_of("experiments") / f"{verb}.py"), run_name="__main__")


def verbs() -> tuple[str, ...]:
    """List the launchers that can be run here."""
    return tuple(verb for verb in VERBS if in_clone() or verb not in OF_A_CLONE)


def refuse(word: str) -> str:
    """Say what is wrong with a word that names no launcher.

    Args:
      word: as it was given.

    >>> refuse("pretrian")[:59]
    "'pretrian' is not a command of ssl-jax: did you mean 'pretr"
    """
    if word in OF_A_CLONE:
        return f"{word!r} makes the tables of a clone, in its folder: run it there"
    names = [verb.replace("_", "-") for verb in verbs()]
    return f"{word[:40]!r} is not a command of ssl-jax: {did_you_mean(word[:40], names)}"


def describe_verbs() -> str:
    """List the launchers, a line each, as their files describe themselves."""
    lines = []
    for verb in verbs():
        described = ast.get_docstring(ast.parse((folder_of("experiments") / f"{verb}.py").read_text("utf-8")))
        lines.append(f"  {verb.replace('_', '-'):10}  {(described or '').splitlines()[0]}")
    return "\n".join(
        [
            "Self-supervised learning for vision in functional JAX.",
            "",
            "  ssl-jax start photos/                   pretrains, evaluates and reports on a folder of images",
            "  ssl-jax VERB --help                     shows the flags of a command",
            "",
            *lines,
        ]
    )
