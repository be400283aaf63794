"""The whole config of a run, one line a value, with where each value comes from.

    python -m experiments.show --config=configs/simclr.py:cifar10,short
    python -m experiments.show --config=configs/mae.py:imagenet --config.optimizer.name=sgd

A value comes from the recipe (the first line says what that is of), from the dataset, from the signature of a function, from
another value that it follows, or from the command line.
"""

from ssl_jax.cli import config_flag, launch
from ssl_jax.cli.show import describe_config

_CONFIG = config_flag.define_config()


def main() -> None:
    """Print the config."""
    spec, overrides = _CONFIG.parse()
    with config_flag.config_errors():
        print(describe_config(spec, overrides))


if __name__ == "__main__":
    launch.run(main)
