"""The committed configs, by the name of their method."""

from ml_collections import ConfigDict

from ssl_jax.config.find import import_config


def make_config(method: str, arguments: str = "") -> ConfigDict:
    """Make the config of a method as ``--config=<method>:<arguments>`` does.

    >>> make_config("simclr", "smoke").method.name
    'simclr'
    """
    config = import_config(method).get_config(arguments)
    assert isinstance(config, ConfigDict)
    return config
