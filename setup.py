"""A wheel holds ssl_jax alone; an editable install serves the launchers and configs of the clone too, from any folder."""

import sys

from setuptools import find_packages, setup

OF_THE_CLONE = ["configs*", "experiments*"] if "editable_wheel" in sys.argv else []

setup(packages=find_packages(include=["ssl_jax*", *OF_THE_CLONE]))
