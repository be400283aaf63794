"""Runs in two stages or more, each of which learns from the encoder of the one before: BEiT, BoWNet, distillation, dBOT.

    python -m experiments.two_stage --first=configs/dvae.py --second=configs/beit.py --option=method.tokenizer \\
        --workdir=runs/beit
    python -m experiments.two_stage --first=configs/simclr.py --second=configs/bownet.py --option=method.teacher \\
        --workdir=runs/bownet --stages=3
    python -m experiments.two_stage --first=configs/dbot.py --option=method.teacher --workdir=runs/dbot --stages=3

Pretrains the first config in ``<workdir>/first``, exports its encoder to ``<workdir>/first/encoder``, pretrains the second
one with that file as its ``--option`` in ``<workdir>/second``, and evaluates that. ``--stages=3`` repeats the second config
with the encoder it has made, in ``<workdir>/stage_3``, and so on. Without ``--second`` it is the first config with its options.
A config that is repeated gets the next seed, so that its student starts anew. What is finished is not made again, and the same
command goes on where it was stopped. ``--set_first`` and ``--set_second`` override options: ``--set_first=steps=500
--set_first=seed=1``.
"""

from absl import flags

from ssl_jax.cli import launch
from ssl_jax.cli.two_stage import Stage, config_flags, run_launcher, run_stages

_FIRST = flags.DEFINE_string(
    "first", None, "Config of the run that teaches, configs/<method>.py[:arguments]."
)
_SECOND = flags.DEFINE_string(
    "second", None, "Config of the runs that learn from the one before; the first one's if it is not given."
)
_OPTION = flags.DEFINE_string(
    "option", None, "Option of the second config that takes the file, such as method.tokenizer."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_STAGES = flags.DEFINE_integer("stages", 2, "Number of runs, the first among them.")
_SET_FIRST = flags.DEFINE_multi_string(
    "set_first", [], "An option of the first config, name=value; may be repeated."
)
_SET_SECOND = flags.DEFINE_multi_string(
    "set_second", [], "An option of the second config, name=value; may be repeated."
)


def main() -> None:
    """Make what is missing, stage by stage, and evaluate the last one."""
    config = launch.require_flag("first", _FIRST.value, "configs/dvae.py")
    option = launch.require_flag("option", _OPTION.value, "method.tokenizer")
    root = launch.require_path("workdir", _WORKDIR.value, "DIR", local=True)
    first = Stage(config, config_flags("set_first", _SET_FIRST.value))
    later_flags = config_flags("set_second", _SET_SECOND.value)
    if _SECOND.value is None:
        later = Stage(first.config, [*first.options, *later_flags])
    else:
        later = Stage(_SECOND.value, later_flags)
    folder = run_stages(first, later, root, option=option, stages=_STAGES.value)
    run_launcher("evaluate", f"--workdir={folder}")


if __name__ == "__main__":
    launch.run(main)
