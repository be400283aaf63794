"""From a folder of images to an encoder: looks at them, chooses, says why, trains, evaluates and writes the report.

    python -m experiments.start photos/
    python -m experiments.start photos/ --minutes=120 --weights=hf:facebook/dinov2-small

Says how many images there are, of which sizes, channels and classes, and how many are copies; chooses method, encoder, size,
batch and length for these images and this machine, with the reasons; trains in ``photos-run/``; evaluates with labels where
every class has a sub-folder, else without; writes ``report.html``. Nothing is asked. The same command goes on where it was
stopped. ``--config=METHOD`` and ``--config.NAME=VALUE`` decide themselves what they name.
"""

from absl import flags

from ssl_jax.cli import config_flag, launch
from ssl_jax.cli.start import Wishes, start
from ssl_jax.config.overrides import parse_overrides
from ssl_jax.core.commands import command
from ssl_jax.train.workdir import local_path

_CONFIG = config_flag.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default: the name of the folder of images and -run."
)
_MINUTES = flags.DEFINE_float(
    "minutes", None, "How long training may take; default: 30 on a CPU, 60 elsewhere.", lower_bound=0.01
)
_WEIGHTS = flags.DEFINE_string(
    "weights", "", "Weights to start from: a file, hf:owner/name, timm:name; default: none."
)


def main(images: str = "") -> None:
    """Do it all for the images that are named."""
    if not images:
        raise ValueError(f"the images are missing: give their folder, {command('start')} photos/")
    with config_flag.config_errors():
        overrides = parse_overrides(_CONFIG.overrides.value)
        wishes = Wishes(_CONFIG.file.value or "", overrides, _WEIGHTS.value, _MINUTES.value)
    start(images, local_path(_WORKDIR.value) if _WORKDIR.value else None, wishes)


if __name__ == "__main__":
    launch.run(main, words=1)
