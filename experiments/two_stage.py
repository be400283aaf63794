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

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.two_stage import Stage, config_flags, run_launcher, run_stages

_FIRST = flags.DEFINE_string(
    "first", None, "Config of the run that teaches, configs/<method>.py[:arguments]."
)
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
    first = launch.require_flag("first", _FIRST.value, "configs/dvae.py")
    second = launch.require_flag("second", _SECOND.value, "configs/beit.py")
    option = launch.require_flag("option", _OPTION.value, "method.tokenizer")
    root = launch.require_path("workdir", _WORKDIR.value, "DIR")
    folder = run_stages(
        Stage(first, config_flags("set_first", _SET_FIRST.value)),
        Stage(second, config_flags("set_second", _SET_SECOND.value)),
        root,
        option=option,
        rounds=_ROUNDS.value,
    )
    run_launcher("evaluate", f"--workdir={folder}")


if __name__ == "__main__":
    launch.run(main)
