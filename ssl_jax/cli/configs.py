"""The committed configs, by the name of their method."""

import importlib

from ml_collections import ConfigDict


def make_config(method: str, arguments: str = "") -> ConfigDict:
    """Make the config of a method as ``--config=configs/<method>.py:<arguments>`` does.

    >>> make_config("simclr", "smoke").method.name
    'simclr'
    """
    config = importlib.import_module(f"configs.{method}").get_config(arguments)
    assert isinstance(config, ConfigDict)
    return config
