"""Pretrain an encoder without labels.

    python -m experiments.pretrain --config=configs/simclr.py --workdir=runs/first
    python -m experiments.pretrain --config=configs/dino.py:cifar10,vit_tiny --workdir=runs/dino --config.batch_size=128

The same command again goes on from the last checkpoint. Leaves ``config.json``, ``metrics.jsonl`` and
``checkpoints/<step>/`` in the workdir.
"""

from absl import flags

from ssl_jax.cli import config_flag, launch, pretrain, processes
from ssl_jax.config import build
from ssl_jax.train.workdir import workdir_path

_CONFIG = config_flag.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run, here or in a bucket (gs://bucket/run); made if it is missing."
)
_ALLOW_CHANGES = flags.DEFINE_bool(
    "allow_changes", False, "Go on although the config differs from the one in the workdir."
)
_REPLAY = flags.DEFINE_string(
    "replay", None, "Folder of a dumped step to run once more, instead of training."
)
_CLUSTER = processes.define_flags()


def main() -> None:
    """Train, or replay one dumped step."""
    if _REPLAY.value is not None:
        pretrain.replay(workdir_path(_REPLAY.value))
        return
    folder = launch.require_path("workdir", _WORKDIR.value, "DIR")
    config = build.to_dict(_CONFIG.load(recorded=pretrain.previous_config(folder)))
    with processes.distributed(_CLUSTER()):
        pretrain.pretrain(config, folder, allow_changes=_ALLOW_CHANGES.value)


if __name__ == "__main__":
    launch.run(main)
