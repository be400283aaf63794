"""A wheel is the one package ``ssl_jax``, with configs and launchers in it; an editable install serves them from the clone."""

import sys

from setuptools import find_packages, setup

LIBRARY = find_packages(include=["ssl_jax*"])

if "editable_wheel" in sys.argv:
    setup(packages=[*LIBRARY, *find_packages(include=["configs*", "experiments*"])])
else:
    setup(
        packages=[*LIBRARY, "ssl_jax.configs", "ssl_jax.experiments"],
        package_dir={"ssl_jax.configs": "configs", "ssl_jax.experiments": "experiments"},
    )
