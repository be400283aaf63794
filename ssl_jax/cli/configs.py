"""The committed configs, by the name of their method."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config.find import import_config


def make_config(
    method: str, arguments: str = "", choices: Mapping[str, Any] = {}, *, recorded: Mapping[str, Any] = {}
) -> ConfigDict:
    """Make the config of a method as ``--config=<method>:<arguments>`` does.

    Args:
      method: name of the method.
      arguments: names of dataset, encoder and budget.
      choices: values on which others depend, by dotted name, see :func:`ssl_jax.config.overrides.choices_of`.
      recorded: config of a run that was made, whose images and weights are not opened again.

    >>> make_config("simclr", "smoke").method.name
    'simclr'
    """
    config = import_config(method).get_config(arguments, choices, recorded)
    assert isinstance(config, ConfigDict)
    return config
