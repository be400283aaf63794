"""Before renting: does a run fit, how fast can it be, and what holds it back?

    python -m experiments.plan --config=configs/mae.py:imagenet,vit_large --topology=v5e:8x8
    python -m experiments.plan --config=configs/simclr.py:imagenet --topology=v5e:4x4,v6e:4x4 --out=results/plans.jsonl
    python -m experiments.plan --config=configs/simclr.py

Compiles the train step of the config for TPU slices that need not be there (the TPU compiler comes with
``pip install -e '.[tpu]'``), or, with the topology ``local``, for the devices of this machine. Says what parameters, optimizer,
the method's state and activations take on each device, what is computed and communicated, and what that costs at the published
speeds of the hardware: times that a real run stays above. What does not fit is compiled again with ``encoder.remat``, with
``host.fsdp`` and with smaller batches, until something does. ``--out`` adds each plan to a file of rows.
"""

from absl import flags

from ssl_jax.cli import config_flag, hardware, launch, plan_text, planning
from ssl_jax.config import build
from ssl_jax.core.rows import write_row

_CONFIG = config_flag.define_config()
_TOPOLOGY = flags.DEFINE_list(
    "topology", [hardware.LOCAL], "TPU slices such as v5e:4x4, or local; several by commas."
)
_OUT = flags.DEFINE_string("out", None, "File of rows for the plans; default: nothing is written.")
_REMEDIES = flags.DEFINE_bool("remedies", True, "Where the config does not fit, look for what would.")


def main() -> None:
    """Plan for each topology."""
    config = build.to_dict(_CONFIG.load())
    targets = [planning.find_target(topology) for topology in _TOPOLOGY.value]
    for target in targets:
        plan = planning.make_plan(config, target)
        if not plan["fits"] and _REMEDIES.value:
            plan["remedy"] = planning.find_remedy(config, target)
        print(plan_text.format_plan(plan), flush=True)
        if _OUT.value:
            write_row(_OUT.value, plan, plan_text.plan_name)


if __name__ == "__main__":
    launch.run(main)
