"""Two runs of which the second learns from the encoder of the first: BEiT's tokenizer, BoWNet's rounds, distillation.

    python -m experiments.two_stage --first=configs/dvae.py --second=configs/beit.py --option=method.tokenizer \\
        --workdir=runs/beit
    python -m experiments.two_stage --first=configs/simclr.py --second=configs/bownet.py --option=method.teacher \\
        --workdir=runs/bownet --rounds=2

Pretrains the first config in ``<workdir>/first``, exports its encoder to ``<workdir>/first/encoder``, pretrains the second
one with that file as its ``--option`` in ``<workdir>/second``, and evaluates that. ``--rounds=2`` repeats the second config
with the encoder it has made. What is finished is not made again, and the same command goes on where it was stopped.
``--set_first`` and ``--set_second`` override options: ``--set_first=steps=500 --set_first=seed=1``.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.core.check import require

ENCODER = "encoder.safetensors"
_FIRST = flags.DEFINE_string("first", None, "Config of the run that teaches, configs/<method>.py[:words].")
_SECOND = flags.DEFINE_string("second", None, "Config of the run that learns from it.")
_OPTION = flags.DEFINE_string(
    "option", None, "Option of the second config that takes the file, such as method.tokenizer."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of both runs.")
_ROUNDS = flags.DEFINE_integer(
    "rounds", 1, "Runs of the second config, each after the first with the encoder of the one before."
)
_SET_FIRST = flags.DEFINE_multi_string(
    "set_first", [], "An option of the first config, name=value; may be repeated."
)
_SET_SECOND = flags.DEFINE_multi_string(
    "set_second", [], "An option of the second config, name=value; may be repeated."
)


def main() -> None:
    """Make what is missing, stage by stage, and evaluate the last one."""
    first = launch.needed("first", _FIRST.value, "configs/dvae.py")
    second = launch.needed("second", _SECOND.value, "configs/beit.py")
    option = launch.needed("option", _OPTION.value, "method.tokenizer")
    root = Path(launch.needed("workdir", _WORKDIR.value, "DIR"))
    require(_ROUNDS.value >= 1, "rounds", _ROUNDS.value, "an integer of 1 or more")
    folder = root / "first"
    pretrain(first, folder, overrides("set_first", _SET_FIRST.value))
    for turn in range(1, _ROUNDS.value + 1):
        teacher = export(folder)
        folder = root / ("second" if turn == 1 else f"round_{turn}")
        given = [*overrides("set_second", _SET_SECOND.value), f"--config.{option}={teacher}"]
        pretrain(second, folder, given)
    run("evaluate", f"--workdir={folder}")


def overrides(flag: str, values: Sequence[str]) -> list[str]:
    """``name=value`` as flags of the config.

    >>> overrides("set_first", ["steps=5"])
    ['--config.steps=5']

    Raises:
      ValueError: a value without a name.
    """
    for value in values:
        require("=" in value, flag, value, "name=value, such as steps=500")
    return [f"--config.{value}" for value in values]


def pretrain(config: str, folder: Path, options: Sequence[str]) -> None:
    """Train, or go on, or find that it is done."""
    run("pretrain", f"--config={config}", f"--workdir={folder}", *options)


def export(folder: Path) -> Path:
    """The file with the encoder of a run, written if it is not there."""
    out = folder / "encoder"
    if not (out / ENCODER).exists():
        run("export", f"--workdir={folder}", f"--out={out}")
    return out / ENCODER


def run(verb: str, *options: str) -> None:
    """Run a launcher, its output as it comes.

    Raises:
      ValueError: it failed; it has said why.
    """
    print(f"{verb} {' '.join(options)}", flush=True)
    code = subprocess.run([sys.executable, "-m", f"experiments.{verb}", *options]).returncode
    if code:
        raise ValueError(
            f"experiments.{verb} ended with exit code {code}, see above; the same command goes on from there"
        )


if __name__ == "__main__":
    launch.run(main)
